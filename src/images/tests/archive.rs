//! Builds layers and OCI layouts byte by byte, also ones that no honest program writes.

use std::fs::File;
use std::io::{Seek, Write};

use crate::ids::Digest;

/// An archive that grows.
#[derive(Clone, Default)]
pub struct Tar(Vec<u8>);

/// One header.
pub struct Head<'a> {
    pub path: &'a str,
    pub kind: u8,
    pub link: &'a str,
    pub mode: u32,
    pub uid: u32,
    pub mtime: u64,
    pub xattr: Option<(&'a str, &'a [u8])>,
}

pub fn head<'a>(path: &'a str, kind: u8) -> Head<'a> {
    Head { path, kind, link: "", mode: 0o644, uid: 0, mtime: 1, xattr: None }
}

impl Tar {
    pub fn add(&mut self, head: &Head<'_>, data: &[u8]) -> &mut Self {
        let mut records = Vec::new();
        if let Some((name, value)) = head.xattr {
            records.extend(record(&format!("SCHILY.xattr.{name}"), value));
        }
        if head.path.len() > 100 {
            records.extend(record("path", head.path.as_bytes()));
        }
        if head.link.len() > 100 {
            records.extend(record("linkpath", head.link.as_bytes()));
        }
        if !records.is_empty() {
            self.raw(&super::archive::head("pax", b'x'), &records);
        }
        self.raw(head, data)
    }

    fn raw(&mut self, head: &Head<'_>, data: &[u8]) -> &mut Self {
        let mut block = [0_u8; 512];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &head.path.as_bytes()[..head.path.len().min(100)]);
        put(100, format!("{:07o}", head.mode).as_bytes());
        put(108, format!("{:07o}", head.uid).as_bytes());
        put(116, format!("{:07o}", head.uid).as_bytes());
        put(124, format!("{:011o}", data.len()).as_bytes());
        put(136, format!("{:011o}", head.mtime).as_bytes());
        put(156, &[head.kind]);
        put(157, &head.link.as_bytes()[..head.link.len().min(100)]);
        put(257, b"ustar\x0000");
        put(148, b"        ");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend(block);
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(&mut self, path: &str, text: &str) -> &mut Self {
        self.add(&head(path, b'0'), text.as_bytes())
    }

    pub fn dir(&mut self, path: &str, mode: u32) -> &mut Self {
        self.add(&Head { mode, ..head(path, b'5') }, b"")
    }

    pub fn link(&mut self, path: &str, kind: u8, link: &str) -> &mut Self {
        self.add(&Head { link, ..head(path, kind) }, b"")
    }

    pub fn bytes(&self) -> Vec<u8> {
        [self.0.as_slice(), &[0; 1024]].concat()
    }
}

fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = 3 + key.len() + value.len();
    let length = (rest..).find(|length| length.to_string().len() + rest == *length).unwrap();
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

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
