//! All images and layers in memory, and who uses them. What does not live here: records and files.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::image::Image;
use super::layer::Layer;
use crate::ids::Digest;

/// Kept equal to the records by `Images`.
#[derive(Debug, Default)]
pub struct Catalog {
    images: HashMap<Digest, Arc<Image>>,
    layers: HashMap<Digest, Arc<Layer>>,
    layer_holds: HashMap<Digest, usize>,
    image_holds: HashMap<Digest, usize>,
    /// Damaged layers whose files are still there.
    quarantined: HashSet<Digest>,
}

/// What nobody uses.
#[derive(Debug, Default)]
pub struct Unused {
    /// Removed images that no container uses any more.
    pub images: Vec<Arc<Image>>,
    /// Layers that no other image has and nobody holds.
    pub layers: Vec<Arc<Layer>>,
    /// Blobs that no other image keeps, with their sizes in bytes.
    pub blobs: Vec<(Digest, u64)>,
}

impl Unused {
    /// Nothing at all.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty() && self.layers.is_empty()
    }
}

impl Catalog {
    /// An image, visible or not.
    pub fn image(&self, id: &Digest) -> Option<&Arc<Image>> {
        self.images.get(id)
    }

    /// Visible images, in the order of ids.
    pub fn visible(&self) -> Vec<Arc<Image>> {
        let mut images: Vec<_> = self.images.values().filter(|image| !image.removed).cloned().collect();
        images.sort_by(|a, b| a.id.cmp(&b.id));
        images
    }

    /// Every image.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Image>> {
        self.images.values()
    }

    /// The visible image with a tag or digest reference in normal form.
    pub fn named(&self, name: &str) -> Option<&Arc<Image>> {
        let has = |image: &&Arc<Image>| image.tags.contains(name) || image.digests.contains(name);
        self.images.values().filter(|image| !image.removed).find(has)
    }

    /// The only visible image whose id starts so.
    pub fn with_prefix(&self, digits: &str) -> Option<&Arc<Image>> {
        let starts = |image: &&Arc<Image>| !image.removed && image.id.digits().starts_with(digits);
        let mut found = self.images.values().filter(starts);
        let first = found.next()?;
        found.next().is_none().then_some(first)
    }

    pub fn put_image(&mut self, image: Arc<Image>) {
        self.images.insert(image.id.clone(), image);
    }

    pub fn drop_image(&mut self, id: &Digest) {
        self.images.remove(id);
    }

    pub fn layer(&self, id: &Digest) -> Option<&Arc<Layer>> {
        self.layers.get(id)
    }

    pub fn put_layer(&mut self, layer: Layer) {
        self.layers.insert(layer.id.clone(), Arc::new(layer));
    }

    pub fn drop_layer(&mut self, id: &Digest) {
        self.layers.remove(id);
    }

    pub fn layers(&self) -> impl Iterator<Item = &Arc<Layer>> {
        self.layers.values()
    }

    /// Keeps layers, present or not yet, from being collected.
    pub fn hold_layers(&mut self, layers: &[Digest]) {
        layers.iter().for_each(|id| *self.layer_holds.entry(id.clone()).or_default() += 1);
    }

    pub fn release_layers(&mut self, layers: &[Digest]) {
        layers.iter().for_each(|id| release(&mut self.layer_holds, id));
    }

    pub fn hold_image(&mut self, id: &Digest) {
        *self.image_holds.entry(id.clone()).or_default() += 1;
    }

    pub fn release_image(&mut self, id: &Digest) {
        release(&mut self.image_holds, id);
    }

    pub fn is_held(&self, image: &Digest) -> bool {
        self.image_holds.contains_key(image)
    }

    pub fn is_layer_held(&self, layer: &Digest) -> bool {
        self.layer_holds.contains_key(layer)
    }

    pub fn unused(&self) -> Unused {
        let ended = |image: &&Arc<Image>| image.removed && !self.is_held(&image.id);
        let (images, others): (Vec<_>, Vec<_>) = self.images.values().partition(ended);
        let used: HashSet<&Digest> = others.iter().flat_map(|image| &image.layers).collect();
        let kept: HashSet<&Digest> = others.iter().flat_map(|image| image.blobs.keys()).collect();
        let free = |layer: &&Arc<Layer>| !used.contains(&layer.id) && !self.is_layer_held(&layer.id);
        let layers = self.layers.values().filter(free).cloned().collect();
        let blobs: BTreeMap<_, _> = images.iter().flat_map(|image| image.blobs.clone()).collect();
        let blobs = blobs.into_iter().filter(|(digest, _)| !kept.contains(digest)).collect();
        Unused { images: images.into_iter().cloned().collect(), layers, blobs }
    }

    pub fn put_quarantined(&mut self, layer: Digest) {
        self.quarantined.insert(layer);
    }

    /// Forgets the damaged layers that nobody holds.
    pub fn release_quarantined(&mut self) {
        self.quarantined.retain(|id| self.layer_holds.contains_key(id));
    }

    /// Whether a removed image or a damaged layer waits for nobody any more.
    pub fn has_ended(&self) -> bool {
        let mut removed = self.images.values().filter(|image| image.removed);
        removed.any(|image| !self.is_held(&image.id))
            || self.quarantined.iter().any(|id| !self.is_layer_held(id))
    }

    /// Blobs that some image keeps.
    pub fn blobs(&self) -> BTreeSet<Digest> {
        self.images.values().flat_map(|image| image.blobs.keys().cloned()).collect()
    }
}

fn release(holds: &mut HashMap<Digest, usize>, id: &Digest) {
    if let Some(count) = holds.get_mut(id) {
        *count -= 1;
        if *count == 0 {
            holds.remove(id);
        }
    }
}
