//! Mounts layers as one root, detached: no mount table shows it until somebody attaches it.
//! What does not live here: where it is attached.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
    move_mount, open_tree,
};

use super::error::LayerError;
use crate::drivers::id_map::IdMap;
use crate::pods::spec::UserNamespace;

/// What is stacked.
#[derive(Debug)]
pub struct Stack<'a> {
    /// Top first.
    pub lower: Vec<PathBuf>,
    /// None: nobody can write, not even by mounting it anew; then there must be two layers.
    pub writable: Option<Writable<'a>>,
    /// The layers' owners are shown under the IDs of a user namespace.
    pub mapped: Option<Mapped<'a>>,
    /// The SELinux label of every file, in place of what the disk says.
    pub label: Option<&'a str>,
}

/// Where the changes go.
#[derive(Clone, Copy, Debug)]
pub struct Writable<'a> {
    /// Takes the changes.
    pub upper: &'a Path,
    /// Overlay's own; empty, on the same file system as `upper`.
    pub work: &'a Path,
}

/// Layers under other IDs. `upper` has the IDs of the host, those that the user namespace's users really are.
#[derive(Clone, Copy, Debug)]
pub struct Mapped<'a> {
    /// Where all the layers are.
    pub layers: &'a Path,
    /// Whose IDs.
    pub user: &'a UserNamespace,
}

/// Renames of directories are done by copying, and no file is copied in part: so an upper directory is complete
/// in itself, and nothing in a layer can point overlay elsewhere.
const PLAIN: [(&str, &str); 3] = [("index", "off"), ("metacopy", "off"), ("redirect_dir", "nofollow")];
/// The kernel's limit of one string option, without the zero.
const STRING_MAX: usize = 255;

/// Mounts through the calls that take one layer at a time (Linux 6.5), or through mount(2).
pub fn mount(stack: &Stack<'_>) -> Result<OwnedFd, LayerError> {
    let mounted = if stack.mapped.is_some() {
        apart(|| mount_mapped(stack))
    } else {
        match mount_by_layer(stack) {
            Err((ADD_LAYER, Errno::INVAL)) => apart(|| mount_by_page(stack)),
            mounted => mounted.map_err(|(step, errno)| (step, errno.into())),
        }
    };
    mounted.map_err(|(step, source)| failed(stack, step, source))
}

/// What was tried, and why it failed.
pub type Step = (&'static str, io::Error);

const ADD_LAYER: &str = "add a layer";
/// The option of one layer, which has a value.
const LAYER: &str = "lowerdir+";

fn failed(stack: &Stack<'_>, step: &'static str, source: io::Error) -> LayerError {
    LayerError::Mount { layers: stack.lower.len(), step, source }
}

/// A directory, and a text of less than 256 bytes that leads to it.
struct Named {
    text: Vec<u8>,
    _open: Option<OwnedFd>,
}

fn open_path(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn named(path: &Path, max: usize) -> Result<Named, Errno> {
    let text = path.as_os_str().as_bytes();
    let plain = !text.iter().any(|byte| matches!(byte, b',' | b':' | b'\\'));
    if text.len() <= max && plain {
        return Ok(Named { text: text.to_vec(), _open: None });
    }
    let open = open_path(path)?;
    Ok(Named { text: format!("/proc/self/fd/{}", open.as_raw_fd()).into_bytes(), _open: Some(open) })
}

fn mount_by_layer(stack: &Stack<'_>) -> Result<OwnedFd, (&'static str, Errno)> {
    let step = |step| move |errno| (step, errno);
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(step("open overlay"))?;
    // Before Linux 6.5 options are only collected, whatever they are, and refused by nobody before the end.
    if fsconfig_set_flag(&fs, LAYER).is_ok() {
        return Err((ADD_LAYER, Errno::INVAL));
    }
    let mut open = Vec::with_capacity(stack.lower.len() + 2);
    for path in &stack.lower {
        let layer = named(path, STRING_MAX).map_err(step("open a layer"))?;
        fsconfig_set_string(&fs, LAYER, layer.text.as_slice()).map_err(step(ADD_LAYER))?;
        open.push(layer);
    }
    if let Some(Writable { upper, work }) = stack.writable {
        for (key, path) in [("upperdir", upper), ("workdir", work)] {
            let directory = named(path, STRING_MAX).map_err(step("open the writable layer"))?;
            fsconfig_set_string(&fs, key, directory.text.as_slice())
                .map_err(step("set the writable layer"))?;
            open.push(directory);
        }
        fsconfig_set_flag(&fs, "volatile").map_err(step("set volatile"))?;
    }
    if let Some(label) = stack.label {
        fsconfig_set_string(&fs, "context", label).map_err(step("set the SELinux label"))?;
    }
    for (key, value) in PLAIN {
        fsconfig_set_string(&fs, key, value).map_err(step("set an option"))?;
    }
    fsconfig_create(&fs).map_err(step("create the file system"))?;
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        .map_err(step("mount the file system"))
}

/// Runs `mount` in a mount namespace that only one short-lived thread has, so that what it must attach shows nowhere.
pub fn apart(mount: impl FnOnce() -> Result<OwnedFd, Step> + Send) -> Result<OwnedFd, Step> {
    std::thread::scope(|scope| {
        let worker = std::thread::Builder::new().name("overlay".into());
        let worker = worker.spawn_scoped(scope, || leave_mount_namespace().and_then(|()| mount()));
        worker.map_err(|error| ("start a thread", error)).and_then(|worker| {
            worker.join().unwrap_or_else(|_| Err(("mount in a thread", io::ErrorKind::Other.into())))
        })
    })
}

fn leave_mount_namespace() -> Result<(), Step> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)
        .map_err(|errno| ("leave the mount namespace", errno.into()))?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private)
        .map_err(|errno| ("make the mount namespace private", errno.into()))
}

