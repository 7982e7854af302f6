//! `berth serve`: the configuration read, logging begun, the daemon run.

use std::path::Path;

use anyhow::{Context, ensure};
use tracing_subscriber::EnvFilter;

use super::Serve;
use crate::config::Config;
use crate::daemon::{self, Places};
use crate::layout::{self, Layout};

impl Serve {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let config = read_config(self.config.as_deref())?;
        for dir in [&self.root, &self.state] {
            ensure!(dir.is_absolute(), "{} is not an absolute path", dir.display());
        }
        let filter = EnvFilter::try_new(&self.log).context("the log filter is not valid")?;
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
        let socket = self.socket.unwrap_or_else(|| self.state.join(layout::SOCKET));
        let places = Places { layout: Layout::new(self.root, self.state), socket };
        tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(daemon::run(config, places))
    }
}

/// The named file, which must exist; else the default one, which need not.
pub(super) fn read_config(path: Option<&Path>) -> anyhow::Result<Config> {
    match path {
        Some(path) => Ok(Config::load(path)?),
        None if Path::new(layout::CONFIG).exists() => Ok(Config::load(Path::new(layout::CONFIG))?),
        None => Ok(Config::default()),
    }
}
