//! The daemon's verbs: which request does what. Start and Exec live in spawn.rs, Setup in setup.rs.

use std::os::fd::{AsFd, OwnedFd};

use berth_proto::shim::v1::{self, message::Body, request::Verb};
use berth_proto::shim::{MAX_FDS, VERSION};
use rustix::io::Errno;
use rustix::process::Signal;
use rustix::termios::Winsize;

use crate::event_loop::Key;
use crate::failure::Failure;
use crate::process::{Container, parse_signal};
use crate::server::{Reply, Shim};
use crate::setup;
use crate::spawn::What;

impl Shim {
    /// Does a request, and answers it unless a spawn or a shutdown will.
    pub fn request(&mut self, connection: Key, request: v1::Request, fds: Vec<OwnedFd>) {
        let reply = Reply { connection, id: request.id };
        let outcome = match request.verb {
            Some(verb) => self.perform(verb, fds, reply),
            None => Err(Failure::protocol("the shim does not know this request")),
        };
        match outcome {
            Ok(Some((body, fds))) => self.answer(reply, body, fds),
            Ok(None) => {}
            Err(failure) => self.answer(reply, Body::Error(failure.into()), Vec::new()),
        }
    }

    fn perform(
        &mut self,
        verb: Verb,
        fds: Vec<OwnedFd>,
        reply: Reply,
    ) -> Result<Option<(Body, Vec<OwnedFd>)>, Failure> {
        let greeted = self.connections.get(&reply.connection).is_some_and(|connection| connection.greeted);
        if !greeted && !matches!(verb, Verb::Hello(_)) {
            return Err(Failure::protocol("the first request of a connection is Hello"));
        }
        let takes = match &verb {
            Verb::Start(_) | Verb::Exec(_) => 0..=MAX_FDS,
            Verb::Attach(attach) => {
                let count = [attach.stdin, attach.stdout, attach.stderr].iter().filter(|yes| **yes).count();
                count..=count
            }
            _ => 0..=0,
        };
        if !takes.contains(&fds.len()) {
            return Err(Failure::protocol(format!("{} file descriptors came with the request", fds.len())));
        }
        if self.closing.is_some() && matches!(verb, Verb::Setup(_) | Verb::Start(_) | Verb::Exec(_)) {
            return Err(Failure::protocol("the shim is shutting down"));
        }
        let done = |()| Some((Body::Done(v1::Done {}), Vec::new()));
        match verb {
            Verb::Hello(_) => Ok(Some((Body::State(self.greet(reply.connection)), Vec::new()))),
            Verb::Setup(setup) => self.set_up(&setup).map(Some),
            Verb::Start(start) => self.start(start, fds, reply).map(|()| None),
            Verb::Exec(exec) => self.exec(exec, fds, reply).map(|()| None),
            Verb::Signal(signal) => self.signal(&signal).map(done),
            Verb::ReopenLog(reopen) => self.reopen_log(&reopen.container_id).map(done),
            Verb::Resize(resize) => self.resize(&resize).map(done),
            Verb::Attach(attach) => self.attach(&attach, fds).map(done),
            Verb::Delete(delete) => self.delete(&delete.container_id).map(done),
            Verb::Shutdown(shutdown) => self.shut_down(shutdown.force, reply).map(|()| None),
        }
    }

    fn greet(&mut self, connection: Key) -> v1::State {
        if let Some(connection) = self.connections.get_mut(&connection) {
            connection.greeted = true;
        }
        v1::State {
            version: VERSION,
            pod_id: self.pod_id.clone(),
            shim_pid: rustix::process::getpid().as_raw_pid(),
            set_up: self.pod.is_some(),
            init_pid: self.init.map_or(0, |pid| pid.as_raw_pid()),
            containers: self.containers.iter().map(|(id, container)| container.describe(id)).collect(),
        }
    }

    fn set_up(&mut self, setup: &v1::Setup) -> Result<(Body, Vec<OwnedFd>), Failure> {
        if std::mem::replace(&mut self.setup_tried, true) {
            return Err(Failure::protocol("Setup comes once for each shim"));
        }
        let made = setup::run(setup)?;
        self.pod = Some(made.pod);
        self.init = made.init;
        Ok((Body::Ready(v1::Ready { init_pid: made.init.map_or(0, |pid| pid.as_raw_pid()) }), made.fds))
    }

    /// Whether the id is in use, also by a start under way.
    pub fn knows(&self, id: &str) -> bool {
        let starting =
            |what: &What| matches!(what, What::Container { start, .. } if start.container_id == id);
        self.containers.contains_key(id) || self.spawns.values().any(|spawn| starting(&spawn.what))
    }

    fn running(&mut self, step: &str, id: &str) -> Result<&mut Container, Failure> {
        match self.containers.get_mut(id) {
            Some(container) if container.is_running() => Ok(container),
            Some(_) => Err(Failure::refused(step, Errno::SRCH, format!("container {id:?} has exited"))),
            None => {
                Err(Failure::refused(step, Errno::SRCH, format!("container {id:?} is not known to its shim")))
            }
        }
    }

