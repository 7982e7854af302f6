//! A stand-in for a host's systemd: a real D-Bus daemon, and behind it a manager that knows two services. berth.service is
//! really started, by the unit file and the program that are installed; kubelet.service is only a health endpoint and the
//! command line that its unit files add up to. Transient units really run. What it does not have: anything else of systemd.

mod bus;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use zbus::zvariant::OwnedObjectPath;
use zbus::{Connection, connection};

use bus::{Manager, Service, Unit};

const NAME: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "/org/freedesktop/systemd1";
/// The kubelet's process id: nobody is asked for more than its command line.
const KUBELET_PID: u32 = 4242;

/// A host's root directory with its manager of services. Dropping it ends what it has started.
pub struct Host {
    root: PathBuf,
    healthz: String,
    state: Arc<Mutex<State>>,
    bus: Child,
    _connection: Connection,
}

#[derive(Default)]
struct State {
    root: PathBuf,
    /// `start berth.service`, ... in the order of the calls.
    calls: Vec<String>,
    daemon: Option<Child>,
    /// The command line of a kubelet that runs.
    kubelet: Option<String>,
    /// A kubelet is not healthy while its command line has this.
    sick: Option<String>,
    transient: Vec<Child>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Host {
    /// A host below a directory, as kubeadm leaves one, whose kubelet runs on `runtime`'s socket.
    pub async fn boot(root: &Path, runtime: &str) -> Result<Self> {
        for directory in [
            "etc/systemd/system",
            "usr/lib/systemd/system/kubelet.service.d",
            "run/systemd/system",
            "run/dbus",
            "opt",
            "var/lib",
        ] {
            fs::create_dir_all(root.join(directory))?;
        }
        let unit = "[Unit]\nDescription=kubelet\n\n[Service]\nExecStart=/usr/bin/kubelet\nRestart=always\n";
        fs::write(root.join("usr/lib/systemd/system/kubelet.service"), unit)?;
        let drop_in = format!(
            "[Service]\nExecStart=\nExecStart=/usr/bin/kubelet $KUBELET_CONFIG_ARGS \\\n  --container-runtime-endpoint=unix://{runtime}\n"
        );
        fs::write(root.join("usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf"), drop_in)?;
        let bus = start_bus(root)?;
        let state = Arc::new(Mutex::new(State { root: root.into(), ..State::default() }));
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
        let healthz = serve_health(state.clone()).await?;
        let host = Self { root: root.into(), healthz, state, bus, _connection: connection };
        start_kubelet(&mut lock(&host.state))?;
        host.calls();
        Ok(host)
    }

    /// Its root directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where its kubelet says that it is healthy.
    pub fn healthz(&self) -> &str {
        &self.healthz
    }

    /// What was asked of the manager since this was asked last.
    pub fn calls(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.state).calls)
    }

    /// The kubelet's command line while it runs.
    pub fn kubelet(&self) -> Option<String> {
        lock(&self.state).kubelet.clone()
    }

    /// From now on a kubelet with this in its command line is not healthy.
    pub fn sicken(&self, part: Option<&str>) {
        lock(&self.state).sick = part.map(String::from);
    }

    /// The daemon's process id while it runs.
    pub fn daemon(&self) -> Option<u32> {
        lock(&self.state).daemon.as_ref().map(Child::id)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        let children = state.daemon.take().into_iter().chain(std::mem::take(&mut state.transient));
        for mut child in children {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = self.bus.kill();
        let _ = self.bus.wait();
        crate::census::unmount_below(&self.root);
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

async fn serve_health(state: Arc<Mutex<State>>) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let healthy = {
                let state = lock(&state);
                let sick = |line: &String| state.sick.as_ref().is_some_and(|part| line.contains(part));
                state.kubelet.as_ref().is_some_and(|line| !sick(line))
            };
            let code = if healthy { "200 OK" } else { "500 Internal Server Error" };
            let _ = stream.write_all(format!("HTTP/1.0 {code}\r\n\r\n").as_bytes()).await;
        }
    });
    Ok(address)
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
        "kubelet.service" => start_kubelet(state),
        "berth.service" => start_daemon(state),
        other => anyhow::bail!("no such unit: {other}"),
    }
}

fn start_kubelet(state: &mut State) -> Result<()> {
    if state.kubelet.is_none() {
        let line = command(&state.root, "kubelet.service")?;
        let process = state.root.join(format!("proc/{KUBELET_PID}"));
        fs::create_dir_all(&process)?;
        let words: Vec<_> = line.split_whitespace().collect();
        fs::write(process.join("cmdline"), words.join("\0") + "\0")?;
        state.kubelet = Some(line);
    }
    Ok(())
}

/// The installed program by the installed unit; its directories are below the host's root.
fn start_daemon(state: &mut State) -> Result<()> {
    if let Some(daemon) = &mut state.daemon
        && daemon.try_wait()?.is_none()
    {
        return Ok(());
    }
    let line = command(&state.root, "berth.service")?;
    let words: Vec<_> = line.split_whitespace().collect();
    ensure!(words.len() == 2 && words[1] == "serve", "{line}");
    let at = |path: &str| state.root.join(path.trim_start_matches('/'));
    let log = fs::File::options().create(true).append(true).open(at("daemon.log"))?;
    let daemon = Command::new(at(words[0]))
        .arg("serve")
        .arg("--root")
        .arg(at("var/lib/berth"))
        .arg("--state")
        .arg(at("run/berth"))
        .arg("--config")
        .arg(at("etc/berth/config.toml"))
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    state.daemon = Some(daemon);
    Ok(())
}

fn stop(state: &mut State, unit: &str) -> Result<()> {
    match unit {
        "kubelet.service" => state.kubelet = None,
        _ => {
            if let Some(mut daemon) = state.daemon.take() {
                kill(Pid::from_raw(daemon.id().cast_signed()), Signal::SIGTERM)?;
                daemon.wait()?;
            }
        }
    }
    Ok(())
}
