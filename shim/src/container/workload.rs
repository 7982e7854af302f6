//! The process that the user asked for: its identity, put on in the order that keeps each right for as long as a later
//! step needs it, and its execution. The same for a container's first process and for an exec.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use berth_sys::path::Root;
use berth_sys::process::{close_on_execute, join_new_session_keyring, reset_signals};
use berth_sys::seccomp::{self, Filter};
use rustix::fs::{FileType, Mode, OFlags};

use super::capabilities::Capabilities;
use super::credentials::Credentials;
use super::failure::{Failing, Result, SpawnError};
use super::labels::Labels;
use super::limits::Limit;
use super::spec::{ConsoleSize, IdMapping, Process};
use super::status::Reporter;
use super::{Stdio, executable, join};

/// A process of the spec, parsed and checked in the builder.
pub(super) struct Workload {
    arguments: Vec<CString>,
    environment: Vec<CString>,
    directory: PathBuf,
    credentials: Credentials,
    capabilities: Capabilities,
    pub limits: Vec<Limit>,
    labels: Labels,
    umask: Mode,
    no_new_privileges: bool,
    filter: Option<(Filter, u64)>,
    pub console_size: Option<ConsoleSize>,
}

/// The standard streams at hand.
pub(super) enum Streams {
    Pipes([OwnedFd; 3]),
    /// The peer of a terminal.
    Terminal(OwnedFd),
}

impl Workload {
    pub(super) fn prepare(process: &Process, filter: Option<&OwnedFd>, flags: &[String]) -> Result<Self> {
        if process.args.is_empty() {
            return Err(SpawnError::refused("execute", "the process has no arguments, not even a program"));
        }
        if !process.cwd.is_absolute() {
            let text = format!("working directory {:?} is not absolute", process.cwd.display().to_string());
            return Err(SpawnError::refused("change the working directory", text));
        }
        let filter = match filter {
            Some(file) => Some(load(file, flags)?),
            None => None,
        };
        Ok(Self {
            arguments: strings(&process.args, "argument")?,
            environment: strings(&process.env, "environment variable")?,
            directory: process.cwd.clone(),
            credentials: Credentials::parse(&process.user),
            capabilities: Capabilities::parse(&process.capabilities)?,
            limits: process.rlimits.iter().map(Limit::parse).collect::<Result<_>>()?,
            labels: Labels::parse(process),
            umask: Mode::from_raw_mode(process.user.umask.unwrap_or(0o022) & 0o777),
            no_new_privileges: process.no_new_privileges,
            filter,
            console_size: process.console_size,
        })
    }

    /// Makes the working directory where the image has none.
    pub(super) fn make_directory(&self) -> Result<()> {
        let step = || format!("make the working directory {}", self.directory.display());
        match here().failing(step)?.mkdir_all(&self.directory, Mode::from_raw_mode(0o755)) {
            Ok(_) => Ok(()),
            // It exists behind a link of procfs or is no directory; entering it will tell.
            Err(error) if matches!(error.raw_os_error(), Some(nix::libc::ELOOP | nix::libc::ENOTDIR)) => {
                Ok(())
            }
            Err(error) => Err(error).failing(step),
        }
    }

    /// Becomes the workload; returns only with what failed.
    pub(super) fn execute(self, streams: Streams, reporter: &Reporter) -> Result<()> {
        rustix::process::setsid().failing(|| "begin a session".to_owned())?;
        self.take(streams)?;
        self.labels.apply()?;
        match join_new_session_keyring() {
            Err(error) if !matches!(error.raw_os_error(), Some(nix::libc::ENOSYS | nix::libc::EPERM)) => {
                return Err(error).failing(|| "make a session keyring".to_owned());
            }
            _ => {}
        }
        let late_directory = !self.enter_directory(false)?;
        self.limits.iter().try_for_each(Limit::apply)?;
        rustix::process::umask(self.umask);
        self.put_on_identity()?;
        if late_directory {
            self.enter_directory(true)?;
        }
        let program = executable::find(&self.arguments[0], &self.environment)?;
        reset_signals();
        close_on_execute().failing(|| "close descriptors".to_owned())?;
        reporter.executing().failing(|| "report the execution".to_owned())?;
        if self.no_new_privileges {
            self.install_filter()?;
        }
        let failed: nix::Result<Infallible> =
            nix::unistd::execve(&program, &self.arguments, &self.environment);
        match failed {
            Err(error) => Err(executable::failure(&self.arguments[0], &program, error)),
            Ok(never) => match never {},
        }
    }

