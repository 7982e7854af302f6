//! What images occupy, from records: no walk over the disk. What does not live here: what containers write.

use super::Images;

/// Layers are counted once, however many images share them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes on disk.
    pub bytes: u64,
    /// Inodes on disk.
    pub inodes: u64,
}

impl Images {
    /// Of all layers and blobs, also of layers that wait for the rest of their image.
    pub fn usage(&self) -> Usage {
        let catalog = self.shared.catalog();
        let mut usage = Usage::default();
        for layer in catalog.layers() {
            usage.bytes += layer.bytes;
            usage.inodes += layer.inodes;
        }
        let blobs: std::collections::BTreeMap<_, _> = catalog.all().flat_map(|image| &image.blobs).collect();
        usage.bytes += blobs.values().copied().sum::<u64>();
        usage.inodes += blobs.len() as u64;
        usage
    }
}
