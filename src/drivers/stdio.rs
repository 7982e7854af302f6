//! Standard streams of a process that runs in a container: pipes and terminals, as the daemon holds them.
//! What does not live here: who made the process, and who reads its streams.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::termios::{LocalModes, SpecialCodeIndex, Winsize};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::Sleep;

use super::watched::watched;

/// How long output may still come after the process has ended: a background child may hold the pipe for ever.
const DRAIN: Duration = Duration::from_millis(50);
/// Most bytes that a pipe holds where nobody has raised fs.pipe-max-size: what an ended process may have left in it.
const LEFT_BEHIND: usize = 1 << 20;
/// Ctrl-D, where the terminal names no other.
const END_OF_TEXT: u8 = 4;

type Shared = Arc<AsyncFd<OwnedFd>>;
/// Held by streams that are not at their end: when all are dropped, the receiver knows.
pub type Open = mpsc::Sender<Infallible>;
/// Resolves once the process that writes has ended.
pub type Ended = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A pipe, of which a process in a container writes: our end, and the other for the process.
pub fn output() -> io::Result<(Reader, OwnedFd)> {
    let (ours, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    Ok((Reader::new(shared(ours)?), theirs))
}

/// A pipe, of which a process in a container reads: our end, and the other for the process.
pub fn input() -> io::Result<(Writer, OwnedFd)> {
    let (theirs, ours) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    Ok((Writer { fd: Some(shared(ours)?), kind: Kind::Pipe, open: None }, theirs))
}

/// For a stream that nobody asked for.
pub fn null() -> io::Result<OwnedFd> {
    Ok(std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?.into())
}

/// A terminal's master as input, output and size. It is hung up when all three are dropped.
pub fn terminal(master: OwnedFd) -> io::Result<(Writer, Reader, Master)> {
    let fd = shared(master)?;
    let writer = Writer { fd: Some(fd.clone()), kind: Kind::Terminal { unfinished: false }, open: None };
    Ok((writer, Reader::new(fd.clone()), Master(fd)))
}

fn shared(fd: OwnedFd) -> io::Result<Shared> {
    rustix::io::ioctl_fionbio(&fd, true)?;
    Ok(Arc::new(watched(fd)?))
}

/// What a process says.
pub struct Reader {
    fd: Shared,
    end: End,
    open: Option<Open>,
}

/// When a reader is at its end, besides the end of the file.
enum End {
    Never,
    /// Soon after this.
    After(Ended),
    /// The process has ended.
    Draining {
        over: Pin<Box<Sleep>>,
        left: usize,
    },
    Reached,
}

impl Reader {
    fn new(fd: Shared) -> Self {
        Self { fd, end: End::Never, open: None }
    }

    /// Ends soon after the process, even if a background child holds the stream: what the process wrote is read first.
    #[must_use]
    pub fn until(self, ended: Ended) -> Self {
        Self { end: End::After(ended), ..self }
    }

    /// Lets go of `open` at its end.
    #[must_use]
    pub fn holding(self, open: Open) -> Self {
        Self { open: Some(open), ..self }
    }

    /// Whether to wait no more for what is not there yet.
    fn is_late(&mut self, context: &mut Context<'_>) -> bool {
        if let End::After(ended) = &mut self.end
            && ended.as_mut().poll(context).is_ready()
        {
            self.end = End::Draining { over: Box::pin(tokio::time::sleep(DRAIN)), left: LEFT_BEHIND };
        }
        match &mut self.end {
            End::Draining { over, .. } => over.as_mut().poll(context).is_ready(),
            _ => false,
        }
    }

    fn took(&mut self, count: usize) {
        match &mut self.end {
            _ if count == 0 => {
                self.end = End::Reached;
                self.open = None;
            }
            End::Draining { left, .. } => *left = left.saturating_sub(count),
            _ => {}
        }
    }

    /// Reads what is there now, whatever epoll has told so far.
    fn read_left(&self, buffer: &mut ReadBuf<'_>) -> io::Result<usize> {
        let left = matches!(self.end, End::Draining { left: 1.., .. });
        match left.then(|| read(&self.fd, buffer)) {
            None => Ok(0),
            Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Some(result) => result,
        }
    }
}

impl AsyncRead for Reader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if matches!(self.end, End::Reached) || buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if self.is_late(context) {
            let count = self.read_left(buffer)?;
            self.took(count);
            return Poll::Ready(Ok(()));
        }
        let fd = self.fd.clone();
        loop {
            let mut readable = ready!(fd.poll_read_ready(context))?;
            if let Ok(result) = readable.try_io(|fd| read(fd, buffer)) {
                self.took(result?);
                return Poll::Ready(Ok(()));
            }
        }
    }
}

