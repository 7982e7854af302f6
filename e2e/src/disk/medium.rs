//! The blocks of a disk, everything that was ever written to it, and how it fails. What does not live here: how it is
//! shown to the kernel (serve).

use std::collections::HashMap;
use std::sync::Arc;

/// Bytes of a block; what was never written is zero.
const BLOCK: usize = 4096;
/// What a disk writes as one, or not at all.
const SECTOR: usize = 512;

/// What is on a disk. Cheap to clone.
#[derive(Clone, Default)]
pub struct Blocks(HashMap<u64, Arc<[u8; BLOCK]>>);

impl Blocks {
    fn read(&self, mut at: u64, mut to: &mut [u8]) {
        while !to.is_empty() {
            let (number, inside) = place(at);
            let len = to.len().min(BLOCK - inside);
            let (now, rest) = to.split_at_mut(len);
            match self.0.get(&number) {
                Some(block) => now.copy_from_slice(&block[inside..inside + len]),
                None => now.fill(0),
            }
            (to, at) = (rest, at + len as u64);
        }
    }

    fn write(&mut self, mut at: u64, mut data: &[u8]) {
        while !data.is_empty() {
            let (number, inside) = place(at);
            let (now, rest) = data.split_at(data.len().min(BLOCK - inside));
            let block = self.0.entry(number).or_insert_with(|| Arc::new([0; BLOCK]));
            Arc::make_mut(block)[inside..inside + now.len()].copy_from_slice(now);
            (data, at) = (rest, at + now.len() as u64);
        }
    }

    /// Turns one bit of a sector that begins with `content`. False if none does.
    pub fn flip(&mut self, content: &[u8]) -> bool {
        let sector =
            |block: &Arc<[u8; BLOCK]>| block.chunks(SECTOR).position(|part| part.starts_with(content));
        let found = self.0.values_mut().find_map(|block| sector(block).map(|sector| (block, sector)));
        let Some((block, sector)) = found else { return false };
        Arc::make_mut(block)[sector * SECTOR] ^= 1;
        true
    }
}

fn place(at: u64) -> (u64, usize) {
    (at / BLOCK as u64, usize::try_from(at % BLOCK as u64).unwrap_or_default())
}

/// What was done to a disk.
enum Event {
    Write {
        at: u64,
        data: Box<[u8]>,
    },
    /// All writes before it are on the disk for good.
    Flush,
}

/// A disk while it runs.
#[derive(Default)]
pub struct Medium {
    pub blocks: Blocks,
    history: Option<History>,
    /// Writes that still succeed, and how many fail then.
    fault: Option<(u64, u64)>,
}

impl Medium {
    pub fn read(&self, at: u64, to: &mut [u8]) {
        self.blocks.read(at, to);
    }

    /// False: it fails, and nothing is written.
    pub fn write(&mut self, at: u64, data: &[u8]) -> bool {
        match &mut self.fault {
            Some((0, 0)) | None => {}
            Some((0, failing)) => {
                *failing -= 1;
                return false;
            }
            Some((good, _)) => *good -= 1,
        }
        self.blocks.write(at, data);
        if let Some(history) = &mut self.history {
            history.events.push(Event::Write { at, data: data.into() });
        }
        true
    }

    pub fn flush(&mut self) {
        if let Some(history) = &mut self.history {
            history.events.push(Event::Flush);
        }
    }

    /// From now on everything is remembered.
    pub fn record(&mut self) {
        self.history = Some(History { start: self.blocks.clone(), events: Vec::new() });
    }

    /// Events so far.
    pub fn now(&self) -> usize {
        self.history.as_ref().map_or(0, |history| history.events.len())
    }

    /// Ends the recording.
    pub fn recorded(&mut self) -> Option<History> {
        self.history.take()
    }

    /// `failing` writes fail once `good` ones have succeeded; none with zero.
    pub fn fail(&mut self, good: u64, failing: u64) {
        self.fault = (failing > 0).then_some((good, failing));
    }

    /// Whether a write has failed.
    pub fn has_failed(&self, failing: u64) -> bool {
        self.fault.is_some_and(|(_, left)| left < failing)
    }
}

/// Everything that was done to a disk, so that it can be cut short anywhere.
pub struct History {
    start: Blocks,
    events: Vec<Event>,
}

/// What a cut does to writes that were not flushed: a disk keeps them in any order, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// All of them are kept.
    None,
    /// None of them is.
    All,
    /// A part of them, whole.
    Writes(u64),
    /// A part of their sectors.
    Sectors(u64),
}

