//! A program of the cluster that is started again when it ends, as systemd would do it.

use std::fs::File;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use crate::directory::Directory;

/// One program. Dropping it kills it.
pub struct Daemon {
    name: &'static str,
    command: Command,
    child: Option<Child>,
    directory: Directory,
}

impl Daemon {
    /// Starts it; what it prints goes to its log.
    pub fn start(name: &'static str, mut command: Command, directory: &Directory) -> Result<Self> {
        let log = File::options().create(true).append(true).open(directory.log(name))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut daemon = Self { name, command, child: None, directory: directory.clone() };
        daemon.mend()?;
        Ok(daemon)
    }

    /// Starts it again if it has ended and nobody holds it.
    pub fn mend(&mut self) -> Result<()> {
        if let Some(child) = &mut self.child {
            if child.try_wait()?.is_none() {
                return Ok(());
            }
            self.child = None;
            let _ = std::fs::remove_file(self.directory.pid(self.name));
        }
        if self.directory.held(self.name).exists() {
            return Ok(());
        }
        let child = self.command.spawn().with_context(|| format!("run {}", self.name))?;
        std::fs::write(self.directory.pid(self.name), child.id().to_string())?;
        self.child = Some(child);
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
