//! Simple signing: a small payload as a layer, its signature and what proves whose it is in the layer's annotations (what
//! cosign has written before version 3, and CRI-O's policy reads).

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use sigstore_verify::types::bundle::{
    MediaType, MessageDigest, MessageSignature, PublicKeyIdentifier, Rfc3161Timestamp,
    TimestampVerificationData, TransparencyLogEntry, VerificationMaterial, VerificationMaterialContent,
    X509Certificate,
};
use sigstore_verify::types::{Bundle, DigestBytes, HashAlgorithm, SignatureBytes, SignatureContent};

use super::rejection::malformed;
use super::{Artifact, Rejection, Signer, Trust, Verified};
use crate::ids::Digest;

const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const CERTIFICATE: &str = "dev.sigstore.cosign/certificate";
const CHAIN: &str = "dev.sigstore.cosign/chain";
const LOG_ENTRY: &str = "dev.sigstore.cosign/bundle";
const TIMESTAMP: &str = "dev.sigstore.cosign/rfc3161timestamp";

/// What a payload must call itself.
const TYPE: &str = "cosign container image signature";
/// Certificates in a chain.
const CHAIN_MAX: usize = 8;

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    #[serde(rename = "type")]
    kind: String,
    image: Image,
    identity: Identity,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

#[derive(Deserialize)]
struct Identity {
    #[serde(rename = "docker-reference")]
    name: String,
}

/// Rekor's promise to include an entry, in cosign's words.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Promise {
    signed_entry_timestamp: String,
    payload: Entry,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    body: String,
    integrated_time: i64,
    log_index: u64,
    #[serde(rename = "logID")]
    log_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Timestamp {
    #[serde(rename = "SignedRFC3161Timestamp")]
    signed: String,
}

pub(super) fn verify(
    trust: &Trust,
    payload: &[u8],
    annotations: &BTreeMap<String, String>,
    digests: &[Digest],
) -> Result<Verified, Rejection> {
    let Payload { critical } = serde_json::from_slice(payload).map_err(malformed)?;
    if critical.kind != TYPE {
        return Err(malformed(format_args!("its payload is of type {:?}", critical.kind)));
    }
    if !digests.iter().any(|digest| digest.as_str() == critical.image.digest) {
        return Err(Rejection::OtherImage(critical.image.digest));
    }
    let parts = Parts { payload, annotations };
    let signature = base64(parts.get(SIGNATURE).ok_or_else(|| malformed("it lacks the signature"))?)?;
    let signer = match trust.key(payload, &signature) {
        Some(key) => {
            if let Some(root) = trust.log() {
                let hint = VerificationMaterialContent::PublicKey(PublicKeyIdentifier::new(""));
                let bundle = parts.bundle(hint, signature, true)?;
                root.logged(key, &bundle, &Artifact::Payload(payload))?;
            }
            Signer::Key(key.path.clone())
        }
        None => {
            let certificates = parts.certificates()?.ok_or(Rejection::OtherKey)?;
            let root = trust.root.as_ref().ok_or(Rejection::NoRoot)?;
            let chain = VerificationMaterialContent::X509CertificateChain { certificates };
            let bundle = parts.bundle(chain, signature, root.has_log)?;
            root.certified(&bundle, &Artifact::Payload(payload))?
        }
    };
    Ok(Verified { signer, name: Some(critical.identity.name) })
}

fn base64(text: &str) -> Result<Vec<u8>, Rejection> {
    BASE64.decode(text.trim()).map_err(malformed)
}

struct Parts<'a> {
    payload: &'a [u8],
    annotations: &'a BTreeMap<String, String>,
}

impl Parts<'_> {
    /// An annotation; cosign leaves some of them empty.
    fn get(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(String::as_str).filter(|text| !text.is_empty())
    }

    /// The signer's certificate and those between it and a root, if it was made with one.
    fn certificates(&self) -> Result<Option<Vec<X509Certificate>>, Rejection> {
        let Some(leaf) = self.get(CERTIFICATE) else { return Ok(None) };
        let leaf = CertificateDer::from_pem_slice(leaf.as_bytes());
        let between = CertificateDer::pem_slice_iter(self.get(CHAIN).unwrap_or_default().as_bytes());
        let chain = std::iter::once(leaf).chain(between.take(CHAIN_MAX));
        let certificates = chain.map(|certificate| match certificate {
            Ok(certificate) => Ok(X509Certificate::new(certificate.to_vec().into())),
            Err(error) => Err(malformed(format_args!("its certificate: {error:?}"))),
        });
        certificates.collect::<Result<_, _>>().map(Some)
    }

    /// The same in the newer form. The oldest version of it is the one in which a log's promise is enough.
    fn bundle(
        &self,
        content: VerificationMaterialContent,
        signature: Vec<u8>,
        logged: bool,
    ) -> Result<Bundle, Rejection> {
        let mut material = VerificationMaterial::new(content);
        if logged {
            let entry = self.get(LOG_ENTRY).ok_or(Rejection::NotLogged)?;
            let promise: Promise = serde_json::from_str(entry).map_err(malformed)?;
            material = material.with_tlog_entries(vec![promise.into_entry()?]);
        }
        if let Some(timestamp) = self.get(TIMESTAMP) {
            let timestamp: Timestamp = serde_json::from_str(timestamp).map_err(malformed)?;
            let timestamp = Rfc3161Timestamp::new(base64(&timestamp.signed)?.into());
            material =
                material.with_timestamp_verification_data(TimestampVerificationData::new(vec![timestamp]));
        }
        let digest = ring::digest::digest(&ring::digest::SHA256, self.payload).as_ref().to_vec();
        let digest = MessageDigest::new(HashAlgorithm::Sha2256, DigestBytes::new(digest));
        let signature = MessageSignature::new(SignatureBytes::new(signature)).with_message_digest(digest);
        let version = if logged { MediaType::Bundle0_1 } else { MediaType::Bundle0_2 };
        Ok(Bundle::new(version, material, SignatureContent::MessageSignature(signature)))
    }
}

impl Promise {
    fn into_entry(self) -> Result<TransparencyLogEntry, Rejection> {
        let Entry { body, integrated_time, log_index, log_id } = self.payload;
        // A date is what makes the promise count for a certificate; the crate takes zero for none.
        let bad = |what: &str| malformed(format_args!("the log entry's {what}"));
        let time = Some(integrated_time).filter(|time| *time > 0).ok_or_else(|| bad("time"))?;
        let entry = serde_json::json!({
            "logIndex": log_index.to_string(),
            "logId": { "keyId": BASE64.encode(hex(&log_id).ok_or_else(|| bad("logID"))?) },
            "kindVersion": { "kind": "hashedrekord", "version": "0.0.1" },
            "integratedTime": time.to_string(),
            "inclusionPromise": { "signedEntryTimestamp": self.signed_entry_timestamp },
            "canonicalizedBody": body,
        });
        serde_json::from_value(entry).map_err(malformed)
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digit = |at: usize| text.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    (text.len() == 64 && text.is_ascii()).then(|| (0..32).map(|at| digit(at * 2)).collect()).flatten()
}
