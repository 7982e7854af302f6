//! A stand-in for a host's systemd: a real D-Bus daemon, and behind it a manager that knows two services. berth.service is
//! really started, by the unit file and the program that are installed; kubelet.service is whatever the test has for one
//! ([`Kubelet`]), started by the command line that its unit files add up to. Transient units really run. What it does not
//! have: anything else of systemd.

mod bus;
mod host;

use std::collections::HashSet;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use zbus::zvariant::OwnedObjectPath;
use zbus::{Connection, connection};

use bus::{Manager, Service, Unit};
pub use host::Host;

const NAME: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "/org/freedesktop/systemd1";
/// There if systemd runs the host (sd_booted(3)).
const BOOTED: &str = "run/systemd/system";
const NOTIFY: &str = "run/systemd/notify";

/// What kubelet.service runs.
pub trait Kubelet: Send {
    /// Starts it by the command line of its unit; one that runs goes on.
    fn start(&mut self, line: &str) -> Result<()>;
    /// Ends it.
    fn stop(&mut self) -> Result<()>;
    /// The process, while it runs.
    fn pid(&self) -> Option<u32>;
}

/// The manager of a host's services. Dropping it ends what it has started, but for the kubelet.
pub struct Systemd {
    root: PathBuf,
    state: Arc<Mutex<State>>,
    bus: Child,
    _connection: Connection,
}

struct State {
    root: PathBuf,
    logs: PathBuf,
    /// `start berth.service`, ... in the order of the calls.
    calls: Vec<String>,
    daemon: Option<Child>,
    /// How often that was started because it had ended.
    restarts: u32,
    /// Where it says how it is (sd_notify(3)), and what it has said of its status.
    notices: UnixDatagram,
    status: String,
    kubelet: Box<dyn Kubelet>,
    transient: Vec<Child>,
    /// Unique names of the connections that hear of jobs.
    subscribers: HashSet<String>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Systemd {
    /// Manages the host below a directory, which has the kubelet's unit and the directories that every host has, and no
    /// systemd. What the daemon and transient units print goes to `logs`.
    pub async fn boot(root: &Path, logs: &Path, kubelet: Box<dyn Kubelet>) -> Result<Self> {
        for directory in ["run/systemd", "run/dbus"] {
            fs::create_dir_all(root.join(directory))?;
        }
        fs::create_dir(root.join(BOOTED)).context("this host has a systemd already")?;
        let bus = start_bus(root)?;
        let notices = UnixDatagram::bind(root.join(NOTIFY))?;
        notices.set_nonblocking(true)?;
        let state = Arc::new(Mutex::new(State {
            root: root.into(),
            logs: logs.into(),
            calls: Vec::new(),
            daemon: None,
            restarts: 0,
            notices,
            status: String::new(),
            kubelet,
            transient: Vec::new(),
            subscribers: HashSet::new(),
        }));
        let address = format!("unix:path={}", root.join("run/dbus/system_bus_socket").display());
        let unit = |name: &str| Unit { name: name.into(), state: state.clone() };
        let mut builder = connection::Builder::address(address.as_str())?
            .name(NAME)?
            .serve_at(MANAGER, Manager { state: state.clone() })?;
        for name in ["kubelet.service", "berth.service"] {
            builder =
                builder.serve_at(object(name)?, unit(name))?.serve_at(object(name)?, Service(unit(name)))?;
        }
        let connection = builder.build().await?;
        Ok(Self { root: root.into(), state, bus, _connection: connection })
    }

    /// Starts a service, as at boot.
    pub fn start(&self, unit: &str) -> Result<()> {
        start(&mut lock(&self.state), unit)
    }

    /// The host's root directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What was asked of the manager since this was asked last.
    pub fn calls(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.state).calls)
    }

    /// The daemon's process id while it runs.
    pub fn daemon(&self) -> Option<u32> {
        lock(&self.state).daemon.as_ref().map(Child::id)
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        let children = state.daemon.take().into_iter().chain(std::mem::take(&mut state.transient));
        for mut child in children {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = self.bus.kill();
        let _ = self.bus.wait();
        // Nobody finds a systemd here any more.
        let _ = fs::remove_dir(self.root.join(BOOTED));
    }
}

fn start_bus(root: &Path) -> Result<Child> {
    let socket = root.join("run/dbus/system_bus_socket");
    let configuration = root.join("run/dbus/bus.conf");
    let text = format!(
        "<busconfig><type>session</type><listen>unix:path={}</listen><auth>EXTERNAL</auth><policy context=\"default\">\
         <allow send_destination=\"*\"/><allow receive_sender=\"*\"/><allow own=\"*\"/><allow user=\"*\"/></policy></busconfig>",
        socket.display()
    );
    fs::write(&configuration, text)?;
    let mut bus = Command::new("dbus-daemon")
        .arg(format!("--config-file={}", configuration.display()))
        .args(["--nofork", "--nopidfile", "--nosyslog"])
        .stdout(Stdio::null())
        .spawn()
        .context("run dbus-daemon (e2e/setup installs it)")?;
    for _ in 0..500 {
        if std::os::unix::net::UnixStream::connect(&socket).is_ok() {
            return Ok(bus);
        }
        ensure!(bus.try_wait()?.is_none(), "dbus-daemon has ended");
        std::thread::sleep(Duration::from_millis(10));
    }
    bus.kill()?;
    anyhow::bail!("dbus-daemon does not listen at {}", socket.display())
}

