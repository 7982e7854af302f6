//! What images occupy, from records: no walk over the disk. What does not live here: what containers write.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Images;
use super::layer::Layer;

/// Layers are counted once, however many images share them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes on disk.
    pub bytes: u64,
    /// Inodes on disk.
    pub inodes: u64,
}

impl Images {
    /// Of all layers and blobs, also of layers that wait for the rest of their image, and of what has arrived of others.
    pub fn usage(&self) -> Usage {
        let (layers, blobs) = (self.layer_usage(), self.blob_usage());
        let bytes = layers.bytes + blobs.bytes + self.shared.layers.spooled();
        Usage { bytes, inodes: layers.inodes + blobs.inodes }
    }

    /// Of all layers.
    pub fn layer_usage(&self) -> Usage {
        let add = |usage: Usage, layer: &Arc<Layer>| Usage {
            bytes: usage.bytes + layer.bytes,
            inodes: usage.inodes + layer.inodes,
        };
        self.shared.catalog().layers().fold(Usage::default(), add)
    }

    /// Of all manifests and configs.
    pub fn blob_usage(&self) -> Usage {
        let catalog = self.shared.catalog();
        let blobs: BTreeMap<_, _> = catalog.all().flat_map(|image| &image.blobs).collect();
        Usage { bytes: blobs.values().copied().sum(), inodes: blobs.len() as u64 }
    }

    /// Unpacked layers.
    pub fn layer_count(&self) -> usize {
        self.shared.catalog().layers().count()
    }
}