    /// In the builder, with the host's rights: lets the user open /dev/stdout and the others anew, where they are pipes
    /// made for this process; never a file or a device. `users` tells who the user is on the host.
    pub(super) fn own_pipes(&self, stdio: &Stdio, users: &[IdMapping]) -> Result<()> {
        let step = || "give the standard streams to the user".to_owned();
        for stream in stdio.descriptors() {
            let kind = FileType::from_raw_mode(rustix::fs::fstat(stream).failing(step)?.st_mode);
            if kind == FileType::Fifo {
                self.credentials.on_host(users).own(stream).failing(step)?;
            }
        }
        Ok(())
    }

    fn take(&self, streams: Streams) -> Result<()> {
        let step = || "take the standard streams".to_owned();
        let [stdin, stdout, stderr] = match &streams {
            Streams::Pipes(pipes) => pipes.each_ref(),
            Streams::Terminal(peer) => {
                rustix::process::ioctl_tiocsctty(peer).failing(|| "take the terminal".to_owned())?;
                self.credentials.own(peer.as_fd()).failing(step)?;
                [peer; 3]
            }
        };
        for (number, stream) in [stdin, stdout, stderr].into_iter().enumerate() {
            match number {
                0 => rustix::stdio::dup2_stdin(stream),
                1 => rustix::stdio::dup2_stdout(stream),
                _ => rustix::stdio::dup2_stderr(stream),
            }
            .failing(step)?;
        }
        Ok(())
    }

    /// Enters the working directory, without following links of procfs, and checks that it lies below the root. Root may
    /// lack the permission that the user has: then false, and the same is tried as that user.
    fn enter_directory(&self, last: bool) -> Result<bool> {
        let name = self.directory.display();
        let step = || format!("change to the working directory {name}");
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let entered = here()
            .and_then(|root| root.open_with(&self.directory, flags))
            .and_then(|directory| Ok(rustix::process::fchdir(directory)?));
        match entered {
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied && !last => return Ok(false),
            result => result.failing(step)?,
        }
        let reached = rustix::process::getcwd(Vec::new()).failing(step)?;
        if !reached.as_bytes().starts_with(b"/") {
            return Err(SpawnError::refused(
                step(),
                format!("working directory {name} is outside of the container's root"),
            ));
        }
        Ok(true)
    }

    /// Without no_new_privs a filter needs CAP_SYS_ADMIN and goes in before it is dropped; else it goes in last.
    fn put_on_identity(&self) -> Result<()> {
        if self.no_new_privileges {
            rustix::thread::set_no_new_privs(true).failing(|| "set no_new_privs".to_owned())?;
        } else {
            self.install_filter()?;
        }
        self.capabilities.bound()?;
        self.credentials.put_on()?;
        self.capabilities.put_on()
    }

    fn install_filter(&self) -> Result<()> {
        match &self.filter {
            Some((filter, flags)) => {
                filter.install(*flags).failing(|| "install the seccomp filter".to_owned())
            }
            None => Ok(()),
        }
    }
}

fn here() -> std::io::Result<Root> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(Root::open(rustix::fs::open("/", flags, Mode::empty())?))
}

fn load(file: &OwnedFd, names: &[String]) -> Result<(Filter, u64)> {
    let step = || "read the seccomp filter".to_owned();
    let filter = join::contents(file).and_then(|bytes| Filter::parse(&bytes)).failing(step)?;
    let mut flags = 0;
    for name in names {
        let unknown = || SpawnError::refused(step(), format!("unknown seccomp flag {name:?}"));
        flags |= seccomp::flag(name).ok_or_else(unknown)?;
    }
    Ok((filter, flags))
}

fn strings(texts: &[String], what: &str) -> Result<Vec<CString>> {
    let convert = |(position, text): (usize, &String)| {
        CString::new(text.as_bytes())
            .map_err(|_| SpawnError::refused("execute", format!("{what} {position} contains a NUL byte")))
    };
    texts.iter().enumerate().map(convert).collect()
}
