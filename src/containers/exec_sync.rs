//! ExecSync: an exec whose output is collected here, and whose end is waited for.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::io::AsyncReadExt;

use super::session::{EndOf, Reader};
use super::{Cause, Container, ContainerError, Containers, ExecRequest};
use crate::activity::{self, Verb};
use crate::drivers::shim::ShimError;

/// Most bytes kept of each stream; the rest is read and dropped (api.proto, ExecSyncResponse).
const OUTPUT: usize = 16 << 20;
/// How long a killed command may take to vanish before the caller hears of the timeout.
const DEATH: Duration = Duration::from_secs(2);

/// What a command said, and how it ended.
#[derive(Debug)]
pub struct ExecOutput {
    /// At most 16 MiB.
    pub stdout: Vec<u8>,
    /// At most 16 MiB.
    pub stderr: Vec<u8>,
    /// 128 + signal where a signal ended it.
    pub exit_code: i32,
}

impl ExecOutput {
    /// Cuts the longer stream, or both, so that they take no more than so many bytes together.
    #[must_use]
    pub fn fit(mut self, bytes: usize) -> Self {
        let (out, err) = (self.stdout.len(), self.stderr.len());
        self.stdout.truncate(bytes - err.min(bytes / 2));
        self.stderr.truncate(bytes - out.min(bytes / 2));
        self
    }
}

impl Containers {
    /// Runs a command; `limit` None = as long as it takes. Past the limit it is killed, with everything that it has
    /// started. What it has left in the background otherwise lives on, and does not delay the answer.
    pub async fn exec_sync(
        self: &Arc<Self>,
        id: &str,
        command: Vec<String>,
        limit: Option<Duration>,
    ) -> Result<ExecOutput, ContainerError> {
        let container = self.find(id)?;
        let collect = self.collect(&container, command, limit);
        let collected = activity::track(Verb::ExecSync, container.name(), container.id.as_str(), collect);
        collected.await.map_err(|cause| cause.of(&container.id))
    }

    async fn collect(
        self: &Arc<Self>,
        container: &Container,
        command: Vec<String>,
        limit: Option<Duration>,
    ) -> Result<ExecOutput, Cause> {
        let program = command.first().cloned().ok_or(Cause::NoCommand)?;
        let request = ExecRequest { command, tty: false, stdin: false, stdout: true, stderr: true };
        let mut session = self.exec_in(container, &request).await?;
        let EndOf::Exec(running) = &mut session.end.0 else {
            return Err(Cause::Stopping);
        };
        let ended = async {
            match limit {
                None => Ok(running.ended().await),
                Some(limit) => tokio::time::timeout(limit, running.ended()).await,
            }
        };
        // An end in time counts, also where output has to be waited for beyond it.
        let finished = tokio::try_join!(ended, keep(session.stdout).map(Ok), keep(session.stderr).map(Ok));
        match finished {
            Ok((Some(exit_code), stdout, stderr)) => Ok(ExecOutput { stdout, stderr, exit_code }),
            Ok((None, ..)) => Err(ShimError::Gone { pod: container.sandbox.id.clone() }.into()),
            Err(_elapsed) => {
                running.kill(DEATH).await;
                Err(Cause::ExecTimeout { command: program, seconds: limit.unwrap_or_default().as_secs() })
            }
        }
    }
}

/// The first part of a stream; the rest is read too, so that the command is not disturbed.
async fn keep(stream: Option<Reader>) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(mut stream) = stream else { return kept };
    let mut buffer = vec![0_u8; 32 << 10];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return kept,
            Ok(length) => {
                let room = OUTPUT.saturating_sub(kept.len()).min(length);
                kept.extend_from_slice(&buffer[..room]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_cut_only_as_far_as_it_must() {
        let fitted = |out: usize, err: usize| {
            let output = ExecOutput { stdout: vec![0; out], stderr: vec![0; err], exit_code: 0 }.fit(100);
            (output.stdout.len(), output.stderr.len())
        };
        for (given, left) in [
            ((0, 0), (0, 0)),
            ((60, 40), (60, 40)),
            ((100, 0), (100, 0)),
            ((101, 0), (100, 0)),
            ((200, 10), (90, 10)),
            ((10, 200), (10, 90)),
            ((70, 70), (50, 50)),
        ] {
            assert_eq!(fitted(given.0, given.1), left, "{given:?}");
        }
    }
}
