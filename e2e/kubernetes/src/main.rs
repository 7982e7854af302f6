//! `cluster COMMAND...`: brings up a one-node cluster, runs the command in it, and removes everything. The exit code
//! is the command's.

use std::process::{Child, ExitCode};
use std::time::Duration;

use anyhow::Result;
use berth_e2e_kubernetes::cluster::Cluster;
use berth_e2e_kubernetes::directory::Directory;
use berth_e2e_kubernetes::isolation::{self, Stage};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

/// A one-node Kubernetes cluster for the time of one command. The runtime is Berth unless BERTH_E2E_RUNTIME=containerd.
#[derive(Parser)]
struct Flags {
    /// The kubelet's feature gates, like EventedPLEG=true,PodAndContainerStatsFromCRI=true
    #[arg(long, default_value = "", env = "K8S_GATES")]
    feature_gates: String,
    /// What to run; KUBECONFIG and PATH are set for it
    #[arg(required = true, trailing_var_arg = true)]
    command: Vec<String>,
}

fn main() -> Result<ExitCode> {
    let flags = Flags::parse();
    let code = match Stage::from_env() {
        Stage::Outside => isolation::enclose()?,
        Stage::First => isolation::first()?,
        Stage::Inside => {
            isolation::unblock_signals()?;
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(inside(&flags))?
        }
    };
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

async fn inside(flags: &Flags) -> Result<i32> {
    let directory = Directory::from_env()?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let work = async {
        let mut cluster = Cluster::start(directory, &flags.feature_gates).await?;
        let command = cluster.command(&flags.command)?.spawn()?;
        let mut command = Running(command);
        loop {
            if let Some(status) = command.0.try_wait()? {
                return Ok(status.code().unwrap_or(1));
            }
            cluster.mend().await?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        code = work => code,
        _ = interrupt.recv() => Ok(130),
        _ = terminate.recv() => Ok(143),
    }
}

/// The user's command; it ends before the cluster does.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
