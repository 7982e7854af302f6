//! The digests of streams that arrive at the same time: an image's layers, each both packed and plain.
//! What does not live here: what is compared with them.
//!
//! One stream can only be hashed from its start to its end, and a processor without instructions for SHA-256 takes longer
//! for that than for all else that a pull does. But its vectors advance many streams for the price of two or three. So
//! pieces wait, and a stream that has no room for more hashes whatever waits, its own and the others', in one go. No
//! thread of its own is needed, and the more streams there are, the less each costs.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use berth_sys::sha256::{BLOCK, INITIAL, State, Vectors};
use bytes::{Buf, Bytes};

use crate::ids::{Digest, Hasher};

/// Bytes of one stream that may wait. The more, the more streams are hashed at once.
const ROOM: usize = 1 << 20;
/// From so many streams on, vectors are faster than one stream after another.
const FEW: usize = 3;

/// Streams that are hashed together. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Digests {
    shared: Option<Arc<Shared>>,
}

#[derive(Debug)]
struct Shared {
    vectors: Vectors,
    lanes: Mutex<Lanes>,
    /// Somebody has put back what it had hashed.
    returned: Condvar,
}

#[derive(Debug, Default)]
struct Lanes {
    by_key: HashMap<u64, Lane>,
    next_key: u64,
    /// How many hash now.
    turns: usize,
}

#[derive(Debug)]
struct Lane {
    /// None while somebody hashes it.
    hash: Option<Hash>,
    /// Bytes that wait here or with whoever hashes.
    waiting: usize,
    queue: VecDeque<Bytes>,
}

/// How far a stream is hashed.
#[derive(Debug)]
struct Hash {
    state: State,
    total: u64,
    /// The beginning of a block.
    rest: Vec<u8>,
    /// Whole blocks that come next.
    blocks: Bytes,
}

/// One stream.
pub struct Stream(Kind);

enum Kind {
    Alone(Box<Hasher>),
    Lane(Arc<Shared>, u64),
}

impl Digests {
    /// Of no stream yet.
    pub fn new() -> Self {
        Self::with(Vectors::detect())
    }

    fn with(vectors: Option<Vectors>) -> Self {
        let share = |vectors| Arc::new(Shared { vectors, lanes: Mutex::default(), returned: Condvar::new() });
        Self { shared: vectors.map(share) }
    }

    /// A stream of no bytes yet.
    pub fn stream(&self) -> Stream {
        let Some(shared) = &self.shared else {
            return Stream(Kind::Alone(Box::default()));
        };
        let mut lanes = shared.lanes();
        let key = lanes.next_key;
        lanes.next_key += 1;
        lanes.by_key.insert(key, Lane { hash: Some(Hash::new()), waiting: 0, queue: VecDeque::new() });
        Stream(Kind::Lane(Arc::clone(shared), key))
    }
}

impl Default for Digests {
    fn default() -> Self {
        Self::new()
    }
}

impl Stream {
    /// Takes the next bytes. They may be hashed later, by any thread; and this one may hash for others first.
    pub fn update(&mut self, bytes: Bytes) {
        match &mut self.0 {
            Kind::Alone(hasher) => hasher.update(&bytes),
            Kind::Lane(shared, key) => {
                let mut lanes = shared.lanes();
                if let Some(lane) = lanes.by_key.get_mut(key) {
                    lane.waiting += bytes.len();
                    lane.queue.push_back(bytes);
                }
                drop(shared.reduce(lanes, *key, ROOM));
            }
        }
    }

