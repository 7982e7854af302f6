//! An image as Berth keeps it: its record, and the part of its config that containers need.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::drivers::store::Record;
use crate::ids::Digest;

/// A whole image: every layer is unpacked, every blob verified.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// Digest of the config blob, of an artifact that of the manifest: the one id of an image everywhere in CRI.
    pub id: Digest,
    /// Digest of the manifest of this platform.
    pub manifest: Digest,
    /// `registry/repository:tag`, normalised.
    pub tags: BTreeSet<String>,
    /// `registry/repository@sha256:...`, normalised.
    pub digests: BTreeSet<String>,
    /// Layers to mount, bottom first: ids for `Layout::layer`. Ends with the layer of restored directories, if any.
    pub layers: Vec<Digest>,
    /// Bytes on disk: unpacked layers and small blobs.
    pub size: u64,
    /// What containers need of the config.
    pub config: ImageConfig,
    /// The type of an OCI artifact: its only layer has files, no root that something could run in.
    #[serde(default)]
    pub artifact: Option<String>,
    /// Manifests, config, and packed layers, as far as they are kept, with their sizes in bytes.
    pub blobs: BTreeMap<Digest, u64>,
    /// Nobody sees it any more, but containers that were made of it still use its layers.
    #[serde(default)]
    pub removed: bool,
    /// All its names were taken from it, because the policy that is in force admits none of them: nothing new runs of it
    /// until a pull brings it a name again.
    #[serde(default)]
    pub withheld: bool,
}

/// The execution parameters (image-spec, config.md "config").
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// USER, as written.
    pub user: String,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// ENTRYPOINT.
    pub entrypoint: Vec<String>,
    /// CMD.
    pub cmd: Vec<String>,
    /// WORKDIR.
    pub working_dir: String,
    /// STOPSIGNAL, as written.
    pub stop_signal: String,
    /// VOLUME paths, as written.
    pub volumes: Vec<String>,
    /// LABEL.
    pub labels: BTreeMap<String, String>,
    /// GOOS of the image.
    pub os: String,
    /// GOARCH of the image.
    pub architecture: String,
}

impl Image {
    /// The same where nobody sees it any more.
    pub fn removed(&self) -> Self {
        Self { tags: BTreeSet::new(), digests: BTreeSet::new(), removed: true, ..self.clone() }
    }

    /// How people know it.
    pub fn name(&self) -> String {
        self.tags.first().or(self.digests.first()).cloned().unwrap_or_else(|| self.id.to_string())
    }
}

impl Record for Image {
    const TABLE: &'static str = "images";
}
