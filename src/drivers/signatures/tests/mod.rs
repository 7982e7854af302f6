//! Signatures made here, by keys and by the certificates of a sigstore of our own.

mod corpus;
mod cosign;
#[path = "../../../../e2e/src/sigstore.rs"]
mod sigstore;
mod wrong;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rcgen::KeyPair;
use serde_json::{Value, json};

use self::sigstore::{By, Certified, LIFETIME, LOG_ENTRY, Sigstore};
use super::fuzz::IMAGE;
use super::*;

const NOW: u64 = 1_700_000_000;
const SUBJECT: &str = "https://ci.test/team/app@refs/tags/1";
const ISSUER: &str = "https://oidc.test";
const NAME: &str = "registry.test/team/app";

struct World {
    dir: tempfile::TempDir,
    key: KeyPair,
    sigstore: Sigstore,
    certified: Certified,
    digest: Digest,
}

impl World {
    fn new() -> Self {
        let (key, sigstore) = (KeyPair::generate().unwrap(), Sigstore::new().unwrap());
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("other.pub"), KeyPair::generate().unwrap().public_key_pem()).unwrap();
        std::fs::write(dir.path().join("ours.pub"), key.public_key_pem()).unwrap();
        std::fs::write(dir.path().join("root.json"), sigstore.trusted_root().to_string()).unwrap();
        let certified = sigstore.certify(SUBJECT, ISSUER, NOW).unwrap();
        Self { dir, key, sigstore, certified, digest: Digest::of(IMAGE) }
    }

    fn load(&self, keys_in_log: bool, with_root: bool) -> Result<Trust, TrustError> {
        let keys = ["other.pub", "ours.pub"].map(|name| self.dir.path().join(name));
        let root = self.dir.path().join("root.json");
        Trust::load(&Files { keys: &keys, keys_in_log, trusted_root: with_root.then_some(root.as_path()) })
    }

    fn trust(&self) -> Trust {
        self.load(false, true).unwrap()
    }

    fn signer(&self) -> Signer {
        Signer::Key(self.dir.path().join("ours.pub"))
    }

    fn payload(&self) -> Vec<u8> {
        sigstore::payload(self.digest.as_str(), NAME)
    }

    fn statement(&self) -> Vec<u8> {
        sigstore::statement(self.digest.as_str(), SIGN)
    }

    fn certificate(&self) -> By<'_> {
        By::Certificate(&self.certified, &self.sigstore, NOW + 1)
    }

    fn judge(&self, signature: &Signature) -> Result<Verified, Rejection> {
        self.trust().verify(signature, &[Digest::of(b"index"), self.digest.clone()])
    }

    /// The line that an operator would read.
    fn refusal(&self, signature: &Signature) -> String {
        match self.judge(signature) {
            Ok(verified) => panic!("accepted as signed by {:?}", verified.signer),
            Err(rejection) => rejection.line(),
        }
    }
}

fn simple(payload: &[u8], by: &By<'_>) -> Signature {
    Signature::Simple(payload.to_vec(), sigstore::simple(payload, by).unwrap())
}

fn bundle(statement: &[u8], by: &By<'_>) -> Signature {
    Signature::Bundle(sigstore::bundle(statement, by).unwrap().to_string().into_bytes())
}

fn changed(statement: &[u8], by: &By<'_>, change: impl FnOnce(&mut Value)) -> Signature {
    let mut bundle = sigstore::bundle(statement, by).unwrap();
    change(&mut bundle);
    Signature::Bundle(bundle.to_string().into_bytes())
}

#[test]
fn both_sides_mean_the_same_types() {
    assert_eq!([SIMPLE, SIGN], [sigstore::SIMPLE, sigstore::SIGN]);
    assert!(sigstore::BUNDLE.starts_with(BUNDLE));
}

#[test]
fn a_signature_by_one_of_the_keys_is_known_in_both_forms() {
    let world = World::new();
    let by = By::Key(&world.key);
    let name = Some(NAME.to_string());
    let simple = world.judge(&simple(&world.payload(), &by)).unwrap();
    assert_eq!(simple, Verified { signer: world.signer(), name });
    // As cosign writes it without a log: what would be empty is left out.
    let terse = changed(&world.statement(), &by, |bundle| {
        let material = bundle["verificationMaterial"].as_object_mut().unwrap();
        material.remove("tlogEntries");
        material.insert("timestampVerificationData".into(), json!({}));
        bundle["dsseEnvelope"]["signatures"][0]["keyid"] = "".into();
    });
    for bundle in [bundle(&world.statement(), &by), terse] {
        assert_eq!(world.judge(&bundle).unwrap(), Verified { signer: world.signer(), name: None });
    }
}

