//! The container's /sys/fs/cgroup: what it mounts to see its own cgroups. Joining them lives in `cgroups`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::MountAttrFlags;

use super::failure::{Failing, Result};
use super::filesystem::{attach, make, make_hierarchy};
use super::options::Options;
use super::sources::make_read_only;

/// The hierarchies of this node.
pub(super) enum Hierarchies {
    /// One of cgroup v2, mounted on /sys/fs/cgroup.
    Unified,
    /// Those of cgroup v1, and maybe one of v2 beside them.
    Many(Vec<Hierarchy>),
}

pub(super) struct Hierarchy {
    /// The directory under /sys/fs/cgroup, for instance "cpu,cpuacct".
    directory: String,
    kind: Kind,
}

enum Kind {
    Controllers(Vec<String>),
    Named(String),
    Unified,
}

impl Hierarchies {
    /// Reads the hierarchies of the node from the caller's /proc/self/cgroup.
    pub(super) fn of_this_node(cgroup_v2: bool) -> Result<Self> {
        if cgroup_v2 {
            return Ok(Self::Unified);
        }
        let list = std::fs::read_to_string("/proc/self/cgroup")
            .failing(|| "read /proc/self/cgroup of the host".to_owned())?;
        Ok(Self::Many(list.lines().filter_map(Hierarchy::parse).collect()))
    }
}

impl Hierarchy {
    /// A line is `number:controllers:path`; the controllers of v2 are empty, a named hierarchy's are `name=NAME`.
    fn parse(line: &str) -> Option<Self> {
        let controllers = line.split(':').nth(1)?;
        let (directory, kind) = match controllers.strip_prefix("name=") {
            Some(name) => (name, Kind::Named(name.to_owned())),
            None if controllers.is_empty() => ("unified", Kind::Unified),
            None => (controllers, Kind::Controllers(controllers.split(',').map(str::to_owned).collect())),
        };
        Some(Self { directory: directory.to_owned(), kind })
    }

    fn make(&self, set: MountAttrFlags) -> std::io::Result<OwnedFd> {
        match &self.kind {
            Kind::Unified => make_hierarchy("cgroup2", &[], set),
            Kind::Named(name) => make_hierarchy("cgroup", &[("none", None), ("name", Some(name))], set),
            Kind::Controllers(names) => {
                let words: Vec<_> = names.iter().map(|name| (name.as_str(), None)).collect();
                make_hierarchy("cgroup", &words, set)
            }
        }
    }
}

/// Mounts the hierarchies on `target`, read-only unless the options say "rw".
pub(super) fn mount(
    hierarchies: &Hierarchies,
    options: &Options,
    target: BorrowedFd<'_>,
    destination: &Path,
) -> Result<()> {
    let mut set = options.set | options.set_all;
    set.set(MountAttrFlags::MOUNT_ATTR_RDONLY, !options.writable);
    let step = |what: &str| format!("mount {what} on /{}", destination.display());
    let Hierarchies::Many(hierarchies) = hierarchies else {
        let tree = make_hierarchy("cgroup2", &[], set).failing(|| step("cgroup2"))?;
        return attach(tree.as_fd(), target).failing(|| step("cgroup2"));
    };
    let above = Options { data: vec![("mode".to_owned(), Some("755".to_owned()))], ..Options::parse(&[]) };
    let tmpfs = make("tmpfs", &PathBuf::new(), &above, destination)?;
    attach(tmpfs.as_fd(), target).failing(|| step("tmpfs"))?;
    for hierarchy in hierarchies {
        let name = &hierarchy.directory;
        let step = || step(&format!("cgroup {name}"));
        let tree = match hierarchy.make(set) {
            Ok(tree) => tree,
            // A hierarchy that the kernel lists but that was never mounted has nothing of this container.
            Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) => continue,
            Err(error) => return Err(error).failing(step),
        };
        rustix::fs::mkdirat(&tmpfs, name, Mode::from_raw_mode(0o755)).failing(step)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(&tmpfs, name, flags, Mode::empty()).failing(step)?;
        attach(tree.as_fd(), directory.as_fd()).failing(step)?;
        if let Kind::Controllers(names) = &hierarchy.kind
            && names.len() > 1
        {
            for alias in names {
                rustix::fs::symlinkat(name, &tmpfs, alias).failing(step)?;
            }
        }
    }
    make_read_only(tmpfs.as_fd(), false).failing(|| step("tmpfs"))
}
