//! The driver against real kernels. Version 1 and a version 2 without controllers are this host's; the rest of version 2 and
//! systemd run in a virtual machine (e2e/vm/run), which sets BERTH_TEST_VM.

mod stats;
mod v1;
mod v2;
mod vm;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::hierarchy::Hierarchies;
use super::*;

/// A parent of this test alone.
pub(super) fn parent(test: &str) -> String {
    format!("/berth-test-{}-{test}", std::process::id())
}

/// Removes the parent when the test ends, also by a panic: kills what is in it first.
pub(super) struct Clean<'a>(pub &'a Cgroups, pub String);

impl Drop for Clean<'_> {
    fn drop(&mut self) {
        let hierarchies = &self.0.inner.hierarchies;
        let _ = kill::kill(hierarchies, &self.1);
        if let Err(error) = remove::remove(hierarchies, &self.1) {
            eprintln!("{}: {error}", self.1);
        }
    }
}

/// A shell that waits for a line, for instance until it has been put somewhere, and then runs a script.
pub(super) struct Shell(pub Child);

impl Shell {
    /// Joins the directories as the shim does, then runs the script.
    pub fn inside(dirs: &[String], script: &str) -> Self {
        let joins: String = dirs
            .iter()
            .map(|dir| {
                let file = if Path::new(dir).join("tasks").exists() { "tasks" } else { "cgroup.procs" };
                format!("echo 0 > {dir}/{file} || exit 99; ")
            })
            .collect();
        let mut command = Command::new("/bin/sh");
        command
            .arg("-c")
            .arg(format!("{joins}echo in; {script}"))
            .stdout(Stdio::piped())
            .stdin(Stdio::null());
        let mut child = command.spawn().unwrap();
        // The line says that it has joined.
        let mut line = [0; 3];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
        Self(child)
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }

    pub fn code(&mut self) -> Option<i32> {
        self.0.wait().unwrap().code()
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// /dev/null, /dev/zero read-only, and nothing else.
pub(super) fn some_devices() -> DeviceRules {
    DeviceRules::Only(vec![
        DeviceRule::new(DeviceKind::Char, Some(1), Some(3), "rw"),
        DeviceRule::new(DeviceKind::Char, Some(1), Some(5), "r"),
    ])
}

/// Exits 0 if null may be written, zero read but not written, random not read and no node made.
pub(super) const TRY_DEVICES: &str = "echo x > /dev/null || exit 1; head -c1 /dev/zero > /dev/null || exit 2; \
    (echo x > /dev/zero) 2>/dev/null && exit 3; (head -c1 /dev/random) > /dev/null 2>&1 && exit 4; \
    mknod /tmp/berth-node-$$ c 1 7 2>/dev/null && { rm /tmp/berth-node-$$; exit 5; }; exit 0";

/// A process that forks without end, each child a sleeper, up to the pids limit.
pub(super) const FORK: &str = "while :; do sleep 100 & done 2>/dev/null";

pub(super) async fn ends(cgroups: &Cgroups, place: &impl Place) {
    cgroups.wait_empty(place, Duration::from_secs(5)).await.unwrap();
}

pub(super) fn limits(cpu_shares: u64, memory: i64) -> Resources {
    Resources {
        cpu_shares: Some(cpu_shares),
        cpu_quota: Some(50_000),
        cpu_period: Some(100_000),
        memory_limit: Some(memory),
        pids_limit: Some(64),
        ..Resources::default()
    }
}

/// The pod and one container in it, made.
pub(super) async fn make(
    cgroups: &Cgroups,
    parent: &str,
    resources: &Resources,
) -> (PodCgroup, ContainerCgroup) {
    let pod = cgroups.create_pod(parent, &PodId::generate(), None).await.unwrap();
    let container =
        cgroups.create_container(&pod, &ContainerId::generate(), resources, &some_devices()).await.unwrap();
    (pod, container)
}

pub(super) fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path.as_ref()).unwrap().trim().to_string()
}

#[test]
fn the_configuration_names_the_driver_in_lower_case() {
    let config: Config = toml::from_str("driver = \"systemd\"\nparent = \"pods.slice\"").unwrap();
    assert_eq!((config.driver, config.parent.as_str()), (Driver::Systemd, "pods.slice"));
    assert_eq!(toml::from_str::<Config>("").unwrap(), Config::default());
    assert!(toml::from_str::<Config>("driver = \"Systemd\"").is_err());
    assert!(toml::from_str::<Config>("path = \"/x\"").is_err());
}