impl History {
    /// Writes and flushes.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether nothing was done.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Flushes among them.
    pub fn flushes(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, Event::Flush)).count()
    }

    /// To be cut at ever later moments.
    pub fn replay(&self) -> Replay<'_> {
        Replay { events: &self.events, durable: self.start.clone(), applied: 0 }
    }
}

/// Goes along a history.
pub struct Replay<'a> {
    events: &'a [Event],
    durable: Blocks,
    /// Events that `durable` has, the last of them a flush.
    applied: usize,
}

impl Replay<'_> {
    /// The disk after the power failed behind the first `at` events. Each cut is later than the one before.
    pub fn cut(&mut self, at: usize, loss: Loss) -> Blocks {
        let flush = self.events[..at].iter().rposition(|event| matches!(event, Event::Flush));
        let flushed = flush.map_or(0, |at| at + 1);
        for event in &self.events[self.applied.min(flushed)..flushed] {
            if let Event::Write { at, data } = event {
                self.durable.write(*at, data);
            }
        }
        self.applied = self.applied.max(flushed);
        let mut blocks = self.durable.clone();
        let mut chance = Chance(match loss {
            Loss::Writes(seed) | Loss::Sectors(seed) => seed,
            Loss::None | Loss::All => 0,
        });
        for event in &self.events[flushed..at] {
            let Event::Write { at, data } = event else { continue };
            let piece = if matches!(loss, Loss::Sectors(_)) { SECTOR } else { data.len() };
            for (number, kept) in data.chunks(piece).enumerate() {
                let keep = match loss {
                    Loss::None => true,
                    Loss::All => false,
                    Loss::Writes(_) | Loss::Sectors(_) => chance.draw() & 1 == 0,
                };
                if keep {
                    blocks.write(at + (number * piece) as u64, kept);
                }
            }
        }
        blocks
    }
}

/// Numbers that look random and are the same for the same seed (splitmix64).
pub struct Chance(pub u64);

impl Chance {
    /// The next one.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(blocks: &Blocks, offset: u64) -> u8 {
        let mut byte = [0];
        blocks.read(offset, &mut byte);
        byte[0]
    }

    #[test]
    fn a_cut_keeps_what_was_flushed_and_any_part_of_the_rest() {
        let mut medium = Medium::default();
        assert!(medium.write(0, &[1; 10_000]));
        medium.record();
        assert!(medium.write(4000, &[2; 200]));
        medium.flush();
        assert!(medium.write(8192, &[3; 4096]) && medium.write(20_480, &[4; 4096]));
        assert_eq!(medium.now(), 4);
        let history = medium.recorded().unwrap();
        assert_eq!((history.len(), history.flushes()), (4, 1));
        let mut replay = history.replay();
        let cut = replay.cut(1, Loss::All);
        assert_eq!((at(&cut, 4000), at(&cut, 9999), at(&cut, 10_000)), (1, 1, 0));
        assert_eq!(at(&replay.cut(1, Loss::None), 4199), 2);
        for (loss, expected) in [(Loss::All, (2, 1, 0)), (Loss::None, (2, 3, 4))] {
            let cut = replay.cut(4, loss);
            assert_eq!((at(&cut, 4199), at(&cut, 8192), at(&cut, 20_480)), expected);
        }
        let kept: Vec<_> = (0..64).map(|seed| replay.cut(4, Loss::Writes(seed))).collect();
        for wanted in [(1, 0), (3, 0), (1, 4), (3, 4)] {
            assert!(kept.iter().any(|cut| (at(cut, 8192), at(cut, 20_480)) == wanted), "{wanted:?}");
        }
        let torn = replay.cut(4, Loss::Sectors(1));
        let sectors: Vec<_> = (0..8).map(|sector| at(&torn, 8192 + sector * 512)).collect();
        assert!(sectors.contains(&1) && sectors.contains(&3), "{sectors:?}");
    }

    #[test]
    fn writes_fail_when_they_are_told_to() {
        let mut medium = Medium::default();
        medium.fail(1, 2);
        assert_eq!([0, 1, 2, 3].map(|n| medium.write(n * 4096, &[7; 4096])), [true, false, false, true]);
        assert!(medium.has_failed(2));
        assert_eq!([0, 1, 2, 3].map(|n| at(&medium.blocks, n * 4096)), [7, 0, 0, 7]);
    }

    #[test]
    fn a_flipped_bit_is_one_bit() {
        let mut medium = Medium::default();
        medium.write(8192 + 1024, b"needle");
        assert!(medium.blocks.flip(b"needle") && !medium.blocks.flip(b"needle"));
        assert_eq!((at(&medium.blocks, 8192 + 1024), at(&medium.blocks, 8192 + 1025)), (b'n' ^ 1, b'e'));
    }
}
