//! What the kubelet asks of a container, validated: the domain's own types, stored as they are. No CRI types here.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::ids::ContainerId;

/// A container as requested (CRI ContainerConfig).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Name within the pod, and how many containers of that name the pod had before.
    pub metadata: ContainerMetadata,
    /// The image as the request named it (usually the image id).
    pub image: String,
    /// What the user wrote in the pod's spec; empty where the kubelet does not say.
    pub user_specified_image: String,
    /// Replaces the image's entrypoint; then the image's cmd does not count either.
    pub command: Vec<String>,
    /// Replaces the image's cmd.
    pub args: Vec<String>,
    /// Absolute path inside; empty = the image's, else `/`.
    pub working_dir: String,
    /// Environment on top of the image's. Values are bytes.
    pub envs: Vec<(String, Vec<u8>)>,
    /// Volumes and files, in the request's order.
    pub mounts: Vec<Mount>,
    /// Devices of the host.
    pub devices: Vec<Device>,
    /// As given.
    pub labels: BTreeMap<String, String>,
    /// As given, returned unaltered.
    pub annotations: BTreeMap<String, String>,
    /// Absolute path of the log (pod's log directory + the request's path); None = no log.
    pub log_path: Option<PathBuf>,
    /// Keep stdin open for attach.
    pub stdin: bool,
    /// Close stdin after the first attach.
    pub stdin_once: bool,
    /// Run on a terminal.
    pub tty: bool,
    /// Limits.
    pub resources: Resources,
    /// Rights and confinement.
    pub security: Security,
    /// None: the image's, else SIGTERM. A Linux signal number, 1..=64.
    pub stop_signal: Option<i32>,
}

/// A container's name within its pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ContainerMetadata {
    /// Name in the pod's spec.
    pub name: String,
    /// How many containers of this name the pod had before.
    pub attempt: u32,
}

/// A volume (CRI Mount).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path inside.
    pub container_path: String,
    /// Absolute path on the host; empty for an image volume.
    pub host_path: String,
    /// Set for a volume that shows an image instead of a path of the host; it is read-only.
    #[serde(default)]
    pub image: Option<ImageVolume>,
    /// Read-only.
    pub readonly: bool,
    /// Read-only with everything mounted below.
    pub recursive_read_only: bool,
    /// Relabel for SELinux.
    pub selinux_relabel: bool,
    /// Which way mounts made later travel.
    pub propagation: Propagation,
    /// Id mapping of the volume, for user namespaces.
    pub uid_mappings: Vec<IdMapping>,
    /// Id mapping of the volume, for user namespaces.
    pub gid_mappings: Vec<IdMapping>,
    /// What the files of the volume and of all mounted below can't do.
    #[serde(default)]
    pub options: Vec<MountOption>,
}

/// What a volume takes away (CRI Mount.mount_options, KEP-5855).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountOption {
    /// Its files can't be executed.
    NoExec,
    /// Its device nodes are not devices.
    NoDev,
    /// Its set-user-ID bits and file capabilities do not count.
    NoSuid,
}

impl MountOption {
    /// Its name in mount(8).
    pub fn name(self) -> &'static str {
        match self {
            Self::NoExec => "noexec",
            Self::NoDev => "nodev",
            Self::NoSuid => "nosuid",
        }
    }
}

/// An image to be shown as a volume (CRI Mount.image and image_sub_path).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageVolume {
    /// As the request named it (usually the image id).
    pub image: String,
    /// What the user wrote in the pod's spec; empty where the kubelet does not say.
    pub user_specified_image: String,
    /// A directory of the image, to be shown instead of its root.
    pub sub_path: Option<PathBuf>,
}

/// Mount propagation between host and container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    /// None.
    #[default]
    Private,
    /// Later mounts of the host appear inside.
    HostToContainer,
    /// Both ways; privileged containers only.
    Bidirectional,
}

/// One range of a user namespace's mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMapping {
    /// First id on the host.
    pub host_id: u32,
    /// First id inside.
    pub container_id: u32,
    /// How many.
    pub length: u32,
}

