//! etcd, API server, controller manager and scheduler.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use berth_e2e::runtime::tool;

use crate::daemon::Daemon;
use crate::directory::Directory;
use crate::machine::{ADDRESS, API};

const ETCD: &str = "http://127.0.0.1:2379";

/// One of the programs that e2e/tools/build made.
pub fn program(name: &str) -> Result<Command> {
    Ok(Command::new(tool("kubernetes", name)?))
}

/// The running programs.
pub struct ControlPlane(Vec<Daemon>);

impl ControlPlane {
    /// Starts all four and waits until the API is ready.
    pub fn start(directory: &Directory) -> Result<Self> {
        let mut plane = Self(vec![
            Daemon::start("etcd", etcd(directory)?, directory)?,
            Daemon::start("kube-apiserver", api_server(directory)?, directory)?,
        ]);
        plane.wait_until_ready(directory)?;
        plane.0.push(Daemon::start("kube-controller-manager", controller_manager(directory)?, directory)?);
        plane.0.push(Daemon::start("kube-scheduler", scheduler(directory)?, directory)?);
        Ok(plane)
    }

    /// Starts again what has ended.
    pub fn mend(&mut self) -> Result<()> {
        self.0.iter_mut().try_for_each(Daemon::mend)
    }

    fn wait_until_ready(&mut self, directory: &Directory) -> Result<()> {
        let end = Instant::now() + berth_e2e::bound(Duration::from_secs(180));
        while Instant::now() < end {
            let mut ask = program("kubectl")?;
            ask.args(["get", "--raw=/readyz", "--request-timeout=5s"]);
            ask.arg("--kubeconfig").arg(directory.kubeconfig("admin"));
            if ask.output()?.status.success() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(300));
            self.mend()?;
        }
        bail!("the API server does not become ready:\n{}", tail(&directory.log("kube-apiserver"), 30))
    }
}

/// The last lines of a log.
pub fn tail(log: &Path, count: usize) -> String {
    let text =
        std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn flag(name: &str, value: impl AsRef<Path>) -> String {
    format!("--{name}={}", value.as_ref().display())
}

fn etcd(directory: &Directory) -> Result<Command> {
    let mut command = program("etcd")?;
    command.arg(flag("data-dir", directory.etcd())).args([
        &format!("--listen-client-urls={ETCD}"),
        &format!("--advertise-client-urls={ETCD}"),
        "--listen-peer-urls=http://127.0.0.1:2380",
        // Nobody reads it after a crash of the machine.
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]);
    Ok(command)
}

fn api_server(directory: &Directory) -> Result<Command> {
    let mut command = program("kube-apiserver")?;
    let ca = directory.certificate("ca");
    command.args([
        &format!("--etcd-servers={ETCD}"),
        &format!("--advertise-address={ADDRESS}"),
        // That of the API's cluster IP, so that it answers there, too.
        "--secure-port=443",
        &format!("--service-cluster-ip-range={API}/16"),
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--kubelet-preferred-address-types=InternalIP",
        &flag("cert-dir", directory.pki()),
        &flag("tls-cert-file", directory.certificate("apiserver")),
        &flag("tls-private-key-file", directory.key("apiserver")),
        &flag("client-ca-file", &ca),
        &flag("kubelet-certificate-authority", &ca),
        &flag("kubelet-client-certificate", directory.certificate("apiserver-kubelet")),
        &flag("kubelet-client-key", directory.key("apiserver-kubelet")),
        // Who may speak for users to APIs that pods serve, reached by their own addresses, as there is no kube-proxy.
        "--enable-aggregator-routing=true",
        &flag("requestheader-client-ca-file", &ca),
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        &flag("proxy-client-cert-file", directory.certificate("front-proxy-client")),
        &flag("proxy-client-key-file", directory.key("front-proxy-client")),
        &flag("service-account-key-file", directory.certificate("service-accounts")),
        &flag("service-account-signing-key-file", directory.key("service-accounts")),
    ]);
    Ok(command)
}

fn controller_manager(directory: &Directory) -> Result<Command> {
    let mut command = program("kube-controller-manager")?;
    command.args([
        &flag("kubeconfig", directory.kubeconfig("kube-controller-manager")),
        "--leader-elect=false",
        "--use-service-account-credentials",
        "--bind-address=127.0.0.1",
        &flag("root-ca-file", directory.certificate("ca")),
        &flag("service-account-private-key-file", directory.key("service-accounts")),
        &flag("cluster-signing-cert-file", directory.certificate("ca")),
        &flag("cluster-signing-key-file", directory.key("ca")),
    ]);
    Ok(command)
}

fn scheduler(directory: &Directory) -> Result<Command> {
    let mut command = program("kube-scheduler")?;
    command.args([
        &flag("kubeconfig", directory.kubeconfig("kube-scheduler")),
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
    ]);
    Ok(command)
}
