//! The files of a configuration: those named, and those that they name. What stands later wins, key by key.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use toml::{Table, Value};

use super::crio;

/// How deep files may import files.
const DEPTH: usize = 8;
/// CRI-O reads this directory after its file, in the order of names.
const DROP_INS: &str = "crio.conf.d";

/// A file with all that it imports.
pub(super) struct File {
    pub path: PathBuf,
    pub table: Table,
}

/// In the order in which they were named.
pub(super) struct Files(pub Vec<File>);

impl Files {
    pub fn read(paths: &[PathBuf]) -> anyhow::Result<Self> {
        let whole = |path: &PathBuf| -> anyhow::Result<File> {
            let mut table = read(path, 0)?;
            if crio::is(&table) {
                for drop_in in listed(&path.with_file_name(DROP_INS), "", "") {
                    merge(&mut table, read(&drop_in, 0)?);
                }
            }
            Ok(File { path: path.clone(), table })
        };
        paths.iter().map(whole).collect::<anyhow::Result<_>>().map(Self)
    }
}

fn read(path: &Path, depth: usize) -> anyhow::Result<Table> {
    ensure!(depth < DEPTH, "{}: imports go in a circle", path.display());
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut table: Table = text.parse().with_context(|| path.display().to_string())?;
    let imports = table.remove("imports").and_then(|imports| imports.as_array().cloned()).unwrap_or_default();
    for pattern in imports.iter().filter_map(Value::as_str) {
        // Relative ones are relative to the file.
        let pattern = path.parent().unwrap_or(Path::new("/")).join(pattern);
        for import in glob(&pattern) {
            merge(&mut table, read(&import, depth + 1)?);
        }
    }
    Ok(table)
}

/// Files that a pattern names; `*` may stand once, in the last part. A file that is not there is none.
fn glob(pattern: &Path) -> Vec<PathBuf> {
    let name = pattern.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match (name.split_once('*'), pattern.parent()) {
        (Some((first, last)), Some(directory)) => listed(directory, first, last),
        _ => Some(pattern.to_path_buf()).filter(|path| path.is_file()).into_iter().collect(),
    }
}

/// The files of a directory whose names begin and end so, in the order of names.
fn listed(directory: &Path, first: &str, last: &str) -> Vec<PathBuf> {
    let fits = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        path.is_file()
            && name.len() >= first.len() + last.len()
            && name.starts_with(first)
            && name.ends_with(last)
    };
    let entries = directory.read_dir().into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<_> = entries.filter(fits).collect();
    found.sort();
    found
}

fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}
