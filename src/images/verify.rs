//! Whether the disk still has what was written: every layer against its seal, every blob against its digest. What is
//! damaged goes out of use, so that the next pull brings it anew. What does not live here: reading (drivers/layers).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::error::ImageError;
use super::image::Image;
use super::layer::Layer;
use super::remove::LayerHold;
use super::{Images, Shared, store_error};
use crate::drivers::store::{Durability, Transaction};
use crate::error::chain;
use crate::ids::Digest;

/// Bytes read between two rests.
const STRIDE: u64 = 8 << 20;
/// The longest rest.
const REST_MAX: Duration = Duration::from_millis(500);

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Which.
    pub id: Digest,
    /// Of which kind.
    pub part: Part,
    /// Bytes on disk.
    pub bytes: u64,
    /// Names of the images that have it.
    pub images: Vec<String>,
    /// What it is like.
    pub state: State,
}

/// A part of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// An unpacked layer.
    Layer,
    /// A manifest or config, or a packed layer.
    Blob,
}

/// What a part is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// As it was written.
    Whole,
    /// It was unpacked by a version that did not seal layers.
    Unsealed,
    /// Not as it was written, and now out of use; why.
    Damaged(String),
}

impl Images {
    /// Looks at all parts of these images, of all images without names, and tells of each as it is done. Ends early if
    /// nobody listens any more. Reading takes half of the time, and has the lowest priority.
    pub async fn verify(&self, names: &[String], tell: mpsc::Sender<Verified>) -> Result<(), ImageError> {
        self.verify_parts(names, tell).await?;
        // A layer whose image was removed meanwhile was held.
        self.collect().await
    }

    async fn verify_parts(&self, names: &[String], tell: mpsc::Sender<Verified>) -> Result<(), ImageError> {
        let shared = &self.shared;
        let wanted =
            names.iter().map(|name| self.find(name).ok_or_else(|| ImageError::Unknown(name.clone())));
        let wanted: Vec<_> = wanted.collect::<Result<_, _>>()?;
        let layers: Vec<Arc<Layer>> = {
            let catalog = shared.catalog();
            let wanted = |layer: &&Arc<Layer>| {
                names.is_empty() || wanted.iter().any(|image| image.layers.contains(&layer.id))
            };
            catalog.layers().filter(wanted).cloned().collect()
        };
        for layer in layers {
            if let Some(verified) = shared.verify_layer(layer).await?
                && tell.send(verified).await.is_err()
            {
                return Ok(());
            }
        }
        let images = if names.is_empty() { self.list() } else { wanted };
        for blob in images.iter().flat_map(|image| image.blobs.keys()).collect::<BTreeSet<_>>() {
            if let Some(verified) = shared.verify_blob(blob).await?
                && tell.send(verified).await.is_err()
            {
                return Ok(());
            }
        }
        Ok(())
    }
}

impl Shared {
    /// None if it is gone meanwhile.
    async fn verify_layer(self: &Arc<Self>, layer: Arc<Layer>) -> Result<Option<Verified>, ImageError> {
        let id = layer.id.clone();
        let _hold = LayerHold::new(self, vec![id.clone()]);
        if self.catalog().layer(&id).is_none() {
            return Ok(None);
        }
        let images = self.names_of(|image| image.layers.contains(&id));
        let state = match layer.seal {
            None => State::Unsealed,
            Some(seal) => {
                let (layers, id) = (self.layers.clone(), id.clone());
                let look = move |progress: &mut dyn FnMut(u64)| layers.inspect(&id, progress);
                match self.reading(look).await? {
                    Ok(found) if found.seal == seal => State::Whole,
                    Ok(_) => State::Damaged("its files are not what was unpacked".into()),
                    Err(error) => State::Damaged(chain(&error)),
                }
            }
        };
        if let State::Damaged(problem) = &state {
            tracing::error!(layer = %id, ?images, problem, "a layer is damaged and goes to quarantine; pull its images again");
            self.quarantine(&layer).await?;
        }
        Ok(Some(Verified { id, part: Part::Layer, bytes: layer.bytes, images, state }))
    }

    /// Has something read in the background, with rests.
    async fn reading<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut dyn FnMut(u64)) -> T + Send + 'static,
    ) -> Result<T, ImageError> {
        let (done, waiting) = oneshot::channel();
        self.verifying.push(move || {
            let mut pace = Pace { read: 0, rested: Instant::now() };
            let _ = done.send(read(&mut |bytes| pace.read(bytes)));
        });
        waiting.await.map_err(|_| ImageError::Interrupted { image: String::new() })
    }

    /// The files first, then the records: what a crash leaves in between is an image without one of its layers, which
    /// the next start removes. Containers that run on the layer keep its files.
    async fn quarantine(&self, layer: &Arc<Layer>) -> Result<(), ImageError> {
        let _records = self.records.lock().await;
        if !self.catalog().layer(&layer.id).is_some_and(|now| Arc::ptr_eq(now, layer)) {
            return Ok(());
        }
        let id = layer.id.clone();
        self.blocking("", move |cache| cache.quarantine(&id)).await?;
        let mut transaction = Transaction::new();
        transaction.delete::<Layer>(layer.id.as_str());
        {
            let mut catalog = self.catalog();
            let visible = catalog.visible();
            catalog.drop_layer(&layer.id);
            catalog.put_quarantined(layer.id.clone());
            for image in visible.iter().filter(|image| image.layers.contains(&layer.id)) {
                let ghost = image.removed();
                transaction.put(image.id.as_str(), &ghost).map_err(store_error(&image.name()))?;
                catalog.put_image(Arc::new(ghost));
            }
        }
        self.store.commit(transaction, Durability::Power).await.map_err(store_error(""))
    }

    /// A damaged blob is removed: nothing runs from it, and the next pull of its image keeps a manifest or config anew.
    /// None if it is gone meanwhile.
    async fn verify_blob(&self, blob: &Digest) -> Result<Option<Verified>, ImageError> {
        let images = self.names_of(|image| image.blobs.contains_key(blob));
        let (layers, id) = (self.layers.clone(), blob.clone());
        let look = move |progress: &mut dyn FnMut(u64)| layers.inspect_blob(&id, progress);
        let (bytes, problem) = match self.reading(look).await? {
            Ok(Some(bytes)) => (bytes, None),
            Ok(None) => (0, Some("its bytes do not have this digest".to_string())),
            Err(error) => (0, Some(error.to_string())),
        };
        let state = problem.map_or(State::Whole, State::Damaged);
        if state != State::Whole {
            let _records = self.records.lock().await;
            if !self.catalog().blobs().contains(blob) {
                return Ok(None);
            }
            tracing::error!(%blob, ?images, "a blob is damaged and is removed; pull its images again");
            let id = blob.clone();
            self.blocking("", move |layers| layers.remove_blob(&id)).await?;
        }
        Ok(Some(Verified { id: blob.clone(), part: Part::Blob, bytes, images, state }))
    }

    fn names_of(&self, has: impl Fn(&Image) -> bool) -> Vec<String> {
        self.catalog().visible().iter().filter(|image| has(image)).map(|image| image.name()).collect()
    }
}

struct Pace {
    read: u64,
    rested: Instant,
}

impl Pace {
    fn read(&mut self, bytes: u64) {
        self.read += bytes;
        if self.read >= STRIDE {
            std::thread::sleep(self.rested.elapsed().min(REST_MAX));
            (self.read, self.rested) = (0, Instant::now());
        }
    }
}
