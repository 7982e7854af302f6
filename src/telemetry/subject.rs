//! Whom a line of the log concerns: pod (`namespace/name`), pod_id, container, container_id and image are fields of
//! the span in which it is written. An RPC's span learns them as the call finds out (`note_*`); what happens without a
//! call has a span of its own (`pod`, `container`).

use std::fmt::Display;

use tracing::{Span, field, info_span};

use crate::containers::spec::ContainerSpec;
use crate::ids::{ContainerId, PodId};
use crate::pods::spec::PodMetadata;

/// The target of RPCs' spans: only those have fields to be filled in.
pub const CALL: &str = "berth::rpc";

/// For what happens to a pod and is no call's doing.
pub fn pod(name: &PodMetadata, id: &PodId) -> Span {
    info_span!(parent: None, "pod", pod = %name, pod_id = %id)
}

/// For what happens to a container and is no call's doing.
pub fn container(pod: (&PodMetadata, &PodId), spec: &ContainerSpec, id: &ContainerId) -> Span {
    info_span!(
        parent: None,
        "container",
        pod = %pod.0,
        pod_id = %pod.1,
        container = spec.metadata.name,
        container_id = %id,
        image = image(spec),
    )
}

/// The call under way concerns this pod.
pub fn note_pod(name: &PodMetadata, id: Option<&PodId>) {
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

/// The call under way concerns this pod or container, of which no more than its id is known yet.
pub fn note_id(field: &'static str, id: &dyn Display) {
    note(field, id);
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
