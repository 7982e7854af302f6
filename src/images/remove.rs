//! Removing images, and holding them against it. What does not live here: deciding which to remove (the kubelet does).

use std::sync::Arc;

use tokio::sync::oneshot;
use tracing::Instrument;

use super::error::ImageError;
use super::image::Image;
use super::layer::Layer;
use super::{Images, Shared, store_error};
use crate::activity::{self, Verb};
use crate::drivers::store::{Durability, Transaction};
use crate::drivers::trash::HURRY;
use crate::error::chain;
use crate::ids::Digest;
use crate::telemetry::subject;

/// An image in use: its layers stay until this is dropped, also if the image is removed meanwhile.
pub struct Hold {
    shared: Arc<Shared>,
    image: Arc<Image>,
}

impl Hold {
    /// What is held.
    pub fn image(&self) -> &Image {
        &self.image
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let ended = {
            let mut catalog = self.shared.catalog();
            catalog.release_layers(&self.image.layers);
            catalog.release_image(&self.image.id);
            catalog.has_ended()
        };
        if !ended {
            return;
        }
        // Without a runtime the daemon is stopping; the next one collects.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let shared = Arc::clone(&self.shared);
            runtime.spawn(async move {
                if let Err(error) = shared.collect().await {
                    tracing::warn!(
                        error = chain(&error),
                        "cannot collect the layers of a removed image; the next removal does"
                    );
                }
                drop(shared.empty_trash());
            });
        }
    }
}

/// Why a name gives a new container no image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotHeld {
    /// Nothing here has it.
    Unknown,
    /// The policy has not admitted what has it.
    Withheld,
}

/// Layers that are being put together: nobody collects them meanwhile.
pub struct LayerHold {
    shared: Arc<Shared>,
    layers: Vec<Digest>,
}

impl LayerHold {
    pub(super) fn new(shared: &Arc<Shared>, layers: Vec<Digest>) -> Self {
        shared.catalog().hold_layers(&layers);
        Self { shared: Arc::clone(shared), layers }
    }
}

impl Drop for LayerHold {
    fn drop(&mut self) {
        self.shared.catalog().release_layers(&self.layers);
    }
}

impl Images {
    /// For a new container, by any name that `find` knows.
    pub fn hold_named(&self, name_or_id: &str) -> Result<Hold, NotHeld> {
        let image = self.find(name_or_id).ok_or(NotHeld::Unknown)?;
        if image.withheld {
            return Err(NotHeld::Withheld);
        }
        self.hold(&image.id).ok_or(NotHeld::Unknown)
    }

    /// For a container, for as long as it exists. Finds removed images too: a container that was made before is told
    /// to the new daemon after a restart. `None`: there is no such image.
    pub fn hold(&self, image: &Digest) -> Option<Hold> {
        let mut catalog = self.shared.catalog();
        let image = Arc::clone(catalog.image(image)?);
        catalog.hold_layers(&image.layers);
        catalog.hold_image(&image.id);
        Some(Hold { shared: Arc::clone(&self.shared), image })
    }

    /// Removes an image with all its names; fine if there is none. It is gone from every list at once; what it alone took
    /// of the disk is free when this returns, if that takes no more than `HURRY`.
    pub async fn remove(&self, name_or_id: &str) -> Result<(), ImageError> {
        let Some(image) = self.find(name_or_id) else {
            return Ok(());
        };
        subject::note_image(&name_or_id);
        let shared = Arc::clone(&self.shared);
        let name = name_or_id.to_string();
        let interrupted = ImageError::Interrupted { image: name.clone() };
        let (subject, id) = (name.clone(), image.id.to_string());
        let remove = async move { shared.remove(&name, &image.id).await };
        let remove = activity::track(Verb::RemoveImage, subject, &id, remove);
        tokio::spawn(remove.in_current_span()).await.map_err(|_| interrupted)?
    }

    /// Frees everything that no image and no container uses: once at start, when all containers hold their images.
    pub async fn collect(&self) -> Result<(), ImageError> {
        self.shared.collect().await?;
        drop(self.shared.empty_trash());
        Ok(())
    }
}

impl Shared {
    async fn remove(self: Arc<Self>, name: &str, id: &Digest) -> Result<(), ImageError> {
        {
            let _records = self.records.lock().await;
            let Some(image) = self.catalog().image(id).cloned() else {
                return Ok(());
            };
            // Where nobody holds it, what is collected next is synced, and this with it.
            let held = self.catalog().is_held(id);
            let durability = if held { Durability::Power } else { Durability::Process };
            let ghost = image.removed();
            self.store.put(id.as_str(), &ghost, durability).await.map_err(store_error(name))?;
            self.catalog().put_image(Arc::new(ghost));
        }
        self.collect().await?;
        // A kubelet whose disk is full measures next, and evicts pods for space that is not free yet. What takes longer
        // goes on behind its back.
        let _ = tokio::time::timeout(HURRY, self.empty_trash()).await;
        Ok(())
    }

    /// Records go first, then files: what a crash leaves in between has no record, and goes at the next start.
    pub(super) async fn collect(self: &Arc<Self>) -> Result<(), ImageError> {
        let _records = self.records.lock().await;
        let shared = Arc::clone(self);
        self.blocking("", move |cache| {
            cache.release_quarantined(|id| shared.catalog().is_layer_held(id))?;
            shared.catalog().release_quarantined();
            Ok(())
        })
        .await?;
        let unused = {
            let mut catalog = self.catalog();
            let unused = catalog.unused();
            unused.images.iter().for_each(|image| catalog.drop_image(&image.id));
            unused.layers.iter().for_each(|layer| catalog.drop_layer(&layer.id));
            unused
        };
        if unused.is_empty() {
            return Ok(());
        }
        let mut transaction = Transaction::new();
        unused.images.iter().for_each(|image| transaction.delete::<Image>(image.id.as_str()));
        unused.layers.iter().for_each(|layer| transaction.delete::<Layer>(layer.id.as_str()));
        self.store.commit(transaction, Durability::Power).await.map_err(store_error(""))?;
        self.blocking("", move |cache| {
            unused.layers.iter().try_for_each(|layer| cache.discard(&layer.id))?;
            unused.blobs.iter().try_for_each(|(blob, _)| cache.remove_blob(blob))
        })
        .await
    }

    /// Frees what was discarded, in the background; ends when that is done.
    pub(super) fn empty_trash(&self) -> oneshot::Receiver<()> {
        self.layers.empty_trash()
    }
}