    /// The digest of all.
    pub fn finish(mut self) -> Digest {
        match &mut self.0 {
            Kind::Alone(hasher) => std::mem::take(&mut **hasher).finish(),
            Kind::Lane(shared, key) => {
                let mut lanes = shared.reduce(shared.lanes(), *key, 0);
                let hash = lanes.by_key.remove(key).and_then(|lane| lane.hash);
                hash.unwrap_or_else(Hash::new).finish(shared.vectors)
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Kind::Lane(shared, key) = &self.0 {
            shared.lanes().by_key.remove(key);
        }
    }
}

impl Shared {
    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until no more than `room` bytes of a stream wait.
    fn reduce<'a>(
        &'a self,
        mut lanes: MutexGuard<'a, Lanes>,
        key: u64,
        room: usize,
    ) -> MutexGuard<'a, Lanes> {
        while let Some(lane) = lanes.by_key.get(&key).filter(|lane| lane.waiting > room) {
            lanes = if lane.hash.is_none() || lanes.turns >= lanes.turns_max(self.vectors) {
                self.returned.wait(lanes).unwrap_or_else(PoisonError::into_inner)
            } else {
                let mut turn = Turn::take(self, &mut lanes, key);
                drop(lanes);
                // Not all: what is left is better hashed with what others will bring.
                turn.run(room / 2);
                drop(turn);
                self.lanes()
            };
        }
        lanes
    }
}

impl Lanes {
    /// Two that hash half of the streams each take the time of two that hash all.
    fn turns_max(&self, vectors: Vectors) -> usize {
        let streams = self.by_key.len();
        if streams < FEW { streams } else { streams.div_ceil(vectors.lanes()) }
    }
}

/// One go at hashing; what was taken goes back when it is dropped.
struct Turn<'a> {
    shared: &'a Shared,
    /// The first is of whoever hashes.
    jobs: Vec<Job>,
}

struct Job {
    key: u64,
    hash: Hash,
    queue: VecDeque<Bytes>,
    /// Bytes that were there, and that are hashed.
    waiting: usize,
    done: usize,
}

impl<'a> Turn<'a> {
    /// This stream, and those others of which most is waiting.
    fn take(shared: &'a Shared, lanes: &mut Lanes, key: u64) -> Self {
        let free = |(other, lane): (&u64, &Lane)| {
            (lane.hash.is_some() && lane.waiting > 0 && *other != key).then_some((lane.waiting, *other))
        };
        let mut others: Vec<_> = lanes.by_key.iter().filter_map(free).collect();
        others.sort_unstable_by(|one, two| two.cmp(one));
        others.truncate(shared.vectors.lanes() - 1);
        let keys = std::iter::once(key).chain(others.into_iter().map(|(_, other)| other));
        let mut job = |key| {
            let lane = lanes.by_key.get_mut(&key)?;
            let (hash, queue) = (lane.hash.take()?, std::mem::take(&mut lane.queue));
            Some(Job { key, hash, queue, waiting: lane.waiting, done: 0 })
        };
        let jobs = keys.filter_map(&mut job).collect();
        lanes.turns += 1;
        Self { shared, jobs }
    }

    /// Hashes until no more than `room` bytes of the first stream wait, and of the others as much as goes with it.
    fn run(&mut self, room: usize) {
        let vectors = self.shared.vectors;
        loop {
            self.jobs.iter_mut().for_each(|job| job.fill(vectors));
            if self.jobs.first().is_none_or(|job| job.waiting - job.done <= room) {
                return;
            }
            let mut ready: Vec<_> = self.jobs.iter_mut().filter(|job| !job.hash.blocks.is_empty()).collect();
            if ready.len() >= FEW {
                let len = ready.iter().map(|job| job.hash.blocks.len()).min().unwrap_or_default();
                let (mut states, data): (Vec<_>, Vec<_>) =
                    ready.iter_mut().map(|job| (&mut job.hash.state, &job.hash.blocks[..len])).unzip();
                vectors.together(&mut states, &data);
                ready.iter_mut().for_each(|job| job.advance(len));
                continue;
            }
            let Some(job) = self.jobs.first_mut() else { return };
            vectors.alone(&mut job.hash.state, &job.hash.blocks);
            job.advance(job.hash.blocks.len());
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut lanes = self.shared.lanes();
        lanes.turns -= 1;
        for mut job in self.jobs.drain(..) {
            // A stream that was given up is gone.
            if let Some(lane) = lanes.by_key.get_mut(&job.key) {
                lane.waiting -= job.done;
                job.queue.append(&mut lane.queue);
                (lane.hash, lane.queue) = (Some(job.hash), job.queue);
            }
        }
        drop(lanes);
        self.shared.returned.notify_all();
    }
}

impl Job {
    /// Has whole blocks at hand, if there are any.
    fn fill(&mut self, vectors: Vectors) {
        while self.hash.blocks.is_empty() {
            let Some(piece) = self.queue.pop_front() else { return };
            self.done += self.hash.take(piece, vectors);
        }
    }

