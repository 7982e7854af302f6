//! Runs crictl against a node.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

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
        Self::at(&node.socket())
    }

    /// The same by the socket.
    pub fn at(socket: &Path) -> Result<Self> {
        let program = tool("cri-tools", "crictl")?;
        Ok(Self { program, endpoint: format!("unix://{}", socket.display()) })
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

/// A crictl that runs beside a test, and ends with it.
pub struct Running(pub Child);

impl Running {
    /// With pipes.
    pub fn start(command: &mut Command) -> Result<Self> {
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(Self(piped.spawn().with_context(|| format!("run {command:?}"))?))
    }

    /// Writes to its standard input.
    pub fn say(&mut self, text: &str) -> Result<()> {
        Ok(self.0.stdin.as_mut().context("stdin is closed")?.write_all(text.as_bytes())?)
    }

    /// So many bytes of its output.
    pub fn hear(&mut self, count: usize) -> Result<String> {
        let mut bytes = vec![0; count];
        self.0.stdout.as_mut().context("no stdout")?.read_exact(&mut bytes)?;
        Ok(String::from_utf8(bytes)?)
    }

    /// A line of its output with these words; those before are passed over.
    pub fn hear_line(&mut self, words: &str) -> Result<String> {
        let out = self.0.stdout.as_mut().context("no stdout")?;
        let (mut line, mut byte) = (Vec::new(), [0]);
        while out.read(&mut byte)? == 1 {
            line.push(byte[0]);
            if byte[0] == b'\n' {
                let text = String::from_utf8_lossy(&line).into_owned();
                if text.contains(words) {
                    return Ok(text);
                }
                line.clear();
            }
        }
        bail!("it ended without saying {words:?}")
    }

    /// Closes its standard input and waits for its end: at most a minute.
    pub fn end(mut self) -> Result<Output> {
        drop(self.0.stdin.take());
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let start = Instant::now();
        while self.0.try_wait()?.is_none() {
            if start.elapsed() > crate::bound(Duration::from_secs(60)) {
                bail!("crictl does not end");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.0.stdout.take().context("no stdout")?.read_to_end(&mut stdout)?;
        self.0.stderr.take().context("no stderr")?.read_to_end(&mut stderr)?;
        Ok(Output { status: self.0.wait()?, stdout, stderr })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