/// A device of the host (CRI Device).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Absolute path inside.
    pub container_path: String,
    /// Absolute path on the host: a device, or a directory of devices.
    pub host_path: String,
    /// Of the letters r, w, m.
    pub permissions: String,
}

/// Limits (CRI LinuxContainerResources). None and 0 mean: not asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    /// Microseconds.
    pub cpu_period: Option<u64>,
    /// Microseconds of CPU in each period; negative = no limit.
    pub cpu_quota: Option<i64>,
    /// cgroup v1 shares, 2..=262144.
    pub cpu_shares: Option<u64>,
    /// Bytes; negative = no limit.
    pub memory_limit: Option<i64>,
    /// Bytes of memory and swap together; negative = no limit.
    pub memory_swap_limit: Option<i64>,
    /// -1000..=1000.
    pub oom_score_adj: Option<i32>,
    /// cpuset(7) list.
    pub cpuset_cpus: String,
    /// cpuset(7) list.
    pub cpuset_mems: String,
    /// By page size, for instance 2MB.
    pub hugepage_limits: Vec<HugepageLimit>,
    /// cgroup v2 files and what to write to them.
    pub unified: BTreeMap<String, String>,
    /// Most processes; from the configuration, CRI has no field.
    pub pids_limit: Option<i64>,
}

impl Resources {
    /// These limits with those of `change` that it names. `swap_apart` tells how the kernel counts where only
    /// memory is changed: on cgroup v2 the swap on top stays, on v1 the sum of both where it can.
    pub fn changed(&self, change: &Self, swap_apart: bool) -> Self {
        let list = |new: &String, old: &String| if new.is_empty() { old } else { new }.clone();
        let mut unified = self.unified.clone();
        unified.extend(change.unified.clone());
        let named =
            |old: &&HugepageLimit| change.hugepage_limits.iter().all(|new| new.page_size != old.page_size);
        let kept = self.hugepage_limits.iter().filter(named);
        Self {
            cpu_period: change.cpu_period.or(self.cpu_period),
            cpu_quota: change.cpu_quota.or(self.cpu_quota),
            cpu_shares: change.cpu_shares.or(self.cpu_shares),
            memory_limit: change.memory_limit.or(self.memory_limit),
            memory_swap_limit: change.memory_swap_limit.or_else(|| self.swap_with(change, swap_apart)),
            oom_score_adj: change.oom_score_adj.or(self.oom_score_adj),
            cpuset_cpus: list(&change.cpuset_cpus, &self.cpuset_cpus),
            cpuset_mems: list(&change.cpuset_mems, &self.cpuset_mems),
            hugepage_limits: kept.chain(&change.hugepage_limits).cloned().collect(),
            unified,
            pids_limit: change.pids_limit.or(self.pids_limit),
        }
    }

    /// The limit of memory and swap once `change`, which does not name it, is in force.
    fn swap_with(&self, change: &Self, swap_apart: bool) -> Option<i64> {
        match (self.memory_limit, self.memory_swap_limit, change.memory_limit) {
            (_, Some(_), Some(memory)) if memory < 0 => Some(-1),
            (Some(old), Some(both), Some(memory))
                if old >= 0 && both >= old && (swap_apart || memory > both) =>
            {
                Some(memory.saturating_add(both - old))
            }
            (_, both, _) => both,
        }
    }
}

/// A limit of huge pages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HugepageLimit {
    /// Like `2MB`, as the kernel names it.
    pub page_size: String,
    /// Bytes.
    pub limit: u64,
}

/// Rights and confinement (CRI LinuxContainerSecurityContext).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Security {
    /// Everything the host may do.
    pub privileged: bool,
    /// Changes to the default set.
    pub capabilities: Capabilities,
    /// PID namespace.
    pub pid: PidMode,
    /// Who runs the process.
    pub run_as: RunAs,
    /// Groups on top.
    pub supplemental_groups: Vec<u32>,
    /// Whether the image's /etc/group counts.
    pub supplemental_groups_policy: GroupsPolicy,
    /// The root may not be written.
    pub readonly_rootfs: bool,
    /// execve gives no rights.
    pub no_new_privs: bool,
    /// Hidden paths, verbatim.
    pub masked_paths: Vec<String>,
    /// Paths that can't be written, verbatim.
    pub readonly_paths: Vec<String>,
    /// System call filter.
    pub seccomp: Seccomp,
    /// AppArmor profile.
    pub apparmor: AppArmor,
    /// SELinux label.
    pub selinux: Option<SelinuxLabel>,
}