    fn advance(&mut self, len: usize) {
        self.hash.blocks.advance(len);
        self.done += len;
    }
}

impl Hash {
    fn new() -> Self {
        Self { state: INITIAL, total: 0, rest: Vec::with_capacity(BLOCK), blocks: Bytes::new() }
    }

    /// Makes the next piece `blocks`, except for its ends. Returns how long those are.
    fn take(&mut self, mut piece: Bytes, vectors: Vectors) -> usize {
        self.total += piece.len() as u64;
        let mut ends = 0;
        if !self.rest.is_empty() {
            let start = piece.split_to(piece.len().min(BLOCK - self.rest.len()));
            self.rest.extend_from_slice(&start);
            ends += start.len();
            if self.rest.len() == BLOCK {
                vectors.alone(&mut self.state, &self.rest);
                self.rest.clear();
            }
        }
        let end = piece.split_off(piece.len() - piece.len() % BLOCK);
        self.rest.extend_from_slice(&end);
        self.blocks = piece;
        ends + end.len()
    }

    /// Pads (FIPS 180-4, 5.1.1). All blocks must be hashed.
    fn finish(mut self, vectors: Vectors) -> Digest {
        let mut last = std::mem::take(&mut self.rest);
        last.push(0x80);
        let len = (last.len() + 8).next_multiple_of(BLOCK);
        last.resize(len - 8, 0);
        last.extend_from_slice(&(self.total * 8).to_be_bytes());
        vectors.alone(&mut self.state, &last);
        Digest::from_words(self.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize, seed: u64) -> Vec<u8> {
        let mut state = seed;
        let next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        std::iter::repeat_with(next).take(len).collect()
    }

    /// In pieces of all sizes.
    fn through(mut stream: Stream, bytes: &[u8], seed: usize) -> Digest {
        let (mut rest, mut size) = (Bytes::copy_from_slice(bytes), seed % 97);
        while !rest.is_empty() {
            stream.update(rest.split_to(size.min(rest.len())));
            size = (size * 7 + 1) % 300_000;
        }
        stream.finish()
    }

    /// Every way that this processor knows.
    fn ways() -> Vec<Digests> {
        let vectors = Vectors::all();
        println!("hashed by {vectors:?}, and one by one");
        vectors.into_iter().map(Some).chain([None]).map(Digests::with).collect()
    }

    #[test]
    fn one_stream_has_the_digest_that_any_other_hasher_finds() {
        for digests in ways() {
            for len in (0..300).chain([1 << 20, (3 << 20) + 5]) {
                let bytes = noise(len, len as u64);
                assert_eq!(through(digests.stream(), &bytes, len), Digest::of(&bytes), "{len}");
            }
        }
    }

    fn one_of_many(digests: &Digests, number: usize) {
        let bytes = noise(number * 100_003, number as u64);
        let mut stream = digests.stream();
        // Some are given up in the middle.
        if number % 5 == 3 {
            stream.update(bytes.into());
            return;
        }
        assert_eq!(through(stream, &bytes, number), Digest::of(&bytes), "{number}");
    }

    #[test]
    fn streams_of_many_threads_do_not_mix() {
        for digests in ways() {
            std::thread::scope(|scope| {
                for number in 0..40_usize {
                    let digests = &digests;
                    scope.spawn(move || one_of_many(digests, number));
                }
            });
            if let Some(shared) = &digests.shared {
                assert!(shared.lanes().by_key.is_empty());
            }
        }
    }
}
