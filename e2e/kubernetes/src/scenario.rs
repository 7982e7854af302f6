//! What every scenario starts from: a namespace of its own, kubectl, and patience.

use std::fs::File;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::control_plane::{program, tail};
use crate::directory::Directory;

/// How long a user waits for a thing to happen on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Runs `body` beside other scenarios, in a namespace that begins with `name`.
pub fn scenario(name: &str, body: impl FnOnce(&Scenario) -> Result<()>) -> Result<()> {
    run(name, FlockArg::LockShared, body)
}

/// Runs `body` while no scenario runs.
pub fn disturbance(name: &str, body: impl FnOnce(&Scenario) -> Result<()>) -> Result<()> {
    run(name, FlockArg::LockExclusive, body)
}

fn run(name: &str, turn: FlockArg, body: impl FnOnce(&Scenario) -> Result<()>) -> Result<()> {
    let directory = Directory::from_env()?;
    let file = File::options().create(true).truncate(false).write(true).open(directory.turn())?;
    let _turn = Flock::lock(file, turn).map_err(|(_, error)| error)?;
    let scenario = Scenario { namespace: format!("{name}-{}", std::process::id()), directory };
    scenario.begin()?;
    let outcome = catch_unwind(AssertUnwindSafe(|| body(&scenario)));
    if !matches!(outcome, Ok(Ok(()))) {
        scenario.explain();
    }
    scenario.end(matches!(outcome, Ok(Ok(()))))?;
    outcome.unwrap_or_else(|panic| resume_unwind(panic))
}

/// One namespace of the cluster.
pub struct Scenario {
    namespace: String,
    directory: Directory,
}

impl Scenario {
    fn begin(&self) -> Result<()> {
        self.kubectl(&["create", "namespace", &self.namespace])?;
        // Pods are refused before their service account is there.
        self.wait("serviceaccount/default", "create").map(drop)
    }

    /// A namespace that is empty is gone soon; nobody waits for what a failure left.
    fn end(&self, wait: bool) -> Result<()> {
        let wait = format!("--wait={wait}");
        self.kubectl(&["delete", "namespace", &self.namespace, &wait, "--timeout=180s"]).map(drop)
    }

