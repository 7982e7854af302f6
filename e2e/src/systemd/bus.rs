//! What the stand-in says on the bus: the interfaces Manager, Unit and Service of systemd (org.freedesktop.systemd1(5)), as
//! much of them as `berth node` uses. What does not live here: what a call does to the host.

use std::fs;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::zvariant::{OwnedObjectPath, OwnedValue};
use zbus::{DBusError, fdo, interface};

use super::{MANAGER, State, files, lock, object, restarts, said, start, stop};

fn failed(error: anyhow::Error) -> fdo::Error {
    fdo::Error::Failed(format!("{error:#}"))
}

pub(super) struct Manager {
    pub(super) state: Arc<Mutex<State>>,
}

impl Manager {
    fn note(&self, call: &str) {
        lock(&self.state).calls.push(call.to_owned());
    }
}

/// The end of a job, after the reply that names it.
fn finish(emitter: SignalEmitter<'_>, unit: &str) -> fdo::Result<OwnedObjectPath> {
    let job = OwnedObjectPath::try_from(format!("{MANAGER}/job/1")).map_err(|error| failed(error.into()))?;
    let (emitter, unit, ended) = (emitter.into_owned(), unit.to_owned(), job.clone());
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let _ = Manager::job_removed(&emitter, 1, ended, &unit, "done").await;
    });
    Ok(job)
}

/// systemd's own errors.
#[derive(Debug, DBusError)]
#[zbus(prefix = "org.freedesktop.systemd1")]
enum Refused {
    AlreadySubscribed(String),
}

type Property = (String, OwnedValue);

#[interface(name = "org.freedesktop.systemd1.Manager")]
impl Manager {
    /// Once for each connection, as systemd has it.
    fn subscribe(&self, #[zbus(header)] header: Header<'_>) -> Result<(), Refused> {
        let client = header.sender().map(ToString::to_string).unwrap_or_default();
        if lock(&self.state).subscribers.insert(client) {
            return Ok(());
        }
        Err(Refused::AlreadySubscribed("Client is already subscribed.".into()))
    }

    fn reload(&self) {
        self.note("reload");
    }

    #[zbus(out_args("carries_install_info", "changes"))]
    fn enable_unit_files(
        &self,
        files: Vec<String>,
        _runtime: bool,
        _force: bool,
    ) -> (bool, Vec<(String, String, String)>) {
        self.note(&format!("enable {}", files.join(" ")));
        (true, Vec::new())
    }

    fn disable_unit_files(&self, files: Vec<String>, _runtime: bool) -> Vec<(String, String, String)> {
        self.note(&format!("disable {}", files.join(" ")));
        Vec::new()
    }

    fn load_unit(&self, name: String) -> fdo::Result<OwnedObjectPath> {
        object(&name).map_err(failed)
    }

    fn start_unit(
        &self,
        name: String,
        _mode: String,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> fdo::Result<OwnedObjectPath> {
        self.note(&format!("start {name}"));
        start(&mut lock(&self.state), &name).map_err(failed)?;
        finish(emitter, &name)
    }

    fn stop_unit(
        &self,
        name: String,
        _mode: String,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> fdo::Result<OwnedObjectPath> {
        self.note(&format!("stop {name}"));
        stop(&mut lock(&self.state), &name).map_err(failed)?;
        finish(emitter, &name)
    }

    fn restart_unit(
        &self,
        name: String,
        _mode: String,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> fdo::Result<OwnedObjectPath> {
        self.note(&format!("restart {name}"));
        let mut state = lock(&self.state);
        stop(&mut state, &name).and_then(|()| start(&mut state, &name)).map_err(failed)?;
        drop(state);
        finish(emitter, &name)
    }

    #[expect(clippy::too_many_arguments, reason = "they are the method's, and who emits its signal")]
    fn start_transient_unit(
        &self,
        name: String,
        _mode: String,
        properties: Vec<Property>,
        _auxiliary: Vec<(String, Vec<Property>)>,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> fdo::Result<OwnedObjectPath> {
        self.note(&format!("run {name}"));
        let exec = properties.into_iter().find(|(key, _)| key == "ExecStart");
        let run = || -> Result<Child> {
            let (_, value) = exec.context("no ExecStart")?;
            let mut exec = Vec::<(String, Vec<String>, bool)>::try_from(value)?;
            let (program, words, _) = exec.pop().context("an empty ExecStart")?;
            let (root, logs) = {
                let state = lock(&self.state);
                (state.root.clone(), state.logs.clone())
            };
            let log = fs::File::options().create(true).append(true).open(logs.join("transient.log"))?;
            let mut command = Command::new(root.join(program.trim_start_matches('/')));
            command.args(&words[1..]).arg("--root").arg(&root);
            Ok(command.stdout(log.try_clone()?).stderr(log).spawn()?)
        };
        let child = run().map_err(failed)?;
        lock(&self.state).transient.push(child);
        finish(emitter, &name)
    }

    #[zbus(signal)]
    async fn job_removed(
        emitter: &SignalEmitter<'_>,
        id: u32,
        job: OwnedObjectPath,
        unit: &str,
        result: &str,
    ) -> zbus::Result<()>;
}

#[derive(Clone)]
pub(super) struct Unit {
    pub(super) name: String,
    pub(super) state: Arc<Mutex<State>>,
}

#[interface(name = "org.freedesktop.systemd1.Unit")]
impl Unit {
    #[zbus(property)]
    fn fragment_path(&self) -> String {
        files(&lock(&self.state).root, &self.name).0
    }

    #[zbus(property)]
    fn drop_in_paths(&self) -> Vec<String> {
        files(&lock(&self.state).root, &self.name).1
    }
}

pub(super) struct Service(pub(super) Unit);

#[interface(name = "org.freedesktop.systemd1.Service")]
impl Service {
    #[zbus(property, name = "MainPID")]
    fn main_pid(&self) -> u32 {
        lock(&self.0.state).kubelet.pid().unwrap_or(0)
    }

    /// A daemon that has ended is started anew when somebody looks.
    #[zbus(property, name = "NRestarts")]
    fn restarts(&self) -> fdo::Result<u32> {
        restarts(&mut lock(&self.0.state)).map_err(failed)
    }

    #[zbus(property)]
    fn status_text(&self) -> String {
        said(&mut lock(&self.0.state))
    }
}
