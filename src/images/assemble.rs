//! From a manifest and config to an image on disk: its layers, all at once, and what ties them together.
//! What does not live here: how one layer is unpacked (drivers/layers), records of images (publish).

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use tracing::{Instrument, Span, debug_span};

use super::chunks::feed;
use super::error::ImageError;
use super::image::Image;
use super::layer::{Layer, chain_ids};
use super::manifest::{Config, Descriptor, Manifest};
use super::progress::{Meter, Phase};
use super::remove::LayerHold;
use super::resume::Resume;
use super::source::Source;
use super::{Shared, Standing, store_error};
use crate::drivers::layers::{self, BlobCopy, LayerError, Layers, Unpacked};
use crate::drivers::store::Durability;
use crate::ids::Digest;
use crate::telemetry;

/// One image to be made.
pub struct Plan {
    pub source: Source,
    pub manifest: Manifest,
    pub config: Config,
    /// Manifests and config, to be kept.
    pub blobs: Vec<(Digest, Vec<u8>)>,
    /// One for each layer of the manifest.
    pub(super) meters: Vec<Arc<Meter>>,
}

impl Plan {
    /// The image's id.
    pub(super) fn id(&self) -> &Digest {
        if self.manifest.artifact.is_some() { &self.manifest.digest } else { &self.manifest.config.digest }
    }
}

/// An unpacked layer, and its packed form where that is kept.
type Fetched = (Unpacked, Option<BlobCopy>);

/// What is to be unpacked.
struct Task {
    plan: Arc<Plan>,
    index: usize,
    /// Bottom first, if it needs them.
    parents: Option<Vec<Digest>>,
    id: Digest,
}

impl Task {
    fn blob(&self) -> &Descriptor {
        &self.plan.manifest.layers[self.index]
    }

    fn meter(&self) -> &Meter {
        &self.plan.meters[self.index]
    }

    fn span(&self) -> Span {
        debug_span!("layer", digest = %self.blob().digest)
    }

    fn failed(&self, source: LayerError) -> ImageError {
        let (image, layer) = (self.plan.source.image.to_string(), self.blob().digest.clone());
        ImageError::Layer { image, layer, source: Arc::new(source) }
    }
}

impl Shared {
    /// Makes everything that the image needs and publishes it without names.
    pub(super) async fn assemble(self: Arc<Self>, plan: Arc<Plan>) -> Result<Arc<Image>, ImageError> {
        let diff_ids = &plan.config.diff_ids;
        let chain = chain_ids(diff_ids);
        let held: Vec<Digest> = diff_ids.iter().chain(&chain).cloned().collect();
        let _hold = LayerHold::new(&self, held);
        // The largest first: what is left at the end is unpacked by too few threads.
        let mut order: Vec<usize> = (0..diff_ids.len()).collect();
        order.sort_by_key(|index| std::cmp::Reverse(plan.manifest.layers[*index].size));
        let alone = order.into_iter().map(|index| {
            let (this, plan, chain) = (Arc::clone(&self), Arc::clone(&plan), chain[index].clone());
            async move { Ok((index, this.alone(plan, index, chain).await?)) }
        });
        let standings = join_all(alone).await.into_iter().collect::<Result<BTreeMap<_, _>, ImageError>>()?;
        let mut ids = Vec::with_capacity(diff_ids.len() + 1);
        for (index, standing) in standings {
            let id = self.settle(&plan, index, standing, &ids).await?;
            ids.push(id);
        }
        let image = &plan.source.image;
        let mut ids = distinct(&ids);
        let restored = self.restore(image, &ids).await?;
        ids.extend(restored.iter().map(|(id, _)| id.clone()));
        self.publish(&plan, ids).instrument(debug_span!("publish")).await
    }

    /// Unpacks a layer by itself, unless the cache has it in one form or the other.
    async fn alone(
        self: Arc<Self>,
        plan: Arc<Plan>,
        index: usize,
        chain: Digest,
    ) -> Result<Standing, ImageError> {
        let id = plan.config.diff_ids[index].clone();
        {
            let catalog = self.catalog();
            let (alone, on_parents) = (catalog.layer(&id).is_some(), catalog.layer(&chain).is_some());
            if alone || on_parents {
                plan.meters[index].settle(Phase::Present);
                return Ok(if alone { Standing::Kept } else { Standing::NeedsParents });
            }
        }
        let task = Arc::new(Task { plan: Arc::clone(&plan), index, parents: None, id: id.clone() });
        let work = || Arc::clone(&self).unpack(Arc::clone(&task)).instrument(task.span());
        self.unpacks.run(id, &plan.source.image, work).await
    }

