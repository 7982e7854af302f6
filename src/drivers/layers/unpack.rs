//! One blob into one staged layer: a thread inflates, this one writes, and whoever has to wait hashes (drivers/digests).
//! What does not live here: fetching the blob, its digest (known only when it has arrived), and records.

use std::cell::Cell;
use std::io::{self, BufRead};
use std::path::PathBuf;
use std::rc::Rc;

use super::Layers;
use super::apply::{Applied, View, apply};
use super::error::LayerError;
use super::inflate::{Inflated, pipe};
use super::staging::Staged;
use super::tar::Reader;
use crate::ids::Digest;

/// Small blobs may unpack to this, whatever their ratio.
const RATIO_FREE: u64 = 1 << 30;
/// One in so many inodes stays free.
const INODES_RESERVE: u64 = 100;
/// Bytes between two looks at the file system.
const LOOK_EVERY: u64 = 16 << 20;

/// A layer, whole but not yet in its place.
#[derive(Debug)]
pub struct Unpacked {
    /// To be committed.
    pub staged: Staged,
    /// sha256 of the plain archive.
    pub diff_id: Digest,
    /// Directories that the archive only implies.
    pub implied: std::collections::BTreeSet<Vec<u8>>,
    /// Directories with whiteouts in them.
    pub hiding: std::collections::BTreeSet<Vec<u8>>,
}

#[derive(Clone, Copy, Debug)]
enum Exceeded {
    No,
    Ratio(u64),
    Disk(u64),
    Inodes(u64),
}

impl Layers {
    /// Unpacks a blob of `size` bytes. With `parents` (bottom first) the result depends on them. Blocks until the input
    /// ends; returns only what is whole, synced or not.
    pub fn unpack(
        &self,
        input: impl BufRead + Send,
        size: u64,
        parents: Option<&[Digest]>,
    ) -> Result<Unpacked, LayerError> {
        let staged = Staged::layer(self)?;
        let (root, view) = match parents {
            None => (staged.open()?, View::Alone),
            Some(parents) => {
                if let Some(top) = parents.last() {
                    super::copy_root(&self.open_layer(top)?, &staged.path())
                        .map_err(LayerError::io("set the metadata of", staged.path()))?;
                }
                let lower = parents.iter().rev().map(|id| self.layout.layer(id)).collect();
                (staged.open_merged(lower)?, View::Merged)
            }
        };
        let exceeded = Rc::new(Cell::new(Exceeded::No));
        let (inflater, inflated) = pipe(self.digest_stream(), self.guard(size, exceeded.clone()));
        let done = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("inflate".into());
            thread
                .spawn_scoped(scope, move || inflater.run(input))
                .map_err(LayerError::io("start a thread for", "/"))?;
            let mut reader = Reader::new(inflated);
            let applied = apply(root, view, &mut reader)?;
            let inflated: Inflated = reader.finish()?;
            Ok((applied, inflated.digest()))
        });
        let (applied, diff_id) = done.map_err(|error| match exceeded.get() {
            Exceeded::No => error,
            Exceeded::Ratio(limit) => LayerError::TooLarge { limit, blob: size },
            Exceeded::Disk(free) => LayerError::DiskFull { path: staged.path(), free },
            Exceeded::Inodes(free) => LayerError::NoInodes { path: staged.path(), free },
        })?;
        let Applied { implied, hiding, contents } = applied;
        staged.note(contents);
        Ok(Unpacked { staged, diff_id, implied, hiding })
    }

    fn guard(&self, size: u64, exceeded: Rc<Cell<Exceeded>>) -> impl FnMut(u64) -> io::Result<()> + 'static {
        let limit = size.saturating_mul(self.ratio).max(RATIO_FREE);
        let (path, reserve): (PathBuf, u64) = (self.layout.staging(), self.reserve);
        let mut looked = 0;
        move |total| {
            if total > limit {
                exceeded.set(Exceeded::Ratio(limit));
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            if total - looked >= LOOK_EVERY {
                looked = total;
                let stat = rustix::fs::statvfs(&path)?;
                let free = stat.f_bavail.saturating_mul(stat.f_frsize);
                if free < reserve {
                    exceeded.set(Exceeded::Disk(free));
                    return Err(io::ErrorKind::StorageFull.into());
                }
                // Some file systems, as btrfs, count none. An archive of empty files needs few bytes for many inodes.
                if stat.f_favail < stat.f_files / INODES_RESERVE {
                    exceeded.set(Exceeded::Inodes(stat.f_favail));
                    return Err(io::ErrorKind::StorageFull.into());
                }
            }
            Ok(())
        }
    }
}
