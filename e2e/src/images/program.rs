//! Small static C programs of e2e/images, for what no Debian package does; e2e/tools/programs compiles them.

use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::{Context, Result};

/// The compiled program's bytes.
pub fn read(name: &str) -> Result<Vec<u8>> {
    let path = path(name)?;
    std::fs::read(&path).with_context(|| format!("read {}", path.display()))
}

/// The compiled program, to be run on the host.
pub fn path(name: &str) -> Result<PathBuf> {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    if let Some(directory) = DIRECTORY.get() {
        return Ok(directory.join(name));
    }
    let directory = super::debian::prepared("programs")?;
    Ok(DIRECTORY.get_or_init(|| directory).join(name))
}
