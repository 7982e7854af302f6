//! ID-mapped mounts: files shown under other owners than the disk has. What does not live here: which pods have them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use berth_sys::mount::{Attributes, set_attributes};
use berth_sys::user_namespace::{Range, with_mappings};
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsmount, fsopen, open_tree,
};

use crate::containers::spec::IdMapping;
use crate::pods::spec::UserNamespace;

/// A mapping that mounts can be given.
pub struct IdMap(OwnedFd);

impl IdMap {
    /// Blocking, for a millisecond: a process holds the namespace until it is open here.
    pub fn new(user: &UserNamespace) -> io::Result<Self> {
        Ok(Self(with_mappings(&ranges(&user.uids), &ranges(&user.gids))?))
    }

    /// A detached clone of the mount at `path`, a directory or a file, under the mapping.
    pub fn mount(&self, path: &Path) -> io::Result<OwnedFd> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = open_tree(CWD, path, flags)?;
        let attributes = Attributes { id_map: Some(self.0.as_fd()), ..Attributes::default() };
        set_attributes(tree.as_fd(), false, &attributes)?;
        Ok(tree)
    }

    /// Whether a tmpfs can be mapped: one of its own, which nobody sees.
    fn memory(&self) -> io::Result<()> {
        let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(&fs)?;
        let mount = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        let attributes = Attributes { id_map: Some(self.0.as_fd()), ..Attributes::default() };
        set_attributes(mount.as_fd(), false, &attributes)
    }
}

/// Whether this node can run pods with user namespaces whose images lie below `directory`; else why not.
pub fn check(directory: &Path) -> Result<(), String> {
    any()?.mount(directory).map(drop).map_err(|error| {
        let kind = crate::drivers::host::file_system(directory);
        format!("the file system of {} ({kind}) takes no ID-mapped mounts: {error}", directory.display())
    })
}

/// The same for volumes in memory, as Secrets are.
pub fn check_memory() -> Result<(), String> {
    any()?.memory().map_err(|error| format!("tmpfs takes no ID-mapped mounts: {error}"))
}

fn any() -> Result<IdMap, String> {
    let some = IdMapping { container_id: 0, host_id: 65_536, length: 65_536 };
    let map = IdMap::new(&UserNamespace { uids: vec![some], gids: vec![some] });
    map.map_err(|error| format!("the kernel makes no user namespace: {error}"))
}

fn ranges(mappings: &[IdMapping]) -> Vec<Range> {
    let range = |m: &IdMapping| Range { inside: m.container_id, outside: m.host_id, count: m.length };
    mappings.iter().map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn files_are_shown_under_the_ids_of_the_pod() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("file"), "").unwrap();
        std::os::unix::fs::chown(directory.path().join("file"), Some(3), Some(4)).unwrap();
        let map = |first| vec![IdMapping { container_id: 0, host_id: first, length: 5 }];
        let user = UserNamespace { uids: map(1000), gids: map(2000) };
        let tree = IdMap::new(&user).unwrap().mount(directory.path()).unwrap();
        let seen = std::fs::metadata(format!("/proc/self/fd/{}/file", tree.as_raw_fd())).unwrap();
        assert_eq!((seen.uid(), seen.gid()), (1003, 2004));
    }

    #[test]
    fn a_file_system_without_id_maps_is_named() {
        assert_eq!(check(&std::env::temp_dir()), Ok(()));
        let error = check(Path::new("/proc/self")).unwrap_err();
        assert!(error.contains("/proc/self (proc)"), "{error}");
    }

    #[test]
    fn volumes_in_memory_take_id_maps_from_linux_6_3() {
        let found = check_memory();
        assert_eq!(found.is_ok(), crate::drivers::host::Host::detect().kernel >= (6, 3), "{found:?}");
    }
}
