//! What the fuzz target starts from.

use super::*;

/// `cargo test -p berth --lib make_the_corpus -- --ignored`
#[test]
#[ignore = "writes the inputs of a fuzz target anew, with keys that nobody keeps"]
fn make_the_corpus() {
    let world = World::new();
    let repository = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let (corpus, beside) =
        (repository.join("fuzz/corpus/signature"), repository.join("src/drivers/signatures/fuzz"));
    for directory in [&corpus, &beside] {
        std::fs::create_dir_all(directory).unwrap();
    }
    let keep = |directory: &std::path::Path, name: &str, bytes: &[u8]| {
        std::fs::write(directory.join(name), bytes).unwrap();
    };
    keep(&beside, "key.pub", world.key.public_key_pem().as_bytes());
    keep(&beside, "root.json", world.sigstore.trusted_root().to_string().as_bytes());
    keep(&beside, "payload", &world.payload());
    keep(&beside, "statement", &world.statement());
    for (name, by) in [("key", By::Key(&world.key)), ("certificate", world.certificate())] {
        let annotations = serde_json::to_vec(&sigstore::simple(&world.payload(), &by).unwrap()).unwrap();
        keep(&corpus, &format!("simple-{name}"), &[world.payload(), vec![0], annotations].concat());
        let bundle = sigstore::bundle(&world.statement(), &by).unwrap();
        keep(&corpus, &format!("bundle-{name}"), bundle.to_string().as_bytes());
    }
}
