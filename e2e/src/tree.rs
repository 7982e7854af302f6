//! What is in a directory, down to the last attribute, to compare with what is there later.
//! What does not live here: what should be in it.

use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use anyhow::{Context, Result};

use crate::images::sha256;

/// A line for each path, in the order of paths: kind, mode, owner, time, content, attributes.
pub fn describe(root: &Path) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    let mut ahead = vec![root.to_path_buf()];
    while let Some(path) = ahead.pop() {
        let metadata = path.symlink_metadata()?;
        if metadata.is_dir() {
            for entry in std::fs::read_dir(&path)? {
                ahead.push(entry?.path());
            }
        }
        let line = line(&path, &metadata).with_context(|| format!("look at {}", path.display()))?;
        lines.push(format!("{} {line}", path.strip_prefix(root)?.display()));
    }
    lines.sort();
    Ok(lines)
}

fn line(path: &Path, metadata: &Metadata) -> Result<String> {
    let kind = metadata.file_type();
    let content = if kind.is_file() {
        sha256(&std::fs::read(path)?)
    } else if kind.is_symlink() {
        std::fs::read_link(path)?.display().to_string()
    } else if kind.is_char_device() || kind.is_block_device() {
        format!("device {:x}", metadata.rdev())
    } else {
        String::new()
    };
    let (mode, uid, gid) = (metadata.mode(), metadata.uid(), metadata.gid());
    // A whiteout is as old as its unpacking, and nobody sees it.
    let whiteout = kind.is_char_device() && metadata.rdev() == 0;
    let time = (!whiteout).then(|| format!("{}.{:09}", metadata.mtime(), metadata.mtime_nsec()));
    let time = time.unwrap_or_default();
    Ok(format!("{mode:o} {uid}:{gid} {time} {content} {}", attributes(path)?))
}

fn attributes(path: &Path) -> Result<String> {
    let mut names = vec![0; 64 << 10];
    let len = rustix::fs::llistxattr(path, &mut names[..])?;
    let mut text = String::new();
    for name in names[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        // What overlay notes for itself differs each time; that a directory is opaque does not.
        if name.starts_with(b"trusted.overlay.") && name != b"trusted.overlay.opaque" {
            continue;
        }
        let mut value = vec![0; 64 << 10];
        let len = rustix::fs::lgetxattr(path, name, &mut value[..])?;
        text += &format!("{}={} ", name.escape_ascii(), value[..len].escape_ascii());
    }
    Ok(text)
}
