//! Network configurations: which file serves, and what it says (CNI spec 1.1, section 1).
//! What does not live here: executing plugins.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::CniError;

/// Versions of the specification that Berth speaks, oldest first.
pub const VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// A valid network configuration: what ADD used is recorded, so that DEL finds it even if the file has changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkList {
    /// Name of the network.
    pub name: String,
    /// One of `VERSIONS`.
    pub version: String,
    /// CHECK is not to be run.
    pub disable_check: bool,
    /// GC is not to be run.
    pub disable_gc: bool,
    /// In the order of ADD; never empty, each with a valid `type`.
    pub plugins: Vec<Map<String, Value>>,
}

impl NetworkList {
    /// Whether the specification of this configuration has what came with `version`.
    pub fn speaks(&self, version: &str) -> bool {
        rank(&self.version) >= rank(version)
    }

    /// Takes the content of a `.conflist`, or of a `.conf` with a single plugin.
    pub fn parse(text: &[u8], path: &Path) -> Result<Self, CniError> {
        let bad = |problem: &str| CniError::Config { path: path.to_path_buf(), problem: problem.to_string() };
        let value: Value = serde_json::from_slice(text)
            .map_err(|source| CniError::Json { path: path.to_path_buf(), source })?;
        let Value::Object(mut object) = value else {
            return Err(bad("it is not a JSON object"));
        };
        let name = object.get("name").and_then(Value::as_str).unwrap_or_default().to_string();
        if !is_name(&name) {
            return Err(bad("its name is missing, or is not letters, digits, '.', '_' and '-'"));
        }
        let version = version(&object).ok_or_else(|| bad("it names no version of CNI that Berth speaks"))?;
        let flag = |key: &str| object.get(key).is_some_and(|value| *value == Value::Bool(true));
        let (disable_check, disable_gc) = (flag("disableCheck"), flag("disableGC"));
        let plugins = match object.remove("plugins") {
            Some(Value::Array(plugins)) => plugins,
            Some(_) => return Err(bad("its plugins are not a list")),
            None => vec![Value::Object(object)],
        };
        let plugins: Vec<_> = plugins
            .into_iter()
            .map(|plugin| match plugin {
                Value::Object(plugin) if has_type(&plugin) => Ok(plugin),
                _ => Err(bad("the type of a plugin is missing, or is not letters, digits, '.', '_' and '-'")),
            })
            .collect::<Result<_, _>>()?;
        if plugins.is_empty() {
            return Err(bad("it has no plugins"));
        }
        Ok(Self { name, version, disable_check, disable_gc, plugins })
    }
}

/// The name of a plugin's program; checked by `parse`.
pub fn plugin_type(plugin: &Map<String, Value>) -> &str {
    plugin.get("type").and_then(Value::as_str).unwrap_or_default()
}

fn has_type(plugin: &Map<String, Value>) -> bool {
    is_name(plugin_type(plugin))
}

fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    name.bytes().all(allowed) && name.bytes().any(|byte| byte.is_ascii_alphanumeric())
}

fn rank(version: &str) -> usize {
    VERSIONS.iter().position(|known| *known == version).unwrap_or(0)
}

/// The newest of `cniVersions` that we speak, else `cniVersion`; none at all is 0.1.0.
fn version(object: &Map<String, Value>) -> Option<String> {
    let listed = object.get("cniVersions").and_then(Value::as_array).into_iter().flatten();
    let all: Vec<&str> = listed.chain(object.get("cniVersion")).filter_map(Value::as_str).collect();
    if all.is_empty() {
        return Some(VERSIONS[0].to_string());
    }
    VERSIONS.iter().rev().find(|known| all.contains(*known)).map(|known| (*known).to_string())
}

/// The first valid configuration of a directory in the order of names; None if it has no configuration at all, and an
/// error if all are broken.
pub fn load(directory: &Path) -> Result<Option<NetworkList>, CniError> {
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| CniError::Read { path, source }
    };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(directory)(error)),
    };
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed(directory))?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if matches!(extension, Some("conflist" | "conf" | "json")) {
            files.push(path);
        }
    }
    files.sort();
    let mut first_error = None;
    for path in &files {
        let parsed =
            std::fs::read(path).map_err(failed(path)).and_then(|text| NetworkList::parse(&text, path));
        match parsed {
            Ok(list) => return Ok(Some(list)),
            Err(error) => {
                first_error.get_or_insert(error);
            }
        }
    }
    first_error.map_or(Ok(None), Err)
}
