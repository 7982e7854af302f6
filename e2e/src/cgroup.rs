//! Where a node's pods are in the cgroup hierarchies, by the driver that the tests run with (`BERTH_E2E_CGROUP_DRIVER`:
//! `cgroupfs`, unless it says `systemd`), and what of them is there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Who makes cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// The runtime itself.
    Cgroupfs,
    /// systemd, in slices.
    Systemd,
}

impl Driver {
    /// What the environment says.
    pub fn from_env() -> Result<Self> {
        match std::env::var("BERTH_E2E_CGROUP_DRIVER").as_deref() {
            Err(_) | Ok("" | "cgroupfs") => Ok(Self::Cgroupfs),
            Ok("systemd") => Ok(Self::Systemd),
            Ok(other) => bail!("BERTH_E2E_CGROUP_DRIVER={other}: neither cgroupfs nor systemd"),
        }
    }

    /// As configurations spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cgroupfs => "cgroupfs",
            Self::Systemd => "systemd",
        }
    }
}

/// The cgroup above all pods of one node; no other node has the same.
#[derive(Clone, Debug)]
pub struct Parent {
    driver: Driver,
    name: String,
}

impl Parent {
    /// `name` holds no dash: a dash is what tells slices in slices.
    pub fn new(driver: Driver, name: &str) -> Self {
        Self { driver, name: name.to_owned() }
    }

    /// The driver.
    pub fn driver(&self) -> Driver {
        self.driver
    }

    /// Its path from the top of the hierarchy.
    pub fn path(&self) -> String {
        match self.driver {
            Driver::Cgroupfs => format!("/{}", self.name),
            Driver::Systemd => format!("/{}.slice", self.name),
        }
    }

    /// What the kubelet would name as a pod's `cgroup_parent`: one of the pod's own below this one.
    pub fn of_pod(&self, uid: &str) -> String {
        match self.driver {
            Driver::Cgroupfs => format!("/{}/{uid}", self.name),
            Driver::Systemd => format!("{}-{}.slice", self.name, uid.replace('-', "_")),
        }
    }

    /// Makes it in every hierarchy, as a kubelet with a `cgroupRoot` wants it (cgroupfs only).
    pub fn make(&self) -> Result<()> {
        for top in hierarchies() {
            let path = top.join(&self.name);
            fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        }
        Ok(())
    }

    /// Every cgroup below it, in every hierarchy, the innermost first.
    pub fn below(&self) -> Vec<PathBuf> {
        let mut all = Vec::new();
        for top in hierarchies() {
            collect_directories(&top.join(self.path().trim_start_matches('/')), &mut all);
        }
        all
    }

    /// Removes what a failed test left of it, and it; cgroups with processes in them stay.
    pub fn remove_empty(&self) {
        if self.driver == Driver::Systemd {
            let slice = format!("{}.slice", self.name);
            let _ = Command::new("systemctl")
                .args(["stop", "--quiet", "--no-block", &slice])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            return;
        }
        for directory in self.below() {
            let _ = fs::remove_dir(directory);
        }
        for top in hierarchies() {
            let _ = fs::remove_dir(top.join(&self.name));
        }
    }
}

/// The top directory of each: of version 1 one a controller, of version 2 one.
fn hierarchies() -> Vec<PathBuf> {
    let top = Path::new("/sys/fs/cgroup");
    if version_2() {
        return vec![top.to_owned()];
    }
    fs::read_dir(top).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Whether this machine has cgroup version 2 alone.
pub fn version_2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

fn collect_directories(directory: &Path, all: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect_directories(&entry.path(), all);
            all.push(entry.path());
        }
    }
}
