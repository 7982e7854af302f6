//! From a reference to an image: manifest, platform, config. What does not live here: layers (assemble).

use std::sync::Arc;
use std::time::Instant;

use tracing::{Instrument, debug_span};

use super::assemble::Plan;
use super::error::ImageError;
use super::image::Image;
use super::manifest::{self, Descriptor, Document, INDEX_DEPTH_MAX, MANIFEST_MAX, Manifest, ManifestError};
use super::progress::Progress;
use super::publish::Names;
use super::reference::Reference;
use super::source::{Origin, Source};
use super::{Images, Shared, platform};
use crate::activity::{self, Verb};
use crate::drivers::registry::Credentials;
use crate::ids::Digest;
use crate::telemetry::metrics::{self, OfRegistry, Ongoing};
use crate::telemetry::{METRICS, subject};

/// A document with its bytes.
pub struct Fetched {
    pub digest: Digest,
    pub media_type: String,
    pub bytes: Vec<u8>,
}

impl Images {
    /// Pulls what the reference names for this machine. Every caller proves to the registry that they may; then all
    /// pulls of one manifest, and of one layer, are one. The work goes on if the caller goes away.
    pub async fn pull(
        &self,
        reference: &Reference,
        credentials: &Credentials,
    ) -> Result<Arc<Image>, ImageError> {
        self.pull_watched(reference, credentials, Arc::default()).await
    }

    /// As `pull`, for someone who looks into `progress` meanwhile.
    pub async fn pull_watched(
        &self,
        reference: &Reference,
        credentials: &Credentials,
        progress: Arc<Progress>,
    ) -> Result<Arc<Image>, ImageError> {
        subject::note_image(reference);
        let shared = Arc::clone(&self.shared);
        let image_name = reference.to_string();
        let image: Arc<str> = image_name.as_str().into();
        shared.pulls.add(&progress, &image);
        let origin = Origin::Registry(
            Arc::clone(&shared.registry),
            Arc::new(reference.clone()),
            Arc::new(credentials.clone()),
        );
        let source = Source { image, origin, progress };
        let interrupted = ImageError::Interrupted { image: source.image.to_string() };
        let registry = metrics::registry(reference.registry());
        let pull = async move { measured(registry, shared.pull(source)).await };
        let pull = activity::track(Verb::PullImage, image_name, "", pull);
        tokio::spawn(pull.in_current_span()).await.map_err(|_| interrupted)?
    }
}

/// Counts a pull and takes its time.
async fn measured<T>(
    registry: OfRegistry,
    pull: impl Future<Output = Result<T, ImageError>>,
) -> Result<T, ImageError> {
    let (start, _ongoing) = (Instant::now(), Ongoing::new(&METRICS.pulls_in_progress));
    let result = pull.await;
    match &result {
        Ok(_) => METRICS.pull_duration.get_or_create(&registry).observe(start.elapsed().as_secs_f64()),
        Err(error) => {
            let labels = metrics::failure(&registry, error.kind().name());
            METRICS.pull_failures.get_or_create(&labels).inc();
        }
    }
    result
}

impl Shared {
    async fn pull(self: Arc<Self>, source: Source) -> Result<Arc<Image>, ImageError> {
        let Origin::Registry(registry, reference, credentials) = source.origin.clone() else {
            return Err(ImageError::Interrupted { image: source.image.to_string() });
        };
        activity::step("manifest");
        let top = registry.manifest(&reference, &credentials).instrument(debug_span!("manifest")).await;
        let top = top.map_err(|error| source.registry(error))?;
        let names = Names {
            tags: reference.tagged().into_iter().collect(),
            digests: [reference.digested(&top.digest)].into(),
        };
        let top = Fetched { digest: top.digest, media_type: top.media_type, bytes: top.bytes };
        self.resolve(source, top, names).await
    }

