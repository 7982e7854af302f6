//! OCI artifacts: what is stored like an image and is none. Its blobs become the files of one read-only directory, named by
//! their titles, so that a volume can show them. What does not live here: writing files (drivers/layers), mounting.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::join_all;

use super::assemble::Plan;
use super::chunks::feed;
use super::error::ImageError;
use super::image::Image;
use super::layer::Layer;
use super::manifest::{Config, Descriptor, Manifest, ManifestError};
use super::progress::Phase;
use super::publish::Names;
use super::remove::LayerHold;
use super::source::Source;
use super::{Shared, store_error};
use crate::drivers::layers::{LayerError, Staged};
use crate::drivers::store::Durability;
use crate::ids::Digest;

/// Where an artifact's author writes a file's name (image-spec, annotations.md).
const TITLE: &str = "org.opencontainers.image.title";
/// Linux's NAME_MAX.
const NAME_MAX: usize = 255;
/// Files of one artifact.
const FILES_MAX: usize = 4096;

/// The names of an artifact's files, one for each blob: its title, or without one its digest as `sha256-DIGITS`. A title
/// that is no plain name is refused, and so is one that two files have: there is no telling which was meant.
fn names(manifest: &Manifest) -> Result<Vec<String>, ManifestError> {
    let digest = || manifest.digest.clone();
    let files = manifest.layers.len();
    if files > FILES_MAX {
        return Err(ManifestError::TooManyFiles { digest: digest(), files, most: FILES_MAX });
    }
    let mut taken = BTreeSet::new();
    let name = |blob: &Descriptor| {
        let title = blob.annotations.as_ref().and_then(|annotations| annotations.get(TITLE));
        let name = title.cloned().unwrap_or_else(|| format!("sha256-{}", blob.digest.digits()));
        let problem = match problem(&name) {
            None if taken.insert(name.clone()) => return Ok(name),
            None => "another file has that title too",
            Some(problem) => problem,
        };
        let title = name.chars().take(80).collect();
        Err(ManifestError::Title { digest: digest(), title, problem })
    };
    manifest.layers.iter().map(name).collect()
}

fn problem(name: &str) -> Option<&'static str> {
    match name {
        "" | "." | ".." => Some("it is no name"),
        name if name.contains('/') => Some("it is a path, not a plain name"),
        name if name.contains(char::is_control) => Some("it contains control characters"),
        name if name.len() > NAME_MAX => Some("it is longer than 255 bytes"),
        _ => None,
    }
}

/// One file to be fetched.
struct Task {
    plan: Arc<Plan>,
    index: usize,
    name: String,
    staged: Arc<Staged>,
}

impl Shared {
    /// From an artifact's manifest to an image with these names.
    pub(super) async fn build_artifact(
        self: Arc<Self>,
        source: Source,
        manifest: Manifest,
        blobs: Vec<(Digest, Vec<u8>)>,
        given: Names,
    ) -> Result<Arc<Image>, ImageError> {
        let files: Arc<[String]> = names(&manifest).map_err(|error| source.bad(error))?.into();
        let (key, image) = (manifest.digest.clone(), Arc::clone(&source.image));
        let meters = self.meters.of(&manifest.layers);
        source.progress.show(&meters);
        let plan = Arc::new(Plan { source, manifest, config: Config::default(), blobs, meters });
        let work = || Arc::clone(&self).assemble_artifact(Arc::clone(&plan), Arc::clone(&files));
        let made = self.images.run(key, &image, work).await?;
        self.name(&image, made, given).await
    }

