//! Against real servers: Debian's docker-registry, and one of our own that misbehaves in every way.

mod authorization;
mod debian;
mod faults;
mod limits;
mod mirrors;
mod ranges;
mod registries_conf;
mod server;

use std::path::Path;
use std::time::Duration;

use super::{Config, Registry};
use crate::images::reference::Reference;

pub(super) fn registry(config_path: &Path) -> Registry {
    let config = Config {
        config_path: config_path.to_path_buf(),
        connect_timeout: Duration::from_secs(5),
        no_progress: Duration::from_millis(600),
        retries: 2,
        ..Config::default()
    };
    Registry::new(config).unwrap()
}

pub(super) fn reference(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

pub(super) const MANIFEST: &str = r#"{"schemaVersion":2,"config":{},"layers":[]}"#;
