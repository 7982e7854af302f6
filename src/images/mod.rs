//! Images: references, pulls, removal, usage. No HTTP and no tar here: those are drivers.

mod artifact;
mod assemble;
mod catalog;
mod chunks;
mod error;
mod flight;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod image;
mod import;
mod keep;
mod layer;
mod list;
mod manifest;
mod pinned;
mod platform;
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

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

use crate::drivers::layers::{Config as LayersConfig, LayerError, Layers};
use crate::drivers::registry::Registry;
use crate::drivers::store::{Damaged, Record, Store, StoreError};
use crate::error::chain;
use crate::ids::Digest;
use crate::layout::Layout;
use crate::telemetry;

use self::catalog::Catalog;
pub use self::error::ImageError;
use self::flight::Flights;
use self::image::Image;
use self::keep::Keeping;
use self::layer::Layer;
pub use self::layer::chain_ids;
pub use self::manifest::ManifestError;
pub use self::pinned::Config;
use self::platform::Platform;
use self::progress::{Meters, Pulls};
pub use self::remove::Hold;
pub use self::upload::Upload;
pub use self::usage::Usage;

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
        layout: &Layout,
        store: Arc<Store>,
        registry: Registry,
        config: Config,
        layers: &LayersConfig,
    ) -> Result<Self, ImageError> {
        let failed = |source| ImageError::Cache { image: String::new(), source: Arc::new(source) };
        let layers = Layers::open(layout, layers).map_err(failed)?;
        let mut catalog = Catalog::default();
        for layer in load::<Layer>(&store)? {
            match layers.open_layer(&layer.id) {
                Ok(_) => catalog.put_layer(layer),
                Err(error) => lost::<Layer>(&store, layer.id.as_str(), &error).await?,
            }
        }
        for image in load::<Image>(&store)? {
            match image.layers.iter().find(|id| catalog.layer(id).is_none()) {
                None => catalog.put_image(Arc::new(image)),
                Some(id) => lost::<Image>(&store, image.id.as_str(), &id).await?,
            }
        }
        let blobs = catalog.blobs();
        layers.sweep(|id| catalog.layer(id).is_some(), |blob| blobs.contains(blob)).map_err(failed)?;
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let shared = Shared {
            store,
            registry: Arc::new(registry),
            layers,
            platform: Platform::host(),
            config,
            catalog: Mutex::new(catalog),
            records: tokio::sync::Mutex::new(()),
            images: Flights::default(),
            unpacks: Flights::default(),
            keeping: Keeping::default(),
            meters: Meters::default(),
            pulls: Pulls::default(),
            permits: Arc::new(Semaphore::new((cores * 3).clamp(6, 8))),
            #[cfg(test)]
            unpacked: std::sync::atomic::AtomicUsize::new(0),
        };
        let images = Self { shared: Arc::new(shared) };
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

/// One lost layer takes only its images with it; the kubelet pulls them again.
async fn lost<R: Record>(
    store: &Store,
    key: &str,
    why: &(dyn std::fmt::Display + Sync),
) -> Result<(), ImageError> {
    tracing::warn!(table = R::TABLE, key, missing = %why, "files are missing, so the record is dropped");
    store.delete::<R>(key, crate::drivers::store::Durability::Process).await.map_err(store_error(key))
}
