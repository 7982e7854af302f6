//! Unpacked layers into the cache: synced, in place, recorded, known. Layers that are ready at the same time share the
//! syncs: what a small layer costs is two of them and little else. What does not live here: unpacking.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::Shared;
use super::error::ImageError;
use super::layer::Layer;
use crate::drivers::layers::{LayerError, Layers, Sealed, Staged};
use crate::drivers::store::{Durability, StoreError, Transaction};
use crate::telemetry;

/// Layers that wait to be kept.
#[derive(Default)]
pub(super) struct Keeping {
    ready: Mutex<Vec<Ready>>,
    turn: tokio::sync::Mutex<()>,
}

struct Ready {
    staged: Staged,
    layer: Layer,
    kept: oneshot::Sender<Result<(), NotKept>>,
}

/// Why a layer could not be kept; several may share the reason.
#[derive(Clone)]
enum NotKept {
    Cache(Arc<LayerError>),
    Store(Arc<StoreError>),
}

impl Keeping {
    fn ready(&self) -> MutexGuard<'_, Vec<Ready>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Keeps a layer. Whoever has the turn does it for all that are ready by then.
    pub(super) async fn keep_layer(
        &self,
        image: &str,
        staged: Staged,
        layer: Layer,
    ) -> Result<(), ImageError> {
        let (kept, result) = oneshot::channel();
        self.keeping.ready().push(Ready { staged, layer, kept });
        {
            let _turn = self.keeping.turn.lock().await;
            let ready = std::mem::take(&mut *self.keeping.ready());
            if !ready.is_empty() {
                self.keep_all(ready).await;
            }
        }
        let image = image.to_string();
        match result.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(NotKept::Cache(source))) => Err(ImageError::Cache { image, source }),
            Ok(Err(NotKept::Store(source))) => Err(ImageError::Store { image, source }),
            Err(_) => Err(ImageError::Interrupted { image }),
        }
    }

    async fn keep_all(&self, ready: Vec<Ready>) {
        let layers = self.layers.clone();
        // An error here means that the daemon is stopping; then nobody waits.
        let Ok(placed) = telemetry::blocking(move || place(&layers, ready)).await else {
            return;
        };
        let mut transaction = Transaction::new();
        let mut added = Vec::with_capacity(placed.len());
        for (layer, kept) in placed {
            match transaction.put(layer.id.as_str(), &layer) {
                Ok(()) => added.push((layer, kept)),
                Err(error) => drop(kept.send(Err(NotKept::Store(Arc::new(error))))),
            }
        }
        let _records = self.records.lock().await;
        let recorded = self.store.commit(transaction, Durability::Power).await;
        let recorded = recorded.map_err(|error| NotKept::Store(Arc::new(error)));
        for (layer, kept) in added {
            if recorded.is_ok() {
                self.catalog().put_layer(layer);
            }
            // Whoever waited may have gone.
            let _ = kept.send(recorded.clone());
        }
    }
}

type Placed = (Layer, oneshot::Sender<Result<(), NotKept>>);

/// Returns those that are in place; the others' are told why not.
fn place(layers: &Layers, ready: Vec<Ready>) -> Vec<Placed> {
    let all: Vec<_> = ready.iter().map(|Ready { staged, layer, .. }| (staged, &layer.id)).collect();
    let results: Vec<Result<Sealed, Arc<LayerError>>> = match layers.commit_all(&all) {
        Ok(results) => results.into_iter().map(|result| result.map_err(Arc::new)).collect(),
        Err(error) => vec![Err(Arc::new(error)); ready.len()],
    };
    let mut placed = Vec::with_capacity(ready.len());
    for (Ready { layer, kept, .. }, result) in ready.into_iter().zip(results) {
        match result {
            Ok(sealed) => placed.push((layer.sealed(sealed), kept)),
            Err(error) => drop(kept.send(Err(NotKept::Cache(error)))),
        }
    }
    placed
}