    /// The id under which layer `index` stands on `below`.
    async fn settle(
        self: &Arc<Self>,
        plan: &Arc<Plan>,
        index: usize,
        standing: Standing,
        below: &[Digest],
    ) -> Result<Digest, ImageError> {
        let diff_id = &plan.config.diff_ids[index];
        let chain = chain_ids(&plan.config.diff_ids[..=index]).pop().unwrap_or_else(|| diff_id.clone());
        let needs_parents = match standing {
            Standing::NeedsParents => true,
            Standing::Kept => self.follows_links_below(&plan.source.image, below, diff_id).await?,
        };
        if !needs_parents {
            plan.meters[index].settle(Phase::Done);
            return Ok(diff_id.clone());
        }
        if self.catalog().layer(&chain).is_none() {
            let mut parents = distinct(below);
            // What the layer copies up must be as restored as the image will be.
            let restored = self.restore(&plan.source.image, &parents).await?;
            parents.extend(restored.iter().map(|(id, _)| id.clone()));
            let parents = Some(parents);
            let task = Arc::new(Task { plan: Arc::clone(plan), index, parents, id: chain.clone() });
            let work = || Arc::clone(self).unpack(Arc::clone(&task)).instrument(task.span());
            self.unpacks.run(chain.clone(), &plan.source.image, work).await?;
        }
        plan.meters[index].settle(Phase::Done);
        Ok(chain)
    }

    async fn follows_links_below(
        &self,
        image: &str,
        below: &[Digest],
        id: &Digest,
    ) -> Result<bool, ImageError> {
        let mut stack = self.stack(below);
        stack.extend(self.stack(std::slice::from_ref(id)));
        // Nothing but its own root is implied: the most common layer by far.
        let simple = stack.last().is_none_or(|layer| layer.implied.iter().all(Vec::is_empty));
        if simple || below.is_empty() {
            return Ok(false);
        }
        self.blocking(image, move |layers| {
            let stack = open_stack(layers, stack)?;
            layers.follows_links_below(&stack, stack.len() - 1)
        })
        .await
    }

    fn stack(&self, ids: &[Digest]) -> Vec<Arc<Layer>> {
        let catalog = self.catalog();
        let layer =
            |id: &Digest| catalog.layer(id).map_or_else(|| Arc::new(Layer::empty(id.clone())), Arc::clone);
        ids.iter().map(layer).collect()
    }

    async fn restore(
        self: &Arc<Self>,
        image: &str,
        ids: &[Digest],
    ) -> Result<Option<(Digest, LayerHold)>, ImageError> {
        let stack = self.stack(ids);
        let restoration =
            self.blocking(image, move |layers| layers.restoration(&open_stack(layers, stack)?)).await?;
        let Some(restoration) = restoration else {
            return Ok(None);
        };
        let id = restoration.id();
        let hold = LayerHold::new(self, vec![id.clone()]);
        // Nobody else may make the same one meanwhile.
        let _records = self.records.lock().await;
        if self.catalog().layer(&id).is_none() {
            let name = id.clone();
            let commit = move |layers: &Layers| layers.commit(&layers.restore(&restoration)?, &name);
            let layer = Layer::empty(id.clone()).sealed(self.blocking(image, commit).await?);
            self.store.put(id.as_str(), &layer, Durability::Power).await.map_err(store_error(image))?;
            self.catalog().put_layer(layer);
        }
        Ok(Some((id, hold)))
    }

    /// Fetches and unpacks one layer, verifies it and puts it into the cache.
    async fn unpack(self: Arc<Self>, task: Arc<Task>) -> Result<Standing, ImageError> {
        let image = task.plan.source.image.to_string();
        let interrupted = || ImageError::Interrupted { image: image.clone() };
        let permit = self.permits.acquire().await.map_err(|_| interrupted())?;
        if self.catalog().layer(&task.id).is_some() {
            return Ok(Standing::Kept);
        }
        let mut resume = Resume::open(&self.layers, task.blob()).await;
        let resumed = resume.has_bytes();
        let mut fetched = self.fetch(&task, &mut resume).await;
        // What was cut short goes on there, and what needs the layers below comes once more.
        let comes_again =
            matches!(fetched, Err(ImageError::Registry { .. } | ImageError::Interrupted { .. }) | Ok(None));
        if !comes_again {
            resume.discard().await;
            if resumed && fetched.is_err() {
                // What was kept may be what is wrong.
                fetched = self.fetch(&task, &mut resume).await;
            }
        }
        // Others may unpack while this one waits for the disk.
        drop(permit);
        match fetched? {
            Some((unpacked, copy)) => self.keep(&task, unpacked, copy).await,
            None => Ok(Standing::NeedsParents),
        }
    }

