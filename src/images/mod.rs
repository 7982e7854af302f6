//! Images: references, pulls, removal, usage. No HTTP and no tar here: those are drivers.

mod artifact;
mod assemble;
mod catalog;
mod chunks;
mod error;
mod flight;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod gc;
mod glob;
pub mod image;
mod import;
mod keep;
mod layer;
mod list;
mod manifest;
mod pinned;
mod platform;
pub mod policy;
pub mod progress;
mod publish;
mod pull;
pub mod reference;
mod remove;
mod resume;
mod source;
#[cfg(test)]
mod tests;
mod unambiguous;
mod upload;
mod usage;
mod verify;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

use crate::drivers::background::Background;
use crate::drivers::layers::{LayerError, Layers};
use crate::drivers::registry::Registry;
use crate::drivers::store::{Damaged, Durability, Record, Store, StoreError};
use crate::error::chain;
use crate::ids::Digest;
use crate::telemetry;

use self::catalog::Catalog;
pub use self::error::ImageError;
use self::flight::Flights;
pub use self::gc::{Garbage, What};
use self::image::Image;
use self::keep::Keeping;
use self::layer::Layer;
pub use self::layer::chain_ids;
pub use self::manifest::ManifestError;
pub use self::pinned::Config;
use self::platform::Platform;
use self::policy::Policy;
use self::progress::{Meters, Pulls};
pub use self::remove::{Hold, NotHeld};
pub use self::upload::Upload;
pub use self::usage::Usage;
pub use self::verify::{Part, State, Verified};

/// All images of this node. Cheap to clone.
#[derive(Clone)]
pub struct Images {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<Store>,
    registry: Arc<Registry>,
    layers: Layers,
    platform: Platform,
    config: Config,
    policy: Policy,
    catalog: Mutex<Catalog>,
    /// Taken while records of images or layers change, and held until the catalog is equal to them.
    records: tokio::sync::Mutex<()>,
    images: Flights<Digest, Arc<Image>>,
    unpacks: Flights<Digest, Standing>,
    keeping: Keeping,
    meters: Meters,
    pulls: Pulls,
    /// Layers that are unpacked at once: each needs two threads and about 5 MiB, and what its zstd window takes.
    permits: Arc<Semaphore>,
    /// Reads layers that somebody wants to have verified.
    verifying: Background,
    #[cfg(test)]
    unpacked: std::sync::atomic::AtomicUsize,
}

/// How a layer can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It is in the cache.
    Kept,
    /// It cannot be unpacked by itself.
    NeedsParents,
}

impl Shared {
    fn catalog(&self) -> MutexGuard<'_, Catalog> {
        self.catalog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs something that waits for the disk.
    async fn blocking<T, F>(&self, image: &str, work: F) -> Result<T, ImageError>
    where
        T: Send + 'static,
        F: FnOnce(&Layers) -> Result<T, LayerError> + Send + 'static,
    {
        let layers = self.layers.clone();
        let done = telemetry::blocking(move || work(&layers)).await;
        let done = done.map_err(|_| ImageError::Interrupted { image: image.to_string() })?;
        done.map_err(|source| ImageError::Cache { image: image.to_string(), source: Arc::new(source) })
    }
}

fn store_error(image: &str) -> impl Fn(StoreError) -> ImageError {
    move |source| ImageError::Store { image: image.to_string(), source: Arc::new(source) }
}

impl Images {
    /// Reads the records and moves what an earlier daemon left unfinished to the trash, which is emptied in the
    /// background. Layers in use by containers are not known yet: call `collect` once they hold their images.
    pub async fn open(
        layers: Layers,
        store: Arc<Store>,
        registry: Registry,
        config: Config,
    ) -> Result<Self, ImageError> {
        let failed = |source| ImageError::Cache { image: String::new(), source: Arc::new(source) };
        let policy = Policy::load(&config.policy).map_err(|source| ImageError::Policy(Arc::new(source)))?;
        let mut catalog = Catalog::default();
        for layer in load::<Layer>(&store)? {
            match layers.open_layer(&layer.id) {
                Ok(_) => catalog.put_layer(layer),
                Err(error) => {
                    let key = layer.id.as_str();
                    tracing::warn!(layer = key, missing = chain(&error), "a layer's record is dropped");
                    store.delete::<Layer>(key, Durability::Process).await.map_err(store_error(key))?;
                }
            }
        }
        for image in load::<Image>(&store)? {
            match image.layers.iter().find(|id| catalog.layer(id).is_none()) {
                None => catalog.put_image(Arc::new(image)),
                // One lost layer takes only its images with it; the kubelet pulls them again. Containers that run on
                // such an image still hold the layers that it has.
                Some(id) if !image.removed => {
                    let key = image.id.as_str();
                    tracing::warn!(image = image.name(), missing = %id, "an image without all of its layers is removed");
                    let ghost = image.removed();
                    store.put(key, &ghost, Durability::Process).await.map_err(store_error(key))?;
                    catalog.put_image(Arc::new(ghost));
                }
                Some(_) => catalog.put_image(Arc::new(image)),
            }
        }
        let blobs = catalog.blobs();
        let strays = layers.strays(|id| catalog.layer(id).is_some(), |blob| blobs.contains(blob));
        layers.sweep(&strays).map_err(failed)?;
        layers.quarantined().into_iter().for_each(|id| catalog.put_quarantined(id));
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let shared = Shared {
            store,
            registry: Arc::new(registry),
            layers,
            platform: Platform::host(),
            config,
            policy,
            catalog: Mutex::new(catalog),
            records: tokio::sync::Mutex::new(()),
            images: Flights::default(),
            unpacks: Flights::default(),
            keeping: Keeping::default(),
            meters: Meters::default(),
            pulls: Pulls::default(),
            permits: Arc::new(Semaphore::new((cores * 3).clamp(6, 8))),
            verifying: Background::default(),
            #[cfg(test)]
            unpacked: std::sync::atomic::AtomicUsize::new(0),
        };
        let images = Self { shared: Arc::new(shared) };
        images.shared.withhold().await?;
        drop(images.shared.empty_trash());
        Ok(images)
    }
}

fn load<R: Record>(store: &Store) -> Result<Vec<R>, ImageError> {
    let records = store.load::<R>().map_err(store_error(""))?;
    let good = |record: Result<R, Damaged>| match record {
        Ok(record) => Some(record),
        Err(error) => {
            tracing::warn!(error = chain(&error), "a damaged record is passed over");
            None
        }
    };
    Ok(records.into_iter().filter_map(|(_, record)| good(record)).collect())
}
