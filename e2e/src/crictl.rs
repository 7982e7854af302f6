//! Runs crictl against a node.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::node::Node;
use crate::runtime::tool;

/// crictl with the endpoints of one node.
pub struct Crictl {
    program: PathBuf,
    endpoint: String,
}

impl Crictl {
    /// Fails if e2e/tools/build has not built it.
    pub fn new(node: &Node) -> Result<Self> {
        let program = tool("cri-tools", "crictl")?;
        Ok(Self { program, endpoint: format!("unix://{}", node.socket().display()) })
    }

    /// It, to be run by the caller.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        let timeout = crate::bound(Duration::from_secs(10));
        command
            .args([
                "--config",
                "/dev/null",
                "--runtime-endpoint",
                &self.endpoint,
                "--image-endpoint",
                &self.endpoint,
            ])
            .arg(format!("--timeout={}s", timeout.as_secs()))
            .args(arguments);
        command
    }

    /// Runs it to its end, whatever that is.
    pub fn output(&self, arguments: &[&str]) -> Result<Output> {
        self.command(arguments).output().with_context(|| format!("run {}", self.program.display()))
    }

    /// Its standard output, without the last newline; a failure holds its standard error.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = self.output(arguments)?;
        if !output.status.success() {
            bail!("crictl {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
    }
}
