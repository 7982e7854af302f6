//! Finding pod sandboxes: by id or its prefix, by state, by labels. Answers come from memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Cause, Pod, PodError, Pods};
use crate::ids::{Named, named};
use crate::telemetry::subject;

/// Which pod sandboxes; an empty filter means all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// A whole id or its beginning; empty = any.
    pub id: String,
    /// Only ready ones, or only others.
    pub ready: Option<bool>,
    /// All of these.
    pub labels: BTreeMap<String, String>,
}

impl Filter {
    fn admits(&self, pod: &Pod) -> bool {
        pod.id().as_str().starts_with(&self.id)
            && self.ready.is_none_or(|ready| pod.is_ready() == ready)
            && self.labels.iter().all(|(key, value)| pod.sandbox.spec.labels.get(key) == Some(value))
    }
}

impl Pods {
    /// Those that the filter admits, oldest first.
    pub fn list(&self, filter: &Filter) -> Vec<Arc<Pod>> {
        let mut found: Vec<_> = self.table().values().filter(|pod| filter.admits(pod)).cloned().collect();
        found.sort_by(|a, b| (a.created_at, a.id()).cmp(&(b.created_at, b.id())));
        found
    }

    /// The one pod sandbox with this id, or whose id alone begins so.
    pub fn find(&self, id: &str) -> Result<Arc<Pod>, PodError> {
        match named(&self.table(), id) {
            Named::One(pod) => {
                subject::note_pod(&pod.sandbox.spec.metadata, Some(pod.id()));
                Ok(pod.clone())
            }
            Named::Nothing => Err(Cause::Unknown.of(format_args!("{id:?}"))),
            Named::Several => Err(Cause::Ambiguous.of(format_args!("{id:?}"))),
        }
    }
}
