//! OCI artifacts: files behind a manifest that is no image's, as `oras push` makes them.

use anyhow::Result;
use serde_json::json;

use super::{Blob, Built};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// An artifact to be built.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// Its `artifactType`.
    pub kind: String,
    /// Title, where it has one, and content.
    pub files: Vec<(Option<String>, Vec<u8>)>,
}

impl Artifact {
    /// One without files.
    pub fn new(kind: &str) -> Self {
        Self { kind: kind.into(), files: Vec::new() }
    }

    /// Adds a file.
    #[must_use]
    pub fn file(mut self, title: &str, content: impl Into<Vec<u8>>) -> Self {
        self.files.push((Some(title.into()), content.into()));
        self
    }

    /// Adds a file without a title.
    #[must_use]
    pub fn untitled(mut self, content: impl Into<Vec<u8>>) -> Self {
        self.files.push((None, content.into()));
        self
    }

    /// Makes blobs and manifest.
    pub fn build(&self) -> Result<Built> {
        let config = Blob::new(EMPTY, b"{}".to_vec());
        let mut blobs = Vec::new();
        let mut layers = Vec::new();
        for (title, content) in &self.files {
            let blob = Blob::new("application/octet-stream", content.clone());
            let mut layer = blob.descriptor();
            if let Some(title) = title {
                layer["annotations"] = json!({ "org.opencontainers.image.title": title });
            }
            layers.push(layer);
            blobs.push(blob);
        }
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": self.kind,
            "config": config.descriptor(),
            "layers": layers,
        });
        blobs.push(config);
        let manifest = Blob::new(MANIFEST, serde_json::to_vec(&manifest)?);
        Ok(Built { blobs, manifest, architecture: String::new() })
    }
}