    fn signal(&mut self, request: &v1::Signal) -> Result<(), Failure> {
        let signal = parse_signal(request.signal)?;
        let id = &request.container_id;
        let fail = |object: String| move |error: Errno| Failure::io("signal", object, error);
        if request.exec_id.is_empty() {
            return self.running("signal", id)?.signal(signal).map_err(fail(format!("container {id:?}")));
        }
        let object = format!("exec {:?} of container {id:?}", request.exec_id);
        self.signal_exec(request, signal).map_err(fail(object))
    }

    /// One that is being spawned gets its end when it begins.
    fn signal_exec(&mut self, request: &v1::Signal, signal: Signal) -> rustix::io::Result<()> {
        let ends = [Signal::HUP, Signal::KILL].contains(&signal);
        let (container, exec) = (&request.container_id, &request.exec_id);
        let named = self.executed.iter_mut().find(|e| e.container_id == *container && e.exec_id == *exec);
        if let Some(executed) = named {
            executed.hung_up |= ends;
            if signal == Signal::KILL {
                executed.family.kill();
                return Ok(());
            }
            return executed.signal(signal);
        }
        for spawn in self.spawns.values_mut() {
            match &mut spawn.what {
                What::Exec { exec: asked, doomed }
                    if asked.container_id == *container && asked.exec_id == *exec =>
                {
                    *doomed |= ends;
                    return Ok(());
                }
                _ => {}
            }
        }
        Err(Errno::SRCH)
    }

    fn reopen_log(&mut self, id: &str) -> Result<(), Failure> {
        let container = self.running("reopen log", id)?;
        container
            .log
            .reopen()
            .map_err(|error| Failure::io("reopen log", format!("of container {id:?}"), error))
    }

    fn resize(&mut self, resize: &v1::Resize) -> Result<(), Failure> {
        let id = &resize.container_id;
        if !resize.exec_id.is_empty() {
            return Err(Failure::protocol("the terminal of an exec is resized by the holder of its master"));
        }
        let terminal = self.running("resize", id)?.terminal.as_ref().map(|terminal| terminal.master.as_fd());
        let Some(master) = terminal else {
            return Err(Failure::refused(
                "resize",
                Errno::NOTTY,
                format!("container {id:?} has no terminal"),
            ));
        };
        let clamp = |size: u32| u16::try_from(size).unwrap_or(u16::MAX);
        let size =
            Winsize { ws_row: clamp(resize.height), ws_col: clamp(resize.width), ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(master, size)
            .map_err(|error| Failure::io("resize", format!("container {id:?}"), error))
    }

    fn attach(&mut self, attach: &v1::Attach, fds: Vec<OwnedFd>) -> Result<(), Failure> {
        let id = &attach.container_id;
        self.running("attach", id)?;
        match self.containers.get_mut(id) {
            Some(container) => container.attach(id, attach, fds, &mut self.events),
            None => Ok(()),
        }
    }

    fn delete(&mut self, id: &str) -> Result<(), Failure> {
        let busy =
            |what: &str| Err(Failure::refused("delete", Errno::BUSY, format!("container {id:?} {what}")));
        let known = self.knows(id);
        match self.containers.get_mut(id) {
            Some(container) if container.is_running() => busy("is running"),
            Some(container) => {
                container.disconnect(id, &mut self.events);
                self.containers.remove(id);
                Ok(())
            }
            None if known => busy("is starting"),
            None => Ok(()),
        }
    }

    fn shut_down(&mut self, force: bool, reply: Reply) -> Result<(), Failure> {
        let running = self.containers.iter().find(|(_, container)| container.is_running()).map(|(id, _)| id);
        if !force && (running.is_some() || !self.spawns.is_empty()) {
            let name = running.map_or("a starting container", String::as_str);
            return Err(Failure::refused("shutdown", Errno::BUSY, format!("{name} still runs in the pod")));
        }
        self.kill_all();
        self.closing = Some(reply);
        Ok(())
    }

    fn kill_all(&self) {
        // Each may have ended by itself: ESRCH is as good as done.
        for container in self.containers.values() {
            let _ = container.signal(Signal::KILL);
        }
        for executed in &self.executed {
            let _ = executed.signal(Signal::KILL);
        }
        for spawn in self.spawns.values() {
            let builder = rustix::process::Pid::from_raw(spawn.spawning.builder.as_raw());
            for pid in builder.into_iter().chain(spawn.pid) {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
        if let Some(init) = self.init {
            let _ = rustix::process::kill_process(init, Signal::KILL);
        }
    }

    /// A shutdown is complete: everything was reaped. Answers it.
    pub fn is_closed(&mut self) -> bool {
        let Some(reply) = self.closing else { return false };
        let busy = self.containers.values().any(Container::is_running)
            || !self.executed.is_empty()
            || !self.spawns.is_empty()
            || self.init.is_some();
        if busy {
            // A spawn may have become a container since.
            self.kill_all();
            return false;
        }
        for (id, container) in &mut self.containers {
            container.disconnect(id, &mut self.events);
        }
        self.answer(reply, Body::Done(v1::Done {}), Vec::new());
        true
    }
}
