//! Builds OCI layouts byte by byte, also ones that no honest program writes.

use std::fs::File;
use std::io::{Seek, Write};

pub use crate::drivers::layers::tests::archive::{Head, Tar, head};
use crate::ids::Digest;

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A layer as a manifest and a config tell of it; they may lie.
#[derive(Clone)]
pub struct Blob {
    pub bytes: Vec<u8>,
    pub digest: Digest,
    pub size: u64,
    pub diff_id: Digest,
}

impl Blob {
    pub fn of(tar: &Tar) -> Self {
        Self::with(tar, gzip)
    }

    pub fn zstd(tar: &Tar) -> Self {
        Self::with(tar, |plain| zstd::encode_all(plain, 1).unwrap())
    }

    fn with(tar: &Tar, compress: impl Fn(&[u8]) -> Vec<u8>) -> Self {
        let plain = tar.bytes();
        let bytes = compress(&plain);
        Self { digest: Digest::of(&bytes), size: bytes.len() as u64, diff_id: Digest::of(&plain), bytes }
    }
}

/// An OCI layout with one image in it.
pub fn layout(name: &str, layers: &[Blob]) -> File {
    let diff_ids: Vec<_> = layers.iter().map(|layer| layer.diff_id.to_string()).collect();
    let architecture = super::super::platform::Platform::host().architecture;
    let config = serde_json::json!({
        "architecture": architecture, "os": "linux",
        "config": { "Cmd": ["/bin/sh"], "Env": ["A=b"], "Labels": { "name": name } },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = config.to_string().into_bytes();
    let descriptors: Vec<_> = layers
        .iter()
        .map(|layer| {
            let form = if layer.bytes.starts_with(b"\x1f\x8b") { "gzip" } else { "zstd" };
            serde_json::json!({
                "mediaType": format!("application/vnd.oci.image.layer.v1.tar+{form}"),
                "digest": layer.digest, "size": layer.size,
            })
        })
        .collect();
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": Digest::of(&config), "size": config.len(),
        },
        "layers": descriptors,
    });
    let manifest = manifest.to_string().into_bytes();
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": Digest::of(&manifest), "size": manifest.len(),
        "annotations": { "org.opencontainers.image.ref.name": name },
    }]});
    let mut tar = Tar::default();
    tar.add(&head("index.json", b'0'), index.to_string().as_bytes());
    for bytes in [&config, &manifest] {
        tar.add(&head(&format!("blobs/sha256/{}", Digest::of(bytes).digits()), b'0'), bytes);
    }
    for layer in layers {
        tar.add(&head(&format!("blobs/sha256/{}", layer.digest.digits()), b'0'), &layer.bytes);
    }
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&tar.bytes()).unwrap();
    file.rewind().unwrap();
    file
}

pub fn layout_of(name: &str, layers: &[&Tar]) -> File {
    let blobs: Vec<_> = layers.iter().map(|tar| Blob::of(tar)).collect();
    layout(name, &blobs)
}
