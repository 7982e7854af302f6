//! The chart on the cluster's node: Berth's image in the cluster's registry, a systemd for the node, and helm. What does not
//! live here: what is expected of it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use berth_e2e::cgroup::Driver;
use berth_e2e::crictl::Crictl;
use berth_e2e::runtime::{berth, berth_shim, dist, make_another_build, tool};
use berth_e2e::systemd::Systemd;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use crate::isolation::NODE;
use crate::kubelet;
use crate::machine::said;
use crate::scenario::Scenario;

/// Release and DaemonSet.
pub const RELEASE: &str = "berth";
/// The tags of two builds of one version.
pub const IMAGES: [&str; 2] = ["one", "two"];
/// Where the installed daemon answers.
const SOCKET: &str = "/run/berth/berth.sock";
const KUBELET_UNIT: &str = "/etc/systemd/system/kubelet.service";
/// The label of nodes that the chart is for.
const LABEL: &str = "berth-runtime";
/// What Berth may leave on a host: a file's mode and text, or nothing of a directory.
pub type Footprint = BTreeMap<PathBuf, Option<(u32, Vec<u8>)>>;

/// All that a release needs. Dropping it takes away what a failed scenario has left, as far as that can be.
pub struct Chart<'a> {
    scenario: &'a Scenario,
    systemd: Systemd,
    /// Values, programs, images.
    files: TempDir,
    kubelet: String,
    _runtime: Runtime,
}

/// A container that runs: the same one has the same of all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    container: String,
    pid: u32,
    /// When the process was started, in ticks since boot: a number may come again.
    started: String,
}

impl Identity {
    /// The process that has the number now, of whatever container.
    pub fn runs(&self) -> bool {
        start_of(self.pid).is_ok_and(|started| started == self.started)
    }
}

fn start_of(pid: u32) -> Result<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Behind the program's name, which may have any letter.
    let (_, fields) = stat.rsplit_once(')').context("a stat without a name")?;
    Ok(fields.split_whitespace().nth(19).context("a stat without a start")?.to_owned())
}

impl<'a> Chart<'a> {
    /// Both images pushed, the node with a systemd that has the kubelet as it runs.
    pub fn new(scenario: &'a Scenario) -> Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let directory = scenario.directory();
        let kubelet = fs::read_to_string(directory.kubelet_command())?;
        let unit = kubelet::Unit::install(directory, Path::new(KUBELET_UNIT))?;
        let systemd = runtime.block_on(Systemd::boot(Path::new("/"), &directory.logs(), Box::new(unit)))?;
        let chart = Self { scenario, systemd, files: TempDir::new()?, kubelet, _runtime: runtime };
        let program = chart.strip(&berth()?)?;
        chart.publish(IMAGES[0], &program)?;
        make_another_build(&program)?;
        chart.publish(IMAGES[1], &program)?;
        Ok(chart)
    }

    /// Without symbols, which would make an image of hundreds of megabytes of a debug build.
    fn strip(&self, program: &Path) -> Result<PathBuf> {
        let stripped = self.files.path().join("berth");
        let mut strip = Command::new("strip");
        said(strip.arg("-o").arg(&stripped).arg(program))?;
        Ok(stripped)
    }

    /// As `make image` and the chart's README have it.
    fn publish(&self, tag: &str, program: &Path) -> Result<()> {
        let tar = self.files.path().join("image.tar");
        let mut image = Command::new(dist()?);
        said(image.arg("image").arg(program).arg(berth_shim()?).arg(&tar).args(["--name", RELEASE]))?;
        let mut copy = Command::new("skopeo");
        copy.args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"]);
        copy.arg(format!("oci-archive:{}", tar.display()));
        said(copy.arg(format!("docker://{}/{RELEASE}:{tag}", self.registry()?))).map(drop)
    }

    fn registry(&self) -> Result<String> {
        Ok(fs::read_to_string(self.scenario.directory().registry())?)
    }

