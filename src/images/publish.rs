//! Making a whole image visible, and giving it names. What does not live here: making it.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::assemble::Plan;
use super::error::ImageError;
use super::image::Image;
use super::{Shared, store_error};
use crate::drivers::layers::{LayerError, Layers};
use crate::drivers::store::{Durability, Transaction};
use crate::ids::Digest;

/// Names in normal form.
#[derive(Clone, Debug, Default)]
pub struct Names {
    pub tags: BTreeSet<String>,
    pub digests: BTreeSet<String>,
}

impl Shared {
    /// Keeps the blobs and the record. An image that is known already keeps its names.
    pub(super) async fn publish(
        &self,
        plan: &Arc<Plan>,
        layers: Vec<Digest>,
    ) -> Result<Arc<Image>, ImageError> {
        let name = &plan.source.image;
        let _records = self.records.lock().await;
        let kept = Arc::clone(plan);
        let keep = move |layers: &Layers| -> Result<Vec<(Digest, u64)>, LayerError> {
            kept.blobs.iter().try_for_each(|(digest, bytes)| layers.keep_blob(digest, bytes))?;
            // Those of an image that kept them, whatever the configuration says by now.
            let packed = kept.manifest.layers.iter();
            let packed =
                packed.filter_map(|blob| Some((blob.digest.clone(), layers.blob_size(&blob.digest)?)));
            Ok(packed.collect())
        };
        let packed = self.blocking(name, keep).await?;
        let id = plan.id().clone();
        let known = self.catalog().image(&id).cloned();
        let mut blobs: std::collections::BTreeMap<_, _> =
            plan.blobs.iter().map(|(digest, bytes)| (digest.clone(), bytes.len() as u64)).collect();
        blobs.extend(packed);
        let (mut tags, mut digests) = (BTreeSet::new(), BTreeSet::new());
        let withheld = known.as_ref().is_some_and(|known| known.withheld);
        if let Some(known) = &known {
            blobs.extend(known.blobs.clone());
            if !known.removed {
                (tags, digests) = (known.tags.clone(), known.digests.clone());
            }
        }
        let image = Arc::new(Image {
            id,
            manifest: plan.manifest.digest.clone(),
            tags,
            digests,
            size: self.bytes_of(&layers, &blobs),
            layers,
            config: plan.config.config.clone(),
            artifact: plan.manifest.artifact.clone(),
            blobs,
            removed: false,
            withheld,
        });
        if known.as_ref() != Some(&image) {
            let put = self.store.put(image.id.as_str(), &*image, Durability::Power).await;
            put.map_err(store_error(name))?;
            self.catalog().put_image(Arc::clone(&image));
        }
        Ok(image)
    }

    /// Adds names; a tag leaves the image that had it before.
    pub(super) async fn name(
        &self,
        name: &str,
        image: Arc<Image>,
        names: Names,
    ) -> Result<Arc<Image>, ImageError> {
        let _records = self.records.lock().await;
        let current = self.catalog().image(&image.id).cloned();
        let Some(current) = current.filter(|current| !current.removed) else {
            return Err(ImageError::Interrupted { image: name.to_string() });
        };
        let mut changed = Vec::new();
        for other in self.catalog().all() {
            if other.id != image.id && !other.tags.is_disjoint(&names.tags) {
                let mut other = Image::clone(other);
                other.tags.retain(|tag| !names.tags.contains(tag));
                changed.push(other);
            }
        }
        let mut named = Image::clone(&current);
        named.tags.extend(names.tags);
        named.digests.extend(names.digests);
        named.withheld &= named.tags.is_empty() && named.digests.is_empty();
        if named == *current {
            return Ok(current);
        }
        changed.push(named.clone());
        let mut transaction = Transaction::new();
        for image in &changed {
            transaction.put(image.id.as_str(), image).map_err(store_error(name))?;
        }
        self.store.commit(transaction, Durability::Power).await.map_err(store_error(name))?;
        let mut catalog = self.catalog();
        changed.into_iter().for_each(|image| catalog.put_image(Arc::new(image)));
        Ok(Arc::new(named))
    }
}
