//! An image as a volume: its layers as one file system that nobody can write, or a directory of it.
//! What does not live here: where it is attached, and with which attributes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use berth_sys::path::Root;
use rustix::fs::{CWD, OFlags};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::error::LayerError;
use super::{LAYERS_MAX, Layers, View, overlay};
use crate::ids::Digest;

/// Names of the two empty directories that lie below every volume's layers.
pub(super) const EMPTY: [&str; 2] = ["0", "1"];

impl Layers {
    /// A detached overlay of layers (bottom first), or with `sub_path` of a directory in it, which is found inside of the
    /// image whatever links lead there. An overlay also of a single layer, and not a bind of its directory: the kernel
    /// itself then refuses writes, while a bind could be mounted anew as writable by a container with CAP_SYS_ADMIN.
    ///
    /// With a user namespace the files show under its ids.
    pub fn volume(
        &self,
        layers: &[Digest],
        sub_path: Option<&Path>,
        View { user, label }: View<'_>,
    ) -> Result<OwnedFd, LayerError> {
        if layers.len() > LAYERS_MAX + 1 {
            return Err(LayerError::TooManyLayers(layers.len()));
        }
        for id in layers {
            self.open_layer(id)?;
        }
        let (layers, cache) = (layers.iter().rev().map(|id| self.layout.layer(id)), self.layout.layers());
        let lower: Vec<_> = layers.chain(EMPTY.map(|name| self.layout.empty(name))).collect();
        let count = lower.len();
        let mapped = user.map(|user| overlay::Mapped { layers: &cache, user });
        let whole = overlay::mount(&overlay::Stack { lower, writable: None, mapped, label })?;
        let Some(path) = sub_path else { return Ok(whole) };
        let missing = |source| LayerError::SubPath { path: path.to_path_buf(), source };
        let inside = Root::open(whole.try_clone().map_err(missing)?);
        let directory = inside.open_with(path, OFlags::PATH | OFlags::DIRECTORY).map_err(missing)?;
        self.part(&whole, directory.as_fd()).map_err(|(step, source)| LayerError::Mount {
            layers: count,
            step,
            source,
        })
    }

    /// A detached mount of a directory of a detached mount. Before Linux 6.15 a mount must be attached to be cloned.
    fn part(&self, whole: &OwnedFd, directory: BorrowedFd<'_>) -> Result<OwnedFd, overlay::Step> {
        match clone(directory) {
            Err(Errno::INVAL) => overlay::apart(|| self.part_attached(whole, directory)),
            cloned => cloned.map_err(|errno| ("clone a part of the file system", errno.into())),
        }
    }

    /// In a mount namespace apart.
    fn part_attached(&self, whole: &OwnedFd, directory: BorrowedFd<'_>) -> Result<OwnedFd, overlay::Step> {
        let step = |step| move |errno: Errno| (step, errno.into());
        let whole_mount = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(whole, c"", CWD, self.layout.staging(), whole_mount)
            .map_err(step("attach the file system"))?;
        clone(directory).map_err(step("clone a part of the file system"))
    }
}

