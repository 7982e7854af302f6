//! The container's root: attaching it in the new mount namespace, and making it the root for good.

use std::os::fd::{AsFd, OwnedFd};

use berth_sys::mount::{Attributes, set_attributes};
use berth_sys::path::Root;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, statx};
use rustix::mount::{MountPropagationFlags, MoveMountFlags, UnmountFlags, move_mount, unmount};

use super::failure::{Failing, Result};
use super::sources::{clone_of, make_read_only};

/// In the builder: makes of `root` a detached tree of the container's own. One that is detached already is taken as it is:
/// dissolving it after a clone would wait for the kernel's RCU, and kernels before 6.15 cannot clone it.
pub(super) fn prepare(root: OwnedFd) -> Result<OwnedFd> {
    let step = || "clone the container's root".to_owned();
    let tree =
        if is_detached(&root).failing(step)? { root } else { clone_of(root.as_fd(), true).failing(step)? };
    let private = Attributes { propagation: MountPropagationFlags::PRIVATE, ..Attributes::default() };
    set_attributes(tree.as_fd(), true, &private)
        .failing(|| "make the container's root private".to_owned())?;
    Ok(tree)
}

/// Whether nothing lies above the root of this mount.
fn is_detached(root: &OwnedFd) -> rustix::io::Result<bool> {
    let mask = StatxFlags::MNT_ID | StatxFlags::INO;
    let here = statx(root, "", AtFlags::EMPTY_PATH, mask)?;
    let above = statx(root, "..", AtFlags::empty(), mask)?;
    Ok((here.stx_mnt_id, here.stx_ino) == (above.stx_mnt_id, above.stx_ino))
}

/// In the new mount namespace: attaches the tree on the working directory, and cuts off the host's propagation before.
pub(super) fn attach(tree: OwnedFd) -> Result<Root> {
    let private = Attributes { propagation: MountPropagationFlags::PRIVATE, ..Attributes::default() };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open("/", flags, Mode::empty())
        .map_err(std::io::Error::from)
        .and_then(|host| set_attributes(host.as_fd(), true, &private))
        .failing(|| "make the copied mounts private".to_owned())?;
    // By descriptor and empty path: in a user namespace the bundle directory cannot be searched.
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&tree, "", CWD, "", flags).failing(|| "attach the container's root".to_owned())?;
    Ok(Root::open(tree))
}

/// Makes `root` the root of the mount namespace and drops all of the host's mounts from it.
pub(super) fn enter(root: &Root, readonly: bool, propagation: Option<MountPropagationFlags>) -> Result<()> {
    let step = || "change to the container's root".to_owned();
    if readonly {
        make_read_only(root.as_fd(), false).failing(|| "make the container's root read-only".to_owned())?;
    }
    rustix::process::fchdir(root.as_fd()).failing(step)?;
    rustix::process::pivot_root(".", ".").failing(step)?;
    unmount(".", UnmountFlags::DETACH).failing(|| "detach the host's mounts".to_owned())?;
    rustix::process::chdir("/").failing(step)?;
    if let Some(propagation) = propagation {
        // Only the root itself: what is mounted beneath it has the propagation that was asked for each.
        set_attributes(root.as_fd(), false, &Attributes { propagation, ..Attributes::default() })
            .failing(|| "set the root's propagation".to_owned())?;
    }
    Ok(())
}
