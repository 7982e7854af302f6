//! What fuzzers give as signatures, and what must hold whatever it is. What does not live here: who calls this
//! (src/fuzzing.rs). The files beside it were made, as the corpus was, by a test (`make_the_corpus`).

use std::path::Path;
use std::sync::LazyLock;

use super::trust::{Key, Root};
use super::{Signature, Trust, crypto};
use crate::ids::Digest;

/// The digest of this was signed: in a payload, and in a statement.
pub(super) const IMAGE: &[u8] = b"image";

static TRUST: LazyLock<Trust> = LazyLock::new(|| {
    crypto::install();
    let key = Key::parse(Path::new("key.pub"), include_str!("fuzz/key.pub")).expect("our key");
    let root = Root::parse(Path::new("root.json"), include_str!("fuzz/root.json")).expect("our root");
    Trust { keys: vec![key], keys_in_log: false, root: Some(root), fingerprint: Digest::of(b"") }
});

/// A payload, a zero byte, and annotations in JSON; or a bundle. Nobody has the keys any more, so nothing else is accepted
/// than what they once signed.
pub fn signature(data: &[u8]) {
    let (signature, text) = match data.iter().position(|byte| *byte == 0) {
        None => (Signature::Bundle(data.to_vec()), statement(data)),
        Some(at) => {
            let annotations = serde_json::from_slice(&data[at + 1..]).unwrap_or_default();
            (Signature::Simple(data[..at].to_vec(), annotations), data[..at].to_vec())
        }
    };
    let signed = [include_bytes!("fuzz/payload").as_slice(), include_bytes!("fuzz/statement")];
    match TRUST.verify(&signature, &[Digest::of(IMAGE)]) {
        Ok(_) => assert!(signed.contains(&text.as_slice())),
        Err(rejection) => assert!(rejection.line().len() < 1000),
    }
}

fn statement(bundle: &[u8]) -> Vec<u8> {
    use base64::Engine;
    let bundle: serde_json::Value = serde_json::from_slice(bundle).unwrap_or_default();
    let payload = bundle["dsseEnvelope"]["payload"].as_str().unwrap_or_default();
    base64::engine::general_purpose::STANDARD.decode(payload).unwrap_or_default()
}
