//! From a container's spec and its image's config to an OCI runtime spec: pure.
//! What does not live here: finding the user, the devices and the facts of the node; compiling system call filters.
//!
//! What the spec leaves to the shim: network, IPC, UTS and user namespaces are not listed, for the shim lives in the
//! pod's; the PID namespace is listed only where the container has one of its own (else `Start.pid` says which). The
//! mount of /dev/shm with type `shm` and source `pod` stands for the pod's own. The filter travels as an fd.

mod anonymous;
mod args;
mod capabilities;
mod confinement;
mod devices;
mod env;
mod mounts;
mod process;
mod resources;

use std::path::{Path, PathBuf};

use oci_spec::runtime as oci;

use crate::capability::{self, UnknownCapability};
use crate::containers::spec::ContainerSpec;
use crate::containers::user::User;
use crate::drivers::host::{Host, HostDevice};
use crate::images::image::ImageConfig;
use crate::pods::spec::PodSpec;

pub use anonymous::anonymous_places;
pub use capabilities::{DEFAULT as DEFAULT_CAPABILITIES, granted};
pub use devices::{DeviceRule, device_rules};
pub use process::exec_process;
pub use resources::set_limits;

/// The files of a pod that each of its containers mounts.
#[derive(Clone, Debug)]
pub struct PodFiles {
    /// resolv.conf
    pub resolv_conf: PathBuf,
    /// hosts
    pub hosts: PathBuf,
    /// hostname
    pub hostname: PathBuf,
}

/// SELinux labels.
#[derive(Clone, Debug)]
pub struct Labels {
    /// Of the container's processes.
    pub process: String,
    /// Of the files that they may use.
    pub files: String,
}

/// All that the spec of a container comes from.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// What was asked for.
    pub container: &'a ContainerSpec,
    /// The pod it runs in.
    pub pod: &'a PodSpec,
    /// Its image.
    pub image: &'a ImageConfig,
    /// Who runs it.
    pub user: &'a User,
    /// Where it runs.
    pub host: &'a Host,
    /// Files to mount.
    pub files: &'a PodFiles,
    /// As the cgroup driver names it.
    pub cgroup_path: &'a str,
    /// The AppArmor profile to run under.
    pub apparmor: Option<&'a str>,
    /// Where the kernel has SELinux, the labels of processes and of files.
    pub selinux: Option<&'a Labels>,
    /// The devices asked for; with privileged, all of the node.
    pub devices: &'a [HostDevice],
    /// The image's own volumes.
    pub anonymous: &'a [AnonymousVolume],
}

/// A volume that an image declares.
#[derive(Clone, Debug)]
pub struct AnonymousVolume {
    /// Inside.
    pub place: PathBuf,
    /// Its directory on the node.
    pub directory: PathBuf,
}

