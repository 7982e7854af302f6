//! Signatures that cosign 3.1.3 itself made, with a key of `cosign generate-key-pair` and without a log: a bundle (`cosign
//! sign --signing-config` without services) and a payload (`--new-bundle-format=false --tlog-upload=false`).

use std::path::Path;

use super::*;

const IMAGE: &str = "sha256:4aa5fd6e17c30722e4a5c45a615d0ad77d3265eb341bb952e712edbcc650be90";

#[test]
fn what_cosign_signed_is_known_in_both_forms() {
    let key = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/drivers/signatures/tests/cosign/cosign.pub");
    let files = Files { keys: std::slice::from_ref(&key), keys_in_log: false, trusted_root: None };
    let trust = Trust::load(&files).unwrap();
    let annotation = ("dev.cosignproject.cosign/signature".into(), include_str!("cosign/payload.sig").into());
    let payload = include_bytes!("cosign/payload").to_vec();
    let simple = Signature::Simple(payload, [annotation].into());
    let bundle = Signature::Bundle(include_bytes!("cosign/bundle.json").to_vec());
    let image = Digest::parse(IMAGE).unwrap();
    let signer = Signer::Key(key);
    for (signature, name) in [(simple, Some("127.0.0.1:45873/old/app".to_string())), (bundle, None)] {
        let verified = trust.verify(&signature, std::slice::from_ref(&image)).unwrap();
        assert_eq!(verified, Verified { signer: signer.clone(), name });
        trust.verify(&signature, &[Digest::of(b"another image")]).unwrap_err();
    }
}
