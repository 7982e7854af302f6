//! Berth as a service of systemd, with systemd's cgroup driver: what systemd knows of pods, and that they outlive the service.
//! Needs a machine that systemd runs, and BERTH_E2E_CGROUP_DRIVER=systemd; `make e2e-vm` runs this.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use berth_e2e::cgroup::Driver;
use berth_e2e::crictl::Crictl;
use berth_e2e::eventually;
use berth_e2e::world::World;

fn systemctl(arguments: &[&str]) -> Result<String> {
    let output = Command::new("systemctl").args(arguments).output()?;
    if !output.status.success() {
        bail!("systemctl {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn show(property: &str, unit: &str) -> Result<String> {
    systemctl(&["show", "-P", property, unit])
}

/// The daemon of a node as a service, in place of the node's own child.
struct Service {
    name: String,
    file: PathBuf,
}

impl Service {
    fn start(world: &mut World) -> Result<Self> {
        world.node.stop()?;
        let command = world.node.command()?;
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
        let environment = command.get_envs().filter_map(|(name, value)| {
            Some(format!("Environment={}={}\n", name.to_string_lossy(), value?.to_string_lossy()))
        });
        let unit = format!(
            "[Service]\nExecStart={}\n{}Restart=always\nRestartSec=100ms\nDelegate=yes\nKillMode=process\n\
             StandardOutput=append:{log}\nStandardError=append:{log}\n",
            words.join(" "),
            environment.collect::<String>(),
            log = world.node.log_file().display(),
        );
        let name = format!("{}.service", world.node.network().bridge());
        let file = Path::new("/run/systemd/system").join(&name);
        fs::write(&file, unit)?;
        let service = Self { name, file };
        systemctl(&["daemon-reload"])?;
        systemctl(&["start", &service.name])?;
        Ok(service)
    }

    fn pid(&self) -> Result<String> {
        show("MainPID", &self.name)
    }

    /// Waits for a daemon other than that of `before`.
    async fn again(&self, world: &mut World, before: &str) -> Result<()> {
        eventually(Duration::from_secs(20), async || {
            ensure!(![before, "0"].contains(&&*self.pid()?), "systemd does not start it again");
            Ok(())
        })
        .await?;
        world.node.wait_until_it_answers().await?;
        world.client = world.node.client().await?;
        Ok(())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = systemctl(&["kill", "--signal=KILL", &self.name]);
        let _ = systemctl(&["stop", &self.name]);
        let _ = fs::remove_file(&self.file);
        let _ = systemctl(&["daemon-reload"]);
    }
}

/// One pod with one container that has limits, made by crictl: their ids.
fn run_by_crictl(world: &World, crictl: &Crictl) -> Result<(String, String)> {
    let slice = world.node.cgroup_parent().of_pod("limited");
    let file = |name: &str, text: serde_json::Value| -> Result<String> {
        let path = world.node.scratch().join(name);
        fs::write(&path, text.to_string())?;
        Ok(path.to_string_lossy().into_owned())
    };
    let logs = world.node.scratch().join("limited-logs");
    fs::create_dir_all(&logs)?;
    let pod = file(
        "pod.json",
        serde_json::json!({
            "metadata": { "name": "limited", "namespace": "e2e", "uid": "limited" },
            "log_directory": logs, "linux": { "cgroup_parent": slice },
        }),
    )?;
    let container = file(
        "container.json",
        serde_json::json!({
            "metadata": { "name": "main" }, "image": { "image": world.busybox }, "log_path": "main.log",
            "command": ["tail", "-f", "/dev/null"],
            "linux": { "resources": {
                "memory_limit_in_bytes": 64 << 20, "cpu_period": 100_000, "cpu_quota": 50_000, "cpu_shares": 512,
                "cpuset_cpus": "0", "unified": { "memory.high": "33554432" },
                "hugepage_limits": [{ "page_size": "2MB", "limit": 2 << 21 }],
            } },
        }),
    )?;
    let pod_id = crictl.run(&["runp", &pod])?;
    let id = crictl.run(&["create", &pod_id, &container, &pod])?;
    crictl.run(&["start", &id])?;
    Ok((pod_id, id))
}

fn assert_limits(cgroup: &Path) -> Result<()> {
    for (file, value) in [
        ("memory.max", "67108864"),
        ("memory.high", "33554432"),
        ("cpu.max", "50000 100000"),
        ("cpu.weight", "59"),
        ("cpuset.cpus", "0"),
        ("hugetlb.2MB.max", "4194304"),
    ] {
        assert_eq!(fs::read_to_string(cgroup.join(file))?.trim(), value, "{file}");
    }
    Ok(())
}

#[tokio::test]
async fn pods_are_scopes_with_limits_and_outlive_the_service() -> Result<()> {
    if Driver::from_env()? != Driver::Systemd {
        println!("not run: needs systemd and BERTH_E2E_CGROUP_DRIVER=systemd; run by `make e2e-vm`");
        return Ok(());
    }
    let mut world = World::start().await?;
    let before = world.settled_census().await?;
    let service = Service::start(&mut world)?;
    world.node.wait_until_it_answers().await?;
    world.client = world.node.client().await?;
    let crictl = Crictl::new(&world.node)?;
    let (pod, id) = run_by_crictl(&world, &crictl)?;

    let slice = world.node.cgroup_parent().of_pod("limited");
    let scope = format!("berth-{pod}.scope");
    assert_eq!(show("ActiveState", &scope)?, "active");
    assert_eq!(show("Slice", &scope)?, slice);
    assert_eq!(show("Delegate", &scope)?, "yes");
    let path = show("ControlGroup", &scope)?;
    assert_eq!(path, format!("{}/{slice}/{scope}", world.node.cgroup_parent().path()));
    let cgroup = Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/')).join(&id);
    assert_limits(&cgroup)?;
    systemctl(&["daemon-reload"])?;
    assert_limits(&cgroup)?;

    for end in [&["kill", "--signal=KILL", &service.name][..], &["restart", &service.name]] {
        let pid = service.pid()?;
        systemctl(end)?;
        service.again(&mut world, &pid).await?;
        assert_eq!(crictl.run(&["ps", "-q", "--no-trunc"])?, id, "{end:?}");
        assert_eq!(crictl.run(&["exec", "--sync", &id, "cat", "/proc/self/cgroup"])?, "0::/", "{end:?}");
        assert_eq!(show("ActiveState", &scope)?, "active", "{end:?}");
        assert_limits(&cgroup)?;
    }

    crictl.run(&["stop", "--timeout", "0", &id])?;
    crictl.run(&["rm", &id])?;
    assert!(!cgroup.exists());
    crictl.run(&["stopp", &pod])?;
    crictl.run(&["rmp", &pod])?;
    assert_eq!(show("LoadState", &scope)?, "not-found");
    drop(service);
    world.expect_nothing_left(&before).await
}
