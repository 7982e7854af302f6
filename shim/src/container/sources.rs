//! What a container mounts, prepared in the host's view: bind sources are opened once, cloned and given their attributes.
//! Attaching them inside the container lives in `mounts`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use berth_sys::mount::{Attributes, set_attributes};
use rustix::fs::{CWD, FileType};
use rustix::mount::{MountAttrFlags, MountPropagationFlags, OpenTreeFlags, open_tree};

use super::Pod;
use super::failure::{Failing, Result, SpawnError};
use super::options::{Bind, Options};
use super::spec::{Mount, Spec};
use super::user_namespace;

/// A mount that waits to be attached.
pub(super) struct Prepared {
    /// From the container's root, without leading slash; never empty.
    pub destination: PathBuf,
    pub source: Source,
}

pub(super) enum Source {
    /// A detached tree of mounts with all its attributes.
    Tree { tree: OwnedFd, directory: bool },
    /// A file system to be made inside the container's namespaces.
    Filesystem { kind: String, name: PathBuf, options: Options },
    /// The cgroup hierarchies, as seen through the container's cgroup namespace.
    Cgroups { options: Options },
}

/// Prepares the spec's mounts, in their order. Those of type `image` take theirs from `volumes`.
pub(super) fn prepare(spec: &Spec, pod: &Pod, volumes: Vec<OwnedFd>) -> Result<Vec<Prepared>> {
    let mut volumes: Vec<_> = volumes.into_iter().map(Some).collect();
    spec.mounts.iter().map(|mount| prepare_one(mount, spec, pod, &mut volumes)).collect()
}

fn prepare_one(mount: &Mount, spec: &Spec, pod: &Pod, volumes: &mut [Option<OwnedFd>]) -> Result<Prepared> {
    let destination = inside(&mount.destination)?;
    let options = Options::parse(&mount.options);
    let source = match mount.kind.as_str() {
        "image" => image(mount, &options, volumes)?,
        "cgroup" | "cgroup2" => Source::Cgroups { options },
        "shm" if mount.source == Path::new("pod") => shm(mount, &options, pod)?,
        "bind" | "rbind" | "" | "none" => bind(mount, &options, spec, pod)?,
        _ if options.bind.is_some() => bind(mount, &options, spec, pod)?,
        kind => {
            let options = labelled(options, kind, &spec.linux.mount_label);
            Source::Filesystem { kind: kind.to_owned(), name: mount.source.clone(), options }
        }
    };
    Ok(Prepared { destination, source })
}

/// File systems that are born empty have no labels of their own; the kernel's have.
fn labelled(mut options: Options, kind: &str, label: &str) -> Options {
    if !label.is_empty() && matches!(kind, "tmpfs" | "devpts") {
        options.data.push(("context".to_owned(), Some(label.to_owned())));
    }
    options
}

/// The destination as a path from the root; one that is relative, the root itself, or has `..` is refused.
fn inside(destination: &Path) -> Result<PathBuf> {
    let refuse = |why: &str| {
        let step = format!("mount {}", destination.display());
        let message = format!("mount destination {:?} {why}", destination.display().to_string());
        SpawnError::refused(step, message)
    };
    if !destination.is_absolute() {
        return Err(refuse("is not absolute"));
    }
    if destination.components().any(|name| name == Component::ParentDir) {
        return Err(refuse("contains \"..\""));
    }
    let path: PathBuf =
        destination.components().filter(|name| matches!(name, Component::Normal(_))).collect();
    if path.as_os_str().is_empty() { Err(refuse("is the root itself")) } else { Ok(path) }
}

fn shm(mount: &Mount, options: &Options, pod: &Pod) -> Result<Source> {
    let step = || format!("clone the pod's /dev/shm for {}", mount.destination.display());
    let tree = match &pod.shm {
        Some(shm) => clone_of(shm.as_fd(), false).failing(step)?,
        None => clone_at(Path::new("/dev/shm"), Bind::Tree).failing(step)?,
    };
    let private = MountPropagationFlags::PRIVATE;
    set_attributes(tree.as_fd(), true, &Attributes { propagation: private, ..Attributes::default() })
        .failing(step)?;
    apply(tree.as_fd(), options).failing(step)?;
    Ok(Source::Tree { tree, directory: true })
}

/// A volume that the daemon has mounted from an image's layers.
fn image(mount: &Mount, options: &Options, volumes: &mut [Option<OwnedFd>]) -> Result<Source> {
    let step = || format!("prepare the image volume for {}", mount.destination.display());
    let number: Option<usize> = mount.source.to_str().and_then(|number| number.parse().ok());
    let tree = number.and_then(|number| volumes.get_mut(number)).and_then(Option::take).ok_or_else(|| {
        let (number, destination) = (mount.source.display(), mount.destination.display());
        let message = format!("no image volume {number} came for {destination}");
        SpawnError::refused(step(), message)
    })?;
    apply(tree.as_fd(), options).failing(step)?;
    Ok(Source::Tree { tree, directory: true })
}

