//! Events as CRI's ContainerEventResponse, and the looks at pods that they carry.

use berth_proto::cri::v1;

use super::{container_status, pod};
use crate::events::Happening;
use crate::pods::{PodSnapshot, Sight};

/// An event with the whole pod as it was right after it.
pub(in crate::api::cri) fn event(sight: &Sight) -> v1::ContainerEventResponse {
    let what = match sight.event.what {
        Happening::Created => v1::ContainerEventType::ContainerCreatedEvent,
        Happening::Started => v1::ContainerEventType::ContainerStartedEvent,
        Happening::Stopped => v1::ContainerEventType::ContainerStoppedEvent,
        Happening::Deleted => v1::ContainerEventType::ContainerDeletedEvent,
    };
    v1::ContainerEventResponse {
        container_id: sight.event.id.clone(),
        container_event_type: what.into(),
        created_at: sight.event.at,
        pod_sandbox_status: sight.pod.as_ref().map(pod::status),
        containers_statuses: sight.pod.as_ref().map_or_else(Vec::new, containers),
    }
}

/// The statuses of all containers of a pod, oldest first.
pub(in crate::api::cri) fn containers(pod: &PodSnapshot) -> Vec<v1::ContainerStatus> {
    pod.containers.iter().map(container_status::status).collect()
}
