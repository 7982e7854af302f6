//! Steps of a pod's start: each is a span of its trace and an observation of its histogram.

use std::time::Instant;

use tracing::{Instrument, Span, debug_span};

use super::METRICS;
use crate::activity;

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The intent goes on record.
    Record,
    /// The shim is spawned and answers.
    Shim,
    /// The pod's cgroup is made.
    Cgroup,
    /// The shim makes the pod's namespaces.
    Namespaces,
    /// The network is attached.
    Network,
    /// Its files are written, and the record says Ready.
    Ready,
    /// CreateContainer, less its conversion.
    ContainerCreate,
    /// StartContainer, until the workload is executing.
    ContainerStart,
}

impl Stage {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Record,
        Self::Shim,
        Self::Cgroup,
        Self::Namespaces,
        Self::Network,
        Self::Ready,
        Self::ContainerCreate,
        Self::ContainerStart,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Shim => "shim",
            Self::Cgroup => "cgroup",
            Self::Namespaces => "namespaces",
            Self::Network => "network",
            Self::Ready => "ready",
            Self::ContainerCreate => "container_create",
            Self::ContainerStart => "container_start",
        }
    }

    /// A span's name is part of its code: so many arms.
    fn span(self) -> Span {
        match self {
            Self::Record => debug_span!("record"),
            Self::Shim => debug_span!("shim"),
            Self::Cgroup => debug_span!("cgroup"),
            Self::Namespaces => debug_span!("namespaces"),
            Self::Network => debug_span!("network"),
            Self::Ready => debug_span!("ready"),
            Self::ContainerCreate => debug_span!("container_create"),
            Self::ContainerStart => debug_span!("container_start"),
        }
    }
}

/// Does the work of a step. One that fails is a span, but no observation.
pub async fn stage<T, E>(stage: Stage, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let start = Instant::now();
    activity::step(stage.name());
    let result = work.instrument(stage.span()).await;
    if result.is_ok() {
        METRICS
            .stage_duration
            .get_or_create(&[("stage", stage.name())])
            .observe(start.elapsed().as_secs_f64());
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_has_the_name_of_its_stage() {
        tracing::subscriber::with_default(tracing_subscriber::registry(), || {
            for stage in Stage::ALL {
                assert_eq!(stage.span().metadata().map(tracing::Metadata::name), Some(stage.name()));
            }
        });
    }
}