    /// Whatever keeps the installed daemon apart from the one that the cluster began with; and the cluster's registry as a
    /// mirror, for what has to pull.
    fn values(&self, mirrors: &[&str]) -> Result<PathBuf> {
        let registry = self.registry()?;
        let mirror = format!("server = \"http://{registry}\"\n");
        let mirrors = mirrors.iter().map(|name| ((*name).to_string(), json!(mirror)));
        let values = json!({
            "image": { "repository": format!("{registry}/{RELEASE}") },
            "registryHosts": serde_json::Map::from_iter(mirrors),
            "config": {
                "network": { "bridge": "berthchart", "subnets": ["10.230.7.0/24", "fd62:6572:7469::/64"] },
                "cni": { "conf_dir": "/etc/berth/no-cni" },
                "cgroup": { "driver": Driver::from_env()?.name() },
            },
        });
        let file = self.files.path().join("values.json");
        fs::write(&file, values.to_string())?;
        Ok(file)
    }

    /// `helm install` or `helm upgrade` with one of the images, and further values.
    pub fn release(&self, verb: &str, tag: &str, sets: &[&str]) -> Result<()> {
        self.release_with(self.values(&["registry.k8s.io", "docker.io"])?, verb, tag, sets)
    }

    /// The same without anything that most clusters do not need.
    pub fn release_plain(&self, verb: &str, tag: &str, sets: &[&str]) -> Result<()> {
        self.release_with(self.values(&[])?, verb, tag, sets)
    }

    fn release_with(&self, values: PathBuf, verb: &str, tag: &str, sets: &[&str]) -> Result<()> {
        let chart = berth_e2e::repository().join("charts/berth");
        let mut helm = self.helm(verb)?;
        helm.arg(RELEASE).arg(chart).arg("--values").arg(values);
        helm.args(["--timeout", "5m", "--set", &format!("image.tag={tag}")]);
        helm.args(sets.iter().flat_map(|set| ["--set", *set]));
        said(&mut helm).map(drop)
    }

    /// `helm uninstall`, which waits for the hook.
    pub fn uninstall(&self) -> Result<()> {
        said(self.helm("uninstall")?.args([RELEASE, "--timeout", "10m", "--wait"])).map(drop)
    }

    fn helm(&self, verb: &str) -> Result<Command> {
        let mut command = Command::new(tool("helm", "helm")?);
        command.arg(verb).arg("--kubeconfig").arg(self.scenario.directory().kubeconfig("admin"));
        command.arg("--namespace").arg(self.scenario.namespace()).env("HOME", self.files.path());
        Ok(command)
    }

    /// Gives the node the chart's label.
    pub fn choose_node(&self) -> Result<()> {
        let label = format!("{LABEL}=true");
        self.scenario.kubectl(&["label", "node", NODE, &label, "--overwrite"]).map(drop)
    }

    /// Waits until the node's pod of the newest kind is ready.
    pub fn rolled_out(&self) -> Result<()> {
        let set = format!("daemonset/{RELEASE}");
        let fields = "{.metadata.generation} {.status.observedGeneration} {.status.desiredNumberScheduled} \
                      {.status.updatedNumberScheduled} {.status.numberReady}";
        let done = |fields: &String| {
            let numbers: Vec<_> = fields.split(' ').collect();
            numbers.len() == 5 && numbers[0] == numbers[1] && numbers[2..] == ["1"; 3]
        };
        self.scenario.until_within(6, || self.scenario.field(&set, fields), done).map(drop)
    }

    /// crictl for the installed daemon.
    pub fn crictl(&self) -> Result<Crictl> {
        Crictl::at(Path::new(SOCKET))
    }

    /// crictl for the runtime that the cluster began with.
    pub fn old_crictl(&self) -> Result<Crictl> {
        Crictl::at(&self.scenario.directory().socket())
    }

