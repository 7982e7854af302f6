//! Whom a line of the log concerns: pod (`namespace/name`), pod_id, container, container_id and image are fields of
//! the span in which it is written. An RPC's span learns them as the call finds out (`note_*`); what happens without a
//! call, or may outlive it, has a span of its own (`pod`, `container`).
//!
//! These spans have the level ERROR and a target of their own, so that no filter loses the fields of a line that it
//! admits.

use std::fmt::Display;

use tracing::{Span, error_span, field};

use tracing_subscriber::EnvFilter;

use crate::containers::spec::ContainerSpec;
use crate::ids::{ContainerId, PodId};
use crate::pods::spec::PodMetadata;

/// The target of all spans that name a subject.
const SUBJECT: &str = "berth::subject";
/// The target of RPCs' spans, below the other: only those have fields to be filled in.
pub const CALL: &str = "berth::subject::call";

/// Lets a filter admit the spans that name a subject.
pub fn admit(filter: EnvFilter) -> EnvFilter {
    match format!("{SUBJECT}=error").parse() {
        Ok(directive) => filter.add_directive(directive),
        Err(_) => filter,
    }
}

/// For what happens to a pod and is no call's doing.
pub fn pod(name: &PodMetadata, id: &PodId) -> Span {
    error_span!(target: SUBJECT, parent: None, "pod", pod = %name, pod_id = %id)
}

/// For what happens to a container and is no call's doing.
pub fn container(pod: (&PodMetadata, &PodId), spec: &ContainerSpec, id: &ContainerId) -> Span {
    error_span!(
        target: SUBJECT,
        parent: None,
        "container",
        pod = %pod.0,
        pod_id = %pod.1,
        container = spec.metadata.name,
        container_id = %id,
        image = image(spec),
    )
}

/// The call under way concerns this pod: `namespace/name`.
pub fn note_pod(name: &dyn Display, id: Option<&PodId>) {
    note("pod", name);
    if let Some(id) = id {
        note("pod_id", id);
    }
}

/// The call under way concerns this container, whose pod is told by [`note_pod`].
pub fn note_container(spec: &ContainerSpec, id: Option<&ContainerId>) {
    note("container", &spec.metadata.name);
    note("image", &image(spec));
    if let Some(id) = id {
        note("container_id", id);
    }
}

/// The call under way makes the pod that it named before, with this id.
pub fn note_pod_id(id: &PodId) {
    note("pod_id", id);
}

/// The call under way makes the container that it named before, with this id.
pub fn note_container_id(id: &ContainerId) {
    note("container_id", id);
}

/// The call under way concerns this image.
pub fn note_image(name: &dyn Display) {
    note("image", name);
}

fn image(spec: &ContainerSpec) -> &str {
    if spec.user_specified_image.is_empty() { &spec.image } else { &spec.user_specified_image }
}

fn note(key: &str, value: &dyn Display) {
    let call = Span::current();
    if call.metadata().is_some_and(|call| call.target() == CALL) {
        call.record(key, field::display(value));
    }
}
