//! What fuzzers feed to the layer cache, and what must hold whatever it is. What does not live here: who calls this
//! (src/fuzzing.rs).

use std::collections::HashSet;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Config, Layers, seal};
use crate::drivers::trash::Trash;
use crate::ids::Digest;
use crate::layout::Layout;

/// What one input may inflate to, in bytes.
const INFLATED_MAX: u64 = 4 << 20;

struct Scratch {
    layers: Layers,
    layout: Layout,
    canary: PathBuf,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.layout.root());
    }
}

impl Scratch {
    fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let unique = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        // In memory: thousands are made and removed in a second.
        let root = Path::new("/dev/shm").join(format!("berth-fuzz-{}-{}", unique.0, unique.1));
        let layout = Layout::new(&root, &root);
        let layers =
            Layers::open(&layout, &Config::default(), Trash::new(&layout)).expect("a cache in memory");
        let canary = layout.blob(&Digest::of(b"canary"));
        std::fs::write(&canary, b"canary").expect("a file in the cache");
        Self { layers, layout, canary }
    }

    /// Everything near a layer that grows: it is reached from there by `..`.
    fn census(&self) -> Vec<(u32, u64, u64, i64, i64)> {
        let layout = &self.layout;
        let near = [layout.layers(), layout.blobs(), layout.trash(), self.canary.clone()];
        let look = |path: PathBuf| {
            let meta = std::fs::symlink_metadata(path).expect("what was there");
            (meta.mode(), meta.nlink(), meta.size(), meta.ctime(), meta.ctime_nsec())
        };
        near.into_iter().map(look).collect()
    }
}

/// An archive stays inside of its layer, and its seal is that of what is there. Checksums are mended first: a fuzzer does not
/// guess them.
pub fn archive(data: &[u8]) {
    let scratch = Scratch::new();
    let before = scratch.census();
    let sealed = sealed(data);
    let unpacked = scratch.layers.unpack(sealed.as_slice(), sealed.len() as u64, None);
    match &unpacked {
        Ok(unpacked) => {
            let root = unpacked.staged.open().expect("a layer");
            let there = seal::of_new(root.as_fd(), &Default::default()).expect("what is unpacked");
            assert_eq!(unpacked.staged.seal().expect("what is unpacked"), there, "the seal");
            assert_eq!(inodes(&unpacked.staged.path()), there.inodes, "inodes");
        }
        Err(error) => assert!(crate::error::chain(error).len() < 4200, "a long message"),
    }
    drop(unpacked);
    assert_eq!(scratch.census(), before, "something outside of the layer changed");
}

/// Each block that could be a header gets the checksum that it needs.
pub fn sealed(data: &[u8]) -> Vec<u8> {
    let mut sealed = data.to_vec();
    for block in sealed.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        block[148..156].copy_from_slice(b"        ");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    sealed
}

fn inodes(root: &Path) -> u64 {
    let mut seen = HashSet::new();
    let mut ahead = vec![root.to_path_buf()];
    while let Some(path) = ahead.pop() {
        let meta = std::fs::symlink_metadata(&path).expect("what is unpacked");
        seen.insert(meta.ino());
        if meta.is_dir() {
            let names = std::fs::read_dir(&path).expect("a directory that is unpacked");
            ahead.extend(names.map(|name| name.expect("a name").path()));
        }
    }
    seen.len() as u64
}

/// A compressed layer is unpacked as what the reference decoders make of it, or refused as they do.
pub fn compressed(data: &[u8]) {
    let scratch = Scratch::new();
    let layers = &scratch.layers;
    let unpack = |bytes: &[u8]| layers.unpack(bytes, bytes.len() as u64, None).map(|layer| layer.diff_id);
    let Some(plain) = reference(data) else {
        assert!(unpack(data).is_err(), "taken, but not by the reference decoder");
        return;
    };
    // Too much for one input, or an archive within an archive, which would be opened once more here.
    if plain.len() as u64 >= INFLATED_MAX || is_compressed(&plain) {
        return;
    }
    match (unpack(data), unpack(&plain)) {
        (Ok(ours), Ok(plain)) => assert_eq!(ours, plain),
        (Err(_), Err(_)) => {}
        (ours, plain) => panic!("compressed {ours:?}, plain {plain:?}"),
    }
}

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

fn is_zstd(data: &[u8]) -> bool {
    let skippable = data.len() >= 4 && data[0] & 0xf0 == 0x50 && data[1..4] == [0x2a, 0x4d, 0x18];
    data.starts_with(ZSTD) || skippable
}

fn is_compressed(data: &[u8]) -> bool {
    data.starts_with(GZIP) || is_zstd(data)
}

/// None: damaged.
fn reference(data: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    let read = if data.starts_with(GZIP) {
        flate2::bufread::MultiGzDecoder::new(data).take(INFLATED_MAX).read_to_end(&mut plain)
    } else if is_zstd(data) {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(data).ok()?;
        decoder.window_log_max(27).ok()?;
        decoder.take(INFLATED_MAX).read_to_end(&mut plain)
    } else {
        return Some(data.to_vec());
    };
    read.ok().map(|_| plain)
}
