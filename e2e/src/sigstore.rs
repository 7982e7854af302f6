//! A sigstore of a test's own: an authority that makes certificates, logs that promise what they are told, and signatures
//! of images in both forms that cosign writes. Times are seconds since 1970. Berth's unit tests include this file.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
    SigningKey, date_time_ymd,
};
use serde_json::{Value, json};

/// The media type of a payload of simple signing.
pub const SIMPLE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The media type of a bundle.
pub const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// What a statement that approves of an image says.
pub const SIGN: &str = "https://sigstore.dev/cosign/sign/v1";
/// An annotation with the signature.
pub const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// An annotation with the signer's certificate.
pub const CERTIFICATE: &str = "dev.sigstore.cosign/certificate";
/// An annotation with the log's promise.
pub const LOG_ENTRY: &str = "dev.sigstore.cosign/bundle";
/// How long a certificate is good, in seconds.
pub const LIFETIME: u64 = 600;

const STATEMENT: &str = "application/vnd.in-toto+json";
const ISSUER_V2: &[u64] = &[1, 3, 6, 1, 4, 1, 57264, 1, 8];
const SCT_LIST: &[u64] = &[1, 3, 6, 1, 4, 1, 11129, 2, 4, 2];

/// Annotations of a layer.
pub type Annotations = BTreeMap<String, String>;

/// Authority and logs.
pub struct Sigstore {
    authority: CertifiedIssuer<'static, KeyPair>,
    log: KeyPair,
    certificate_log: KeyPair,
}

/// A key with its certificate.
pub struct Certified {
    /// The private key.
    pub key: KeyPair,
    /// The certificate.
    pub pem: String,
    der: Vec<u8>,
}

/// Whose signature is made, in front of which log.
pub enum By<'a> {
    /// A bare key.
    Key(&'a KeyPair),
    /// A bare key; the log writes it down at that time.
    LoggedKey(&'a KeyPair, &'a Sigstore, u64),
    /// A certificate; the log writes it down at that time.
    Certificate(&'a Certified, &'a Sigstore, u64),
}

