//! Paths in the configuration, for `#[serde(deserialize_with)]`: the daemon's directory means nothing to its users, so
//! relative ones are refused.

use std::path::PathBuf;

use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// An absolute path.
pub fn absolute<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    check(PathBuf::deserialize(deserializer)?)
}

/// Absolute paths.
pub fn absolute_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
    Vec::<PathBuf>::deserialize(deserializer)?.into_iter().map(check).collect()
}

/// An absolute path; none if it is empty.
pub fn absolute_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    let path = PathBuf::deserialize(deserializer)?;
    if path.as_os_str().is_empty() { Ok(None) } else { check(path).map(Some) }
}

fn check<E: Error>(path: PathBuf) -> Result<PathBuf, E> {
    if path.is_absolute() { Ok(path) } else { Err(E::custom(format!("{path:?} is not an absolute path"))) }
}