/// Capability names without `CAP_` or with it, any case; `ALL` stands for all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// To add to the default set.
    pub add: Vec<String>,
    /// To take from it.
    pub drop: Vec<String>,
    /// To make ambient.
    pub add_ambient: Vec<String>,
}

/// A container's PID namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PidMode {
    /// Its own.
    #[default]
    Container,
    /// The pod's.
    Pod,
    /// The host's.
    Node,
    /// That of another container of the pod.
    Target(ContainerId),
}

/// Who runs the process, as requested.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunAs {
    /// The image's USER.
    #[default]
    Image,
    /// Numbers; the group is the image's passwd entry's, or 0, where it is not given.
    Uid(u32, Option<u32>),
    /// A name of the image's passwd.
    Name(String, Option<u32>),
}

/// CRI SupplementalGroupsPolicy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupsPolicy {
    /// The image's /etc/group counts too.
    #[default]
    Merge,
    /// Only what the request names.
    Strict,
}

/// System call filter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Seccomp {
    /// None.
    #[default]
    Unconfined,
    /// Berth's own.
    RuntimeDefault,
    /// A file of the node.
    Localhost(PathBuf),
}

/// AppArmor profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AppArmor {
    /// Berth's own where the kernel enforces AppArmor.
    #[default]
    RuntimeDefault,
    /// None.
    Unconfined,
    /// A loaded profile.
    Localhost(String),
}

/// SELinux label (CRI SELinuxOption).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelinuxLabel {
    /// user
    pub user: String,
    /// role
    pub role: String,
    /// type
    pub kind: String,
    /// level
    pub level: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_leaves_what_it_does_not_name() {
        let page = |size: &str, limit| HugepageLimit { page_size: size.into(), limit };
        let old = Resources {
            cpu_shares: Some(512),
            cpu_quota: Some(5000),
            memory_limit: Some(100),
            cpuset_cpus: "0".into(),
            oom_score_adj: Some(9),
            hugepage_limits: vec![page("2MB", 1), page("1GB", 2)],
            unified: [("memory.low".to_string(), "1".to_string())].into(),
            ..Resources::default()
        };
        let change = Resources {
            cpu_shares: Some(2),
            cpuset_mems: "1".into(),
            hugepage_limits: vec![page("2MB", 3)],
            unified: [("memory.high".to_string(), "2".to_string())].into(),
            ..Resources::default()
        };
        let new = old.changed(&change, true);
        assert_eq!((new.cpu_shares, new.cpu_quota, new.memory_limit), (Some(2), Some(5000), Some(100)));
        assert_eq!((new.cpuset_cpus.as_str(), new.cpuset_mems.as_str()), ("0", "1"));
        assert_eq!(new.hugepage_limits, [page("1GB", 2), page("2MB", 3)]);
        assert_eq!((new.oom_score_adj, new.unified.len()), (Some(9), 2));
        assert_eq!(old.changed(&Resources::default(), true), old);
    }

    #[test]
    fn the_swap_limit_follows_the_memory_limit_as_the_kernel_does() {
        let limits = |memory, swap| Resources {
            memory_limit: memory,
            memory_swap_limit: swap,
            ..Resources::default()
        };
        let (old, swap) = (limits(Some(100), Some(150)), |r: Resources| r.memory_swap_limit);
        assert_eq!(swap(old.changed(&limits(Some(120), None), true)), Some(170));
        assert_eq!(swap(old.changed(&limits(Some(120), None), false)), Some(150));
        assert_eq!(swap(old.changed(&limits(Some(200), None), false)), Some(250));
        assert_eq!(swap(old.changed(&limits(Some(-1), None), false)), Some(-1));
        assert_eq!(swap(old.changed(&limits(Some(120), Some(130)), true)), Some(130));
        assert_eq!(swap(limits(Some(100), None).changed(&limits(Some(9), None), true)), None);
    }
}
