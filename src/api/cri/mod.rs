//! CRI v1 over gRPC.

mod batches;
mod convert;
mod image;
mod info;
mod metrics;
mod runtime;
pub(super) mod status;
mod usage;
mod watch;

use std::sync::Arc;
use std::time::SystemTime;

pub use image::ImageApi;
pub use runtime::RuntimeApi;

use crate::api::metrics::Endpoint;
use crate::api::streaming::Streaming;
use crate::config::Config;
use crate::containers::Containers;
use crate::drivers::Drivers;
use crate::health::Health;
use crate::images::Images;
use crate::pods::Pods;

/// Everything that RPCs may reach.
#[derive(Clone)]
pub struct Services {
    /// Pod sandboxes.
    pub pods: Arc<Pods>,
    /// Containers.
    pub containers: Arc<Containers>,
    /// Images.
    pub images: Arc<Images>,
    /// Sessions of exec, attach and port-forward.
    pub streaming: Arc<Streaming>,
    /// What is wrong with the node.
    pub health: Arc<Health>,
    /// When the daemon began.
    pub started: SystemTime,
    /// The configuration in force.
    pub config: Arc<Config>,
    /// What the node can do.
    pub drivers: Arc<Drivers>,
    /// Where the daemon's metrics are served.
    pub metrics: Arc<Endpoint>,
}