fn bind(mount: &Mount, options: &Options, spec: &Spec, pod: &Pod) -> Result<Source> {
    let destination = mount.destination.display();
    let source = mount.source.display();
    let tree = clone_at(&mount.source, options.bind.unwrap_or(Bind::Tree))
        .failing(|| format!("open {source}, the source of the mount {destination}"))?;
    let step = || format!("prepare the mount of {source} on {destination}");
    let stat = rustix::fs::fstat(&tree).failing(step)?;
    let (propagation, all) = options.propagation.unwrap_or((MountPropagationFlags::PRIVATE, true));
    set_attributes(tree.as_fd(), all, &Attributes { propagation, ..Attributes::default() }).failing(step)?;
    apply(tree.as_fd(), options).failing(step)?;
    if options.id_map.is_some() || !mount.uid_mappings.is_empty() {
        map_ids(tree.as_fd(), mount, options, spec, pod)?;
    }
    let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    if let Some((option, _)) = options.data.first() {
        let message = format!("unknown option {option:?} of the bind mount on {destination}");
        return Err(SpawnError::refused(step(), message));
    }
    Ok(Source::Tree { tree, directory })
}

fn apply(tree: BorrowedFd<'_>, options: &Options) -> std::io::Result<()> {
    let steps = [(true, options.set_all, options.clear_all), (false, options.set, options.clear)];
    for (all, set, clear) in steps {
        if !set.is_empty() || !clear.is_empty() {
            set_attributes(tree, all, &Attributes { set, clear, ..Attributes::default() })?;
        }
    }
    Ok(())
}

fn map_ids(tree: BorrowedFd<'_>, mount: &Mount, options: &Options, spec: &Spec, pod: &Pod) -> Result<()> {
    let (mut uids, mut gids) = (&mount.uid_mappings, &mount.gid_mappings);
    if uids.is_empty() {
        (uids, gids) = (&spec.linux.uid_mappings, &spec.linux.gid_mappings);
    }
    let same = *uids == spec.linux.uid_mappings && *gids == spec.linux.gid_mappings;
    let made;
    let namespace = match &pod.user_ns {
        Some(namespace) if same => namespace.as_fd(),
        _ => {
            made = user_namespace::with_mappings(uids, gids)?;
            made.as_fd()
        }
    };
    let attributes = Attributes { id_map: Some(namespace), ..Attributes::default() };
    set_attributes(tree, options.id_map == Some(Bind::Tree), &attributes).failing(|| {
        let (source, destination) = (mount.source.display(), mount.destination.display());
        format!("map the owners of files in {source}, mounted on {destination}, to the pod's user namespace")
    })
}

/// A detached clone of what is at `path`, looked up once in the caller's view.
pub(super) fn clone_at(path: &Path, what: Bind) -> rustix::io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, what == Bind::Tree);
    open_tree(CWD, path, flags)
}

/// A detached clone of what `fd` refers to.
pub(super) fn clone_of(fd: BorrowedFd<'_>, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    open_tree(fd, "", flags)
}

/// Makes a mount read-only, with all beneath it where `recursive`.
pub(super) fn make_read_only(mount: BorrowedFd<'_>, recursive: bool) -> std::io::Result<()> {
    let set = MountAttrFlags::MOUNT_ATTR_RDONLY;
    set_attributes(mount, recursive, &Attributes { set, ..Attributes::default() })
}

#[cfg(test)]
mod tests {
    #[test]
    fn file_systems_that_are_born_empty_get_the_label() {
        let data = |kind: &str, label: &str| {
            super::labelled(super::Options::parse(&["mode=755".to_owned()]), kind, label).data
        };
        assert_eq!(data("tmpfs", "u:r:t:s0")[1], ("context".to_owned(), Some("u:r:t:s0".to_owned())));
        assert_eq!((data("proc", "u:r:t:s0").len(), data("tmpfs", "").len()), (1, 1));
    }

    #[test]
    fn destinations_stay_inside() {
        let inside = |path: &str| super::inside(std::path::Path::new(path));
        assert_eq!(inside("/a//./b/").unwrap(), std::path::Path::new("a/b"));
        for bad in ["a", "", "/", "//.", "/a/../b"] {
            assert!(inside(bad).is_err(), "{bad}");
        }
    }
}
