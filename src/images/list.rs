//! Finding images, from memory. What does not live here: anything that changes them.

use std::sync::Arc;

use super::Images;
use super::image::Image;
use super::progress::Pulling;
use super::reference::Reference;
use crate::ids::Digest;

/// Shortest part of an id that finds an image, in digits.
const PREFIX_MIN: usize = 12;

impl Images {
    /// All images, in the order of ids.
    pub fn list(&self) -> Vec<Arc<Image>> {
        self.shared.catalog().visible()
    }

    /// The blob that an image's id is the digest of: its config, an artifact's manifest. None if it is damaged.
    pub async fn config_blob(&self, id: &Digest) -> Option<Vec<u8>> {
        let (layers, id) = (self.shared.layers.clone(), id.clone());
        tokio::task::spawn_blocking(move || layers.kept_blob(&id)).await.ok().flatten()
    }

    /// The pulls under way, and how far each is.
    pub fn pulls(&self) -> Vec<Pulling> {
        self.shared.pulls.now()
    }

    /// How many more layers could be unpacked at once.
    pub fn free_permits(&self) -> usize {
        self.shared.permits.available_permits()
    }

    /// Bytes on disk of these layers.
    pub fn layer_sizes(&self, layers: &[Digest]) -> Vec<Option<u64>> {
        let catalog = self.shared.catalog();
        layers.iter().map(|id| catalog.layer(id).map(|layer| layer.bytes)).collect()
    }

    /// By id (with or without `sha256:`), by 12 or more first digits of the id that only one image has, or by a
    /// reference with tag or digest in any form that users write.
    pub fn find(&self, name_or_id: &str) -> Option<Arc<Image>> {
        let catalog = self.shared.catalog();
        if let Ok(id) = Digest::parse(name_or_id) {
            return catalog.image(&id).filter(|image| !image.removed).cloned();
        }
        if let Ok(reference) = Reference::parse(name_or_id) {
            let name = match reference.digest() {
                Some(digest) => Some(reference.digested(digest)),
                None => reference.tagged(),
            };
            if let Some(image) = name.and_then(|name| catalog.named(&name)) {
                return Some(Arc::clone(image));
            }
        }
        let digits = name_or_id.strip_prefix("sha256:").unwrap_or(name_or_id);
        let is_prefix =
            digits.len() >= PREFIX_MIN && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if is_prefix { catalog.with_prefix(digits).cloned() } else { None }
    }
}
