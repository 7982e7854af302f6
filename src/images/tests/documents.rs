//! The caps of manifests, indexes and configs (attacks.md A46): just within and just beyond.

use super::super::manifest::{self, CONFIG_MAX, Document, MANIFEST_MAX, ManifestError, parse, parse_config};
use crate::drivers::layers::LAYERS_MAX;
use crate::ids::Digest;

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

fn descriptor(media_type: &str, size: u64) -> String {
    format!(r#"{{"mediaType":"{media_type}","size":{size},"digest":"{}"}}"#, Digest::of(b"x"))
}

fn image(layers: usize, config_size: u64) -> String {
    let layers = vec![descriptor(LAYER, 1); layers].join(",");
    format!(r#"{{"schemaVersion":2,"config":{},"layers":[{layers}]}}"#, descriptor(CONFIG, config_size))
}

/// Blanks behind a document are part of it.
fn padded(text: &str, length: u64) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(usize::try_from(length).unwrap(), b' ');
    bytes
}

fn read(bytes: &[u8]) -> Result<Document, ManifestError> {
    parse(&Digest::of(bytes), "", bytes)
}

fn manifest(text: &str) -> manifest::Manifest {
    match read(text.as_bytes()).unwrap() {
        Document::Manifest(manifest) => *manifest,
        Document::Index(_) => panic!("an index"),
    }
}

#[test]
fn bytes() {
    let text = image(1, 2);
    assert!(read(&padded(&text, MANIFEST_MAX)).is_ok());
    let error = read(&padded(&text, MANIFEST_MAX + 1)).unwrap_err();
    assert!(matches!(error, ManifestError::TooLarge { limit: MANIFEST_MAX, .. }), "{error}");
    let config = format!(r#"{{"rootfs":{{"diff_ids":["{}"]}}}}"#, Digest::of(b"x"));
    let of = manifest(&text);
    assert!(parse_config(&of, &padded(&config, CONFIG_MAX)).is_ok());
    let error = parse_config(&of, &padded(&config, CONFIG_MAX + 1)).unwrap_err();
    assert!(matches!(error, ManifestError::TooLarge { limit: CONFIG_MAX, .. }), "{error}");
    assert!(read(image(1, CONFIG_MAX).as_bytes()).is_ok());
    for size in [CONFIG_MAX + 1, 1 << 63, u64::MAX] {
        assert!(matches!(read(image(1, size).as_bytes()), Err(ManifestError::TooLarge { .. })), "{size}");
    }
}

#[test]
fn layers() {
    assert_eq!(manifest(&image(LAYERS_MAX, 2)).layers.len(), LAYERS_MAX);
    let error = read(image(LAYERS_MAX + 1, 2).as_bytes()).unwrap_err();
    assert!(matches!(error, ManifestError::TooManyLayers { layers: 129, .. }), "{error}");
    let of = manifest(&image(2, 2));
    for diff_ids in [0, 1, 3, 10_000] {
        let ids = vec![format!("{:?}", Digest::of(b"x").as_str()); diff_ids].join(",");
        let config = format!(r#"{{"rootfs":{{"diff_ids":[{ids}]}}}}"#);
        let error = parse_config(&of, config.as_bytes()).unwrap_err();
        assert!(matches!(error, ManifestError::LayerCount { layers: 2, .. }), "{error}");
    }
}

#[test]
fn types() {
    let typed = |length: usize| {
        let config = descriptor(&"t".repeat(length), 2);
        read(format!(r#"{{"config":{config},"layers":[]}}"#).as_bytes())
    };
    assert!(typed(255).is_ok());
    let error = typed(1 << 20).unwrap_err().to_string();
    assert!(error.len() < 1000, "{} bytes", error.len());
    for version in ["1", "3", "\"2\"", "2.0", "-2"] {
        let text = image(1, 2).replace(":2,", &format!(":{version},"));
        assert!(read(text.as_bytes()).is_err(), "{version}");
    }
}
