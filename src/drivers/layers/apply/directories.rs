//! What an applier remembers of directories until the archive's end, within a bound: a few kilobytes of an archive can imply
//! thousands of them. What does not live here: the directories themselves.

use std::collections::BTreeSet;

use super::super::error::LayerError;
use super::super::tree::Times;
use super::remove::below;

/// What is remembered takes no more memory than this, in bytes: about a million directories.
const MOST: usize = 128 << 20;
/// What one path takes beside its name.
const EACH: usize = 64;

/// Paths are real ones, from the layer's root.
#[derive(Debug, Default)]
pub struct Directories {
    /// Named only as parents.
    pub implied: BTreeSet<Vec<u8>>,
    /// With whiteouts in them.
    pub hiding: BTreeSet<Vec<u8>>,
    /// Set at the end, as every new file in a directory changes its time.
    pub times: Times,
    /// In a merged view: everything that this archive added, which its whiteouts leave alone.
    pub added: BTreeSet<Vec<u8>>,
    /// In a merged view: holds nothing of the layers below any more. Nothing of them ever comes back, so that it is never
    /// looked through again, however many whiteouts ask for it.
    pub purged: BTreeSet<Vec<u8>>,
    bytes: usize,
}

impl Directories {
    /// Takes one more path into account.
    pub fn charge(&mut self, path: &[u8]) -> Result<(), LayerError> {
        self.bytes += path.len() + EACH;
        if self.bytes > MOST {
            let path = super::super::error::shown(path);
            return Err(LayerError::TooMany { path, what: "directories", limit: MOST });
        }
        Ok(())
    }

    /// Remembers a directory's time.
    pub fn set_time(&mut self, path: Vec<u8>, mtime: (i64, u32)) -> Result<(), LayerError> {
        if !self.times.contains_key(&path) {
            self.charge(&path)?;
        }
        self.times.insert(path, mtime);
        Ok(())
    }

    /// Remembers what was added.
    pub fn add(&mut self, path: Vec<u8>) -> Result<(), LayerError> {
        self.charge(&path)?;
        self.added.insert(path);
        Ok(())
    }

    /// Whether a directory, or one that it is in, was purged.
    pub fn is_purged(&self, path: &[u8]) -> bool {
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        !self.purged.is_empty()
            && [0].into_iter().chain(ends).chain([path.len()]).any(|end| self.purged.contains(&path[..end]))
    }

    /// A path and all below it are gone. Takes as long as there is something to forget, however much else is known.
    pub fn forget(&mut self, path: &[u8]) {
        for set in [&mut self.implied, &mut self.added] {
            let gone: Vec<_> = below(set, path).cloned().collect();
            gone.iter().for_each(|path| {
                set.remove(path);
            });
            set.remove(path);
        }
        let prefix = [path, b"/"].concat();
        let gone = self.times.range(prefix.clone()..).map(|(at, _)| at);
        let gone: Vec<_> = gone.take_while(|at| at.starts_with(&prefix)).cloned().collect();
        gone.iter().for_each(|path| {
            self.times.remove(path);
        });
        self.times.remove(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgetting_a_path_forgets_all_below_it_and_nothing_beside() {
        let mut known = Directories::default();
        for path in ["a", "a/b", "a/b/c", "a/bc", "a.b", "a0"] {
            known.set_time(path.into(), (1, 2)).unwrap();
            known.add(path.into()).unwrap();
            known.implied.insert(path.into());
        }
        known.forget(b"a/b");
        let left: Vec<_> = known.times.keys().map(|path| std::str::from_utf8(path).unwrap()).collect();
        assert_eq!(left, ["a", "a.b", "a/bc", "a0"]);
        assert!(known.added.iter().eq(known.times.keys()) && known.implied.iter().eq(known.times.keys()));
    }

    #[test]
    fn what_is_below_a_purged_directory_is_purged() {
        let mut known = Directories::default();
        assert!(!known.is_purged(b""));
        known.purged.insert(b"a/b".to_vec());
        for (path, purged) in [("a/b", true), ("a/b/c/d", true), ("a", false), ("a/bc", false), ("", false)] {
            assert_eq!(known.is_purged(path.as_bytes()), purged, "{path}");
        }
        known.purged.insert(Vec::new());
        assert!(known.is_purged(b"a/bc") && known.is_purged(b""));
    }

    #[test]
    fn memory_is_bounded() {
        let mut known = Directories::default();
        let path = vec![b'd'; 4000];
        let error = (0..).find_map(|_| known.charge(&path).err()).unwrap();
        assert!(error.to_string().contains("directories") && error.to_string().len() < 1000, "{error}");
    }
}
