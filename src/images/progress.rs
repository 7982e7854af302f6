//! How far a pull is, for whoever looks: counters that the pull fills as it goes, and nobody waits for.
//! What does not live here: showing it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::manifest::Descriptor;
use crate::ids::Digest;

/// Where a layer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Nothing has begun.
    #[default]
    Waiting,
    /// Its blob arrives, and is unpacked as it does.
    Downloading,
    /// All of its blob has arrived.
    Unpacking,
    /// It is in the cache since this pull, or since another one at the same time.
    Done,
    /// It was in the cache before.
    Present,
}

const PHASES: [Phase; 5] =
    [Phase::Waiting, Phase::Downloading, Phase::Unpacking, Phase::Done, Phase::Present];

/// One layer at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerProgress {
    /// Of its blob.
    pub digest: Digest,
    /// Where it is.
    pub phase: Phase,
    /// Bytes of the blob that have arrived.
    pub downloaded: u64,
    /// Bytes of the blob.
    pub total: u64,
}

/// How far one pull is. Empty until the manifest is known.
#[derive(Debug, Default)]
pub struct Progress {
    meters: OnceLock<Vec<Arc<Meter>>>,
    begun: OnceLock<(Arc<str>, Instant)>,
}

/// A pull under way, at one moment.
#[derive(Clone, Debug)]
pub struct Pulling {
    /// What is pulled, as it was asked for.
    pub image: Arc<str>,
    /// For how long.
    pub age: Duration,
    /// Every distinct layer, bottom first, and for how long nothing of it has arrived; empty until the manifest is known.
    pub layers: Vec<(LayerProgress, Duration)>,
}

/// The pulls under way.
#[derive(Debug, Default)]
pub(super) struct Pulls(Mutex<Vec<Weak<Progress>>>);

impl Pulls {
    /// Until its `progress` is dropped.
    pub(super) fn add(&self, progress: &Arc<Progress>, image: &Arc<str>) {
        let _ = progress.begun.set((image.clone(), Instant::now()));
        let mut pulls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pulls.retain(|pull| pull.strong_count() > 0);
        pulls.push(Arc::downgrade(progress));
    }

    /// The oldest first.
    pub(super) fn now(&self) -> Vec<Pulling> {
        let pulls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pulls.iter().filter_map(|pull| pull.upgrade()?.pulling()).collect()
    }
}

impl Progress {
    fn pulling(&self) -> Option<Pulling> {
        let (image, since) = self.begun.get()?;
        let layer = |meter: &Arc<Meter>| (meter.read(), meter.quiet());
        let layers = self.meters.get().map(|meters| meters.iter().map(layer).collect());
        Some(Pulling { image: image.clone(), age: since.elapsed(), layers: layers.unwrap_or_default() })
    }

    /// Every distinct layer, bottom first; empty until the manifest is known.
    pub fn layers(&self) -> Vec<LayerProgress> {
        self.meters.get().map(|meters| meters.iter().map(|meter| meter.read()).collect()).unwrap_or_default()
    }

    pub(super) fn show(&self, meters: &[Arc<Meter>]) {
        let mut distinct: Vec<Arc<Meter>> = Vec::with_capacity(meters.len());
        for meter in meters {
            if !distinct.iter().any(|other| Arc::ptr_eq(other, meter)) {
                distinct.push(Arc::clone(meter));
            }
        }
        let _ = self.meters.set(distinct);
    }
}

/// The counters of one blob.
#[derive(Debug)]
pub(super) struct Meter {
    digest: Digest,
    total: u64,
    downloaded: AtomicU64,
    phase: AtomicU8,
    /// When something changed: milliseconds after `made`.
    moved: AtomicU64,
    made: Instant,
}

impl Meter {
    fn new(blob: &Descriptor) -> Self {
        let (downloaded, phase) = (AtomicU64::new(0), AtomicU8::new(Phase::Waiting as u8));
        let (moved, made) = (AtomicU64::new(0), Instant::now());
        Self { digest: blob.digest.clone(), total: blob.size, downloaded, phase, moved, made }
    }

    fn read(&self) -> LayerProgress {
        let phase = PHASES.get(usize::from(self.phase.load(Ordering::Relaxed))).copied().unwrap_or_default();
        let downloaded = self.downloaded.load(Ordering::Relaxed);
        LayerProgress { digest: self.digest.clone(), phase, downloaded, total: self.total }
    }

    /// The blob is fetched, perhaps once more.
    pub(super) fn begin(&self) {
        self.downloaded.store(0, Ordering::Relaxed);
        self.enter(Phase::Downloading);
    }

    /// More of it is there.
    pub(super) fn add(&self, bytes: u64) {
        self.downloaded.fetch_add(bytes, Ordering::Relaxed);
        self.note_move();
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
        self.note_move();
    }

    fn note_move(&self) {
        let now = u64::try_from(self.made.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved.store(now, Ordering::Relaxed);
    }

    /// For how long nothing has changed.
    fn quiet(&self) -> Duration {
        self.made.elapsed().saturating_sub(Duration::from_millis(self.moved.load(Ordering::Relaxed)))
    }

    /// Ends in `phase`, unless it is known to have ended already.
    pub(super) fn settle(&self, phase: Phase) {
        let open = |now: u8| (now < Phase::Done as u8).then_some(phase as u8);
        let _ = self.phase.fetch_update(Ordering::Relaxed, Ordering::Relaxed, open);
    }
}

/// One meter for each blob that is pulled now: pulls that share work show the same numbers.
#[derive(Debug, Default)]
pub(super) struct Meters {
    current: Mutex<HashMap<Digest, Weak<Meter>>>,
}

impl Meters {
    /// The meters of an image's layers, bottom first.
    pub(super) fn of(&self, blobs: &[Descriptor]) -> Vec<Arc<Meter>> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.retain(|_, meter| meter.strong_count() > 0);
        let mut meter = |blob: &Descriptor| {
            current.get(&blob.digest).and_then(Weak::upgrade).unwrap_or_else(|| {
                let meter = Arc::new(Meter::new(blob));
                current.insert(blob.digest.clone(), Arc::downgrade(&meter));
                meter
            })
        };
        blobs.iter().map(&mut meter).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(text: &[u8]) -> Descriptor {
        let json = serde_json::json!({ "mediaType": "x", "digest": Digest::of(text), "size": text.len() });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn two_pulls_of_one_layer_show_the_same_numbers() {
        let meters = Meters::default();
        let (one, two) = (Progress::default(), Progress::default());
        let shared = meters.of(&[blob(b"abc"), blob(b"de"), blob(b"abc")]);
        one.show(&shared);
        let other = meters.of(&[blob(b"de")]);
        two.show(&other);
        shared[1].begin();
        shared[1].add(2);
        assert_eq!(one.layers().len(), 2);
        assert_eq!(one.layers()[1], two.layers()[0]);
        let seen = &two.layers()[0];
        assert_eq!((seen.phase, seen.downloaded, seen.total), (Phase::Downloading, 2, 2));
        drop((one, two, shared, other));
        assert_eq!(meters.of(&[blob(b"de")])[0].read().phase, Phase::Waiting);
    }

    #[test]
    fn a_layer_that_was_unpacked_does_not_become_one_that_was_there() {
        let meter = Meter::new(&blob(b"abc"));
        meter.settle(Phase::Present);
        assert_eq!(meter.read().phase, Phase::Present);
        meter.enter(Phase::Done);
        meter.settle(Phase::Present);
        assert_eq!(meter.read().phase, Phase::Done);
    }
}