    /// The one running container of a pod of the scenario's.
    pub fn identity(&self, runtime: &Crictl, pod: &str) -> Result<Identity> {
        let namespace = format!("io.kubernetes.pod.namespace={}", self.scenario.namespace());
        let name = format!("io.kubernetes.pod.name={pod}");
        let listed =
            runtime.run(&["ps", "--quiet", "--no-trunc", "--label", &namespace, "--label", &name])?;
        let ids: Vec<_> = listed.lines().collect();
        ensure!(ids.len() == 1, "{pod} has the running containers {ids:?}");
        identity(runtime, ids[0])
    }

    /// The same if it is the container that the API knows, which nobody has restarted.
    pub fn undisturbed(&self, runtime: &Crictl, pod: &str) -> Result<Identity> {
        let status = "{.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}";
        let told = self.scenario.field(&format!("pod/{pod}"), status)?;
        let found = self.identity(runtime, pod)?;
        ensure!(told.ends_with(&format!("//{} 0", found.container)), "{told}, but {found:?} runs");
        Ok(found)
    }

    /// The installed daemon's process.
    pub fn daemon(&self) -> Option<u32> {
        self.systemd.daemon()
    }

    /// Whether the kubelet is started as before there was a chart.
    pub fn kubelet_is_as_before(&self) -> Result<bool> {
        Ok(fs::read_to_string(self.scenario.directory().kubelet_command())? == self.kubelet)
    }

    /// Everything of the host that an installation may touch.
    pub fn footprint(&self) -> Result<Footprint> {
        let mut found = Footprint::new();
        let mut left: Vec<PathBuf> =
            ["/etc", "/opt", "/var/lib/berth", "/run/berth", "/run/berth-node"].map(PathBuf::from).into();
        while let Some(path) = left.pop() {
            let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
            let mode = metadata.permissions().mode();
            let content = match (metadata.is_dir(), metadata.is_file()) {
                (true, _) => {
                    left.extend(fs::read_dir(&path)?.flatten().map(|entry| entry.path()));
                    None
                }
                (_, true) => Some((mode, fs::read(&path).unwrap_or_default())),
                _ => Some((mode, Vec::new())),
            };
            found.insert(path, content);
        }
        Ok(found)
    }

    /// Runs a pod with the installed daemon, past the kubelet.
    pub fn run_aside(&self, name: &str, container: &Value) -> Result<String> {
        let cgroup = fs::read_to_string(self.scenario.directory().cgroup())?;
        let pod = json!({
            "metadata": { "name": name, "namespace": "aside", "uid": name },
            "linux": { "cgroup_parent": format!("/{}/{name}", cgroup.trim()) },
        });
        let (pods, containers) =
            (self.files.path().join("pod.json"), self.files.path().join("container.json"));
        fs::write(&pods, pod.to_string())?;
        fs::write(&containers, container.to_string())?;
        let words = [containers, pods].map(|path| path.to_string_lossy().into_owned());
        let image = container["image"]["image"].as_str().context("no image")?;
        self.crictl()?.run(&["pull", image])?;
        self.crictl()?.run(&["run", "--no-pull", &words[0], &words[1]])
    }
}

/// A running container by its id.
pub fn identity(runtime: &Crictl, container: &str) -> Result<Identity> {
    let told: Value = serde_json::from_str(&runtime.run(&["inspect", container])?)?;
    let pid = told["info"]["pid"].as_u64().context("a container without a pid")?;
    let pid = u32::try_from(pid)?;
    Ok(Identity { container: container.into(), pid, started: start_of(pid)? })
}

impl Drop for Chart<'_> {
    fn drop(&mut self) {
        let (s, directory) = (self.scenario, self.scenario.directory());
        if Path::new("/opt/berth/receipt.json").exists() {
            let _ = self.helm("uninstall").and_then(|mut helm| said(helm.args([RELEASE, "--no-hooks"])));
            let _ = berth().and_then(|berth| said(Command::new(berth).args(["node", "uninstall"])));
        }
        let _ = s.kubectl(&["label", "node", NODE, &format!("{LABEL}-")]);
        let _ = fs::remove_file(KUBELET_UNIT);
        let _ = fs::write(directory.kubelet_command(), &self.kubelet);
        let _ = fs::remove_file(directory.held(kubelet::NAME));
    }
}