/// What is wrong with a request or an image.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// Neither the pod nor the image says what to run.
    #[error("no command specified: neither the container nor image {image} names one")]
    NoCommand {
        /// The image.
        image: String,
    },
    /// An exec without a command.
    #[error("no command specified to execute in the container")]
    NoExecCommand,
    /// An argument that execve(2) can't take.
    #[error("argument {index} of the command contains a NUL byte")]
    Argument {
        /// From 0.
        index: usize,
    },
    /// Larger than the kernel takes.
    #[error("the command and the environment have {size} bytes; the kernel takes at most {most}", most = args::MOST)]
    TooLarge {
        /// In bytes.
        size: usize,
    },
    /// A variable without a usable name.
    #[error("environment variable name {name:?} is empty, or contains `=` or a NUL byte")]
    VariableName {
        /// As given.
        name: String,
    },
    /// A value that can't be handed on.
    #[error("the value of environment variable {name} {problem}")]
    VariableValue {
        /// The variable.
        name: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// No absolute path.
    #[error("working directory {path:?} is not an absolute path without NUL bytes")]
    WorkingDir {
        /// As given.
        path: String,
    },
    /// Longer than any path can be.
    #[error("the working directory is a path of {length} bytes; Linux knows none of more than 4095")]
    LongWorkingDir {
        /// Bytes.
        length: usize,
    },
    /// A name that is none.
    #[error("cannot change the container's capabilities")]
    Capability(#[from] UnknownCapability),
    /// A mount that is not to be made.
    #[error("mount of {host_path:?} at {container_path:?}: {problem}")]
    Mount {
        /// On the host.
        host_path: String,
        /// Inside.
        container_path: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// More than anybody needs.
    #[error("the image declares {count} volumes; {most} are made at most")]
    TooManyVolumes {
        /// How many.
        count: usize,
        /// The most.
        most: usize,
    },
    /// A path to hide or to protect that is none.
    #[error("masked or read-only path {path:?} is not an absolute path")]
    Path {
        /// As given.
        path: String,
    },
    /// A device with odd permissions or place.
    #[error("device {path}: {problem}")]
    Device {
        /// Inside.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
    /// A score out of range.
    #[error("oom_score_adj {value} is not from -1000 to 1000")]
    OomScoreAdj {
        /// As given.
        value: i32,
    },
}

/// The whole spec (runtime-spec 1.2, config.md). Annotations of the request never get in: no label and no annotation
/// of a pod, a container or an image steers what is done here.
pub fn spec(inputs: &Inputs<'_>) -> Result<oci::Spec, SpecError> {
    let mut root = oci::Root::default();
    // The root comes to the shim as an fd; other OCI runtimes find it mounted here.
    root.set_path(PathBuf::from("rootfs")).set_readonly(Some(inputs.container.security.readonly_rootfs));
    let mut spec = oci::Spec::default();
    spec.set_version("1.2.0".to_string())
        .set_root(Some(root))
        .set_process(Some(process::init_process(inputs)?))
        .set_hostname(None)
        .set_domainname(None)
        .set_mounts(Some(mounts::mounts(inputs)?))
        .set_annotations(None)
        .set_linux(Some(linux(inputs)?));
    Ok(spec)
}

fn linux(inputs: &Inputs<'_>) -> Result<oci::Linux, SpecError> {
    let security = &inputs.container.security;
    let (masked, readonly) = match security.privileged {
        true => (Vec::new(), Vec::new()),
        false => (paths(&security.masked_paths)?, paths(&security.readonly_paths)?),
    };
    // Which ids are the pod's: the shim gives volumes and devices to them.
    let user = inputs.pod.namespaces.user.as_ref();
    let mut linux = oci::Linux::default();
    linux
        .set_uid_mappings(user.map(|user| mounts::mappings(&user.uids)))
        .set_gid_mappings(user.map(|user| mounts::mappings(&user.gids)))
        .set_cgroups_path(Some(PathBuf::from(inputs.cgroup_path)))
        .set_namespaces(Some(confinement::namespaces(inputs)))
        .set_masked_paths(Some(masked))
        .set_readonly_paths(Some(readonly))
        .set_devices(Some(devices::nodes(inputs.devices)?))
        .set_resources(Some(resources::resources(inputs)?))
        .set_mount_label(inputs.selinux.map(|labels| labels.files.clone()))
        .set_rootfs_propagation(Some(mounts::root_propagation(inputs.container).to_string()))
        .set_sysctl(None)
        .set_seccomp(None);
    Ok(linux)
}

fn paths(given: &[String]) -> Result<Vec<String>, SpecError> {
    for path in given {
        if !Path::new(path).is_absolute() || path.contains('\0') {
            return Err(SpecError::Path { path: path.clone() });
        }
    }
    Ok(given.to_vec())
}

/// The capabilities of a set as the crate of the specification names them.
fn named(set: capability::Set) -> oci::Capabilities {
    set.iter().filter_map(|capability| capability.name().parse().ok()).collect()
}

#[cfg(test)]
mod tests;
