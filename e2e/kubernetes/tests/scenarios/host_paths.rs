//! Directories of the node in pods: what is mounted later, on either side, and what is read-only below.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use berth_e2e_kubernetes::pods::{alone, shell, sleeper, with};
use berth_e2e_kubernetes::scenario::{Scenario, scenario};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

/// A directory of the node with a file system mounted in its `sub`. Dropping it removes both.
struct Host(PathBuf);

impl Host {
    fn new(s: &Scenario) -> Result<Self> {
        let host = Self(s.directory().disk().join(s.namespace()));
        std::fs::create_dir_all(host.sub())?;
        Ok(host)
    }

    fn sub(&self) -> PathBuf {
        self.0.join("sub")
    }

    fn mount_sub(&self) -> Result<()> {
        mount(Some("tmpfs"), &self.sub(), Some("tmpfs"), MsFlags::empty(), None::<&str>)
            .context("mount sub")?;
        Ok(std::fs::write(self.sub().join("late"), "mounted\n")?)
    }

    fn volumes(&self) -> Value {
        json!({ "volumes": [{ "name": "host", "hostPath": { "path": self.0, "type": "Directory" } }] })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = umount2(&self.sub(), MntFlags::MNT_DETACH);
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn mounted(path: &Path) -> Result<bool> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    Ok(table.lines().any(|line| line.split(' ').nth(4).map(Path::new) == Some(path)))
}

#[test]
fn what_the_node_mounts_later_is_seen_where_it_propagates() -> Result<()> {
    scenario("from-host", |s| {
        let host = Host::new(s)?;
        let mounts = json!({ "volumeMounts": [
            { "name": "host", "mountPath": "/follows", "mountPropagation": "HostToContainer" },
            { "name": "host", "mountPath": "/stays" },
        ] });
        s.start("watcher", with(alone(with(sleeper(), mounts)), host.volumes()))?;
        host.mount_sub()?;
        assert_eq!(s.shell("watcher", "cat /follows/sub/late")?, "mounted");
        assert_eq!(s.shell("watcher", "ls /stays/sub")?, "");
        umount2(&host.sub(), MntFlags::MNT_DETACH)?;
        assert_eq!(s.shell("watcher", "ls /follows/sub")?, "");
        Ok(())
    })
}

#[test]
fn what_a_privileged_container_mounts_reaches_the_node_and_other_pods() -> Result<()> {
    scenario("to-host", |s| {
        let host = Host::new(s)?;
        let mounts = |kind: &str| {
            let mount = json!({ "name": "host", "mountPath": "/host", "mountPropagation": kind });
            json!({ "volumeMounts": [mount], "securityContext": { "privileged": kind == "Bidirectional" } })
        };
        let pod = |kind: &str| with(alone(with(sleeper(), mounts(kind))), host.volumes());
        s.start("other", pod("HostToContainer"))?;
        s.start("mounter", pod("Bidirectional"))?;
        s.shell("mounter", "mount -t tmpfs mine /host/sub && echo hello > /host/sub/file")?;
        assert_eq!(std::fs::read_to_string(host.sub().join("file"))?, "hello\n");
        assert_eq!(s.shell("other", "cat /host/sub/file")?, "hello");
        s.shell("mounter", "umount /host/sub")?;
        assert!(!mounted(&host.sub())?, "the node keeps what the container has unmounted");
        Ok(())
    })
}

#[test]
fn read_only_means_what_is_below_too_if_so_asked() -> Result<()> {
    scenario("recursive-read-only", |s| {
        let host = Host::new(s)?;
        host.mount_sub()?;
        let mounts = json!({ "volumeMounts": [
            { "name": "host", "mountPath": "/all", "readOnly": true, "recursiveReadOnly": "Enabled" },
            { "name": "host", "mountPath": "/top", "readOnly": true },
        ] });
        let script = "for f in /all/x /all/sub/x /top/x /top/sub/x; do (echo x > $f) 2>/dev/null && echo $f; done; \
                      sleep 100000";
        s.start("reader", with(alone(with(shell(script), mounts)), host.volumes()))?;
        s.until(|| s.kubectl(&["logs", "reader"]), |log| log == "/top/sub/x")?;
        let status =
            "{.status.containerStatuses[0].volumeMounts[?(@.mountPath==\"/all\")].recursiveReadOnly}";
        assert_eq!(s.field("pod/reader", status)?, "Enabled");
        Ok(())
    })
}

#[test]
fn the_type_of_a_host_path_is_made_or_missed() -> Result<()> {
    scenario("host-path-type", |s| {
        let host = Host::new(s)?;
        let volume = |name: &str, kind: &str| json!({ "name": name, "hostPath": { "path": host.0.join(name), "type": kind } });
        let mounts = json!({ "volumeMounts": [
            { "name": "made", "mountPath": "/made" },
            { "name": "file", "mountPath": "/file" },
        ] });
        let volumes =
            json!({ "volumes": [volume("made", "DirectoryOrCreate"), volume("file", "FileOrCreate")] });
        let script = "echo in > /made/file; echo in > /file";
        s.said("makes", with(alone(with(shell(script), mounts)), volumes))?;
        for path in ["made/file", "file"] {
            assert_eq!(std::fs::read_to_string(host.0.join(path))?, "in\n");
        }
        let mounts = json!({ "volumeMounts": [{ "name": "socket", "mountPath": "/socket" }] });
        let volumes = json!({ "volumes": [volume("socket", "Socket")] });
        s.create("misses", with(alone(with(sleeper(), mounts)), volumes))?;
        let message = s.event("misses", "FailedMount")?;
        assert!(message.contains("hostPath type check failed"), "{message}");
        Ok(())
    })
}
