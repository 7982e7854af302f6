//! Finding containers: by id or its prefix, by pod, by labels. Answers come from memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::state::Phase;
use super::{Cause, Container, ContainerError, Containers};
use crate::ids::{Named, PodId, named};
use crate::telemetry::subject;

/// Which containers; an empty filter means all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// A whole id or its beginning; empty = any.
    pub id: String,
    /// A whole pod id or its beginning; empty = any.
    pub pod: String,
    /// Only in this phase.
    pub phase: Option<PhaseName>,
    /// All of these.
    pub labels: BTreeMap<String, String>,
}

/// A phase without its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PhaseName {
    /// Made, not started.
    Created,
    /// Its process lives.
    Running,
    /// Its process has ended.
    Exited,
    /// Berth has none such.
    Unknown,
}

impl Phase {
    /// Without its content.
    pub fn name(&self) -> PhaseName {
        match self {
            Self::Created => PhaseName::Created,
            Self::Running(_) => PhaseName::Running,
            Self::Exited(_) => PhaseName::Exited,
        }
    }
}

impl Filter {
    fn admits(&self, container: &Container) -> bool {
        container.id.as_str().starts_with(&self.id)
            && container.sandbox.id.as_str().starts_with(&self.pod)
            && self.phase.is_none_or(|phase| container.phase().name() == phase)
            && self.labels.iter().all(|(key, value)| container.spec.labels.get(key) == Some(value))
    }
}

impl Containers {
    /// Those that the filter admits, oldest first.
    pub fn list(&self, filter: &Filter) -> Vec<Arc<Container>> {
        let found = self.table().values().filter(|c| filter.admits(c)).cloned().collect();
        oldest_first(found)
    }

    /// The containers of one pod, oldest first.
    pub fn of_pod(&self, pod: &PodId) -> Vec<Arc<Container>> {
        let found = self.table().values().filter(|c| c.sandbox.id == *pod).cloned().collect();
        oldest_first(found)
    }

    /// Those that run, by pod, oldest first.
    pub fn running_by_pod(&self) -> HashMap<PodId, Vec<Arc<Container>>> {
        let mut by_pod: HashMap<PodId, Vec<_>> = HashMap::new();
        for container in self.list(&Filter { phase: Some(PhaseName::Running), ..Filter::default() }) {
            by_pod.entry(container.sandbox.id.clone()).or_default().push(container);
        }
        by_pod
    }

    /// The one container with this id, or whose id alone begins so.
    pub fn find(&self, id: &str) -> Result<Arc<Container>, ContainerError> {
        match named(&self.table(), id) {
            Named::One(container) => {
                subject::note_pod(&container.sandbox.spec.metadata, Some(&container.sandbox.id));
                subject::note_container(&container.spec, Some(&container.id));
                Ok(container.clone())
            }
            Named::Nothing => Err(Cause::Unknown.of(format_args!("{id:?}"))),
            Named::Several => Err(Cause::Ambiguous.of(format_args!("{id:?}"))),
        }
    }
}

fn oldest_first(mut found: Vec<Arc<Container>>) -> Vec<Arc<Container>> {
    found.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
    found
}
