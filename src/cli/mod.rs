//! `berth COMMAND`: what each command takes, and the way to it.

mod age;
mod bars;
mod check;
mod client;
mod debug;
mod explain;
mod image;
mod import;
mod node;
mod serve;
mod table;
mod top;

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
    /// List, pull, remove, import and verify images, and explain pulls
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
    /// Show what pods use, live on a terminal
    Top(top::Top),
    /// Look at what the daemon is doing
    Debug(debug::DebugArgs),
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
    /// Print the configuration of containerd or CRI-O as one of Berth's, and on standard error what has no equal
    #[command(
        after_help = "Exit codes: 0 everything has its equal, 1 nothing could be made, 2 something has no equal"
    )]
    Import(import::Import),
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
            Command::Config(ConfigCommand::Import(import)) => return import.run(),
            Command::Check { config } => {
                let (table, runs) = check::report(&serve::read_config(config.as_deref())?);
                print(&table)?;
                return Ok(if runs { ExitCode::SUCCESS } else { ExitCode::FAILURE });
            }
            Command::Top(top) => top.run()?,
            Command::Debug(debug) => debug.run()?,
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

    /// Every file for people, and the commands in it: lines of code that begin with `berth`, or `# berth` after a prompt.
    fn commands_in_documents() -> Vec<(String, Vec<String>)> {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut paths: Vec<_> =
            root.join("docs").read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.push(root.join("README.md"));
        let mut found = Vec::new();
        for path in paths.iter().filter(|path| path.extension().is_some_and(|end| end == "md")) {
            let text = std::fs::read_to_string(path).unwrap();
            let blocks = text.split("```").skip(1).step_by(2).flat_map(str::lines);
            let spans = text.split("```").step_by(2).flat_map(|prose| prose.split('`').skip(1).step_by(2));
            for code in blocks.chain(spans) {
                let code = code.trim_start_matches("# ").trim_start_matches("$ ").trim_start_matches("sudo ");
                let command = code.split(" # ").next().unwrap_or_default();
                let command = command.split(['|', '>', '<', ';', '&']).next().unwrap_or_default();
                if command.starts_with("berth ") {
                    let words =
                        command.split_whitespace().map(|word| word.trim_matches(['"', '\'']).to_string());
                    found.push((path.display().to_string(), words.collect()));
                }
            }
        }
        found
    }

    #[test]
    fn every_command_in_the_documents_is_one() {
        let found = commands_in_documents();
        assert!(found.len() > 20, "{found:#?}");
        for (path, words) in found {
            // A command without what it needs is a name, such as `berth config`.
            let wrong = Cli::try_parse_from(&words).err().filter(|error| {
                use clap::error::ErrorKind::{
                    DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand as NoWord, MissingRequiredArgument,
                    MissingSubcommand,
                };
                !matches!(error.kind(), DisplayHelp | NoWord | MissingRequiredArgument | MissingSubcommand)
            });
            assert!(wrong.is_none(), "{path}: {}: {}", words.join(" "), wrong.unwrap());
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        assert!(version().starts_with("berth 0."), "{}", version());
    }
}