fn clone(directory: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(directory, c"", flags)
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;
    use crate::containers::spec::IdMapping;
    use crate::drivers::trash::Trash;
    use crate::layout::Layout;
    use crate::pods::spec::UserNamespace;
    use std::fs;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::path::PathBuf;

    struct Cache {
        dir: tempfile::TempDir,
        layers: Layers,
    }

    impl Cache {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let layout = Layout::new(dir.path().join("root"), dir.path().join("state"));
            let layers = Layers::open(&layout, &Config::default(), Trash::new(&layout)).unwrap();
            Self { dir, layers }
        }

        /// A layer made by hand.
        fn layer(&self, name: &str) -> (Digest, PathBuf) {
            let id = Digest::of(name.as_bytes());
            let path = self.layers.layout.layer(&id);
            fs::create_dir(&path).unwrap();
            (id, path)
        }

        fn shows_on_the_host(&self) -> bool {
            let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
            table.contains(self.dir.path().to_str().unwrap())
        }
    }

    fn at(mount: &OwnedFd, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{path}", mount.as_raw_fd()))
    }

    #[test]
    fn layers_lie_over_each_other_and_nobody_can_write() {
        let cache = Cache::new();
        let ((below, b), (above, a)) = (cache.layer("below"), cache.layer("above"));
        fs::write(b.join("file"), "below").unwrap();
        fs::write(b.join("kept"), "kept").unwrap();
        fs::write(a.join("file"), "above").unwrap();
        for (layers, file) in
            [(vec![], None), (vec![below.clone()], Some("below")), (vec![below, above], Some("above"))]
        {
            let volume = cache.layers.volume(&layers, None, View::default()).unwrap();
            assert_eq!(fs::read_to_string(at(&volume, "file")).ok().as_deref(), file);
            assert_eq!(at(&volume, "kept").exists(), file.is_some());
            let error = fs::write(at(&volume, "new"), "").unwrap_err();
            assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::ROFS.raw_os_error()), "{error}");
            assert!(!cache.shows_on_the_host());
        }
    }

    #[test]
    fn a_sub_path_is_a_directory_inside_of_the_image_only() {
        let cache = Cache::new();
        let (id, path) = cache.layer("one");
        fs::create_dir_all(path.join("a/b")).unwrap();
        fs::create_dir(path.join("etc")).unwrap();
        fs::write(path.join("a/b/file"), "deep").unwrap();
        fs::write(path.join("etc/mark"), "image").unwrap();
        symlink("/etc", path.join("absolute")).unwrap();
        symlink("../../../../../etc", path.join("a/up")).unwrap();
        symlink("/proc/self/root", path.join("magic")).unwrap();
        symlink("loop", path.join("loop")).unwrap();
        let open =
            |sub: &str| cache.layers.volume(std::slice::from_ref(&id), Some(Path::new(sub)), View::default());
        for sub in ["a/b", "/a/b", "a/../a/b", "../a/b"] {
            assert_eq!(fs::read_to_string(at(&open(sub).unwrap(), "file")).unwrap(), "deep", "{sub}");
        }
        for sub in ["absolute", "a/up", "../../etc"] {
            assert_eq!(fs::read_to_string(at(&open(sub).unwrap(), "mark")).unwrap(), "image", "{sub}");
        }
        for sub in ["none", "a/none/b", "a/b/file", "magic", "loop"] {
            let error = open(sub).unwrap_err();
            assert!(matches!(error, LayerError::SubPath { .. }), "{sub}: {error:?}");
            assert!(error.to_string().contains(sub), "{error}");
        }
        let part = open("a/b").unwrap();
        assert!(fs::write(at(&part, "new"), "").is_err());
        // Nothing above the directory can be reached from it.
        assert!(at(&part, "../file").exists() && !at(&part, "../../etc").exists());
        assert!(!cache.shows_on_the_host());
    }

    #[test]
    fn an_older_kernel_gets_the_same_part() {
        let cache = Cache::new();
        let (id, path) = cache.layer("one");
        fs::create_dir(path.join("a")).unwrap();
        fs::write(path.join("a/file"), "x").unwrap();
        let whole = cache.layers.volume(&[id], None, View::default()).unwrap();
        let inside = Root::open(whole.try_clone().unwrap());
        let directory = inside.open_with(Path::new("a"), OFlags::PATH | OFlags::DIRECTORY).unwrap();
        let part = overlay::apart(|| cache.layers.part_attached(&whole, directory.as_fd())).unwrap();
        drop((whole, inside, directory));
        assert_eq!(fs::read_to_string(at(&part, "file")).unwrap(), "x");
        assert!(!cache.shows_on_the_host());
    }

    #[test]
    fn a_user_namespace_sees_its_own_ids() {
        let cache = Cache::new();
        let (id, path) = cache.layer("one");
        fs::create_dir(path.join("a")).unwrap();
        fs::write(path.join("a/file"), "x").unwrap();
        std::os::unix::fs::chown(path.join("a/file"), Some(33), Some(34)).unwrap();
        let map = |first| vec![IdMapping { container_id: 0, host_id: first, length: 65_536 }];
        let user = UserNamespace { uids: map(100_000), gids: map(200_000) };
        let volume = cache
            .layers
            .volume(&[id], Some(Path::new("a")), View { user: Some(&user), label: None })
            .unwrap();
        let seen = fs::metadata(at(&volume, "file")).unwrap();
        assert_eq!((seen.uid(), seen.gid()), (100_033, 200_034));
    }

    #[test]
    fn a_missing_layer_is_named() {
        let cache = Cache::new();
        let error = cache.layers.volume(&[Digest::of(b"none")], None, View::default()).unwrap_err();
        assert!(matches!(error, LayerError::Missing { .. }), "{error:?}");
    }
}