/// 0 at the end. A terminal that nobody holds any more tells it by EIO.
fn read(fd: &AsyncFd<OwnedFd>, buffer: &mut ReadBuf<'_>) -> io::Result<usize> {
    let room = buffer.initialize_unfilled();
    let count = loop {
        match rustix::io::read(fd, &mut *room) {
            Err(Errno::INTR) => {}
            Err(Errno::IO) => break 0,
            other => break other?,
        }
    };
    buffer.advance(count);
    Ok(count)
}

/// What a process is told. Dropped or shut down, a pipe gives the process its end of file; a terminal that is shut
/// down is given its end-of-file character, which is all that a terminal has.
pub struct Writer {
    fd: Option<Shared>,
    kind: Kind,
    open: Option<Open>,
}

enum Kind {
    Pipe,
    /// Whether the last line waits for its end.
    Terminal {
        unfinished: bool,
    },
}

impl Writer {
    /// Lets go of `open` at its end.
    #[must_use]
    pub fn holding(self, open: Open) -> Self {
        Self { open: Some(open), ..self }
    }

    fn poll_put(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Some(fd) = &self.fd else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        loop {
            let mut writable = ready!(fd.poll_write_ready(context))?;
            if let Ok(result) = writable.try_io(|fd| write(fd, bytes)) {
                return Poll::Ready(result);
            }
        }
    }

    /// What ends the input of a terminal that reads lines; nothing for one that reads keys.
    fn end_of_text(&self) -> Vec<u8> {
        let (Some(fd), Kind::Terminal { unfinished }) = (&self.fd, &self.kind) else {
            return Vec::new();
        };
        let Ok(modes) = rustix::termios::tcgetattr(fd) else {
            return Vec::new();
        };
        if !modes.local_modes.contains(LocalModes::ICANON) {
            return Vec::new();
        }
        let code = match modes.special_codes[SpecialCodeIndex::VEOF] {
            0 => END_OF_TEXT,
            code => code,
        };
        // The first one only ends an unfinished line.
        vec![code; 1 + usize::from(*unfinished)]
    }
}

impl AsyncWrite for Writer {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(self.poll_put(context, bytes))?;
        if let (Kind::Terminal { unfinished }, Some(last)) = (&mut self.kind, bytes[..count].last()) {
            *unfinished = !matches!(last, b'\n' | b'\r');
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let end = self.end_of_text();
        if !end.is_empty() {
            // A terminal whose process has ended needs no end of its input.
            let _ = ready!(self.poll_put(context, &end));
        }
        self.fd = None;
        self.open = None;
        Poll::Ready(Ok(()))
    }
}

/// The other side having gone is always a broken pipe, for a terminal too.
fn write(fd: &AsyncFd<OwnedFd>, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match rustix::io::write(fd, bytes) {
            Err(Errno::INTR) => {}
            Err(Errno::IO) => return Err(io::ErrorKind::BrokenPipe.into()),
            other => return Ok(other?),
        }
    }
}

/// A terminal's master, for its size.
pub struct Master(Shared);

impl Master {
    /// Columns and rows.
    pub fn resize(&self, width: u16, height: u16) -> io::Result<()> {
        let size = Winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(rustix::termios::tcsetwinsize(&self.0, size)?)
    }
}

#[cfg(test)]
mod tests;
