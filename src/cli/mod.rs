//! `berth COMMAND`: what each command takes, and the way to it.

mod bars;
mod check;
mod client;
mod image;
mod node;
mod serve;
mod table;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};

use crate::layout;

/// A Kubernetes container runtime.
#[derive(Parser)]
#[command(name = "berth", version, about, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon
    Serve(Serve),
    /// List, pull, remove and import images
    Image(image::ImageArgs),
    /// The configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Report what this node offers, and what each missing thing costs
    Check {
        /// Configuration file, - for standard input [default: /etc/berth/config.toml, which may be missing]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Install Berth on a node from a pod, switch its kubelet, and undo both
    Node(node::NodeArgs),
    /// Print the version, and what this program was built for
    Version,
}

#[derive(Args)]
struct Serve {
    /// Configuration file, - for standard input [default: /etc/berth/config.toml, which may be missing]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What survives a reboot: images, layers, records
    #[arg(long, value_name = "DIR", default_value = layout::ROOT)]
    root: PathBuf,
    /// What need not survive a reboot: sockets, bundles
    #[arg(long, value_name = "DIR", default_value = layout::STATE)]
    state: PathBuf,
    /// CRI socket [default: berth.sock in the state directory]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// What to log, for instance info or berth=debug
    #[arg(long, value_name = "FILTER", env = "BERTH_LOG", default_value = "info")]
    log: String,
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Print the default configuration, with comments
    Default,
}

/// To standard output; a reader that has had enough, as head(1) does, is fine.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write to standard output"),
    }
}

/// One fact a line, the version first.
fn version() -> String {
    let libc = if cfg!(target_env = "musl") { "musl" } else { "gnu" };
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    format!(
        "berth {}\ntarget: {}-unknown-{}-{libc}\nprofile: {profile}\nCRI: v1\nshim protocol: {}\n",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::ARCH,
        std::env::consts::OS,
        berth_proto::shim::VERSION,
    )
}

impl Cli {
    /// Does what was asked.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Serve(serve) => serve.run()?,
            Command::Image(image) => image.run()?,
            Command::Config(ConfigCommand::Default) => print(crate::config::DEFAULT)?,
            Command::Check { config } => {
                let (table, runs) = check::report(&serve::read_config(config.as_deref())?);
                print(&table)?;
                return Ok(if runs { ExitCode::SUCCESS } else { ExitCode::FAILURE });
            }
            Command::Node(node) => return node.run(),
            Command::Version => print(&version())?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        assert!(version().starts_with("berth 0."), "{}", version());
    }
}
