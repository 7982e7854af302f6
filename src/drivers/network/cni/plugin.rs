//! Executes one plugin: clean environment, configuration on stdin, bounded output, bounded time (CNI spec, section 2).
//! What does not live here: the order of plugins, and what they print.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use super::CniError;
use crate::activity;

const STDOUT: u64 = 1 << 20;
const STDERR: usize = 1 << 10;
/// What a plugin leaves running must not hold our pipe for longer.
const LINGER: Duration = Duration::from_millis(500);

/// One execution.
pub struct Invocation<'a> {
    /// `type` of the plugin.
    pub plugin: &'a str,
    /// ADD, DEL, ...
    pub verb: &'static str,
    /// CNI_* variables.
    pub environment: &'a [(&'static str, String)],
    /// What it reads.
    pub config: &'a Value,
    /// When it is killed.
    pub timeout: Duration,
}

/// The program of a plugin in the first directory that has it.
pub fn find(plugin: &str, directories: &[PathBuf]) -> Result<PathBuf, CniError> {
    let mut candidates = directories.iter().map(|directory| directory.join(plugin));
    candidates.find(|path| path.is_file()).ok_or_else(|| CniError::Missing {
        plugin: plugin.to_string(),
        directories: directories.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "),
    })
}

/// Runs it to its end; what it printed if it succeeded.
pub async fn run(program: &Path, invocation: &Invocation<'_>) -> Result<Vec<u8>, CniError> {
    let (plugin, verb) = (invocation.plugin.to_string(), invocation.verb);
    let failed = |source| CniError::Execute { plugin: plugin.clone(), verb, source };
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
    let mut child = Command::new(program)
        .env_clear()
        .env("PATH", path)
        .env("CNI_COMMAND", verb)
        .envs(invocation.environment.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let group = Group(child.id());
    let pid = child.id().unwrap_or(0);
    let _waiting = activity::wait(|| format!("CNI plugin {plugin} to do {verb} (process {pid})"));
    let finished = tokio::time::timeout(invocation.timeout, talk(&mut child, invocation.config)).await;
    drop(group);
    let Ok(finished) = finished else {
        let _ = child.wait().await;
        return Err(CniError::Timeout { plugin, verb, seconds: invocation.timeout.as_secs_f32() });
    };
    let (status, stdout, stderr) = finished.map_err(failed)?;
    if stdout.len() as u64 > STDOUT {
        return Err(CniError::Garbage { plugin, verb, problem: "it printed more than 1 MiB".into() });
    }
    if status.success() {
        return Ok(stdout);
    }
    let (code, message) = message_of(&stdout, &stderr);
    Err(CniError::Plugin { plugin, verb, status: status.to_string(), code, message })
}

/// Kills what is left of the plugin's process group when dropped, whichever way its caller ends.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0.and_then(|pid| i32::try_from(pid).ok()) {
            // None left is what is hoped for.
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

type Finished = (std::process::ExitStatus, Vec<u8>, Vec<u8>);

async fn talk(child: &mut Child, config: &Value) -> std::io::Result<Finished> {
    let (mut stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let text = config.to_string();
    let write = async {
        if let Some(stdin) = &mut stdin {
            // A plugin may end without reading: its exit status tells.
            let _ = stdin.write_all(text.as_bytes()).await;
        }
        drop(stdin);
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let read = async {
        tokio::join!(collect(stdout, &mut out, STDOUT as usize + 1), collect(stderr, &mut err, STDERR));
    };
    let status = {
        tokio::pin!(read);
        let exit = async { tokio::join!(write, child.wait()).1 };
        tokio::pin!(exit);
        tokio::select! {
            status = &mut exit => {
                let _ = tokio::time::timeout(LINGER, read).await;
                status?
            }
            () = &mut read => exit.await?,
        }
    };
    Ok((status, out, err))
}

/// Keeps the first bytes and swallows the rest, so that the plugin never waits for us.
async fn collect(pipe: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>, most: usize) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = vec![0; 8 << 10];
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        let room = most - kept.len();
        kept.extend_from_slice(&buffer[..count.min(room)]);
    }
}

/// A plugin's error is JSON on stdout (section 5); failing that, what it said on either stream.
fn message_of(stdout: &[u8], stderr: &[u8]) -> (Option<u64>, String) {
    let text = |bytes: &[u8]| {
        let text: String = String::from_utf8_lossy(&bytes[..bytes.len().min(STDERR)]).trim().to_string();
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>()
    };
    let stderr = text(stderr);
    match serde_json::from_slice::<Value>(stdout) {
        Ok(Value::Object(error)) if error.contains_key("msg") || error.contains_key("code") => {
            let field = |key: &str| error.get(key).and_then(Value::as_str).unwrap_or_default();
            let parts = [field("msg"), field("details"), &stderr];
            let message: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
            (error.get("code").and_then(Value::as_u64), text(message.join(": ").as_bytes()))
        }
        _ if stderr.is_empty() => (None, text(stdout)),
        _ => (None, stderr),
    }
}
