//! AppArmor: whether the kernel enforces it, which profiles it knows, and loading Berth's own.
//! What does not live here: which profile a container gets (containers/apparmor.rs), and putting it on (the shim).

use std::fs;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;

/// The name under which Berth's own profile is loaded.
pub const DEFAULT: &str = "berth-default";
const PROFILE: &[u8] = include_bytes!("berth-default");

const ENABLED: &str = "/sys/module/apparmor/parameters/enabled";
const PROFILES: &str = "/sys/kernel/security/apparmor/profiles";
/// The kernel takes compiled policy only; the compiler belongs to the distribution, as its features must fit the kernel's.
const PARSERS: [&str; 2] = ["/usr/sbin/apparmor_parser", "/sbin/apparmor_parser"];
/// Compiling takes a tenth of a second.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why Berth's own profile is not loaded.
#[derive(Debug, thiserror::Error)]
pub enum ApparmorError {
    /// The distribution's package is missing.
    #[error("apparmor_parser is not installed")]
    NoParser,
    /// securityfs is missing.
    #[error("cannot read {PROFILES}: is securityfs mounted?")]
    NoProfiles(#[source] std::io::Error),
    /// It can't be run.
    #[error("cannot run {parser}")]
    Run {
        /// Its path.
        parser: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It takes too long.
    #[error("{parser} did not end within {} s", PATIENCE.as_secs())]
    Slow {
        /// Its path.
        parser: &'static str,
    },
    /// It does not like the profile.
    #[error("{parser} ended with {status}: {said}")]
    Refused {
        /// Its path.
        parser: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        said: String,
    },
}

/// What the node has of AppArmor.
#[derive(Debug)]
pub enum Apparmor {
    /// The kernel has none, or it is switched off.
    Off,
    /// The kernel confines by profiles.
    On {
        /// Whether Berth's own profile is there to be used.
        default: Result<(), ApparmorError>,
    },
}

/// Whether the kernel confines by profiles.
pub fn is_on() -> bool {
    fs::read_to_string(ENABLED).is_ok_and(|text| text.starts_with('Y'))
}

/// The distribution's compiler of profiles.
pub fn parser() -> Result<&'static str, ApparmorError> {
    PARSERS.into_iter().find(|path| Path::new(path).is_file()).ok_or(ApparmorError::NoParser)
}

impl Apparmor {
    /// Looks at the node and, where AppArmor is on, loads Berth's own profile, in place of one that an older Berth may have
    /// loaded.
    pub async fn open() -> Self {
        if !is_on() {
            return Self::Off;
        }
        let default = load().await;
        if let Err(error) = &default {
            let error = crate::error::chain(error);
            tracing::warn!(
                error,
                "containers with the AppArmor profile RuntimeDefault are not confined by it"
            );
        }
        Self::On { default }
    }

    /// Whether the kernel has this profile now: the node's administrator may load one at any time.
    pub fn knows(&self, name: &str) -> bool {
        matches!(self, Self::On { .. })
            && profiles().is_ok_and(|all| all.lines().any(|line| of(line) == name))
    }
}

fn profiles() -> Result<String, ApparmorError> {
    fs::read_to_string(PROFILES).map_err(ApparmorError::NoProfiles)
}

/// The profile of a line like `NAME (enforce)`. Names may hold spaces and parentheses.
fn of(line: &str) -> &str {
    line.rsplit_once(" (").map_or(line, |(name, _)| name)
}

async fn load() -> Result<(), ApparmorError> {
    let parser = parser()?;
    profiles()?;
    let run = |source| ApparmorError::Run { parser, source };
    let mut child = tokio::process::Command::new(parser)
        .args(["--replace", "--skip-cache", "--quiet"])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(run)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read it tells why by its end.
        let _ = stdin.write_all(PROFILE).await;
    }
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    let output = output.map_err(|_| ApparmorError::Slow { parser })?.map_err(run)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().chars().take(500).collect();
    Err(ApparmorError::Refused { parser, status: output.status, said })
}

#[cfg(test)]
mod tests;
