//! Addresses for one node under test: a bridge name and subnets that no other test on this machine uses at the
//! same time.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::json;

/// A claimed network. Held by a file lock, so that it is free again when the process dies.
pub struct Network {
    number: u16,
    _lock: nix::fcntl::Flock<File>,
}

impl Network {
    /// Takes the first that is free.
    pub fn claim() -> Result<Self> {
        let directory = Path::new("/tmp/berth-e2e-networks");
        std::fs::create_dir_all(directory)?;
        for number in 0..3840 {
            let path = directory.join(number.to_string());
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
            if let Ok(lock) = nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock) {
                return Ok(Self { number, _lock: lock });
            }
        }
        bail!("all networks of {} are in use", directory.display())
    }

    /// At most 15 bytes.
    pub fn bridge(&self) -> String {
        format!("be2e{}", self.number)
    }

    /// `10.A.B`: the first three bytes of its addresses.
    pub fn prefix(&self) -> String {
        format!("10.{}.{}", 240 + self.number / 256, self.number % 256)
    }

    /// The IPv4 subnet.
    pub fn subnet(&self) -> String {
        format!("{}.0/24", self.prefix())
    }

    /// The IPv6 subnet.
    pub fn subnet6(&self) -> String {
        format!("fd62:6572:7468:{:x}::/64", self.number + 1)
    }

    /// Writes the usual conflist: bridge, host-local, portmap.
    pub fn write_conflist(&self, conf_dir: &Path, data_dir: &Path) -> Result<()> {
        std::fs::create_dir_all(conf_dir)?;
        let list = json!({
            "cniVersion": "1.0.0",
            "name": self.bridge(),
            "plugins": [
                {
                    "type": "bridge", "bridge": self.bridge(), "isGateway": true, "ipMasq": true, "hairpinMode": true,
                    "ipam": {
                        "type": "host-local", "dataDir": data_dir,
                        "ranges": [[{ "subnet": self.subnet() }]], "routes": [{ "dst": "0.0.0.0/0" }],
                    },
                },
                { "type": "portmap", "capabilities": { "portMappings": true } },
            ],
        });
        let path = conf_dir.join("10-e2e.conflist");
        std::fs::write(&path, serde_json::to_vec_pretty(&list)?)
            .with_context(|| format!("write {}", path.display()))
    }
}

impl Drop for Network {
    /// Runtimes leave their bridge and base rules for the next pod; a test node has no next pod.
    fn drop(&mut self) {
        let bridge = self.bridge();
        let table = format!("berth-{bridge}");
        let quiet = |program: &str, arguments: &[&str]| {
            let _ =
                Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
        };
        quiet("ip", &["link", "delete", &bridge]);
        quiet("nft", &["delete", "table", "inet", &table]);
    }
}
