//! Archives in, directories out, on the real kernel: what honest archives become, and what hostile ones cannot do.

mod agreement;
pub mod archive;
mod disagreement;
mod escapes;
mod expense;
mod limits;
mod seals;
mod snapshot;

use super::*;

/// A cache in a directory of its own.
struct Cache {
    layers: Layers,
    layout: Layout,
    /// Layout below, and whatever else a test needs beside it.
    dir: tempfile::TempDir,
}

impl Cache {
    fn new() -> Self {
        Self::within(tempfile::tempdir().unwrap())
    }

    /// In memory: for attacks that make and remove more than a disk likes.
    fn in_memory() -> Self {
        Self::within(tempfile::tempdir_in("/dev/shm").unwrap())
    }

    fn within(dir: tempfile::TempDir) -> Self {
        let layout = Layout::new(dir.path().join("root"), dir.path().join("state"));
        let layers = Layers::open(&layout, &Config::default(), Trash::new(&layout)).unwrap();
        Self { layers, layout, dir }
    }

    fn unpack(&self, archive: &[u8]) -> Result<Unpacked, LayerError> {
        self.layers.unpack(archive, archive.len() as u64, None)
    }

    fn unpack_over(&self, archive: &[u8], parents: &[Digest]) -> Result<Unpacked, LayerError> {
        self.layers.unpack(archive, archive.len() as u64, Some(parents))
    }

    /// Puts a layer into its place, without waiting for the disk.
    fn keep(&self, unpacked: &Unpacked) -> Digest {
        let id = unpacked.diff_id.clone();
        std::fs::rename(unpacked.staged.path(), self.layout.layer(&id)).unwrap();
        id
    }

    fn assert_nothing_staged(&self) {
        assert_eq!(std::fs::read_dir(self.layout.staging()).unwrap().count(), 0, "staging");
    }
}

fn told(error: &LayerError) -> String {
    crate::error::chain(error)
}
