//! Puts a file on the host, on record with what was there before, and takes it away again. What does not live here: what is
//! in the file.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::receipt::{Before, Placed, Receipt};
use super::{NodeError, file};
use crate::layout::host::HostLayout;

/// Writes beside the place and renames over it; durable when it returns.
pub(super) fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), NodeError> {
    let fresh = path.with_extension("berth-new");
    let write = || {
        let _ = fs::remove_file(&fresh);
        let mut out = fs::OpenOptions::new().create_new(true).write(true).mode(mode).open(&fresh)?;
        out.set_permissions(fs::Permissions::from_mode(mode))?;
        out.write_all(content)?;
        out.sync_all()?;
        fs::rename(&fresh, path)?;
        sync_directory(path)
    };
    write().map_err(file("write", path))
}

/// What was renamed or removed in a directory stays so after a power cut.
pub(super) fn sync_directory(path: &Path) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), |dir| fs::File::open(dir)?.sync_all())
}

/// Gives the host a file; whether it changed. The first time, what was there before goes on record.
pub(super) fn place(
    host: &HostLayout,
    receipt: &mut Receipt,
    path: &Path,
    content: &str,
) -> Result<bool, NodeError> {
    let here = host.at(path);
    let found = match fs::read(&here) {
        Ok(found) => Some(found),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(file("read", &here)(error)),
    };
    if !receipt.placed.iter().any(|placed| placed.path == path) {
        let before = match &found {
            None => Before::Nothing,
            Some(bytes) => Before::Text {
                content: String::from_utf8_lossy(bytes).into_owned(),
                mode: fs::metadata(&here).map_err(file("read", &here))?.permissions().mode() & 0o7777,
            },
        };
        make_parents(host, receipt, path)?;
        receipt.placed.push(Placed { path: path.into(), before });
        receipt.write(host)?;
    }
    if found.as_deref() == Some(content.as_bytes()) {
        return Ok(false);
    }
    write(&here, content.as_bytes(), 0o644)?;
    Ok(true)
}

fn make_parents(host: &HostLayout, receipt: &mut Receipt, path: &Path) -> Result<(), NodeError> {
    let missing: Vec<_> = path.ancestors().skip(1).take_while(|dir| !host.at(dir).exists()).collect();
    for dir in missing.into_iter().rev() {
        receipt.placed.push(Placed { path: dir.into(), before: Before::NoDirectory });
        receipt.write(host)?;
        fs::create_dir(host.at(dir)).map_err(file("make", &host.at(dir)))?;
    }
    Ok(())
}

/// Takes one file away again, or puts back what was there; directories only when nothing else is in them by now.
pub(super) fn restore(host: &HostLayout, receipt: &mut Receipt, path: &Path) -> Result<(), NodeError> {
    let Some(number) = receipt.placed.iter().position(|placed| placed.path == path) else { return Ok(()) };
    let here = host.at(path);
    let gone = |result: std::io::Result<()>| match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    };
    match &receipt.placed[number].before {
        Before::Nothing => gone(fs::remove_file(&here)).map_err(file("remove", &here))?,
        Before::NoDirectory => match fs::remove_dir(&here) {
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {}
            result => gone(result).map_err(file("remove", &here))?,
        },
        Before::Text { content, mode } => write(&here, content.as_bytes(), *mode)?,
    }
    receipt.placed.remove(number);
    receipt.write(host)
}

/// Takes away all files for which `which` says so, the last first.
pub(super) fn restore_all(
    host: &HostLayout,
    receipt: &mut Receipt,
    which: impl Fn(&Path) -> bool,
) -> Result<(), NodeError> {
    let paths: Vec<_> = receipt.placed.iter().rev().map(|placed| placed.path.clone()).collect();
    for path in paths.iter().filter(|path| which(path)) {
        restore(host, receipt, path)?;
    }
    Ok(())
}