impl Sigstore {
    /// With keys of its own.
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "fulcio.test");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        Ok(Self { authority, log: KeyPair::generate()?, certificate_log: KeyPair::generate()? })
    }

    /// `trusted_root.json`.
    pub fn trusted_root(&self) -> Value {
        let log = |key: &KeyPair| {
            json!({
                "baseUrl": "https://log.test",
                "hashAlgorithm": "SHA2_256",
                "publicKey": {
                    "rawBytes": BASE64.encode(key.subject_public_key_info()),
                    "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                    "validFor": { "start": "2020-01-01T00:00:00Z" }
                },
                "logId": { "keyId": BASE64.encode(log_id(key)) }
            })
        };
        json!({
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [log(&self.log)],
            "ctlogs": [log(&self.certificate_log)],
            "certificateAuthorities": [{
                "subject": { "organization": "test", "commonName": "fulcio.test" },
                "uri": "https://fulcio.test",
                "certChain": { "certificates": [{ "rawBytes": BASE64.encode(self.authority.der()) }] },
                "validFor": { "start": "2020-01-01T00:00:00Z" }
            }],
            "timestampAuthorities": []
        })
    }

    /// A certificate for a subject (a URI) whom an OpenID provider has identified; good for `LIFETIME` from then on.
    pub fn certify(&self, subject: &str, issuer: &str, from: u64) -> Result<Certified> {
        self.certify_before(Some(self), subject, issuer, from)
    }

    /// As `certify`, with the timestamp of that one's certificate log, or without any.
    pub fn certify_before(
        &self,
        witness: Option<&Self>,
        subject: &str,
        issuer: &str,
        from: u64,
    ) -> Result<Certified> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from(vec![1; 8]));
        params.distinguished_name = DistinguishedName::new();
        params.not_before = date_time_ymd(1970, 1, 1) + Duration::from_secs(from);
        params.not_after = params.not_before + Duration::from_secs(LIFETIME);
        params.subject_alt_names = vec![SanType::URI(subject.try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        let issuer = der(0x0c, issuer.as_bytes());
        params.custom_extensions = vec![CustomExtension::from_oid_content(ISSUER_V2, issuer)];
        if let Some(witness) = witness {
            let without = params.signed_by(&key, &self.authority)?;
            let promise = self.certificate_promise(witness, without.der(), from)?;
            params.custom_extensions.push(CustomExtension::from_oid_content(SCT_LIST, der(4, &promise)));
        }
        let certificate = params.signed_by(&key, &self.authority)?;
        Ok(Certified { key, pem: certificate.pem(), der: certificate.der().to_vec() })
    }

    /// A list of one signed certificate timestamp (RFC 6962, section 3) of a certificate without it.
    fn certificate_promise(&self, witness: &Self, certificate: &[u8], at: u64) -> Result<Vec<u8>> {
        let to_be_signed = first_element(certificate).context("no certificate")?;
        let time = (at * 1000).to_be_bytes();
        let mut signed = vec![0, 0];
        signed.extend(time);
        signed.extend([0, 1]);
        signed.extend(sha256(&self.authority.key().subject_public_key_info()));
        signed.extend(&u32::try_from(to_be_signed.len())?.to_be_bytes()[1..]);
        signed.extend(to_be_signed);
        signed.extend([0, 0]);
        let signature = witness.certificate_log.sign(&signed)?;
        let mut promise = vec![0];
        promise.extend(log_id(&witness.certificate_log));
        promise.extend(time);
        promise.extend([0, 0, 4, 3]);
        promise.extend(prefixed(&signature)?);
        prefixed(&prefixed(&promise)?)
    }

    /// An entry's time and place in the log, and the log's signature of both.
    fn promise(&self, body: &str, at: u64) -> Result<(Value, String)> {
        let (body, id) = (BASE64.encode(body), hex(&log_id(&self.log)));
        // Canonical JSON: names in their order, no spaces.
        let signed = format!(r#"{{"body":"{body}","integratedTime":{at},"logID":"{id}","logIndex":7}}"#);
        let signature = BASE64.encode(self.log.sign(signed.as_bytes())?);
        Ok((serde_json::from_str(&signed)?, signature))
    }

    /// A log entry of a bundle: promised, and proven to be the only leaf of a tree.
    fn entry(&self, body: &str, at: u64) -> Result<Value> {
        let (payload, promise) = self.promise(body, at)?;
        let root = BASE64.encode(sha256(&[&[0], body.as_bytes()].concat()));
        let note = format!("log.test - 1\n1\n{root}\n");
        let mut signature = log_id(&self.log)[..4].to_vec();
        signature.extend(self.log.sign(note.as_bytes())?);
        let checkpoint = format!("{note}\n\u{2014} log.test {}\n", BASE64.encode(signature));
        Ok(json!({
            "logIndex": "7",
            "logId": { "keyId": BASE64.encode(log_id(&self.log)) },
            "kindVersion": { "kind": "dsse", "version": "0.0.1" },
            "integratedTime": at.to_string(),
            "inclusionPromise": { "signedEntryTimestamp": promise },
            "inclusionProof": {
                "logIndex": "0",
                "rootHash": root,
                "treeSize": "1",
                "hashes": [],
                "checkpoint": { "envelope": checkpoint }
            },
            "canonicalizedBody": payload["body"]
        }))
    }
}

impl By<'_> {
    fn key(&self) -> &KeyPair {
        match self {
            Self::Key(key) | Self::LoggedKey(key, ..) => key,
            Self::Certificate(certified, ..) => &certified.key,
        }
    }

    fn log(&self) -> Option<(&Sigstore, u64)> {
        match self {
            Self::Key(_) => None,
            Self::LoggedKey(_, sigstore, at) | Self::Certificate(_, sigstore, at) => Some((sigstore, *at)),
        }
    }

    /// What the log keeps of the signer, base64 of PEM.
    fn verifier(&self) -> String {
        BASE64.encode(match self {
            Self::Certificate(certified, ..) => certified.pem.clone(),
            by => by.key().public_key_pem(),
        })
    }
}

/// A payload of simple signing.
pub fn payload(digest: &str, name: &str) -> Vec<u8> {
    let critical = json!({
        "identity": { "docker-reference": name },
        "image": { "docker-manifest-digest": digest },
        "type": "cosign container image signature"
    });
    json!({ "critical": critical, "optional": null }).to_string().into_bytes()
}