/// In a mount namespace apart. Overlay can't be mapped as a whole, and before Linux 6.15 it takes no layer that is attached
/// nowhere: so the layers' directory is covered with itself under other IDs, and overlay keeps what it finds there.
fn mount_mapped(stack: &Stack<'_>) -> Result<OwnedFd, Step> {
    cover(stack)?;
    match mount_by_layer(stack) {
        Err((ADD_LAYER, Errno::INVAL)) => mount_by_page(stack),
        mounted => mounted.map_err(|(step, errno)| (step, errno.into())),
    }
}

fn cover(stack: &Stack<'_>) -> Result<(), Step> {
    let Some(Mapped { layers, user }) = stack.mapped else {
        return Ok(());
    };
    let tree = IdMap::new(user)
        .and_then(|map| map.mount(layers))
        .map_err(|error| ("show the layers under the pod's user namespace", error))?;
    let whole = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&tree, c"", CWD, layers, whole).map_err(|errno| ("cover the layers' directory", errno.into()))
}

/// For older kernels, in a mount namespace apart: mount(2) attaches. The mount is then cloned into the open, detached.
fn mount_by_page(stack: &Stack<'_>) -> Result<OwnedFd, Step> {
    let step = |step| move |errno: Errno| (step, io::Error::from(errno));
    // Opened here, not before: overlay takes only what its own mount namespace has.
    let mut open = Vec::with_capacity(stack.lower.len() + 2);
    let mut name = |path: &Path| -> Result<String, Errno> {
        let fd = open_path(path)?;
        let text = format!("/proc/thread-self/fd/{}", fd.as_raw_fd());
        open.push(fd);
        Ok(text)
    };
    let lower: Result<Vec<_>, _> = stack.lower.iter().map(|path| name(path)).collect();
    let lower = lower.map_err(step("open a layer"))?.join(":");
    let writable = match stack.writable {
        Some(Writable { upper, work }) => {
            let upper = name(upper).map_err(step("open the writable layer"))?;
            let work = name(work).map_err(step("open the writable layer"))?;
            format!(",upperdir={upper},workdir={work},volatile")
        }
        None => String::new(),
    };
    // Any directory will do: nobody else sees it covered.
    let place = stack.writable.map(|writable| writable.work).or(stack.lower.last().map(PathBuf::as_path));
    let place = place.ok_or(Errno::INVAL).map_err(step("find a place to mount at"))?;
    let plain = PLAIN.map(|(key, value)| format!(",{key}={value}")).concat();
    // In quotes, for a label has commas.
    let label = stack.label.map_or_else(String::new, |label| format!(",context=\"{label}\""));
    let options = format!("lowerdir={lower}{writable}{plain}{label}\0");
    let options = std::ffi::CStr::from_bytes_with_nul(options.as_bytes())
        .map_err(|_| step("name the layers")(Errno::INVAL))?;
    rustix::mount::mount("overlay", place, "overlay", MountFlags::empty(), options)
        .map_err(step("mount the file system"))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mounted = open_tree(CWD, place, flags).map_err(step("detach the mount"))?;
    rustix::mount::unmount(place, UnmountFlags::DETACH).map_err(step("hide the mount"))?;
    Ok(mounted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(count: usize) -> (tempfile::TempDir, Vec<PathBuf>) {
        let dir = tempfile::tempdir().unwrap();
        let lower: Vec<_> = (0..count).map(|n| dir.path().join(format!("{n:064}"))).collect();
        for (n, path) in lower.iter().enumerate() {
            std::fs::create_dir(path).unwrap();
            std::fs::write(path.join("same"), n.to_string()).unwrap();
            std::fs::write(path.join(format!("own{n}")), "").unwrap();
        }
        std::fs::create_dir(dir.path().join("upper")).unwrap();
        std::fs::create_dir(dir.path().join("work")).unwrap();
        (dir, lower)
    }

    fn check(mount: fn(&Stack<'_>) -> Result<OwnedFd, LayerError>) {
        let (dir, mut lower) = tree(128);
        lower.reverse();
        let (upper, work) = (dir.path().join("upper"), dir.path().join("work"));
        let root = mount(&Stack {
            lower,
            writable: Some(Writable { upper: &upper, work: &work }),
            mapped: None,
            label: None,
        })
        .unwrap();
        let root_path = PathBuf::from(format!("/proc/self/fd/{}", root.as_raw_fd()));
        assert_eq!(std::fs::read_to_string(root_path.join("same")).unwrap(), "127");
        assert!(root_path.join("own0").exists());
        std::fs::write(root_path.join("new"), "n").unwrap();
        assert!(upper.join("new").exists());
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!table.contains(dir.path().to_str().unwrap()), "the host's mount table shows it");
    }

    #[test]
    fn a_root_of_128_layers_shows_the_top_one_and_no_mount_table_shows_it() {
        check(mount);
    }

    #[test]
    fn an_older_kernel_gets_the_same_root_through_one_page_of_options() {
        check(|stack| apart(|| mount_by_page(stack)).map_err(|(step, source)| failed(stack, step, source)));
    }

    #[test]
    fn layers_under_a_user_namespace_have_its_ids_and_the_writable_one_those_of_the_host() {
        use crate::containers::spec::IdMapping;
        use std::os::unix::fs::{MetadataExt, chown};
        let by_page = |stack: &Stack<'_>| cover(stack).and_then(|()| mount_by_page(stack));
        for mount in [mount_mapped, by_page] {
            let ((layers, lower), (dir, _)) = (tree(3), tree(0));
            chown(lower[1].join("own1"), Some(33), Some(34)).unwrap();
            let map = |first| vec![IdMapping { container_id: 0, host_id: first, length: 65_536 }];
            let user = UserNamespace { uids: map(100_000), gids: map(200_000) };
            let (upper, work) = (dir.path().join("upper"), dir.path().join("work"));
            let mapped = Some(Mapped { layers: layers.path(), user: &user });
            let below = lower[1].join("own1");
            let stack =
                Stack { lower, writable: Some(Writable { upper: &upper, work: &work }), mapped, label: None };
            let root = apart(|| mount(&stack)).unwrap();
            let path = PathBuf::from(format!("/proc/self/fd/{}", root.as_raw_fd()));
            let owner = |path: PathBuf| std::fs::metadata(path).map(|m| (m.uid(), m.gid())).unwrap();
            assert_eq!(owner(path.join("own1")), (100_033, 200_034));
            std::fs::write(path.join("own1"), "changed").unwrap();
            assert_eq!(owner(upper.join("own1")), (100_033, 200_034));
            assert_eq!(owner(below), (33, 34));
        }
    }

    #[test]
    fn without_a_writable_layer_nothing_can_be_written_also_on_older_kernels() {
        for older in [false, true] {
            let (_dir, lower) = tree(2);
            let stack = Stack { lower, writable: None, mapped: None, label: None };
            let root = if older { apart(|| mount_by_page(&stack)).unwrap() } else { mount(&stack).unwrap() };
            let path = PathBuf::from(format!("/proc/self/fd/{}", root.as_raw_fd()));
            assert_eq!(std::fs::read_to_string(path.join("same")).unwrap(), "0");
            let error = std::fs::write(path.join("new"), "").unwrap_err();
            assert_eq!(error.raw_os_error(), Some(Errno::ROFS.raw_os_error()), "{error}");
        }
    }

    #[test]
    fn a_missing_layer_is_an_error_that_names_the_step() {
        let (dir, mut lower) = tree(1);
        lower.push("/nonexistent/layer".into());
        let (upper, work) = (dir.path().join("upper"), dir.path().join("work"));
        let error = mount(&Stack {
            lower,
            writable: Some(Writable { upper: &upper, work: &work }),
            mapped: None,
            label: None,
        })
        .unwrap_err();
        assert!(error.to_string().contains("2 layers"), "{error}");
    }
}
