//! Resource limits and the OOM score of a process. Limits of cgroups are the daemon's.

use std::io::Write as _;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;

use super::failure::{Failing, Result, SpawnError};
use super::spec::Rlimit;

pub(super) struct Limit {
    name: String,
    resource: Resource,
    soft: u64,
    hard: u64,
}

impl Limit {
    pub(super) fn parse(limit: &Rlimit) -> Result<Self> {
        let unknown =
            || SpawnError::refused("set the limits", format!("unknown resource limit {:?}", limit.kind));
        let resource = resource(&limit.kind).ok_or_else(unknown)?;
        if limit.soft > limit.hard {
            let text = format!(
                "{}: the soft limit {} is above the hard limit {}",
                limit.kind, limit.soft, limit.hard
            );
            return Err(SpawnError::refused("set the limits", text));
        }
        Ok(Self { name: limit.kind.clone(), resource, soft: limit.soft, hard: limit.hard })
    }

    /// Sets the limit, as near to what was asked for as the hard limit allows.
    pub(super) fn apply(&self) -> Result<()> {
        let step = || format!("set the limit {}", self.name);
        let (_, highest) = getrlimit(self.resource).failing(step)?;
        let hard = self.hard.min(highest);
        setrlimit(self.resource, self.soft.min(hard), hard).failing(step)
    }
}

/// In the builder, where the host's rights last: raises the hard limits that are too low. Without CAP_SYS_RESOURCE they
/// stay, with a note: a node that cannot give a high limit still runs the container.
pub(super) fn raise(limits: &[Limit]) -> Result<()> {
    for limit in limits {
        let step = || format!("raise the limit {}", limit.name);
        let (soft, highest) = getrlimit(limit.resource).failing(step)?;
        if limit.hard <= highest {
            continue;
        }
        match setrlimit(limit.resource, soft, limit.hard) {
            Ok(()) => {}
            Err(Errno::EPERM) => {
                note(&format!(
                    "{} stays at {highest}: no permission to raise it to {}",
                    limit.name, limit.hard
                ));
            }
            Err(error) => return Err(error).failing(step),
        }
    }
    Ok(())
}

/// In the builder, through the host's procfs: sets the score that the new process inherits.
pub(super) fn set_oom_score(score: i32) -> Result<()> {
    match std::fs::write("/proc/self/oom_score_adj", score.to_string()) {
        Err(error) if error.raw_os_error() == Some(nix::libc::EACCES) => {
            note(&format!("no permission to lower oom_score_adj to {score}"));
            Ok(())
        }
        result => result.failing(|| format!("set oom_score_adj to {score}")),
    }
}

/// For whoever reads the shim's stderr; a start does not fail because nobody does.
fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "berth-shim: {text}");
}

/// The score of another process.
pub(super) fn oom_score_of(pid: Pid) -> Result<i32> {
    let path = format!("/proc/{pid}/oom_score_adj");
    let step = || format!("read {path}");
    let score = std::fs::read_to_string(&path).failing(step)?;
    score.trim().parse().map_err(std::io::Error::other).failing(step)
}

fn resource(name: &str) -> Option<Resource> {
    Some(match name {
        "RLIMIT_CPU" => Resource::RLIMIT_CPU,
        "RLIMIT_FSIZE" => Resource::RLIMIT_FSIZE,
        "RLIMIT_DATA" => Resource::RLIMIT_DATA,
        "RLIMIT_STACK" => Resource::RLIMIT_STACK,
        "RLIMIT_CORE" => Resource::RLIMIT_CORE,
        "RLIMIT_RSS" => Resource::RLIMIT_RSS,
        "RLIMIT_NPROC" => Resource::RLIMIT_NPROC,
        "RLIMIT_NOFILE" => Resource::RLIMIT_NOFILE,
        "RLIMIT_MEMLOCK" => Resource::RLIMIT_MEMLOCK,
        "RLIMIT_AS" => Resource::RLIMIT_AS,
        "RLIMIT_LOCKS" => Resource::RLIMIT_LOCKS,
        "RLIMIT_SIGPENDING" => Resource::RLIMIT_SIGPENDING,
        "RLIMIT_MSGQUEUE" => Resource::RLIMIT_MSGQUEUE,
        "RLIMIT_NICE" => Resource::RLIMIT_NICE,
        "RLIMIT_RTPRIO" => Resource::RLIMIT_RTPRIO,
        "RLIMIT_RTTIME" => Resource::RLIMIT_RTTIME,
        _ => return None,
    })
}
