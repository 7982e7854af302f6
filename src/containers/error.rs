//! What can go wrong with a container, in words for `kubectl describe pod`.

use std::path::PathBuf;

use crate::calls::Lost;
use crate::containers::apparmor::ProfileError;
use crate::containers::filter::FilterError;
use crate::containers::oci::SpecError;
use crate::containers::selinux::LabelError;
use crate::containers::user::UserError;
use crate::containers::volumes::VolumeError;
use crate::drivers::bundle::BundleError;
use crate::drivers::cgroup::CgroupError;
use crate::drivers::host::DeviceError;
use crate::drivers::layers::LayerError;
use crate::drivers::rootfs::RootfsError;
use crate::drivers::shim::ShimError;
use crate::drivers::store::StoreError;
use crate::error::Kind;
use crate::ids::{ContainerId, PodId};

/// Why a verb on a container failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("container {subject}")]
pub struct ContainerError {
    /// The container: its name before it has an id, else its id.
    pub subject: String,
    /// What happened.
    #[source]
    pub cause: std::sync::Arc<Cause>,
}

/// What happened.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// There is none with this id.
    #[error("no such container")]
    Unknown,
    /// An id prefix of several.
    #[error("the id names more than one container")]
    Ambiguous,
    /// The pod already has one of that name and attempt.
    #[error("the pod {pod} already has container {id} of this name and attempt")]
    Duplicate {
        /// The pod.
        pod: PodId,
        /// The one that is there.
        id: ContainerId,
    },
    /// The sandbox is stopped, or being stopped.
    #[error("pod sandbox {0} is not ready")]
    SandboxNotReady(PodId),
    /// The image is not on the node.
    #[error("image {0:?} is not on this node: pull it first")]
    NoImage(String),
    /// The image is on the node, but the policy has not admitted it.
    #[error("image {0:?} was not admitted by the policy in force: pull it again by its name")]
    NotAdmitted(String),
    /// Somebody else has removed it.
    #[error("its control group {0} is gone")]
    CgroupGone(String),
    /// The verb does not fit the state.
    #[error("it is {is}, not {wanted}")]
    State {
        /// What it is.
        is: &'static str,
        /// What it would have to be.
        wanted: &'static str,
    },
    /// A volume's source does not exist.
    #[error("the source {path} of the volume at {target} does not exist on the node")]
    NoVolumeSource {
        /// On the host.
        path: PathBuf,
        /// Inside.
        target: String,
    },
    /// An image that was asked for as a volume.
    #[error("cannot mount image {image:?} as the volume at {target}")]
    Volume {
        /// In the user's words.
        image: String,
        /// Inside.
        target: String,
        /// Why.
        #[source]
        source: VolumeError,
    },
    /// A volume that the image declares.
    #[error("cannot make the volume {} that image {image:?} declares", target.display())]
    AnonymousVolume {
        /// As the request named it.
        image: String,
        /// Inside.
        target: PathBuf,
        /// Why.
        #[source]
        source: LayerError,
    },
    /// An image to run that is none.
    #[error(
        "image {image:?} is an OCI artifact of type {kind}: it can be a volume, but nothing runs from it"
    )]
    Artifact {
        /// As the request named it.
        image: String,
        /// Its media type.
        kind: String,
    },
    /// A user or group outside of the pod's user namespace.
    #[error("{what} {id} does not exist in the pod's user namespace: it is beyond the mapped range")]
    NotMapped {
        /// user or group.
        what: &'static str,
        /// Inside.
        id: u32,
    },
    /// A volume that can't be shown under other ids.
    #[error(
        "the volume {path} at {target} can't be ID-mapped for the pod's user namespace: its file system is {kind}"
    )]
    NotMappable {
        /// On the host.
        path: PathBuf,
        /// Inside.
        target: String,
        /// The file system's kind.
        kind: String,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// A kernel before 5.12.
    #[error("the kernel cannot make the volume at {target} read-only with all that is mounted below it")]
    NoRecursion {
        /// Inside.
        target: String,
    },
    /// A device that is none.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// It can't be turned into an OCI spec.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// Nobody to run as.
    #[error(transparent)]
    User(#[from] UserError),
    /// A file of the image can't be read.
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    /// A seccomp profile that is refused.
    #[error(transparent)]
    Seccomp(#[from] FilterError),
    /// A label that the kernel would refuse.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// A volume that can't be labelled.
    #[error("cannot relabel the volume {path} at {target} for SELinux")]
    Relabel {
        /// On the host.
        path: PathBuf,
        /// Inside.
        target: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An AppArmor profile that is not there.
    #[error(transparent)]
    Apparmor(#[from] ProfileError),
    /// Limits that the kernel refuses, or no room for a cgroup.
    #[error("cgroup")]
    Cgroup(#[from] CgroupError),
    /// The root file system.
    #[error("root file system")]
    Layers(#[from] LayerError),
    /// Its directories.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// What the shim says: the step that failed, in words.
    #[error(transparent)]
    Shim(#[from] ShimError),
    /// Its record.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It does not die.
    #[error("process {pid} is still there {seconds} s after SIGKILL{}", waiting_in(.wchan))]
    Immortal {
        /// Its process.
        pid: i32,
        /// How long the daemon waited.
        seconds: u64,
        /// Where in the kernel it waits, if known.
        wchan: String,
    },
    /// An exec took longer than it was given.
    #[error("the command {command:?} did not end within {seconds} s and was killed")]
    ExecTimeout {
        /// The program.
        command: String,
        /// The request's timeout.
        seconds: u64,
    },
    /// A pipe or a file of an exec.
    #[error("cannot {step}")]
    Io {
        /// What was tried.
        step: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Its log file is not to be had.
    #[error("it has no log")]
    NoLog,
    /// A client that takes a container's streams for what they are not.
    #[error("it {}, unlike the request", if *.0 { "has a terminal" } else { "has no terminal" })]
    Terminal(bool),
    /// An empty command.
    #[error("no command was given")]
    NoCommand,
    /// The daemon is stopping.
    #[error("the daemon is stopping")]
    Stopping,
}

fn waiting_in(wchan: &str) -> String {
    if wchan.is_empty() { String::new() } else { format!(", waiting in the kernel's {wchan}") }
}

impl Cause {
    /// About this container.
    pub fn of(self, subject: impl ToString) -> ContainerError {
        ContainerError { subject: subject.to_string(), cause: self.into() }
    }
}

impl From<Lost> for Cause {
    fn from(_: Lost) -> Self {
        Self::Stopping
    }
}

impl ContainerError {
    /// An image volume is the cause.
    pub fn is_of_image_volume(&self) -> bool {
        matches!(*self.cause, Cause::Volume { .. })
    }

    /// Whether the node can't make read-only what is mounted below a volume.
    pub fn is_no_recursion(&self) -> bool {
        matches!(*self.cause, Cause::NoRecursion { .. })
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        match &*self.cause {
            Cause::Unknown | Cause::NoImage(_) | Cause::CgroupGone(_) => Kind::NotFound,
            Cause::NotAdmitted(_) => Kind::SignatureValidationFailed,
            Cause::Ambiguous
            | Cause::NoVolumeSource { .. }
            | Cause::NotMapped { .. }
            | Cause::NoRecursion { .. }
            | Cause::Artifact { .. }
            | Cause::NotMappable { .. }
            | Cause::Device(_)
            | Cause::NoCommand
            | Cause::Terminal(_)
            | Cause::Spec(_)
            | Cause::User(_)
            | Cause::Rootfs(_)
            | Cause::Apparmor(_)
            | Cause::Label(_)
            | Cause::Seccomp(_) => Kind::InvalidArgument,
            Cause::Duplicate { .. } => Kind::AlreadyExists,
            Cause::SandboxNotReady(_) | Cause::State { .. } | Cause::NoLog => Kind::FailedPrecondition,
            Cause::Immortal { .. } | Cause::ExecTimeout { .. } => Kind::DeadlineExceeded,
            Cause::Stopping => Kind::Unavailable,
            Cause::Cgroup(error) => error.kind(),
            Cause::Layers(source) | Cause::AnonymousVolume { source, .. } => source.kind(),
            Cause::Volume { source, .. } => source.kind(),
            Cause::Bundle(error) => error.kind(),
            Cause::Shim(error) => error.kind(),
            Cause::Store(source) => source.kind(),
            Cause::Relabel { .. } | Cause::Io { .. } => Kind::Internal,
        }
    }
}