    /// A verified layer in the staging directory; none if it can't be unpacked without those below.
    async fn fetch(&self, task: &Arc<Task>, resume: &mut Resume) -> Result<Option<Fetched>, ImageError> {
        let image = task.plan.source.image.to_string();
        let interrupted = || ImageError::Interrupted { image: image.clone() };
        let (to, mut chunks) = feed(self.layers.digest_stream());
        let (layers, parents, size) = (self.layers.clone(), task.parents.clone(), task.blob().size);
        let copy = self.blocking(&image, Layers::packed_copy).await?;
        let work = telemetry::blocking(move || {
            chunks.copy_to(copy);
            let unpacked = layers.unpack(&mut chunks, size, parents.as_deref());
            (unpacked, chunks.finish())
        });
        let fed = task.plan.source.feed(task.blob(), to, task.meter(), Some(resume)).await;
        let (unpacked, (digest, copy)) = work.await.map_err(|_| interrupted())?;
        // Wrong bytes explain why they do not unpack, so they come first.
        fed?;
        task.plan.source.verify(task.blob(), digest)?;
        let unpacked = match unpacked {
            Err(LayerError::NeedsParents { .. }) if task.parents.is_none() && task.index > 0 => {
                task.meter().enter(Phase::Waiting);
                return Ok(None);
            }
            unpacked => unpacked.map_err(|error| task.failed(error))?,
        };
        let expected = &task.plan.config.diff_ids[task.index];
        if unpacked.diff_id != *expected {
            let (layer, expected) = (task.blob().digest.clone(), expected.clone());
            return Err(ImageError::DiffIdMismatch { image, layer, expected, actual: unpacked.diff_id });
        }
        Ok(Some((unpacked, copy)))
    }

    async fn keep(
        &self,
        task: &Arc<Task>,
        unpacked: Unpacked,
        copy: Option<BlobCopy>,
    ) -> Result<Standing, ImageError> {
        let image = &task.plan.source.image;
        let Unpacked { staged, implied, hiding, .. } = unpacked;
        let (implied, hiding) = (Arc::new(implied), Arc::new(hiding));
        if let Some(copy) = copy {
            let blob = task.blob().digest.clone();
            // What is synced next makes it last.
            self.blocking(image, move |layers| layers.keep_copy(&copy, &blob)).await?;
        }
        let layer = Layer { implied, hiding, ..Layer::empty(task.id.clone()) };
        self.keep_layer(image, staged, layer).await?;
        task.meter().enter(Phase::Done);
        #[cfg(test)]
        self.unpacked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Ok(Standing::Kept)
    }

    /// Bytes of these layers on disk.
    pub(super) fn bytes_of(&self, layers: &[Digest], blobs: &BTreeMap<Digest, u64>) -> u64 {
        let catalog = self.catalog();
        let layers: u64 = layers.iter().filter_map(|id| catalog.layer(id)).map(|layer| layer.bytes).sum();
        layers + blobs.values().sum::<u64>()
    }
}

/// Each layer once, where it stands highest: overlay refuses it twice, and images do repeat layers. What a layer adds
/// and hides is the same both times, so its upper place decides all of it.
fn distinct(ids: &[Digest]) -> Vec<Digest> {
    let repeated = |at: usize| ids[at + 1..].contains(&ids[at]);
    (0..ids.len()).filter(|at| !repeated(*at)).map(|at| ids[at].clone()).collect()
}

fn open_stack(cache: &layers::Layers, stack: Vec<Arc<Layer>>) -> Result<Vec<layers::Layer>, LayerError> {
    let open =
        |layer: Arc<Layer>| cache.layer(&layer.id, Arc::clone(&layer.implied), Arc::clone(&layer.hiding));
    stack.into_iter().map(open).collect()
}
