//! The configuration file: TOML, every key optional, unknown keys refused. Each subsystem declares its own part.
//! What does not live here: defaults of the command line, and what the values do.

pub mod duration;
mod path;
#[cfg(test)]
mod reference;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use self::path::{absolute, absolute_list, absolute_or_none};

/// The default configuration, with comments.
pub const DEFAULT: &str = include_str!("default.toml");

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `[pods]`
    pub pods: crate::pods::Config,
    /// `[registry]`
    pub registry: crate::drivers::registry::Config,
    /// `[image]`
    pub image: crate::images::Config,
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
    /// `[streaming]`: where exec, attach and port-forward are served.
    pub streaming: crate::api::streaming::Config,
    /// `[metrics]`: where Prometheus asks.
    pub metrics: crate::api::metrics::Config,
    /// `[traces]`: where spans are sent.
    pub traces: crate::telemetry::traces::Config,
    /// `[log]`
    pub log: crate::telemetry::logs::Config,
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("cannot read the configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, or a bad value.
    #[error("{path}, line {line}, column {column}: {problem}\n    {text}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// What is wrong there.
        problem: String,
        /// The line.
        text: String,
    },
}

impl Config {
    /// Reads a file; `-` is standard input.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let (path, text) = match path.to_str() {
            Some("-") => (Path::new("standard input"), std::io::read_to_string(std::io::stdin())),
            _ => (path, std::fs::read_to_string(path)),
        };
        let text = text.map_err(|source| ConfigError::Read { path: path.to_path_buf(), source })?;
        Self::parse(&text, path)
    }

    /// Takes a file's text; `path` is for the error.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start).min(text.len());
            let before = text.get(..offset).unwrap_or_default();
            let start = before.rfind('\n').map_or(0, |newline| newline + 1);
            ConfigError::Parse {
                path: path.to_path_buf(),
                line: before.matches('\n').count() + 1,
                column: before[start..].chars().count() + 1,
                // One line: it goes into logs, too.
                problem: error.message().trim_end().replace('\n', "; "),
                text: text[start..].lines().next().unwrap_or_default().trim().chars().take(200).collect(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("/etc/x.toml")).map_err(|error| error.to_string())
    }

    /// Commented keys look like `# key = value`.
    fn uncommented() -> String {
        let key = |line: &str| {
            let (key, _) = line.strip_prefix("# ")?.split_once(" = ")?;
            key.chars().all(|c| c.is_ascii_lowercase() || c == '_').then(|| line[2..].to_string())
        };
        DEFAULT.lines().map(|line| key(line).unwrap_or(line.into()) + "\n").collect()
    }

    #[test]
    fn the_default_text_says_what_the_program_does() {
        assert_eq!(parse(DEFAULT), Ok(Config::default()));
        assert_eq!(parse(&uncommented()), Ok(Config::default()));
    }

    #[test]
    fn the_default_text_has_every_key() {
        let text = uncommented();
        let names = |error: &str| -> Vec<String> {
            let (_, expected) = error.split_once(", expected ").unwrap();
            expected.split('`').skip(1).step_by(2).map(String::from).collect()
        };
        for section in names(&parse("no_such_key = 1").unwrap_err()) {
            let (_, rest) =
                text.split_once(&format!("\n[{section}]\n")).unwrap_or_else(|| panic!("no [{section}]"));
            let body = rest.split("\n[").next().unwrap();
            for key in names(&parse(&format!("[{section}]\nno_such_key = 1")).unwrap_err()) {
                assert!(body.lines().any(|line| line.starts_with(&format!("{key} = "))), "[{section}] {key}");
            }
        }
    }

    #[test]
    fn what_cannot_work_is_refused_with_its_place() {
        let bad = [
            (
                "[pods]\nhandlers = [\"runc\", \"Kata\"]",
                "line 2, column 12: \"Kata\" can not be a RuntimeClass's handler",
            ),
            ("[pods]\nhandlers = [\"runc\", \"runc\"]", "line 2, column 12: \"runc\" is there twice"),
            ("[registry]\nretires = 4\n", "line 2, column 1: unknown field `retires`"),
            ("[registry]\n\nno_progress = \"5\"\n", "line 3, column 15: \"5\" is no duration"),
            (
                "[registry]\nconfig_path = \"certs.d\"",
                "line 2, column 15: \"certs.d\" is not an absolute path",
            ),
            ("[registry]\nauth_file = \"x\"", "line 2, column 13: \"x\" is not an absolute path"),
            ("[cni]\nbin_dirs = [\"/a\", \"b\"]", "\"b\" is not an absolute path"),
            ("[cni]\ntimeout = 0", "line 2, column 11: a plugin needs at least one second"),
            ("[network]\nbridge = \"a b\"", "line 2, column 10: \"a b\" can not be the name of a bridge"),
            ("[network]\nbridge = \"sixteen-letters-\"", "can not be the name of a bridge"),
            ("[network]\nsubnets = [\"10.0.0.0\"]", "line 2, column 11: \"10.0.0.0\" is not a subnet"),
            ("[network]\nmtu = 100", "line 2, column 7: 100 can not be an MTU"),
            ("[cgroup]\ndriver = \"x\"", "line 2, column 10: unknown variant `x`"),
            ("[cgroup]\nparent = \"../x\"", "line 2, column 10: \"../x\" can not be a cgroup parent"),
            ("[shim]\npath = \"x\"", "line 2, column 8: \"x\" is not an absolute path"),
            (
                "[image]\npinned = [\"a\", \"Not/An/Image\"]",
                "line 2, column 10: image reference \"Not/An/Image\"",
            ),
            ("[image]\npinned = [\"\"]", "line 2, column 10: the image reference is empty"),
            ("[streaming]\naddress = \"localhost\"", "line 2, column 11: "),
            ("[streaming]\ntls_key_file = \"x\"", "line 2, column 16: \"x\" is not an absolute path"),
            ("[layers]\nreserve_mib = -1", "line 2, column 15: "),
            ("[metrics]\naddress = \"localhost\"", "\"localhost\" is not an address such as 127.0.0.1:9740"),
            ("[traces]\nendpoint = \"127.0.0.1:4317\"", "is not a collector such as http://127.0.0.1:4317"),
            ("[traces]\nsampling_ratio = 2.0", "line 2, column 18: 2 is not a part"),
            ("[log]\nformat = \"xml\"", "line 2, column 10: unknown variant `xml`"),
            ("[layers\n", "line 1, column 8: "),
        ];
        for (text, expected) in bad {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with("/etc/x.toml, line ") && error.contains(expected), "{text}\n{error}");
        }
    }

    #[test]
    fn an_unreadable_file_is_named() {
        let error = Config::load(Path::new("/no/such/file.toml")).unwrap_err();
        assert!(error.to_string().contains("/no/such/file.toml"), "{error}");
    }
}
