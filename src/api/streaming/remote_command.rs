//! Exec and attach: the copies between a process and its client, and the word at the end. What does not live here: the
//! client's wire format (spdy, websocket), and how the process is found or made (containers).

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use super::inbox::Reader;
use super::outcome::{Format, Outcome};
use super::output::Output;
use super::resize::Sizes;
use crate::containers::session::{Session, Terminal, Writer};

/// Bytes read at once of a process that says little, as most do.
const LITTLE: usize = 4 << 10;
/// And of one that says much.
const MUCH: usize = 32 << 10;
/// How long a client may take to open all streams of a session.
pub const OPENING: Duration = Duration::from_secs(30);

/// What a client wants of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// A terminal; then stdout is all of its output.
    pub tty: bool,
    /// To write to it.
    pub stdin: bool,
    /// To read its output.
    pub stdout: bool,
    /// To read its errors.
    pub stderr: bool,
}

/// A client's side of a session.
pub struct Channels<O> {
    /// To the process.
    pub stdin: Option<Reader>,
    /// Sizes of the client's window.
    pub resize: Option<Reader>,
    /// From the process.
    pub stdout: Option<O>,
    /// From the process.
    pub stderr: Option<O>,
    /// For the outcome.
    pub error: O,
    /// Ways back that nobody uses; the client waits for their end.
    pub unused: Vec<O>,
    /// How the client wants the outcome told.
    pub format: Format,
}

impl<O: Output> Channels<O> {
    /// Carries a session to its end, and tells the exit code, or else success.
    pub async fn carry(self, mut session: Session, tells_code: bool) {
        let end = async {
            let code = session.end.wait().await;
            if tells_code { code } else { 0 }
        };
        let process = Process {
            stdin: session.stdin,
            stdout: session.stdout,
            stderr: session.stderr,
            terminal: session.terminal,
        };
        self.relay(process, end).await;
    }

    /// Copies until the process has ended (`end` tells its exit code) and its output is with the client; then tells the
    /// outcome.
    async fn relay<R: AsyncRead + Unpin>(mut self, process: Process<R>, end: impl Future<Output = i32>) {
        let stdout = copy_output(process.stdout, self.stdout.take());
        let stderr = copy_output(process.stderr, self.stderr.take());
        let output = async { tokio::join!(stdout, stderr, end) };
        let stdin = copy_input(self.stdin.take(), process.stdin);
        let sizes = resize(self.resize.take(), process.terminal);
        let input = async {
            tokio::join!(stdin, sizes);
            // A client that says nothing more may still listen.
            std::future::pending::<()>().await;
        };
        let code = tokio::select! {
            ((), (), code) = output => code,
            () = input => return,
        };
        self.tell(Outcome::Exited(code)).await;
    }

    /// Ends what the client waits for. All output is on its way before.
    pub async fn tell(mut self, outcome: Outcome) {
        for output in self.stdout.iter_mut().chain(&mut self.stderr) {
            output.finish().await;
        }
        let text = outcome.text(self.format);
        if !text.is_empty() {
            let _ = self.error.write(text.into()).await;
        }
        self.error.finish().await;
        for way in &mut self.unused {
            way.finish().await;
        }
    }
}

/// A process's side of a session.
struct Process<R> {
    stdin: Option<Writer>,
    stdout: Option<R>,
    stderr: Option<R>,
    terminal: Option<Terminal>,
}

/// One read at a time, each sent before the next: a client that takes nothing makes the process wait.
async fn copy_output<R: AsyncRead + Unpin, O: Output>(from: Option<R>, to: Option<O>) {
    let (Some(mut from), Some(mut to)) = (from, to) else {
        return;
    };
    let mut buffer = BytesMut::new();
    let mut room = LITTLE;
    loop {
        buffer.reserve(room);
        match from.read_buf(&mut buffer).await {
            Ok(0) => break,
            Ok(count) => room = if count < LITTLE { LITTLE } else { MUCH },
            Err(error) => {
                tracing::debug!(%error, "cannot read a process's output");
                break;
            }
        }
        let read: Bytes = buffer.split().freeze();
        // A client that has closed this stream alone: the process finds a broken pipe.
        if to.write(read).await.is_err() {
            return;
        }
    }
    to.finish().await;
}

async fn copy_input(from: Option<Reader>, to: Option<Writer>) {
    let (Some(mut from), Some(mut to)) = (from, to) else {
        return;
    };
    while let Ok(Some(bytes)) = from.read().await {
        // A process that reads no more does not end the session; the rest of the input is thrown away with the reader.
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

async fn resize(from: Option<Reader>, terminal: Option<Terminal>) {
    let (Some(mut from), Some(terminal)) = (from, terminal) else {
        return;
    };
    let mut sizes = Sizes::default();
    while let Ok(Some(bytes)) = from.read().await {
        // Of several sizes at once only the last is the client's.
        if let Some(size) = sizes.take(&bytes).pop()
            && let Err(error) = terminal.resize(size.width, size.height).await
        {
            tracing::debug!(%error, "cannot resize a terminal");
        }
    }
}

#[cfg(test)]
mod tests;