    /// Its name.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The cluster's files.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// kubectl in the namespace, to be run by the caller.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = program("kubectl")?;
        command.arg("--kubeconfig").arg(self.directory.kubeconfig("admin"));
        command.arg("--namespace").arg(&self.namespace).args(arguments);
        Ok(command)
    }

    /// Runs kubectl to its end, whatever that is.
    pub fn output(&self, arguments: &[&str]) -> Result<Output> {
        self.command(arguments)?.stdin(Stdio::null()).output().context("run kubectl")
    }

    /// Its standard output, trimmed; a failure holds its standard error.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        said(&self.output(arguments)?, arguments)
    }

    /// The standard error of a kubectl that must fail.
    pub fn refused(&self, arguments: &[&str]) -> Result<String> {
        let output = self.output(arguments)?;
        if output.status.success() {
            bail!("kubectl {} succeeded: {}", arguments.join(" "), String::from_utf8_lossy(&output.stdout));
        }
        Ok(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }

    /// Runs kubectl with something on its standard input.
    pub fn kubectl_with(&self, input: &str, arguments: &[&str]) -> Result<String> {
        let mut command = self.command(arguments)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("run kubectl")?;
        let mut stdin = child.stdin.take().context("kubectl has no standard input")?;
        let input = input.as_bytes().to_owned();
        let writer = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output()?;
        // One that ends early does not read all; why it ended says its output.
        let _ = writer.join();
        said(&output, arguments)
    }

    /// A kubectl beside the scenario, its standard output in a file; it ends with its guard.
    pub fn beside(&self, arguments: &[&str], output: &Path) -> Result<Beside> {
        let file = File::create(output).with_context(|| format!("make {}", output.display()))?;
        let mut command = self.command(arguments)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        Ok(Beside(command.spawn().context("run kubectl")?))
    }

    /// `kubectl apply` of YAML or JSON.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        self.kubectl_with(manifest, &["apply", "-f", "-"])
    }

    /// `kubectl run` of a pod that is not restarted and not waited for when it is told to end.
    pub fn run(&self, name: &str, image: &str, command: &[&str]) -> Result<()> {
        let brief = r#"--overrides={"spec":{"terminationGracePeriodSeconds":1}}"#;
        let run = ["run", name, "--image", image, "--restart=Never", brief, "--command", "--"];
        self.kubectl(&[&run as &[&str], command].concat()).map(drop)
    }

    /// `kubectl wait --for=CONDITION`: `condition=Ready`, `delete`, `jsonpath={.status.phase}=Failed`, ...
    pub fn wait(&self, object: &str, condition: &str) -> Result<String> {
        let seconds = berth_e2e::bound(PATIENCE).as_secs();
        self.kubectl(&["wait", object, &format!("--for={condition}"), &format!("--timeout={seconds}s")])
    }

    /// One field: `kubectl get OBJECT -o jsonpath=PATH`.
    pub fn field(&self, object: &str, path: &str) -> Result<String> {
        self.kubectl(&["get", object, "-o", &format!("jsonpath={path}")])
    }

    /// Waits until what `look` sees is `right`, and gives that.
    pub fn until<T: std::fmt::Debug>(
        &self,
        look: impl FnMut() -> Result<T>,
        right: impl Fn(&T) -> bool,
    ) -> Result<T> {
        self.until_within(1, look, right)
    }

    /// The same for what takes some times as long.
    pub fn until_within<T: std::fmt::Debug>(
        &self,
        times: u32,
        mut look: impl FnMut() -> Result<T>,
        right: impl Fn(&T) -> bool,
    ) -> Result<T> {
        let patience = times * PATIENCE;
        let end = Instant::now() + berth_e2e::bound(patience);
        loop {
            let seen = look();
            match seen {
                Ok(seen) if right(&seen) => return Ok(seen),
                seen if Instant::now() > end => bail!("still after {patience:?}: {seen:?}"),
                _ => std::thread::sleep(Duration::from_millis(300)),
            }
        }
    }

    /// Sends a signal to a daemon (`kubelet`, `runtime`, `kube-apiserver`, ...) and waits until another one runs.
    pub fn restart(&self, daemon: &str, signal: Signal) -> Result<()> {
        let before = self.pid(daemon)?;
        kill(before, signal).with_context(|| format!("{signal} to {daemon}"))?;
        self.until(|| self.pid(daemon), |now| *now != before).map(drop)
    }

    /// The process of a daemon.
    pub fn pid(&self, daemon: &str) -> Result<Pid> {
        let path = self.directory.pid(daemon);
        let text = std::fs::read_to_string(&path).with_context(|| format!("{daemon} does not run"))?;
        Ok(Pid::from_raw(text.trim().parse()?))
    }

    /// Whether the kubelet's feature gate was switched on for this cluster.
    pub fn gate(&self, name: &str) -> Result<bool> {
        let config: Value = serde_json::from_slice(&std::fs::read(self.directory.kubelet_config())?)?;
        Ok(config["featureGates"][name] == true)
    }

    /// Prints what someone would look at first.
    fn explain(&self) {
        let mut text = format!("== {} failed\n", self.namespace);
        for arguments in [
            &["get", "pods", "-o", "wide"] as &[&str],
            &["get", "events", "--sort-by=.metadata.creationTimestamp"],
        ] {
            text += &self.kubectl(arguments).unwrap_or_else(|error| error.to_string());
            text += "\n";
        }
        for daemon in ["kubelet", "runtime"] {
            text += &format!("== end of {daemon}'s log\n{}\n", tail(&self.directory.log(daemon), 30));
        }
        eprintln!("{text}");
    }
}

fn said(output: &Output, arguments: &[&str]) -> Result<String> {
    if !output.status.success() {
        let (error, text) =
            (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
        bail!("kubectl {}: {} {}", arguments.join(" "), error.trim(), text.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A kubectl that runs beside a scenario.
pub struct Beside(pub Child);

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
