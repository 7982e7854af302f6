//! A container's streams: what a spawn is given, and reading what the container writes.

use std::os::fd::{AsFd, OwnedFd};

use berth_sys::socket;
use rustix::event::epoll::EventFlags;
use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;
use rustix::pty::OpenptFlags;

use crate::container::Stdio;
use crate::event_loop::{EventLoop, Source};
use crate::log::Stream;
use crate::process::{Container, Output, Stdin, Terminal};

/// Most bytes taken from a stream at a time: one record's text.
pub const CHUNK: usize = 16 * 1024;

/// What may be left in a pipe or a terminal when its container exits; more comes from a process that outlives it.
const LEFT_BEHIND: usize = 1 << 20;

/// The shim's ends of a container's streams.
#[derive(Default)]
pub struct Ends {
    pub stdin: Option<OwnedFd>,
    pub outputs: Vec<(Stream, OwnedFd)>,
}

/// Makes both sides of the streams of a container without a terminal.
pub fn pipes(stdin: bool) -> std::io::Result<(Stdio, Ends)> {
    let (stdin, our_stdin) = if stdin {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        socket::set_nonblocking(&write)?;
        (read, Some(write))
    } else {
        (rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?, None)
    };
    let (our_stdout, stdout) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let (our_stderr, stderr) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let outputs = vec![(Stream::Stdout, our_stdout), (Stream::Stderr, our_stderr)];
    for (_, fd) in &outputs {
        socket::set_nonblocking(fd)?;
    }
    Ok((Stdio::Pipes { stdin, stdout, stderr }, Ends { stdin: our_stdin, outputs }))
}

/// The ends of a container with a terminal, all of them its master.
pub fn terminal(master: OwnedFd, stdin: bool) -> std::io::Result<(Terminal, Ends)> {
    socket::set_nonblocking(&master)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let peer = rustix::pty::ioctl_tiocgptpeer(&master, flags).ok();
    let stdin = if stdin { Some(master.try_clone()?) } else { None };
    let outputs = vec![(Stream::Stdout, master.try_clone()?)];
    Ok((Terminal { master, peer }, Ends { stdin, outputs }))
}

impl Container {
    /// Takes the ends of the container's streams and begins to read them.
    pub fn connect(
        &mut self,
        id: &str,
        ends: Ends,
        once: bool,
        events: &mut EventLoop,
    ) -> std::io::Result<()> {
        self.stdin = ends.stdin.map(|fd| Stdin { fd, pending: Vec::new(), key: None, once, closing: false });
        for (stream, fd) in ends.outputs {
            let key = events.add(&fd, Source::Output { container: id.to_owned(), stream }, EventFlags::IN)?;
            self.outputs.push(Output { stream, fd, key: Some(key) });
        }
        Ok(())
    }

    /// Takes what one read of a stream gives. False at its end.
    fn read_once(&mut self, id: &str, stream: Stream, buffer: &mut [u8], events: &mut EventLoop) -> Read {
        let Some(output) = self.outputs.iter().find(|output| output.stream == stream) else {
            return Read::Nothing;
        };
        match rustix::io::read(&output.fd, &mut *buffer) {
            Ok(0) => {}
            Ok(count) => {
                self.log.append(stream, &buffer[..count]);
                self.copy_to_clients(id, stream, &buffer[..count], events);
                return Read::Bytes(count);
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Read::Nothing,
            // EIO: a terminal whose other side is closed.
            Err(_) => {}
        }
        self.end_output(stream, events);
        Read::Nothing
    }

    /// A stream is readable: one read, so that no container keeps the others waiting.
    pub fn read_output(&mut self, id: &str, stream: Stream, buffer: &mut [u8], events: &mut EventLoop) {
        self.read_once(id, stream, buffer, events);
    }

    /// After the exit: takes what is left in the streams without waiting for their end, since another process may hold
    /// them; what that one writes is read as it comes. Clients that are behind get all of it in their own time.
    pub fn drain(&mut self, id: &str, buffer: &mut [u8], events: &mut EventLoop) {
        if let Some(terminal) = &mut self.terminal {
            terminal.peer = None;
        }
        for stream in [Stream::Stdout, Stream::Stderr] {
            let mut left = LEFT_BEHIND;
            while let Read::Bytes(count) = self.read_once(id, stream, buffer, events) {
                left = left.saturating_sub(count);
                if left == 0 {
                    break;
                }
            }
        }
    }

    fn end_output(&mut self, stream: Stream, events: &mut EventLoop) {
        if let Some(at) = self.outputs.iter().position(|output| output.stream == stream) {
            let output = self.outputs.swap_remove(at);
            if let Some(key) = output.key {
                events.remove(key, output.fd.as_fd());
            }
        }
        self.log.end(stream);
        self.end_watching(stream, events);
    }

    /// Ends all streams: the container is forgotten.
    pub fn disconnect(&mut self, id: &str, events: &mut EventLoop) {
        self.close_stdin(events);
        self.end_output(Stream::Stdout, events);
        self.end_output(Stream::Stderr, events);
        self.drop_clients(|_| true, events);
        if self.log.dropped() > 0 {
            eprintln!("container {id}: {} bytes of log were dropped", self.log.dropped());
        }
    }
}

enum Read {
    Bytes(usize),
    Nothing,
}
