//! The layer cache of a node as its files tell it, behind the daemon's back. What does not live here: what the daemon says.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::images::sha256;
use crate::tree;

/// Each unpacked layer by its name, and what is in it.
pub fn layers(root: &Path) -> Result<BTreeMap<String, Vec<String>>> {
    names(&root.join("layers"))?
        .into_iter()
        .map(|name| Ok((name.clone(), tree::describe(&root.join("layers").join(name))?)))
        .collect()
}

/// Fails unless each layer is one of `known` to the last attribute, each blob is what its name says, and nothing is half
/// done: of what was removed, the files may take a moment to go.
pub fn expect_whole(root: &Path, known: &BTreeMap<String, Vec<String>>) -> Result<()> {
    for (name, found) in layers(root)? {
        let expected = known.get(&name);
        ensure!(expected.is_some(), "layer {name} is of no image");
        let lacks: Vec<_> = expected.into_iter().flatten().filter(|line| !found.contains(line)).collect();
        ensure!(lacks.is_empty(), "layer {name} lacks {lacks:#?}, and has {found:#?}");
        ensure!(expected == Some(&found), "layer {name} has more than it should: {found:#?}");
    }
    for name in names(&root.join("blobs"))? {
        let digest = sha256(&std::fs::read(root.join("blobs").join(&name))?);
        ensure!(digest.ends_with(&name), "blob {name} has the digest {digest}");
    }
    for empty in ["staging", "trash"] {
        expect_empty(&root.join(empty))?;
    }
    Ok(())
}

/// Fails unless a directory is empty in a moment.
pub fn expect_empty(directory: &Path) -> Result<()> {
    let end = Instant::now() + crate::bound(Duration::from_secs(60));
    loop {
        let left = names(directory)?;
        if left.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < end, "{} is left in {}", left.join(" "), directory.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What is in a directory.
pub fn names(directory: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(directory)?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// Bytes on disk, as du(1) counts them.
pub fn bytes(path: &Path) -> Result<u64> {
    let output = std::process::Command::new("du").args(["-s", "-B1"]).arg(path).output()?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(output.status.success(), "du {}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
    Ok(text.split_whitespace().next().unwrap_or_default().parse()?)
}
