//! The streams that a client opens for exec or attach, each with its `streamtype`. What does not live here: what goes
//! through them.

use super::stream::{Stream, Streams, Writer};
use crate::api::streaming::inbox::{Reader, Reset};
use crate::api::streaming::outcome::Format;
use crate::api::streaming::remote_command::{Channels, OPENING, Wanted};

/// A version of the remote command protocol, as clients name it in `X-Stream-Protocol-Version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// Its name.
    pub name: &'static str,
    /// How the outcome is told.
    pub format: Format,
    /// Whether a terminal comes with a stream of sizes.
    resizes: bool,
}

/// What is spoken, the best first.
pub const VERSIONS: [Version; 4] = [
    Version { name: "v4.channel.k8s.io", format: Format::Status, resizes: true },
    Version { name: "v3.channel.k8s.io", format: Format::Text, resizes: true },
    Version { name: "v2.channel.k8s.io", format: Format::Text, resizes: false },
    Version { name: "channel.k8s.io", format: Format::Text, resizes: false },
];

type Both = (Reader, Writer);

#[derive(Default)]
struct Opened {
    error: Option<Both>,
    stdin: Option<Both>,
    stdout: Option<Both>,
    stderr: Option<Both>,
    resize: Option<Both>,
}

/// Waits for all streams that the session needs. None: the client did not open them in time, or has gone.
pub async fn open(mut streams: Streams, wanted: Wanted, version: Version) -> Option<Channels<Writer>> {
    let mut opened = Opened::default();
    let opening = async {
        while !opened.has_all(wanted, version) {
            let stream = streams.next().await.ok_or(Reset)?;
            opened.take(stream).await?;
        }
        Ok::<_, Reset>(())
    };
    match tokio::time::timeout(OPENING, opening).await {
        Ok(Ok(())) => opened.into_channels(wanted, version),
        Ok(Err(Reset)) => None,
        Err(_) => {
            tracing::debug!("a client did not open its streams within {OPENING:?}");
            None
        }
    }
}

impl Opened {
    fn slot(&mut self, kind: &str) -> Option<&mut Option<Both>> {
        match kind {
            "error" => Some(&mut self.error),
            "stdin" => Some(&mut self.stdin),
            "stdout" => Some(&mut self.stdout),
            "stderr" => Some(&mut self.stderr),
            "resize" => Some(&mut self.resize),
            _ => None,
        }
    }

    async fn take(&mut self, stream: Stream) -> Result<(), Reset> {
        let kind = stream.headers.get("streamtype").unwrap_or_default();
        match self.slot(kind) {
            Some(slot) if slot.is_none() => *slot = Some(stream.accept().await?),
            _ => stream.refuse().await,
        }
        Ok(())
    }

    fn has_all(&self, wanted: Wanted, version: Version) -> bool {
        self.error.is_some()
            && (self.stdin.is_some() || !wanted.stdin)
            && (self.stdout.is_some() || !wanted.stdout)
            && (self.stderr.is_some() || !wanted.stderr)
            && (self.resize.is_some() || !(wanted.tty && version.resizes))
    }

    /// What a client has opened beyond its needs is read by nobody, and ended with the session.
    fn into_channels(self, wanted: Wanted, version: Version) -> Option<Channels<Writer>> {
        let (_, error) = self.error?;
        let mut unused = Vec::new();
        let mut input = |both: Option<Both>, wanted: bool| {
            let (reader, writer) = both?;
            unused.push(writer);
            wanted.then_some(reader)
        };
        let stdin = input(self.stdin, wanted.stdin);
        let resize = input(self.resize, wanted.tty);
        let mut output = |both: Option<Both>, wanted: bool| {
            let (_, writer) = both?;
            if wanted {
                return Some(writer);
            }
            unused.push(writer);
            None
        };
        let stdout = output(self.stdout, wanted.stdout);
        let stderr = output(self.stderr, wanted.stderr);
        Some(Channels { stdin, resize, stdout, stderr, error, unused, format: version.format })
    }
}
