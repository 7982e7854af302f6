//! `berth serve`: the configuration read, logging begun, the daemon run.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use sd_notify::NotifyState;
use tracing_subscriber::EnvFilter;

use super::Serve;
use crate::api::rpc;
use crate::config::Config;
use crate::daemon::{self, Places};
use crate::layout::{self, Layout};
use crate::telemetry::{self, traces::Traces};

impl Serve {
    pub(super) fn run(self) -> anyhow::Result<()> {
        // Where `systemctl status` and `berth node install` find it.
        let tell = |why: &str| daemon::tell_systemd(&[NotifyState::Status(why)]);
        self.serve().inspect_err(|error| tell(&format!("{error:#}").replace('\n', " ")))
    }

    fn serve(self) -> anyhow::Result<()> {
        for (flag, dir) in [("--root", &self.root), ("--state", &self.state)] {
            ensure!(dir.is_absolute(), "{flag} {}: this must be an absolute path", dir.display());
        }
        ensure!(
            self.root != self.state,
            "--root and --state are the same directory: {}",
            self.root.display()
        );
        let socket = self.socket.map_or_else(|| Ok(self.state.join(layout::SOCKET)), std::path::absolute)?;
        ensure!(!socket.is_dir(), "--socket {}: this is a directory", socket.display());
        let config = read_config(self.config.as_deref())?;
        let filter = EnvFilter::try_new(&self.log)
            .with_context(|| format!("--log {:?} is not a log filter", self.log))?;
        let places = Places { layout: Layout::new(self.root, self.state), socket };
        berth_sys::process::unblock_signals();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            // A burst of pods makes many threads wait for the kernel; idle ones are only memory.
            .thread_keep_alive(Duration::from_secs(1))
            .build()?;
        let _inside = runtime.enter();
        let traces = Traces::open(&config.traces, rpc::begins_trace).context("[traces] endpoint")?;
        telemetry::start(&config.log, filter, traces.as_ref());
        runtime.block_on(daemon::run(config, places))
    }
}

/// The named file, which must exist (`-`: standard input); else the default one, which need not.
pub(super) fn read_config(path: Option<&Path>) -> anyhow::Result<Config> {
    let default = PathBuf::from(layout::CONFIG);
    match path {
        Some(path) => Ok(Config::load(path)?),
        // One that can't be looked at is an error, not absent.
        None if default.try_exists().unwrap_or(true) => Ok(Config::load(&default)?),
        None => Ok(Config::default()),
    }
}