    /// From a manifest or index to an image with these names.
    pub(super) async fn resolve(
        self: Arc<Self>,
        source: Source,
        top: Fetched,
        names: Names,
    ) -> Result<Arc<Image>, ImageError> {
        let mut blobs = vec![(top.digest.clone(), top.bytes.clone())];
        let mut current = top;
        for _ in 0..=INDEX_DEPTH_MAX {
            let bad = |error| source.bad(error);
            match manifest::parse(&current.digest, &current.media_type, &current.bytes).map_err(bad)? {
                Document::Manifest(manifest) => {
                    let digests: Vec<_> = blobs.iter().map(|(digest, _)| digest.clone()).collect();
                    self.admit(&source, &names, &digests).await?;
                    return match manifest.artifact {
                        Some(_) => self.build_artifact(source, *manifest, blobs, names).await,
                        None => self.build(source, *manifest, blobs, names).await,
                    };
                }
                Document::Index(manifests) => {
                    current = self.descend(&source, &manifests).await?;
                    blobs.push((current.digest.clone(), current.bytes.clone()));
                }
            }
        }
        Err(source.bad(ManifestError::TooDeep(current.digest)))
    }

    async fn descend(&self, source: &Source, manifests: &[Descriptor]) -> Result<Fetched, ImageError> {
        let Some(chosen) = self.platform.choose(manifests) else {
            return Err(self.no_platform(source, platform::offered(manifests)));
        };
        let bytes = match (self.kept(source, chosen).await?, &source.origin) {
            (Some(bytes), _) => bytes,
            (None, Origin::Registry(registry, reference, credentials)) => {
                let size = Some(chosen.size);
                let fetched = registry.manifest_by_digest(reference, &chosen.digest, size, credentials).await;
                fetched.map_err(|error| source.registry(error))?.bytes
            }
            (None, Origin::Archive(..)) => source.small(chosen, MANIFEST_MAX).await?,
        };
        Ok(Fetched { digest: chosen.digest.clone(), media_type: chosen.media_type.clone(), bytes })
    }

    /// A manifest or config that an image of this node has brought already.
    async fn kept(&self, source: &Source, blob: &Descriptor) -> Result<Option<Vec<u8>>, ImageError> {
        let digest = blob.digest.clone();
        let kept = self.blocking(&source.image, move |layers| Ok(layers.kept_blob(&digest))).await?;
        // A descriptor with a wrong size is for the registry to explain.
        Ok(kept.filter(|bytes| bytes.len() as u64 == blob.size))
    }

    fn no_platform(&self, source: &Source, offered: String) -> ImageError {
        let offered = if offered.is_empty() { "nothing".to_string() } else { offered };
        ImageError::NoPlatform { image: source.image.to_string(), wanted: self.platform.to_string(), offered }
    }

    async fn build(
        self: Arc<Self>,
        source: Source,
        manifest: Manifest,
        mut blobs: Vec<(Digest, Vec<u8>)>,
        names: Names,
    ) -> Result<Arc<Image>, ImageError> {
        let bytes = match self.kept(&source, &manifest.config).await? {
            Some(bytes) => bytes,
            None => source.small(&manifest.config, manifest::CONFIG_MAX).await?,
        };
        activity::step("layers");
        let config = manifest::parse_config(&manifest, &bytes).map_err(|error| source.bad(error))?;
        if self.platform.fit(&config.platform).is_none() {
            return Err(self.no_platform(&source, config.platform.to_string()));
        }
        blobs.push((manifest.config.digest.clone(), bytes));
        let key = manifest.digest.clone();
        let image_name = Arc::clone(&source.image);
        let meters = self.meters.of(&manifest.layers);
        source.progress.show(&meters);
        let plan = Arc::new(Plan { source, manifest, config, blobs, meters });
        let image =
            self.images.run(key, &image_name, || Arc::clone(&self).assemble(Arc::clone(&plan))).await?;
        self.name(&image_name, image, names).await
    }
}

impl Source {
    /// For `map_err`.
    pub(super) fn bad(&self, source: ManifestError) -> ImageError {
        ImageError::BadManifest { image: self.image.to_string(), source: Arc::new(source) }
    }
}
