//! Where `berth node` puts things on a host, and where it finds the host's own. What does not live here: the daemon's
//! directories (layout).

use std::path::{Path, PathBuf};

/// Where programs and the receipt go unless the operator says otherwise.
pub const DIRECTORY: &str = "/opt/berth";

/// A host, seen through where its root directory is: `/` but in tests.
#[derive(Clone, Debug)]
pub struct HostLayout {
    root: PathBuf,
    directory: PathBuf,
}

impl HostLayout {
    /// `directory` is absolute, as the host sees it.
    pub fn new(root: impl Into<PathBuf>, directory: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), directory: directory.into() }
    }

    /// Where a path of the host is for us.
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The directory of programs and receipt, as the host sees it.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The versions that are here, as the host sees it.
    pub fn versions(&self) -> PathBuf {
        self.directory.join("versions")
    }

    /// One version's programs, as the host sees it.
    pub fn version(&self, name: &str) -> PathBuf {
        self.versions().join(name)
    }

    /// A link to the version in force, as the host sees it.
    pub fn bin(&self) -> PathBuf {
        self.directory.join("bin")
    }

    /// The program in force, as the host sees it.
    pub fn program(&self) -> PathBuf {
        self.bin().join(PROGRAM)
    }

    /// What was installed and what was there before.
    pub fn receipt(&self) -> PathBuf {
        self.at(self.directory.join("receipt.json"))
    }

    /// Held locked by whoever changes the host.
    pub fn lock(&self) -> PathBuf {
        self.at(self.directory.join("lock"))
    }

    /// The unit file that an installation writes, as the host sees it.
    pub fn unit(&self) -> PathBuf {
        Path::new("/etc/systemd/system").join(UNIT)
    }

    /// The unit file of a package, as the host sees it.
    pub fn packaged_units(&self) -> [PathBuf; 2] {
        ["/usr/lib/systemd/system", "/lib/systemd/system"].map(|dir| Path::new(dir).join(UNIT))
    }

    /// The file that points a kubelet's unit to Berth, as the host sees it. It is read after all others.
    pub fn kubelet_drop_in(&self, unit: &str) -> PathBuf {
        Path::new("/etc/systemd/system").join(format!("{unit}.d")).join("zz-berth.conf")
    }

    /// Directories of registries' hosts.toml, as the host sees it.
    pub fn registries(&self) -> PathBuf {
        "/etc/berth/certs.d".into()
    }

    /// A registry's hosts.toml, as the host sees it.
    pub fn registry_hosts(&self, registry: &str) -> PathBuf {
        self.registries().join(registry).join(HOSTS)
    }

    /// Keys and trusted roots that `[image.policy]` names, as the host sees it.
    pub fn trust(&self) -> PathBuf {
        "/etc/berth/trust".into()
    }

    /// What the daemon keeps, and its state.
    pub fn data(&self) -> [PathBuf; 2] {
        [self.at(super::ROOT), self.at(super::STATE)]
    }

    /// The socket of the host's D-Bus.
    pub fn bus(&self) -> PathBuf {
        self.at("/run/dbus/system_bus_socket")
    }

    /// There if systemd runs the host (sd_booted(3)).
    pub fn booted(&self) -> PathBuf {
        self.at("/run/systemd/system")
    }

    /// What a switch under way needs of the cluster; gone when it has ended.
    pub fn credentials(&self) -> PathBuf {
        self.at("/run/berth-node/credentials.json")
    }

    /// The command line of a process.
    pub fn command_line(&self, pid: u32) -> PathBuf {
        self.at(format!("/proc/{pid}/cmdline"))
    }
}

/// A registry's file.
pub const HOSTS: &str = "hosts.toml";
/// The daemon's unit.
pub const UNIT: &str = "berth.service";
/// The daemon's program, and the shim's beside it.
pub const PROGRAM: &str = "berth";
/// The shim's program.
pub const SHIM: &str = "berth-shim";
/// Where a pod finds its service account.
pub const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
