//! Containers: what was asked for (`spec`), what they are (`state`), and one verb a file. No system calls, no CRI types.

mod container;
mod create;
mod devices;
mod error;
mod exec;
mod exit;
pub mod filter;
pub mod list;
mod log;
pub mod oci;
mod recover;
mod remove;
mod sandbox;
pub mod signal;
pub mod spec;
mod start;
pub mod state;
mod stop;
pub mod user;
mod volumes;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use berth_proto::shim::v1;

pub use container::{Container, ContainerRecord, ImageUse};
pub use devices::permissions_are_valid;
pub use error::{Cause, ContainerError};
pub use exec::ExecOutput;
pub use list::Filter;
pub use sandbox::Sandbox;
pub use volumes::VolumeError;

use crate::calls::Calls;
use crate::drivers::Drivers;
use crate::ids::{ContainerId, PodId};
use crate::images::Images;
use spec::ContainerMetadata;

type Created = Result<Arc<Container>, ContainerError>;

/// All containers of this daemon.
pub struct Containers {
    drivers: Arc<Drivers>,
    images: Arc<Images>,
    by_id: Mutex<HashMap<ContainerId, Arc<Container>>>,
    creating: Calls<(PodId, ContainerMetadata), Created>,
    /// Execs whose end somebody waits for.
    execs: Mutex<HashMap<String, oneshot::Sender<v1::Exited>>>,
}

impl Containers {
    /// None yet: see `adopt` for those of a daemon before this one.
    pub fn new(drivers: Arc<Drivers>, images: Arc<Images>) -> Self {
        Self { drivers, images, by_id: Mutex::default(), creating: Calls::default(), execs: Mutex::default() }
    }

    fn table(&self) -> MutexGuard<'_, HashMap<ContainerId, Arc<Container>>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
