//! What of a node is on the host outside its own files: mounts, links, cgroups, processes, firewall rules. Taken
//! before and after, the difference must be empty. Only what belongs to the node counts, because other tests run
//! on the same machine at the same time.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::node::Node;

/// One line for each thing found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census(BTreeSet<String>);

impl Census {
    /// Looks at everything.
    pub fn take(node: &Node) -> Result<Self> {
        let mut found = BTreeSet::new();
        mounts(node.scratch(), &mut found)?;
        links(&node.network().bridge(), &mut found);
        // A pod's own parent, right below the node's, belongs to the kubelet; what is in it does not.
        let parent = node.cgroup_parent();
        let name = Path::new(&parent.path()).file_name().map(ToOwned::to_owned);
        for cgroup in parent.below() {
            let above = cgroup.parent().and_then(Path::file_name).map(ToOwned::to_owned);
            if above != name {
                found.insert(format!("cgroup {}", cgroup.display()));
            }
        }
        processes(node, &mut found);
        rules(&node.network().bridge(), &node.network().prefix(), &mut found)?;
        for directory in [node.root(), node.state()] {
            files(&directory, 3, &mut found);
        }
        Ok(Self(found))
    }

    /// What is here and was not there before, a line each; empty is good.
    pub fn since(&self, before: &Self) -> Vec<String> {
        self.0.difference(&before.0).cloned().collect()
    }
}

fn mounts(scratch: &Path, found: &mut BTreeSet<String>) -> Result<()> {
    let table = fs::read_to_string("/proc/1/mountinfo").context("read /proc/1/mountinfo")?;
    let scratch = scratch.to_string_lossy();
    for line in table.lines().filter(|line| line.contains(&*scratch)) {
        found.insert(format!("mount {}", line.split(' ').nth(4).unwrap_or(line)));
    }
    Ok(())
}

fn links(bridge: &str, found: &mut BTreeSet<String>) {
    let index = |name: &str| fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).ok();
    let Some(bridge_index) = index(bridge) else { return };
    for entry in fs::read_dir("/sys/class/net").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let master = fs::read_link(entry.path().join("master")).ok();
        let below = master.and_then(|master| index(&master.file_name()?.to_string_lossy()));
        if below.as_ref() == Some(&bridge_index) {
            found.insert(format!("link {name} on {bridge}"));
        }
    }
}

/// Unmounts what a failed test left below a directory, the last first.
pub fn unmount_below(directory: &Path) {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points: Vec<_> = table.lines().filter_map(|line| line.split(' ').nth(4)).collect();
    for point in points.into_iter().rev().filter(|point| Path::new(point).starts_with(directory)) {
        let _ = nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH);
    }
}

fn processes(node: &Node, found: &mut BTreeSet<String>) {
    let (scratch, cgroup) = (node.scratch().to_string_lossy().into_owned(), node.cgroup_parent().path());
    let daemon = node.pid().map(|pid| pid.to_string());
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        if !pid.bytes().all(|byte| byte.is_ascii_digit()) || daemon.as_ref() == Some(&pid) {
            continue;
        }
        let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
        let text = |name: &str| String::from_utf8_lossy(&read(name)).replace('\0', " ");
        let ours = text("cmdline").contains(&scratch) || text("cgroup").contains(&cgroup);
        if ours {
            found.insert(format!("process {pid} {}", text("cmdline").trim()));
        }
    }
}

fn rules(bridge: &str, prefix: &str, found: &mut BTreeSet<String>) -> Result<()> {
    let output =
        Command::new("nft").args(["list", "ruleset"]).output().context("run nft (package nftables)")?;
    let prefix = format!("{prefix}.");
    let rules = String::from_utf8_lossy(&output.stdout).into_owned();
    for line in rules.lines().filter(|line| line.contains(bridge) || line.contains(&prefix)) {
        let counted = line.split(" counter packets ").next().unwrap_or(line);
        found.insert(format!("rule {}", counted.trim()));
    }
    Ok(())
}

/// Records and bundles; what images leave is theirs.
fn files(directory: &Path, depth: usize, found: &mut BTreeSet<String>) {
    const OF_IMAGES: [&str; 4] = ["layers", "blobs", "trash", "staging"];
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if OF_IMAGES.contains(&&*name) || name.starts_with("io.containerd.") || name.contains(".db") {
            continue;
        }
        found.insert(format!("file {}", entry.path().display()));
        if depth > 1 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            files(&entry.path(), depth - 1, found);
        }
    }
}
