//! Making a file system as a detached mount, with the kernel's own words when it refuses.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};

use super::failure::{Result, SpawnError, cause};
use super::options::Options;

/// Makes a file system of `kind`, to be mounted at `destination` (for the error only).
pub(super) fn make(kind: &str, name: &Path, options: &Options, destination: &Path) -> Result<OwnedFd> {
    let words = options.data.iter().map(|(key, value)| (key.as_str(), value.as_deref()));
    let name = if name.as_os_str().is_empty() { Path::new(kind) } else { name };
    let set = options.set | options.set_all;
    let made = context(kind).and_then(|context| {
        configure(context.as_fd(), name, words)
            .and_then(|()| Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, set)?))
            .map_err(|error| (error, explanation(&context)))
    });
    made.map_err(|(error, why)| {
        let step = format!("mount {kind} on /{}", destination.display());
        let mut message = format!("{step}: {}", cause(&error));
        if !why.is_empty() {
            message = format!("{message} ({why})");
        }
        SpawnError { step, errno: error.raw_os_error().unwrap_or(0), message }
    })
}

/// Makes one hierarchy of cgroup v1, by its controllers or its name, or the one of v2.
pub(super) fn make_hierarchy(
    kind: &str,
    words: &[(&str, Option<&str>)],
    set: MountAttrFlags,
) -> io::Result<OwnedFd> {
    let context = context(kind).map_err(|(error, _)| error)?;
    configure(context.as_fd(), Path::new("cgroup"), words.iter().copied())?;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, set)?)
}

/// Attaches a detached mount to the very object that `target` refers to.
pub(super) fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags)
}

fn context(kind: &str) -> std::result::Result<OwnedFd, (io::Error, String)> {
    fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|error| (error.into(), String::new()))
}

fn configure<'a>(
    context: BorrowedFd<'_>,
    name: &Path,
    words: impl Iterator<Item = (&'a str, Option<&'a str>)>,
) -> io::Result<()> {
    fsconfig_set_string(context, "source", name)?;
    for (key, value) in words {
        match value {
            Some(value) => fsconfig_set_string(context, key, value)?,
            None => fsconfig_set_flag(context, key)?,
        }
    }
    Ok(fsconfig_create(context)?)
}

/// The messages that the kernel keeps with the context: each is a letter, a space, and a text.
fn explanation(context: &OwnedFd) -> String {
    let mut lines = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(length) = rustix::io::read(context, &mut buffer) {
        let line = String::from_utf8_lossy(&buffer[..length]);
        lines.push(line.get(2..).unwrap_or_default().trim_end().to_owned());
    }
    lines.join("; ")
}
