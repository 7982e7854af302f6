//! Ends of children: reaping them, the exit record, the event.

use std::io;
use std::path::Path;

use berth_proto::shim::{ExitRecord, v1, v1::message::Body};
use rustix::process::{Pid, WaitOptions};

use crate::process::Life;
use crate::server::{Shim, now};

/// A child that was reaped.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    pid: Pid,
    exit_code: i32,
    finished_at: i64,
}

impl Shim {
    /// Reaps all children that have ended, and orphans that came to this subreaper.
    pub fn reap(&mut self) {
        // __WALL: also children whose exit signal is not SIGCHLD.
        let options = WaitOptions::NOHANG | WaitOptions::from_bits_retain(0x4000_0000);
        loop {
            match rustix::process::wait(options) {
                Ok(Some((pid, status))) => {
                    let signal = status.terminating_signal().map_or(0, |signal| 128 + signal);
                    let exit_code = status.exit_status().unwrap_or(signal);
                    self.ended.push(Ended { pid, exit_code, finished_at: now() });
                }
                Err(rustix::io::Errno::INTR) => {}
                Ok(None) | Err(_) => break,
            }
        }
        // A process may end before its spawn has told of it.
        let spawns: Vec<_> = self.spawns.keys().copied().collect();
        spawns.into_iter().for_each(|key| self.advance(key));
        self.settle();
    }

    /// Gives each end to what it is the end of; those of spawns under way wait.
    pub fn settle(&mut self) {
        for ended in std::mem::take(&mut self.ended) {
            if !self.end_container(ended) && !self.end_exec(ended) {
                if self.init == Some(ended.pid) {
                    eprintln!("the init of the pod's PID namespace has ended with {}", ended.exit_code);
                    self.init = None;
                }
                if !self.spawns.is_empty() {
                    self.ended.push(ended);
                }
            }
        }
    }

    fn end_container(&mut self, ended: Ended) -> bool {
        let of = |container: &crate::process::Container| container.is_running() && container.pid == ended.pid;
        let Some((id, container)) = self.containers.iter_mut().find(|(_, container)| of(container)) else {
            return false;
        };
        let exited = v1::Exited {
            container_id: id.clone(),
            exec_id: String::new(),
            pid: ended.pid.as_raw_pid(),
            exit_code: ended.exit_code,
            finished_at: ended.finished_at,
        };
        container.life = Life::Exited(exited.clone());
        container.drain(id, &mut self.buffer, &mut self.events);
        container.close_stdin(&mut self.events);
        if !container.exit_path.as_os_str().is_empty()
            && let Err(error) = write_record(&container.exit_path, ended)
        {
            eprintln!("exit record {}: {error}", container.exit_path.display());
        }
        self.broadcast(Body::Exited(exited));
        true
    }

    fn end_exec(&mut self, ended: Ended) -> bool {
        let Some(at) = self.executed.iter().position(|executed| executed.pid == ended.pid) else {
            return false;
        };
        let mut executed = self.executed.swap_remove(at);
        executed.family.lose_leader();
        if executed.hung_up {
            executed.family.kill();
        }
        self.broadcast(Body::Exited(v1::Exited {
            container_id: executed.container_id,
            exec_id: executed.exec_id,
            pid: ended.pid.as_raw_pid(),
            exit_code: ended.exit_code,
            finished_at: ended.finished_at,
        }));
        true
    }
}

/// Not synced: the record must outlive this process, not the machine.
fn write_record(path: &Path, ended: Ended) -> io::Result<()> {
    let record = ExitRecord { exit_code: ended.exit_code, finished_at: ended.finished_at };
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    std::fs::write(&temporary, record.to_line())?;
    std::fs::rename(&temporary, path)
}
