//! Takes files out of unpacked Debian packages into a layer: programs with the libraries they load.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

use super::layer::{Layer, Node};

const LIBRARIES: &str = "lib/x86_64-linux-gnu";
const LOADER: &str = "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2";

/// The unpacked packages; see e2e/tools/debs for which.
pub fn root() -> Result<&'static Path> {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    if let Some(root) = ROOT.get() {
        return Ok(root);
    }
    let root = prepared("debs")?;
    Ok(ROOT.get_or_init(|| root))
}

/// The directory that a script of e2e/tools makes and prints.
pub(super) fn prepared(script: &str) -> Result<PathBuf> {
    let script = crate::repository().join("e2e/tools").join(script);
    let output = Command::new(&script).output().with_context(|| format!("run {}", script.display()))?;
    if !output.status.success() {
        bail!("{}: {}", script.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}

/// A file's content and permission bits, by its path in the packages.
pub fn read(path: &str) -> Result<(Vec<u8>, u32)> {
    let full = root()?.join(path);
    let content = std::fs::read(&full).with_context(|| format!("read {}", full.display()))?;
    Ok((content, std::fs::metadata(&full)?.permissions().mode() & 0o7777))
}

/// Adds programs (paths in the packages, kept in the image) and every library that they load, with the loader.
pub fn add_programs(mut layer: Layer, programs: &[&str]) -> Result<Layer> {
    let mut libraries = BTreeSet::new();
    for program in programs {
        let (content, mode) = read(program)?;
        layer = layer.file(program, mode, content);
        libraries.extend(libraries_of(program)?);
    }
    for library in libraries {
        let path = library_path(&library)?;
        let content = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        layer = layer.file(&format!("{LIBRARIES}/{library}"), 0o755, content);
    }
    let (loader, mode) = read(LOADER)?;
    Ok(layer.file("lib64/ld-linux-x86-64.so.2", mode, loader))
}

fn library_path(name: &str) -> Result<PathBuf> {
    let root = root()?;
    [root.join(LIBRARIES), root.join("usr").join(LIBRARIES)]
        .into_iter()
        .map(|dir| dir.join(name))
        .find(|path| path.exists())
        .with_context(|| format!("no package holds {name}: add it to e2e/tools/debs"))
}

/// File names of the libraries, as the packages' own loader finds them.
fn libraries_of(program: &str) -> Result<Vec<String>> {
    let root = root()?;
    let search = format!("{}:{}", root.join(LIBRARIES).display(), root.join("usr").join(LIBRARIES).display());
    let output = Command::new(root.join(LOADER))
        .args(["--library-path", &search, "--list"])
        .arg(root.join(program))
        .output()?;
    if !output.status.success() {
        bail!("libraries of {program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?
        .lines()
        .filter_map(|line| line.trim().split_once(" => "))
        .map(|(name, _)| name.to_owned())
        .filter(|name| !name.contains('/'))
        .collect())
}

/// Adds the applets of busybox, each a hard link to `bin/busybox`, which must be in the layer already.
pub fn add_applets(mut layer: Layer) -> Result<Layer> {
    let root = root()?;
    let output = Command::new(root.join(LOADER))
        .args(["--library-path", &root.join(LIBRARIES).display().to_string()])
        .arg(root.join("bin/busybox"))
        .arg("--list")
        .output()?;
    let taken: BTreeSet<_> =
        layer.entries.iter().filter_map(|entry| entry.path.rsplit('/').next()).map(str::to_owned).collect();
    for applet in String::from_utf8(output.stdout)?.lines().filter(|applet| !taken.contains(*applet)) {
        layer = layer.add(&format!("bin/{applet}"), 0o755, Node::Hardlink("bin/busybox".into()));
    }
    Ok(layer)
}
