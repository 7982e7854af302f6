//! What of a container can change, at one moment.

use std::sync::Arc;

use super::Container;
use super::spec::Resources;
use super::state::Phase;

/// A container, and what it is at one moment.
pub struct ContainerSnapshot {
    /// Its fixed facts.
    pub container: Arc<Container>,
    /// What it is.
    pub phase: Phase,
    /// Limits in force.
    pub resources: Resources,
}

impl ContainerSnapshot {
    /// What it is now.
    pub fn now(container: Arc<Container>) -> Self {
        Self { phase: container.phase(), resources: container.resources(), container }
    }
}
