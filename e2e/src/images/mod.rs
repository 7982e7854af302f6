//! Builds images: layers from entries, a config, and the manifest over both. Nothing here knows a registry
//! (`publish` does) or what a certain test needs (`catalog` does).

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::Digest as _;

pub mod agnhost;
pub mod artifact;
pub mod big;
pub mod catalog;
pub mod debian;
mod keep;
pub mod layer;
pub mod program;
pub mod publish;
pub mod signed;

pub use artifact::Artifact;
pub use layer::{Compression, Layer};

/// Which media types a manifest speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OCI image manifest.
    Oci,
    /// Docker schema 2.
    Docker,
}

/// What an image says about the processes that run in it. Field names are those of the OCI image config.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RunConfig {
    /// `NAME=value` each.
    pub env: Vec<String>,
    /// Before `cmd`.
    pub entrypoint: Vec<String>,
    /// Replaced by the container's args.
    pub cmd: Vec<String>,
    /// `uid`, `name`, `uid:gid` or `name:group`; empty is root.
    pub user: String,
    /// Absolute; empty is `/`.
    pub working_dir: String,
    /// `SIGTERM` or a number; empty is SIGTERM.
    pub stop_signal: String,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
    /// Paths, each with an empty object.
    pub volumes: BTreeMap<String, BTreeMap<String, String>>,
}

/// The bytes of one blob.
#[derive(Clone, Debug)]
pub enum Source {
    /// In memory.
    Bytes(Vec<u8>),
    /// In a file that outlives the blob.
    File(PathBuf),
}

impl Source {
    /// A reader from the first byte on.
    pub fn open(&self) -> Result<Box<dyn Read + '_>> {
        Ok(match self {
            Self::Bytes(bytes) => Box::new(&bytes[..]),
            Self::File(path) => {
                Box::new(std::fs::File::open(path).with_context(|| format!("open {}", path.display()))?)
            }
        })
    }
}

/// A blob with its name.
#[derive(Clone, Debug)]
pub struct Blob {
    /// `sha256:HEX` of the content.
    pub digest: String,
    /// Bytes.
    pub size: u64,
    /// Media type.
    pub media_type: String,
    /// Content.
    pub source: Source,
}

impl Blob {
    /// A blob of these bytes.
    pub fn new(media_type: &str, bytes: Vec<u8>) -> Self {
        Self {
            digest: sha256(&bytes),
            size: bytes.len() as u64,
            media_type: media_type.into(),
            source: Source::Bytes(bytes),
        }
    }

    fn descriptor(&self) -> Value {
        json!({ "mediaType": self.media_type, "digest": self.digest, "size": self.size })
    }
}

/// `sha256:HEX` of bytes.
pub fn sha256(bytes: &[u8]) -> String {
    name_digest(&sha2::Sha256::digest(bytes))
}

fn name_digest(sum: &[u8]) -> String {
    sum.iter().fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

/// An image to be built.
#[derive(Clone, Debug)]
pub struct Image {
    /// Bottom first.
    pub layers: Vec<Layer>,
    /// What runs in it.
    pub run: RunConfig,
    /// Media types of the manifest.
    pub format: Format,
    /// `amd64` unless a test wants another.
    pub architecture: String,
}

impl Default for Image {
    fn default() -> Self {
        Self {
            layers: Vec::new(),
            run: RunConfig::default(),
            format: Format::Oci,
            architecture: "amd64".into(),
        }
    }
}

/// A whole image: every blob, the manifest last.
#[derive(Clone, Debug)]
pub struct Built {
    /// Layers bottom first, then the config.
    pub blobs: Vec<Blob>,
    /// The manifest.
    pub manifest: Blob,
    /// For indexes.
    pub architecture: String,
}

impl Image {
    /// An image of one layer.
    pub fn of(layer: Layer) -> Self {
        Self { layers: vec![layer], ..Self::default() }
    }

    /// Puts one more layer on top.
    #[must_use]
    pub fn layer(mut self, layer: Layer) -> Self {
        self.layers.push(layer);
        self
    }

    /// Replaces the command.
    #[must_use]
    pub fn cmd(mut self, cmd: &[&str]) -> Self {
        self.run.cmd = cmd.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Replaces the user.
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        self.run.user = user.into();
        self
    }

    /// Adds a label; also the way to make an image that differs from another in nothing else.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.run.labels.insert(key.into(), value.into());
        self
    }

    /// Compresses the layers and makes config and manifest.
    pub fn build(&self) -> Result<Built> {
        let layers = self.layers.iter().map(Layer::compress).collect::<Result<Vec<_>>>()?;
        self.assemble(layers)
    }

    /// As [`Self::build`], from layers that are compressed already.
    pub fn assemble(&self, layers: Vec<layer::Compressed>) -> Result<Built> {
        let diff_ids: Vec<_> = layers.iter().map(|layer| layer.diff_id.clone()).collect();
        let config = json!({
            "created": "2026-01-01T00:00:00Z",
            "architecture": self.architecture,
            "os": "linux",
            "config": self.run,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let (config_type, manifest_type) = match self.format {
            Format::Oci => {
                ("application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.manifest.v1+json")
            }
            Format::Docker => (
                "application/vnd.docker.container.image.v1+json",
                "application/vnd.docker.distribution.manifest.v2+json",
            ),
        };
        let config = Blob::new(config_type, serde_json::to_vec(&config)?);
        let mut blobs: Vec<_> = layers
            .into_iter()
            .map(|layer| Blob { media_type: layer.compression.media_type(self.format).into(), ..layer.blob })
            .collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": manifest_type,
            "config": config.descriptor(),
            "layers": blobs.iter().map(Blob::descriptor).collect::<Vec<_>>(),
        });
        blobs.push(config);
        let manifest = Blob::new(manifest_type, serde_json::to_vec(&manifest)?);
        Ok(Built { blobs, manifest, architecture: self.architecture.clone() })
    }
}

impl Built {
    /// `sha256:HEX` of the manifest.
    pub fn digest(&self) -> &str {
        &self.manifest.digest
    }

    /// `sha256:HEX` of the config.
    pub fn config_digest(&self) -> &str {
        self.blobs.last().map_or("", |blob| &blob.digest)
    }
}

/// An index (manifest list) over images, each for its own architecture (`arm/v7`: with a variant).
pub fn index(format: Format, images: &[Built]) -> Result<Blob> {
    let kind = match format {
        Format::Oci => "application/vnd.oci.image.index.v1+json",
        Format::Docker => "application/vnd.docker.distribution.manifest.list.v2+json",
    };
    let manifests: Vec<_> = images
        .iter()
        .map(|image| {
            let mut descriptor = image.manifest.descriptor();
            descriptor["platform"] = match image.architecture.split_once('/') {
                None => json!({ "os": "linux", "architecture": image.architecture }),
                Some((name, variant)) => json!({ "os": "linux", "architecture": name, "variant": variant }),
            };
            descriptor
        })
        .collect();
    let index = json!({ "schemaVersion": 2, "mediaType": kind, "manifests": manifests });
    Ok(Blob::new(kind, serde_json::to_vec(&index)?))
}
