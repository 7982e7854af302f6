//! The configuration file: TOML, every key optional, unknown keys refused. Each subsystem declares its own part.
//! What does not live here: defaults of the command line, and what the values do.

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The default configuration, with comments.
pub const DEFAULT: &str = include_str!("default.toml");

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `[registry]`
    pub registry: crate::drivers::registry::Config,
    /// `[layers]`
    pub layers: crate::drivers::layers::Config,
    /// `[cni]`
    pub cni: crate::drivers::network::CniConfig,
    /// `[network]`: the built-in network.
    pub network: crate::drivers::network::BuiltInConfig,
    /// `[cgroup]`
    pub cgroup: crate::drivers::cgroup::Config,
    /// `[shim]`
    pub shim: crate::drivers::shim::Config,
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, or a bad value; the source names line and column.
    #[error("{path} is not a valid configuration")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
}

impl Config {
    /// Reads a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_path_buf(), source })?;
        Self::parse(&text, path)
    }

    /// Takes a file's text; `path` is for the error.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        toml::from_str(text)
            .map_err(|source| ConfigError::Parse { path: path.to_path_buf(), source: Box::new(source) })
    }
}