#[test]
fn keys_of_every_kind_that_cosign_takes_sign() {
    let world = World::new();
    let kinds = [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519, &rcgen::PKCS_ECDSA_P256_SHA256];
    for kind in kinds {
        let key = KeyPair::generate_for(kind).unwrap();
        std::fs::write(world.dir.path().join("ours.pub"), key.public_key_pem()).unwrap();
        let signature = simple(&world.payload(), &By::Key(&key));
        assert_eq!(world.judge(&signature).unwrap().signer, world.signer());
        let signature = bundle(&world.statement(), &By::Key(&key));
        assert_eq!(world.judge(&signature).unwrap().signer, world.signer());
    }
}

#[test]
fn a_certificate_s_subject_is_known_in_both_forms() {
    let world = World::new();
    let expected = Signer::Certificate { subject: SUBJECT.into(), issuer: ISSUER.into() };
    let verified = world.judge(&simple(&world.payload(), &world.certificate())).unwrap();
    assert_eq!(verified.signer, expected);
    let verified = world.judge(&bundle(&world.statement(), &world.certificate())).unwrap();
    assert_eq!(verified.signer, expected);
}

#[test]
fn a_key_s_signature_must_be_in_the_log_if_that_is_asked_for() {
    let world = World::new();
    let trust = world.load(true, true).unwrap();
    let digests = [world.digest.clone()];
    let stranger = Sigstore::new().unwrap();
    for (by, good) in [
        (By::LoggedKey(&world.key, &world.sigstore, NOW), true),
        (By::LoggedKey(&world.key, &stranger, NOW), false),
        (By::Key(&world.key), false),
    ] {
        for signature in [simple(&world.payload(), &by), bundle(&world.statement(), &by)] {
            let verified = trust.verify(&signature, &digests);
            assert_eq!(verified.is_ok(), good, "{verified:?}");
            assert!(verified.is_err() || verified.unwrap().signer == world.signer());
        }
    }
    // A log entry of another signature by the same key.
    let Signature::Simple(payload, mut annotations) = simple(&world.payload(), &By::Key(&world.key)) else {
        unreachable!()
    };
    let logged = By::LoggedKey(&world.key, &world.sigstore, NOW);
    let other = sigstore::simple(&sigstore::payload(Digest::of(b"other").as_str(), NAME), &logged).unwrap();
    annotations.insert(LOG_ENTRY.into(), other[LOG_ENTRY].clone());
    assert!(trust.verify(&Signature::Simple(payload, annotations), &digests).is_err());
}

#[test]
fn files_that_vouch_for_nobody_are_named_with_the_cause() {
    let world = World::new();
    let (ours, root) = (world.dir.path().join("ours.pub"), world.dir.path().join("root.json"));
    let error = |in_log| world.load(in_log, true).unwrap_err().to_string();
    let (key, text) = (std::fs::read(&ours).unwrap(), std::fs::read_to_string(&root).unwrap());
    for bad in ["", "no PEM", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"] {
        std::fs::write(&ours, bad).unwrap();
        assert!(error(false).contains("ours.pub is no public key"), "{}", error(false));
    }
    std::fs::remove_file(&ours).unwrap();
    assert!(error(false).contains("cannot read") && error(false).contains("ours.pub"));
    std::fs::write(&ours, key).unwrap();
    let fingerprint = world.trust().fingerprint().clone();
    std::fs::write(&root, "{}").unwrap();
    assert!(error(false).contains("root.json is no trusted root"), "{}", error(false));
    let mut without: Value = serde_json::from_str(&text).unwrap();
    without["tlogs"] = json!([]);
    std::fs::write(&root, without.to_string()).unwrap();
    assert!(error(false).contains("when a signature was made"), "{}", error(false));
    let mut without: Value = serde_json::from_str(&text).unwrap();
    without["ctlogs"] = json!([]);
    std::fs::write(&root, without.to_string()).unwrap();
    let trust = world.trust();
    assert!(trust.unchecked().unwrap().contains("ctlogs") && *trust.fingerprint() != fingerprint);
    // What no authority could have given is not asked for; everything else is.
    let secret = world.sigstore.certify_before(None, SUBJECT, ISSUER, NOW).unwrap();
    let good = simple(&world.payload(), &By::Certificate(&secret, &world.sigstore, NOW + 1));
    assert!(world.judge(&good).is_ok());
    let late = simple(&world.payload(), &By::Certificate(&secret, &world.sigstore, NOW + LIFETIME + 1));
    assert!(world.judge(&late).is_err());
}
