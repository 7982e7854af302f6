//! What RuntimeService does with pod sandboxes. What does not live here: the conversions (convert/).

use berth_proto::cri::v1;

use super::{Answer, answer, no_empty_id};
use crate::api::cri::batches::{self, Batches};
use crate::api::cri::convert::{event, pod, resources};
use crate::api::cri::status::status;
use crate::api::cri::{Services, info};

pub(super) async fn run(
    services: &Services,
    request: v1::RunPodSandboxRequest,
) -> Answer<v1::RunPodSandboxResponse> {
    let spec = pod::spec(request.config, request.runtime_handler)?;
    let id = services.pods.run(spec).await.map_err(status)?;
    answer(v1::RunPodSandboxResponse { pod_sandbox_id: id.to_string() })
}

pub(super) async fn stop(
    services: &Services,
    request: v1::StopPodSandboxRequest,
) -> Answer<v1::StopPodSandboxResponse> {
    let id = request.pod_sandbox_id;
    no_empty_id(&id, "pod_sandbox_id")?;
    services.pods.stop(&id).await.map_err(status)?;
    answer(v1::StopPodSandboxResponse {})
}

pub(super) async fn remove(
    services: &Services,
    request: v1::RemovePodSandboxRequest,
) -> Answer<v1::RemovePodSandboxResponse> {
    let id = request.pod_sandbox_id;
    no_empty_id(&id, "pod_sandbox_id")?;
    services.pods.remove(&id).await.map_err(status)?;
    answer(v1::RemovePodSandboxResponse {})
}

pub(super) async fn show(
    services: &Services,
    request: v1::PodSandboxStatusRequest,
) -> Answer<v1::PodSandboxStatusResponse> {
    no_empty_id(&request.pod_sandbox_id, "pod_sandbox_id")?;
    let found = services.pods.look(&request.pod_sandbox_id).map_err(status)?;
    let drivers = &services.drivers;
    let info = if request.verbose { info::pod(drivers, &found.pod) } else { info::Info::new() };
    answer(v1::PodSandboxStatusResponse {
        status: Some(pod::status(&found)),
        info,
        containers_statuses: event::containers(&found),
        timestamp: found.at,
    })
}

pub(super) async fn list(
    services: &Services,
    request: v1::ListPodSandboxRequest,
) -> Answer<v1::ListPodSandboxResponse> {
    let found = services.pods.list(&pod::filter(request.filter));
    let items = batches::whole(found.iter().map(|found| pod::item(found)), "StreamPodSandboxes")?;
    answer(v1::ListPodSandboxResponse { items })
}

pub(super) async fn stream(
    services: &Services,
    request: v1::StreamPodSandboxesRequest,
) -> Answer<Batches<v1::StreamPodSandboxesResponse>> {
    let found = services.pods.list(&pod::filter(request.filter));
    let items = found.into_iter().map(|found| pod::item(&found));
    answer(batches::stream(items, |pod_sandboxes| v1::StreamPodSandboxesResponse { pod_sandboxes }))
}

pub(super) async fn update(
    services: &Services,
    request: v1::UpdatePodSandboxResourcesRequest,
) -> Answer<v1::UpdatePodSandboxResourcesResponse> {
    no_empty_id(&request.pod_sandbox_id, "pod_sandbox_id")?;
    let limits = resources::pod_limits(request.overhead, request.resources)?;
    services.pods.update(&request.pod_sandbox_id, limits).await.map_err(status)?;
    answer(v1::UpdatePodSandboxResourcesResponse {})
}
