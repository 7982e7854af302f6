//! A little of the disk that is given up when nothing else is left: what makes room, as the removal of an image does, must
//! be recorded first. What does not live here: when it is given up.

use std::fs::File;
use std::path::PathBuf;

use rustix::fs::{FallocateFlags, fallocate};

/// A removal writes some tens of KiB.
const SIZE: u64 = 1 << 20;

/// A file of zeroes that is there for its size.
pub(super) struct Ballast {
    path: PathBuf,
    there: bool,
}

impl Ballast {
    /// Takes its place, if there is any.
    pub fn new(path: PathBuf) -> Self {
        let mut ballast = Self { path, there: false };
        ballast.restore();
        ballast
    }

    /// False: there was none.
    pub fn give_up(&mut self) -> bool {
        let there = std::mem::replace(&mut self.there, false);
        there && std::fs::remove_file(&self.path).is_ok()
    }

    /// Takes its place again, as soon as there is any.
    pub fn restore(&mut self) {
        if self.there {
            return;
        }
        let made =
            File::create(&self.path).and_then(|file| Ok(fallocate(&file, FallocateFlags::empty(), 0, SIZE)?));
        self.there = made.is_ok();
        if !self.there {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn it_is_given_up_once_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ballast");
        let mut ballast = Ballast::new(path.clone());
        assert!(std::fs::metadata(&path).unwrap().blocks() * 512 >= SIZE);
        assert!(ballast.give_up() && !ballast.give_up() && !path.exists());
        ballast.restore();
        assert!(path.exists() && ballast.give_up());
        assert!(!Ballast::new(dir.path().join("no/such/ballast")).give_up());
    }
}
