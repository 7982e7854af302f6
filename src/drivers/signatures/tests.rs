//! Signatures made here, by keys and by the certificates of a sigstore of our own; and all that could be wrong with them.

#[path = "../../../e2e/src/sigstore.rs"]
mod sigstore;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rcgen::KeyPair;
use serde_json::{Value, json};

use self::sigstore::{Annotations, By, CERTIFICATE, Certified, LIFETIME, LOG_ENTRY, SIGNATURE, Sigstore};
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
        Self { dir, key, sigstore, certified, digest: Digest::of(b"image") }
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
fn a_signature_by_one_of_the_keys_is_known_in_both_forms() {
    let world = World::new();
    let by = By::Key(&world.key);
    let name = Some(NAME.to_string());
    let simple = world.judge(&simple(&world.payload(), &by)).unwrap();
    assert_eq!(simple, Verified { signer: world.signer(), name });
    let bundle = world.judge(&bundle(&world.statement(), &by)).unwrap();
    assert_eq!(bundle, Verified { signer: world.signer(), name: None });
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
fn payloads_that_approve_of_something_else_are_refused() {
    let world = World::new();
    let by = By::Key(&world.key);
    let other = sigstore::payload(Digest::of(b"other").as_str(), NAME);
    let typed = String::from_utf8(world.payload()).unwrap().replace("cosign container", "my container");
    let twice = String::from_utf8(world.payload()).unwrap();
    let twice = twice.replace("\"critical\"", "\"critical\":{},\"critical\"");
    for (payload, why) in [
        (other, "another image"),
        (typed.into_bytes(), "of type"),
        (twice.into_bytes(), "can't be read"),
        (b"{}".to_vec(), "can't be read"),
        (Vec::new(), "can't be read"),
    ] {
        let refusal = world.refusal(&simple(&payload, &by));
        assert!(refusal.contains(why), "{refusal}");
    }
    // Signed is another payload than the one that comes.
    let annotations = sigstore::simple(&sigstore::payload(Digest::of(b"x").as_str(), NAME), &by).unwrap();
    let refusal = world.refusal(&Signature::Simple(world.payload(), annotations));
    assert!(refusal.contains("another key"), "{refusal}");
}

#[test]
fn statements_that_approve_of_something_else_are_refused() {
    let world = World::new();
    let by = By::Key(&world.key);
    let other = sigstore::statement(Digest::of(b"other").as_str(), SIGN);
    let scan = sigstore::statement(world.digest.as_str(), "https://cosign.sigstore.dev/attestation/vuln/v1");
    let old = String::from_utf8(world.statement()).unwrap().replace("Statement/v1", "Statement/v9");
    let nobody = json!({ "_type": "https://in-toto.io/Statement/v1", "subject": [], "predicateType": SIGN });
    for (statement, why) in [
        (other, "another image"),
        (scan, "vuln"),
        (old.into_bytes(), "version"),
        (nobody.to_string().into_bytes(), "another image"),
        (b"{}".to_vec(), "can't be read"),
    ] {
        let refusal = world.refusal(&bundle(&statement, &by));
        assert!(refusal.contains(why), "{refusal}");
    }
    let tampered = changed(&world.statement(), &by, |bundle| {
        let padded = [world.statement(), b" ".to_vec()].concat();
        bundle["dsseEnvelope"]["payload"] = BASE64.encode(padded).into();
    });
    assert!(world.refusal(&tampered).contains("another key"));
    let two = changed(&world.statement(), &by, |bundle| {
        let signature = bundle["dsseEnvelope"]["signatures"][0].clone();
        bundle["dsseEnvelope"]["signatures"] = json!([signature, signature]);
    });
    assert!(world.refusal(&two).contains("exactly one signature"));
    let retyped = changed(&world.statement(), &by, |bundle| {
        bundle["dsseEnvelope"]["payloadType"] = "text/plain".into();
    });
    assert!(world.refusal(&retyped).contains("no statement"));
    assert!(world.refusal(&Signature::Bundle(b"[".to_vec())).contains("can't be read"));
}

#[test]
fn signatures_of_strangers_are_refused() {
    let world = World::new();
    let stranger = KeyPair::generate().unwrap();
    for signature in [simple(&world.payload(), &By::Key(&stranger)), bundle(&world.statement(), &By::Key(&stranger))] {
        assert!(world.refusal(&signature).contains("another key"));
    }
    let elsewhere = Sigstore::new().unwrap();
    let certified = elsewhere.certify(SUBJECT, ISSUER, NOW).unwrap();
    // Another authority, before its own log and before ours.
    for log in [&elsewhere, &world.sigstore] {
        let by = By::Certificate(&certified, log, NOW + 1);
        for signature in [simple(&world.payload(), &by), bundle(&world.statement(), &by)] {
            assert!(world.refusal(&signature).starts_with("does not verify: "));
        }
    }
    // Without a trusted root no certificate counts, however good.
    let trust = world.load(false, false).unwrap();
    for signature in [simple(&world.payload(), &world.certificate()), bundle(&world.statement(), &world.certificate())] {
        assert!(matches!(trust.verify(&signature, &[world.digest.clone()]), Err(Rejection::NoRoot)));
    }
}

#[test]
fn certificates_count_only_while_they_are_good_and_public() {
    let world = World::new();
    let late = By::Certificate(&world.certified, &world.sigstore, NOW + LIFETIME + 1);
    let early = By::Certificate(&world.certified, &world.sigstore, NOW - 1);
    let unknown = Sigstore::new().unwrap();
    let elsewhere = By::Certificate(&world.certified, &unknown, NOW + 1);
    let secret = world.sigstore.certify_before(None, SUBJECT, ISSUER, NOW).unwrap();
    let secret = By::Certificate(&secret, &world.sigstore, NOW + 1);
    let foreign = world.sigstore.certify_before(Some(&unknown), SUBJECT, ISSUER, NOW).unwrap();
    let foreign = By::Certificate(&foreign, &world.sigstore, NOW + 1);
    for (by, why) in [
        (late, ["certificate", "xpired"]),
        (early, ["certificate", "alid"]),
        (elsewhere, ["does not verify", "log"]),
        (secret, ["SCT", "missing"]),
        (foreign, ["SCT", "key"]),
    ] {
        for signature in [simple(&world.payload(), &by), bundle(&world.statement(), &by)] {
            let refusal = world.refusal(&signature);
            assert!(why.iter().all(|word| refusal.contains(word)), "{refusal} {why:?}");
        }
    }
}

#[test]
fn the_parts_of_a_simple_signature_belong_together() {
    let world = World::new();
    let good = sigstore::simple(&world.payload(), &world.certificate()).unwrap();
    let refusal = |change: &dyn Fn(&mut Annotations)| {
        let mut annotations = good.clone();
        change(&mut annotations);
        world.refusal(&Signature::Simple(world.payload(), annotations))
    };
    assert_eq!(refusal(&|all| drop(all.remove(LOG_ENTRY))), "is in no transparency log");
    assert_eq!(refusal(&|all| drop(all.insert(LOG_ENTRY.into(), String::new()))), "is in no transparency log");
    assert!(refusal(&|all| drop(all.remove(SIGNATURE))).contains("lacks the signature"));
    assert!(refusal(&|all| drop(all.insert(SIGNATURE.into(), "???".into()))).contains("can't be read"));
    assert_eq!(refusal(&|all| drop(all.remove(CERTIFICATE))), "is by another key");
    assert!(refusal(&|all| drop(all.insert(CERTIFICATE.into(), "no PEM".into()))).contains("certificate is none"));
    // Time and place in the log are signed by the log.
    for (from, to) in [("\"logIndex\":7", "\"logIndex\":8"), ("\"integratedTime\":17000000", "\"integratedTime\":17000001")] {
        let entry = good[LOG_ENTRY].replace(from, to);
        assert_ne!(entry, good[LOG_ENTRY]);
        assert!(refusal(&|all| drop(all.insert(LOG_ENTRY.into(), entry.clone()))).starts_with("does not verify"));
    }
    // The entry of another signature by the same certificate; another certificate of the same subject.
    let payload = sigstore::payload(Digest::of(b"other").as_str(), NAME);
    let other = sigstore::simple(&payload, &world.certificate()).unwrap();
    assert!(refusal(&|all| drop(all.insert(LOG_ENTRY.into(), other[LOG_ENTRY].clone()))).starts_with("does not verify"));
    let twin = world.sigstore.certify(SUBJECT, ISSUER, NOW).unwrap();
    assert!(refusal(&|all| drop(all.insert(CERTIFICATE.into(), twin.pem.clone()))).starts_with("does not verify"));
}

#[test]
fn the_parts_of_a_bundle_belong_together() {
    let world = World::new();
    let refusal = |change: &dyn Fn(&mut Value)| world.refusal(&changed(&world.statement(), &world.certificate(), change));
    let entry = "/verificationMaterial/tlogEntries/0";
    let at = |pointer: &str| format!("{entry}/{pointer}");
    for pointer in ["inclusionProof", "inclusionPromise"] {
        let line = refusal(&|bundle| drop(bundle.pointer_mut(entry).unwrap().as_object_mut().unwrap().remove(pointer)));
        assert!(line.starts_with("does not verify"), "{pointer}: {line}");
    }
    let root = BASE64.encode([0; 32]);
    for (pointer, value) in [
        (at("inclusionProof/rootHash"), json!(root)),
        (at("integratedTime"), json!((NOW + 2).to_string())),
        (at("inclusionPromise/signedEntryTimestamp"), json!(BASE64.encode("no"))),
        (at("inclusionProof/checkpoint/envelope"), json!(format!("log.test - 1\n1\n{root}\n\n\u{2014} log.test AAAAAAAA\n"))),
        ("/verificationMaterial/tlogEntries".into(), json!([])),
        ("/mediaType".into(), json!("application/vnd.dev.sigstore.bundle.v9+json")),
    ] {
        let line = refusal(&|bundle| *bundle.pointer_mut(&pointer).unwrap() = value.clone());
        assert!(!line.is_empty(), "{pointer}");
    }
    let other = sigstore::bundle(&sigstore::statement(Digest::of(b"x").as_str(), SIGN), &world.certificate()).unwrap();
    let line = refusal(&|bundle| *bundle.pointer_mut(entry).unwrap() = other.pointer(entry).unwrap().clone());
    assert!(line.starts_with("does not verify"), "{line}");
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