    /// Fetches all files at once, and keeps them as one layer under the manifest's digest.
    async fn assemble_artifact(
        self: Arc<Self>,
        plan: Arc<Plan>,
        files: Arc<[String]>,
    ) -> Result<Arc<Image>, ImageError> {
        let (id, image) = (plan.id().clone(), Arc::clone(&plan.source.image));
        let _hold = LayerHold::new(&self, vec![id.clone()]);
        let kept = self.catalog().layer(&id).is_some();
        if kept {
            plan.meters.iter().for_each(|meter| meter.settle(Phase::Present));
            return self.publish(&plan, vec![id]).await;
        }
        let staged = Arc::new(self.blocking(&image, super::Layers::files).await?);
        let fetches = files.iter().enumerate().map(|(index, name)| {
            let (plan, name, staged) = (Arc::clone(&plan), name.clone(), Arc::clone(&staged));
            self.fetch_file(Task { plan, index, name, staged })
        });
        join_all(fetches).await.into_iter().collect::<Result<(), _>>()?;
        {
            let _records = self.records.lock().await;
            let name = id.clone();
            let sealed = self.blocking(&image, move |layers| layers.commit(&staged, &name)).await?;
            let layer = Layer::empty(id.clone()).sealed(sealed);
            self.store.put(id.as_str(), &layer, Durability::Power).await.map_err(store_error(&image))?;
            self.catalog().put_layer(layer);
        }
        self.publish(&plan, vec![id]).await
    }

    /// Fetches and writes one file, and verifies it.
    async fn fetch_file(&self, task: Task) -> Result<(), ImageError> {
        let Task { plan, index, name, staged } = task;
        let (blob, meter) = (&plan.manifest.layers[index], &plan.meters[index]);
        let image = plan.source.image.to_string();
        let interrupted = || ImageError::Interrupted { image: image.clone() };
        let _permit = self.permits.acquire().await.map_err(|_| interrupted())?;
        let (to, mut chunks) = feed(self.layers.digest_stream());
        let layers = self.layers.clone();
        let write = move || -> Result<_, LayerError> {
            layers.add_file(&staged, &name, &mut chunks)?;
            let (digest, _) = chunks.finish();
            Ok(digest)
        };
        let mut work = tokio::task::spawn_blocking(write);
        let failed = |source| {
            let (image, layer) = (image.clone(), blob.digest.clone());
            ImageError::Layer { image, layer, source: Arc::new(source) }
        };
        // The writer ends before the feeder only where it fails: on a full disk the rest need not come.
        let fed = tokio::select! {
            biased;
            fed = plan.source.feed(blob, to, meter, None) => fed,
            written = &mut work => {
                written.map_err(|_| interrupted())?.map_err(failed)?;
                return Err(interrupted());
            }
        };
        let digest = work.await.map_err(|_| interrupted())?.map_err(failed)?;
        fed?;
        plan.source.verify(blob, digest)?;
        meter.enter(Phase::Done);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(titles: &[Option<&str>]) -> Manifest {
        let blob = |title: &Option<&str>| {
            let mut json = serde_json::json!({ "mediaType": "x", "digest": Digest::of(b"x"), "size": 1 });
            if let Some(title) = title {
                json["annotations"] = serde_json::json!({ TITLE: title });
            }
            serde_json::from_value::<Descriptor>(json).unwrap()
        };
        let layers: Vec<_> = titles.iter().map(blob).collect();
        Manifest { digest: Digest::of(b"m"), config: blob(&None), layers, artifact: Some("x".into()) }
    }

    #[test]
    fn a_file_is_called_by_its_title_or_its_digest() {
        let found = names(&manifest(&[Some("model.bin"), None, Some("..."), Some("a b")])).unwrap();
        let digest = format!("sha256-{}", Digest::of(b"x").digits());
        assert_eq!(found, ["model.bin", &digest, "...", "a b"]);
    }

    #[test]
    fn a_title_that_is_no_plain_name_or_is_taken_is_refused() {
        let long = "x".repeat(256);
        for bad in ["", ".", "..", "/", "a/b", "../x", "/etc/passwd", "a\0b", "a\nb", &long] {
            let error = names(&manifest(&[Some("good"), Some(bad)])).unwrap_err();
            assert!(matches!(&error, ManifestError::Title { .. }), "{bad:?}: {error}");
            assert!(error.to_string().len() < 400);
        }
        assert!(names(&manifest(&[Some("same"), Some("other"), Some("same")])).is_err());
        assert!(names(&manifest(&[None, None])).is_err());
        assert!(names(&manifest(&vec![None; FILES_MAX + 1])).is_err());
    }
}
