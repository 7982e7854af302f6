//! mount_setattr(2): attributes, propagation and ID mapping of a mount or a tree of mounts. The rest of the mount API is
//! safe in rustix and used from there.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::mount::{MountAttrFlags, MountPropagationFlags};

/// All bits that tell how access times are kept: they are one value, changed together.
const ATIME: u64 = 0x70;

/// What mount_setattr(2) shall change; the default changes nothing.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    /// Attributes to set.
    pub set: MountAttrFlags,
    /// Attributes to clear.
    pub clear: MountAttrFlags,
    /// Propagation to give: one of PRIVATE, SLAVE (DOWNSTREAM), SHARED, UNBINDABLE; without REC.
    pub propagation: MountPropagationFlags,
    /// The user namespace by which the owners of files are mapped; only for a mount that is attached nowhere yet.
    pub id_map: Option<BorrowedFd<'a>>,
}

impl Default for Attributes<'_> {
    fn default() -> Self {
        Self {
            set: MountAttrFlags::empty(),
            clear: MountAttrFlags::empty(),
            propagation: MountPropagationFlags::empty(),
            id_map: None,
        }
    }
}

/// Changes the mount whose root `mount` refers to and, with `recursive`, all mounts beneath it.
///
/// # Errors
/// The errno of mount_setattr(2): EINVAL where the file system cannot map IDs or `mount` is not a mount's root, EPERM.
pub fn set_attributes(mount: BorrowedFd<'_>, recursive: bool, attributes: &Attributes<'_>) -> io::Result<()> {
    let mut set = u64::from(attributes.set.bits());
    let mut clear = u64::from(attributes.clear.bits());
    if (set | clear) & ATIME != 0 {
        clear |= ATIME;
    }
    let mut user_namespace = 0;
    if let Some(id_map) = attributes.id_map {
        set |= libc::MOUNT_ATTR_IDMAP;
        user_namespace = u64::from(id_map.as_raw_fd().cast_unsigned());
    }
    let argument = libc::mount_attr {
        attr_set: set,
        attr_clr: clear,
        propagation: u64::from(attributes.propagation.bits()),
        userns_fd: user_namespace,
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string, `argument` is a whole mount_attr; both outlive the call, which keeps neither.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const argument,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