fn object(unit: &str) -> Result<OwnedObjectPath> {
    Ok(OwnedObjectPath::try_from(format!("{MANAGER}/unit/{}", unit.replace(['.', '-'], "_")))?)
}

/// A unit's files as the host sees them: its own one, then drop-ins by name, wherever they are.
fn files(root: &Path, unit: &str) -> (String, Vec<String>) {
    let directories = ["etc/systemd/system", "usr/lib/systemd/system"];
    let fragment =
        directories.iter().map(|dir| format!("{dir}/{unit}")).find(|path| root.join(path).exists());
    let mut drop_ins: Vec<(String, String)> = Vec::new();
    for dir in directories {
        let dir = format!("{dir}/{unit}.d");
        for entry in fs::read_dir(root.join(&dir)).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            drop_ins.push((name.clone(), format!("/{dir}/{name}")));
        }
    }
    drop_ins.sort();
    let fragment = fragment.map(|path| format!("/{path}")).unwrap_or_default();
    (fragment, drop_ins.into_iter().map(|(_, path)| path).collect())
}

/// The command that is in force.
fn command(root: &Path, unit: &str) -> Result<String> {
    let (fragment, drop_ins) = files(root, unit);
    ensure!(!fragment.is_empty(), "no such unit: {unit}");
    let mut found = Vec::new();
    for path in std::iter::once(fragment).chain(drop_ins) {
        let text = fs::read_to_string(root.join(path.trim_start_matches('/')))?.replace("\\\n", " ");
        for value in text.lines().filter_map(|line| line.strip_prefix("ExecStart=")) {
            if value.is_empty() { found.clear() } else { found.push(value.to_owned()) }
        }
    }
    ensure!(found.len() == 1, "{unit}: {found:?}");
    Ok(found.remove(0))
}

fn start(state: &mut State, unit: &str) -> Result<()> {
    match unit {
        "kubelet.service" => {
            let line = command(&state.root, unit)?;
            state.kubelet.start(&line)
        }
        "berth.service" => {
            state.restarts = 0;
            start_daemon(state)
        }
        other => anyhow::bail!("no such unit: {other}"),
    }
}

/// The installed program by the installed unit; its directories are below the host's root.
fn start_daemon(state: &mut State) -> Result<()> {
    // Nobody reads what the one before has said, and a full socket would hold up the next.
    said(state);
    if let Some(daemon) = &mut state.daemon
        && daemon.try_wait()?.is_none()
    {
        return Ok(());
    }
    let line = command(&state.root, "berth.service")?;
    let words: Vec<_> = line.split_whitespace().collect();
    ensure!(words.len() == 2 && words[1] == "serve", "{line}");
    let at = |path: &str| state.root.join(path.trim_start_matches('/'));
    let log = fs::File::options().create(true).append(true).open(state.logs.join("daemon.log"))?;
    let daemon = Command::new(at(words[0]))
        .arg("serve")
        .arg("--root")
        .arg(at("var/lib/berth"))
        .arg("--state")
        .arg(at("run/berth"))
        .arg("--config")
        .arg(at("etc/berth/config.toml"))
        .env("NOTIFY_SOCKET", at(NOTIFY))
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    state.daemon = Some(daemon);
    Ok(())
}

/// `Restart=always`: how often it had to be.
fn restarts(state: &mut State) -> Result<u32> {
    if let Some(daemon) = &mut state.daemon
        && daemon.try_wait()?.is_some()
    {
        state.restarts += 1;
        start_daemon(state)?;
    }
    Ok(state.restarts)
}

/// The daemon's last word on its status.
fn said(state: &mut State) -> String {
    let mut notice = [0; 4096];
    while let Ok(length) = state.notices.recv(&mut notice) {
        let notice = String::from_utf8_lossy(&notice[..length]);
        if let Some(status) = notice.lines().find_map(|line| line.strip_prefix("STATUS=")) {
            state.status = status.into();
        }
    }
    state.status.clone()
}

fn stop(state: &mut State, unit: &str) -> Result<()> {
    match unit {
        "kubelet.service" => state.kubelet.stop()?,
        _ => {
            if let Some(mut daemon) = state.daemon.take() {
                kill(Pid::from_raw(daemon.id().cast_signed()), Signal::SIGTERM)?;
                daemon.wait()?;
            }
        }
    }
    Ok(())
}
