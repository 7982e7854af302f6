//! All that can be wrong with a signature.

use super::sigstore::{Annotations, CERTIFICATE, LOG_ENTRY, SIGNATURE};
use super::*;

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
    for signature in
        [simple(&world.payload(), &By::Key(&stranger)), bundle(&world.statement(), &By::Key(&stranger))]
    {
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
    for signature in
        [simple(&world.payload(), &world.certificate()), bundle(&world.statement(), &world.certificate())]
    {
        assert!(matches!(
            trust.verify(&signature, std::slice::from_ref(&world.digest)),
            Err(Rejection::NoRoot)
        ));
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
    assert_eq!(
        refusal(&|all| drop(all.insert(LOG_ENTRY.into(), String::new()))),
        "is in no transparency log"
    );
    assert!(refusal(&|all| drop(all.remove(SIGNATURE))).contains("lacks the signature"));
    assert!(refusal(&|all| drop(all.insert(SIGNATURE.into(), "???".into()))).contains("can't be read"));
    assert_eq!(refusal(&|all| drop(all.remove(CERTIFICATE))), "is by another key");
    assert!(
        refusal(&|all| drop(all.insert(CERTIFICATE.into(), "no PEM".into()))).contains("its certificate")
    );
    // Time and place in the log are signed by the log.
    for (from, to) in
        [("\"logIndex\":7", "\"logIndex\":8"), ("\"integratedTime\":17000000", "\"integratedTime\":17000001")]
    {
        let entry = good[LOG_ENTRY].replace(from, to);
        assert_ne!(entry, good[LOG_ENTRY]);
        assert!(
            refusal(&|all| drop(all.insert(LOG_ENTRY.into(), entry.clone()))).starts_with("does not verify")
        );
    }
    // The entry of another signature by the same certificate; another certificate of the same subject.
    let payload = sigstore::payload(Digest::of(b"other").as_str(), NAME);
    let other = sigstore::simple(&payload, &world.certificate()).unwrap();
    assert!(
        refusal(&|all| drop(all.insert(LOG_ENTRY.into(), other[LOG_ENTRY].clone())))
            .starts_with("does not verify")
    );
    let twin = world.sigstore.certify(SUBJECT, ISSUER, NOW).unwrap();
    assert!(
        refusal(&|all| drop(all.insert(CERTIFICATE.into(), twin.pem.clone()))).starts_with("does not verify")
    );
}

#[test]
fn the_parts_of_a_bundle_belong_together() {
    let world = World::new();
    let refusal = |change: &dyn Fn(&mut Value)| {
        world.refusal(&changed(&world.statement(), &world.certificate(), change))
    };
    let entry = "/verificationMaterial/tlogEntries/0";
    let at = |pointer: &str| format!("{entry}/{pointer}");
    for pointer in ["inclusionProof", "inclusionPromise"] {
        let line = refusal(&|bundle| {
            drop(bundle.pointer_mut(entry).unwrap().as_object_mut().unwrap().remove(pointer))
        });
        assert!(line.starts_with("does not verify"), "{pointer}: {line}");
    }
    let root = BASE64.encode([0; 32]);
    for (pointer, value) in [
        (at("inclusionProof/rootHash"), json!(root)),
        (at("integratedTime"), json!((NOW + 2).to_string())),
        (at("inclusionPromise/signedEntryTimestamp"), json!(BASE64.encode("no"))),
        (
            at("inclusionProof/checkpoint/envelope"),
            json!(format!("log.test - 1\n1\n{root}\n\n\u{2014} log.test AAAAAAAA\n")),
        ),
        ("/verificationMaterial/tlogEntries".into(), json!([])),
        ("/mediaType".into(), json!("application/vnd.dev.sigstore.bundle.v9+json")),
    ] {
        let line = refusal(&|bundle| *bundle.pointer_mut(&pointer).unwrap() = value.clone());
        assert!(!line.is_empty(), "{pointer}");
    }
    let other = sigstore::bundle(&sigstore::statement(Digest::of(b"x").as_str(), SIGN), &world.certificate())
        .unwrap();
    let line = refusal(&|bundle| *bundle.pointer_mut(entry).unwrap() = other.pointer(entry).unwrap().clone());
    assert!(line.starts_with("does not verify"), "{line}");
}
