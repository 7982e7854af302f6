//! A daemon's side of the protocol, for the tests.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use berth_proto::shim::v1::{self, message::Body, request::Verb};
use berth_sys::socket;
use prost::Message as _;

/// A shim that is killed when dropped.
pub struct Shim {
    pub child: Child,
    pub dir: tempfile::TempDir,
}

pub struct Client {
    pub socket: OwnedFd,
    last: u64,
    events: Vec<v1::Exited>,
}

impl Shim {
    pub fn spawn() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = socket::listen(&dir.path().join("s")).unwrap();
        let stderr = std::fs::File::create(dir.path().join("stderr")).unwrap();
        let fd = listener.as_raw_fd();
        let mut command = Command::new(env!("CARGO_BIN_EXE_berth-shim"));
        command.args(["--pod", "p1"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        // SAFETY: dup2 and fcntl are async-signal-safe and touch no memory.
        #[allow(unsafe_code)]
        unsafe {
            command.pre_exec(move || {
                let done = if fd == 3 { libc::fcntl(3, libc::F_SETFD, 0) } else { libc::dup2(fd, 3) };
                if done < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
            });
        }
        Self { child: command.spawn().unwrap(), dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn connect(&self) -> Client {
        self.try_connect().unwrap()
    }

    fn try_connect(&self) -> std::io::Result<Client> {
        Ok(Client { socket: socket::connect(&self.path("s"))?, last: 0, events: Vec::new() })
    }

    /// Connected, greeted and set up.
    pub fn set_up(mut setup: v1::Setup) -> (Self, Client) {
        let shim = Self::spawn();
        setup.shm_path = shim.path("shm").to_string_lossy().into_owned();
        let mut client = shim.connect();
        client.hello();
        match client.call(Verb::Setup(setup), &[]).0 {
            Body::Ready(_) => {}
            other => panic!("{other:?}: {}", shim.stderr()),
        }
        (shim, client)
    }

    pub fn stderr(&self) -> String {
        std::fs::read_to_string(self.path("stderr")).unwrap()
    }

    pub fn exits_within(&mut self, time: Duration) -> Option<i32> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status.code().unwrap_or(-1));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        // Attached on kernels before 6.15 only.
        let _ = rustix::mount::unmount(self.path("shm"), rustix::mount::UnmountFlags::DETACH);
        if self.child.try_wait().unwrap().is_none() {
            // One without a pod is about to end with its last connection.
            let mut client = self.try_connect();
            if let Ok(client) = &mut client {
                client.send(Verb::Hello(v1::Hello { version: 1 }), &[]);
                client.send(Verb::Shutdown(v1::Shutdown { force: true }), &[]);
            }
            // The connection stays: a shim whose answer nobody takes reads no further, and a killed one leaves the pod's init.
            if self.exits_within(Duration::from_secs(3)).is_none() {
                self.child.kill().unwrap();
                self.child.wait().unwrap();
            }
        }
    }
}

impl Client {
    pub fn hello(&mut self) -> v1::State {
        match self.call(Verb::Hello(v1::Hello { version: 1 }), &[]).0 {
            Body::State(state) => state,
            other => panic!("{other:?}"),
        }
    }

    pub fn send(&mut self, verb: Verb, fds: &[BorrowedFd<'_>]) -> u64 {
        self.last += 1;
        let request = v1::Request { id: self.last, verb: Some(verb) };
        let _ = socket::send(self.socket.as_fd(), &request.encode_to_vec(), fds);
        self.last
    }

    pub fn receive(&mut self) -> Option<(v1::Message, Vec<OwnedFd>)> {
        let mut buffer = vec![0; 65536];
        let timeout = rustix::time::Timespec { tv_sec: 10, tv_nsec: 0 };
        let mut poll = [rustix::event::PollFd::new(&self.socket, rustix::event::PollFlags::IN)];
        assert_eq!(rustix::event::poll(&mut poll, Some(&timeout)).unwrap(), 1, "the shim does not answer");
        let packet = socket::recv(self.socket.as_fd(), &mut buffer).ok()?;
        (packet.len > 0).then(|| (v1::Message::decode(&buffer[..packet.len]).unwrap(), packet.fds))
    }

    pub fn call(&mut self, verb: Verb, fds: &[BorrowedFd<'_>]) -> (Body, Vec<OwnedFd>) {
        let id = self.send(verb, fds);
        loop {
            let (message, fds) = self.receive().expect("the shim closed the connection");
            match message.body.unwrap() {
                Body::Exited(exited) => self.events.push(exited),
                body => {
                    assert_eq!(message.id, id);
                    return (body, fds);
                }
            }
        }
    }

    pub fn exited(&mut self, container: &str, exec: &str) -> v1::Exited {
        loop {
            let of = |e: &v1::Exited| e.container_id == container && e.exec_id == exec;
            if let Some(at) = self.events.iter().position(of) {
                return self.events.remove(at);
            }
            match self.receive().unwrap().0.body {
                Some(Body::Exited(exited)) => self.events.push(exited),
                other => panic!("{other:?}"),
            }
        }
    }

    pub fn done(&mut self, verb: Verb, fds: &[BorrowedFd<'_>]) {
        match self.call(verb, fds).0 {
            Body::Done(_) => {}
            other => panic!("{other:?}"),
        }
    }

    pub fn error(&mut self, verb: Verb, fds: &[BorrowedFd<'_>]) -> v1::Error {
        match self.call(verb, fds).0 {
            Body::Error(error) => error,
            other => panic!("{other:?}"),
        }
    }
}