/// The annotations of a payload's layer.
pub fn simple(payload: &[u8], by: &By<'_>) -> Result<Annotations> {
    let signature = BASE64.encode(by.key().sign(payload)?);
    let mut annotations = Annotations::from([(SIGNATURE.into(), signature.clone())]);
    if let Some((sigstore, at)) = by.log() {
        let hash = json!({ "algorithm": "sha256", "value": hex(&sha256(payload)) });
        let signature = json!({ "content": signature, "publicKey": { "content": by.verifier() } });
        let spec = json!({ "data": { "hash": hash }, "signature": signature });
        let body = json!({ "apiVersion": "0.0.1", "kind": "hashedrekord", "spec": spec }).to_string();
        let (payload, promise) = sigstore.promise(&body, at)?;
        let bundle = json!({ "SignedEntryTimestamp": promise, "Payload": payload });
        annotations.insert(LOG_ENTRY.into(), bundle.to_string());
    }
    if let By::Certificate(certified, sigstore, _) = by {
        annotations.insert(CERTIFICATE.into(), certified.pem.clone());
        annotations.insert("dev.sigstore.cosign/chain".into(), sigstore.authority.pem());
    }
    Ok(annotations)
}

/// A statement about an image; `predicate` is `SIGN` if it approves of it.
pub fn statement(digest: &str, predicate: &str) -> Vec<u8> {
    let hash = digest.trim_start_matches("sha256:");
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "digest": { "sha256": hash } }],
        "predicateType": predicate,
        "predicate": {}
    })
    .to_string()
    .into_bytes()
}

/// A bundle with a statement.
pub fn bundle(statement: &[u8], by: &By<'_>) -> Result<Value> {
    let mut signed = format!("DSSEv1 {} {STATEMENT} {} ", STATEMENT.len(), statement.len()).into_bytes();
    signed.extend(statement);
    let signature = BASE64.encode(by.key().sign(&signed)?);
    let mut material = match by {
        By::Certificate(certified, ..) => {
            json!({ "certificate": { "rawBytes": BASE64.encode(&certified.der) } })
        }
        _ => json!({ "publicKey": { "hint": "" } }),
    };
    material["tlogEntries"] = match by.log() {
        None => json!([]),
        Some((sigstore, at)) => {
            let hash = |bytes: &[u8]| json!({ "algorithm": "sha256", "value": hex(&sha256(bytes)) });
            let signatures = json!([{ "signature": signature, "verifier": by.verifier() }]);
            let spec = json!({
                "envelopeHash": hash(&signed),
                "payloadHash": hash(statement),
                "signatures": signatures
            });
            let body = json!({ "apiVersion": "0.0.1", "kind": "dsse", "spec": spec }).to_string();
            json!([sigstore.entry(&body, at)?])
        }
    };
    let envelope = json!({
        "payload": BASE64.encode(statement),
        "payloadType": STATEMENT,
        "signatures": [{ "sig": signature }]
    });
    Ok(json!({ "mediaType": BUNDLE, "verificationMaterial": material, "dsseEnvelope": envelope }))
}

/// RFC 6962's name of a log.
fn log_id(key: &KeyPair) -> Vec<u8> {
    sha256(&key.subject_public_key_info())
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    ring::digest::digest(&ring::digest::SHA256, bytes).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// With its length in two bytes.
fn prefixed(bytes: &[u8]) -> Result<Vec<u8>> {
    Ok([&u16::try_from(bytes.len())?.to_be_bytes()[..], bytes].concat())
}

/// An element of less than 64 KiB.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = content.len();
    let [.., high, low] = len.to_be_bytes();
    let length = match len {
        0..128 => vec![low],
        128..256 => vec![0x81, low],
        _ => vec![0x82, high, low],
    };
    [&[tag][..], &length, content].concat()
}

/// The first element within the outer one.
fn first_element(bytes: &[u8]) -> Option<&[u8]> {
    let inner = bytes.get(head(bytes)?.0..)?;
    let (head, content) = head(inner)?;
    inner.get(..head + content)
}

/// Bytes of an element's head and of its content.
fn head(bytes: &[u8]) -> Option<(usize, usize)> {
    match *bytes.get(1)? {
        short @ 0..128 => Some((2, short.into())),
        long => {
            let count = usize::from(long & 0x7f);
            let digits = bytes.get(2..2 + count)?;
            Some((2 + count, digits.iter().fold(0, |len, digit| len << 8 | usize::from(*digit))))
        }
    }
}
