//! Everything in the cache that nothing uses, and freeing it at once. The daemon does so by itself, at its start and with
//! each removal; this is for who wants to see it, or does not want to wait. What does not live here: images that no
//! container uses, which are the kubelet's to remove.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::ImageError;
use super::{Images, Shared};
use crate::drivers::disk_usage;
use crate::drivers::layers::{Layers, Spool};
use crate::ids::Digest;
use crate::telemetry::Leak;

/// One thing that nothing uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Garbage {
    /// Which kind.
    pub what: What,
    /// A digest, or its name in its directory.
    pub name: String,
    /// Bytes on disk.
    pub bytes: u64,
}

/// A kind of garbage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Of no image that is there.
    Layer,
    /// A manifest or config of no image that is there.
    Blob,
    /// Files of a layer or blob that no record knows: work that was cut short.
    Unfinished,
    /// What has arrived of a layer whose pull was cut short, and would not be fetched again.
    Spool,
    /// A damaged layer that no container runs on.
    Quarantined,
    /// It was removed already, and its files are about to go.
    Removed,
}

/// All garbage, and what of it no record tells of.
struct Found {
    garbage: Vec<Garbage>,
    strays: Vec<(PathBuf, Leak)>,
    spools: Vec<Spool>,
}

impl Images {
    /// What nothing uses. Unless it is a `dry_run`, it is gone when this returns.
    pub async fn gc(&self, dry_run: bool) -> Result<Vec<Garbage>, ImageError> {
        let shared = &self.shared;
        let garbage = {
            let _records = shared.records.lock().await;
            let finder = Arc::clone(shared);
            let find = move |layers: &Layers| {
                let Found { garbage, strays, spools } = finder.garbage(layers);
                if !dry_run {
                    layers.sweep(&strays)?;
                    spools.into_iter().for_each(Spool::discard);
                }
                Ok(garbage)
            };
            shared.blocking("", find).await?
        };
        if !dry_run {
            tracing::info!(things = garbage.len(), "what nothing uses is removed");
            shared.collect().await?;
            let _ = shared.empty_trash().await;
        }
        Ok(garbage)
    }
}

impl Shared {
    /// The records must not change meanwhile.
    fn garbage(&self, layers: &Layers) -> Found {
        let (unused, blobs) = {
            let catalog = self.catalog();
            (catalog.unused(), catalog.blobs())
        };
        let known = |id: &Digest| {
            let catalog = self.catalog();
            catalog.layer(id).is_some() || catalog.is_layer_held(id)
        };
        let strays = layers.strays(known, |blob| blobs.contains(blob));
        let quarantined = layers.unused_quarantined(|id| self.catalog().is_layer_held(id));
        let of_layers = unused.layers.iter().map(|layer| (What::Layer, layer.id.to_string(), layer.bytes));
        let of_blobs = unused.blobs.iter().map(|(id, bytes)| (What::Blob, id.to_string(), *bytes));
        let paths = strays.iter().map(|(path, _)| (What::Unfinished, path.clone()));
        let paths = paths.chain(quarantined.into_iter().map(|path| (What::Quarantined, path)));
        let paths = paths.chain(layers.trashed().into_iter().map(|path| (What::Removed, path)));
        let of_paths = paths.map(|(what, path)| (what, name(&path), bytes(&path)));
        let spools = layers.idle_spools();
        let of_spools = spools.iter().map(|spool| (What::Spool, spool.blob().to_string(), spool.len()));
        let all = of_layers.chain(of_blobs).chain(of_paths).chain(of_spools);
        let garbage = all.map(|(what, name, bytes)| Garbage { what, name, bytes }).collect();
        Found { garbage, strays, spools }
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn bytes(path: &Path) -> u64 {
    match disk_usage::measure(path, || true) {
        Ok(Some(usage)) => usage.bytes,
        // A file, or gone meanwhile.
        _ => std::fs::symlink_metadata(path).map_or(0, |metadata| metadata.len()),
    }
}
