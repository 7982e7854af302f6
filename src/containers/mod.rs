//! Containers: what was asked for (`spec`), what they are (`state`), and one verb a file. No system calls, no CRI types.

mod anonymous;
pub mod apparmor;
mod attach;
mod container;
mod create;
mod devices;
mod error;
mod exec;
mod exec_sync;
mod exit;
pub mod filter;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod gauges;
pub mod list;
mod log;
pub mod oci;
mod recover;
mod remove;
mod sandbox;
pub mod selinux;
pub mod session;
pub mod signal;
mod snapshot;
pub mod spec;
mod start;
pub mod state;
mod stats;
mod stop;
mod update;
pub mod user;
mod volumes;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use attach::AttachRequest;
pub use container::{Container, ContainerRecord, ImageUse};
pub use devices::permissions_are_valid;
pub use error::{Cause, ContainerError};
pub use exec::ExecRequest;
pub use exec_sync::ExecOutput;
pub use gauges::WritableLayer;
pub use list::Filter;
pub use sandbox::Sandbox;
pub use session::Session;
pub use snapshot::ContainerSnapshot;
pub use stats::{ContainerStats, since};
pub use volumes::VolumeError;

use crate::calls::Calls;
use crate::drivers::Drivers;
use crate::events::Events;
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
    execs: exec::Execs,
    events: Events,
}

impl Containers {
    /// None yet: see `adopt` for those of a daemon before this one.
    pub fn new(drivers: Arc<Drivers>, images: Arc<Images>) -> Self {
        Self {
            drivers,
            images,
            by_id: Mutex::default(),
            creating: Calls::default(),
            execs: exec::Execs::default(),
            events: Events::default(),
        }
    }

    /// The order in which changes of pods and containers become visible.
    pub fn events(&self) -> &Events {
        &self.events
    }

    fn table(&self) -> MutexGuard<'_, HashMap<ContainerId, Arc<Container>>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
