//! Finding the program to execute, inside the container and as its user, and saying why it cannot be executed.

use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags};

use super::failure::{Result, SpawnError};

/// The program's path: `name` itself where it has a slash, else the first match in the environment's PATH.
pub(super) fn find(name: &CStr, environment: &[CString]) -> Result<CString> {
    let bytes = name.to_bytes();
    if bytes.contains(&b'/') {
        return match check(name) {
            Ok(()) => Ok(name.to_owned()),
            Err(error) => Err(failure(name, name, error)),
        };
    }
    let mut denied = false;
    for directory in path(environment).split(|byte| *byte == b':').filter(|_| !bytes.is_empty()) {
        let directory = if directory.is_empty() { &b"."[..] } else { directory };
        let Ok(candidate) = CString::new([directory, b"/", bytes].concat()) else {
            continue;
        };
        match check(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(error) => denied |= error == Errno::EACCES,
        }
    }
    if denied {
        return Err(failure(name, name, Errno::EACCES));
    }
    Err(error(name, Errno::ENOENT, "executable file not found in $PATH"))
}

fn path(environment: &[CString]) -> &[u8] {
    environment.iter().find_map(|variable| variable.to_bytes().strip_prefix(b"PATH=")).unwrap_or_default()
}

fn check(path: &CStr) -> std::result::Result<(), Errno> {
    let errno = |error: rustix::io::Errno| Errno::from_raw(error.raw_os_error());
    let file = rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(errno)?;
    let stat = rustix::fs::fstat(&file).map_err(errno)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::EACCES);
    }
    rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS).map_err(errno)
}

/// The error for a program, called `name` and expected at `place`, that was not executed.
pub(super) fn failure(name: &CStr, place: &CStr, errno: Errno) -> SpawnError {
    let why = match errno {
        Errno::EACCES => "permission denied",
        Errno::ENOENT => "no such file or directory",
        Errno::ENOEXEC => "exec format error",
        _ => errno.desc(),
    };
    let missing_interpreter = errno == Errno::ENOENT && check(place) == Ok(());
    let why =
        if missing_interpreter { "no such file or directory (its interpreter is missing)" } else { why };
    error(name, errno, why)
}

fn error(name: &CStr, errno: Errno, why: &str) -> SpawnError {
    let name = OsStr::from_bytes(name.to_bytes()).to_string_lossy();
    SpawnError { step: "execute".to_owned(), errno: errno as i32, message: format!("exec {name:?}: {why}") }
}
