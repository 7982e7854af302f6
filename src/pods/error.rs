//! What can go wrong with a pod sandbox, in words for `kubectl describe pod`.

use std::sync::Arc;

use crate::calls::Lost;
use crate::containers::ContainerError;
use crate::containers::selinux::LabelError;
use crate::drivers::cgroup::CgroupError;
use crate::drivers::network::NetworkError;
use crate::drivers::pod_files::PodFilesError;
use crate::drivers::shim::ShimError;
use crate::drivers::store::StoreError;
use crate::error::Kind;
use crate::ids::PodId;

/// Why a verb on a pod sandbox failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("pod sandbox {subject}")]
pub struct PodError {
    /// The pod: namespace/name, or its id.
    pub subject: String,
    /// What happened.
    #[source]
    pub cause: Arc<Cause>,
}

/// What happened.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// There is none with this id.
    #[error("no such pod sandbox")]
    Unknown,
    /// An id prefix of several.
    #[error("the id names more than one pod sandbox")]
    Ambiguous,
    /// A sandbox of this name, namespace, uid and attempt exists.
    #[error("sandbox {0} of the same name, namespace, uid and attempt already exists")]
    Duplicate(PodId),
    /// No runtime of this name.
    #[error(
        "there is no runtime handler {handler:?} on this node: only {known} (`handlers` of [pods] in Berth's configuration)"
    )]
    NoHandler {
        /// The name.
        handler: String,
        /// The names that there are, in quotes.
        known: String,
    },
    /// It was stopped, or its shim has died.
    #[error("it is not ready")]
    NotReady,
    /// Nobody listens at that port, or the pod's network is broken.
    #[error("cannot connect to port {port} inside the pod")]
    Dial {
        /// The port.
        port: u16,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A node that can't do it.
    #[error("user namespaces are not available on this node: {0}")]
    UserNamespaces(String),
    /// A label that the kernel would refuse.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// Its namespaces.
    #[error(transparent)]
    Shim(#[from] ShimError),
    /// Its cgroup.
    #[error("cgroup")]
    Cgroup(#[from] CgroupError),
    /// Somebody else has removed it.
    #[error("its control group {0} is gone")]
    CgroupGone(String),
    /// Its network.
    #[error("network")]
    Network(#[from] Box<NetworkError>),
    /// Its files.
    #[error(transparent)]
    Files(#[from] PodFilesError),
    /// Its record.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// One of its containers.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// The daemon is stopping.
    #[error("the daemon is stopping")]
    Stopping,
}

impl Cause {
    /// About this pod.
    pub fn of(self, subject: impl ToString) -> PodError {
        PodError { subject: subject.to_string(), cause: Arc::new(self) }
    }
}

impl From<Lost> for Cause {
    fn from(_: Lost) -> Self {
        Self::Stopping
    }
}

impl PodError {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match &*self.cause {
            Cause::Unknown | Cause::CgroupGone(_) => Kind::NotFound,
            Cause::Ambiguous | Cause::NoHandler { .. } | Cause::Label(_) => Kind::InvalidArgument,
            Cause::UserNamespaces(_) => Kind::FailedPrecondition,
            Cause::Duplicate(_) => Kind::AlreadyExists,
            Cause::NotReady => Kind::FailedPrecondition,
            Cause::Dial { .. } | Cause::Stopping => Kind::Unavailable,
            Cause::Container(error) => error.kind(),
            Cause::Cgroup(error) => error.kind(),
            Cause::Network(error) => error.kind(),
            Cause::Files(error) => error.kind(),
            Cause::Shim(error) => error.kind(),
            Cause::Store(source) => source.kind(),
        }
    }
}
