//! What RuntimeService does with containers. What does not live here: the conversions (convert/).

use std::time::Duration;

use berth_proto::cri::v1;

use super::{Answer, answer, no_empty_id};
use crate::api::cri::batches::{self, Batches};
use crate::api::cri::convert::{container, container_status, resources};
use crate::api::cri::status::status;
use crate::api::cri::{Services, info};
use crate::containers::ContainerSnapshot;

pub(super) async fn create(
    services: &Services,
    request: v1::CreateContainerRequest,
) -> Answer<v1::CreateContainerResponse> {
    no_empty_id(&request.pod_sandbox_id, "pod_sandbox_id")?;
    let pod = services.pods.find(&request.pod_sandbox_id).map_err(status)?;
    let spec = container::spec(request.config, &pod.sandbox.spec)?;
    let made = services.containers.create(pod.sandbox.clone(), spec).await.map_err(status)?;
    answer(v1::CreateContainerResponse { container_id: made.id.to_string() })
}

pub(super) async fn start(
    services: &Services,
    request: v1::StartContainerRequest,
) -> Answer<v1::StartContainerResponse> {
    let id = request.container_id;
    no_empty_id(&id, "container_id")?;
    services.containers.start(&id).await.map_err(status)?;
    answer(v1::StartContainerResponse {})
}

pub(super) async fn stop(
    services: &Services,
    request: v1::StopContainerRequest,
) -> Answer<v1::StopContainerResponse> {
    no_empty_id(&request.container_id, "container_id")?;
    let grace = Duration::from_secs(u64::try_from(request.timeout).unwrap_or(0));
    services.containers.stop(&request.container_id, grace).await.map_err(status)?;
    answer(v1::StopContainerResponse {})
}

pub(super) async fn remove(
    services: &Services,
    request: v1::RemoveContainerRequest,
) -> Answer<v1::RemoveContainerResponse> {
    let id = request.container_id;
    no_empty_id(&id, "container_id")?;
    services.containers.remove(&id).await.map_err(status)?;
    answer(v1::RemoveContainerResponse {})
}

pub(super) async fn list(
    services: &Services,
    request: v1::ListContainersRequest,
) -> Answer<v1::ListContainersResponse> {
    let found = services.containers.list(&container::filter(request.filter));
    answer(batches::containers(&found, "StreamContainers")?)
}

pub(super) async fn show(
    services: &Services,
    request: v1::ContainerStatusRequest,
) -> Answer<v1::ContainerStatusResponse> {
    no_empty_id(&request.container_id, "container_id")?;
    let found = services.containers.find(&request.container_id).map_err(status)?;
    let info = if request.verbose { info::container(&services.drivers, &found) } else { info::Info::new() };
    let status = container_status::status(&ContainerSnapshot::now(found));
    answer(v1::ContainerStatusResponse { status: Some(status), info })
}

pub(super) async fn stream(
    services: &Services,
    request: v1::StreamContainersRequest,
) -> Answer<Batches<v1::StreamContainersResponse>> {
    let found = services.containers.list(&container::filter(request.filter));
    let items = found.into_iter().map(|found| container_status::item(&found));
    answer(batches::stream(items, |containers| v1::StreamContainersResponse { containers }))
}

pub(super) async fn reopen_log(
    services: &Services,
    request: v1::ReopenContainerLogRequest,
) -> Answer<v1::ReopenContainerLogResponse> {
    let id = request.container_id;
    no_empty_id(&id, "container_id")?;
    services.containers.reopen_log(&id).await.map_err(status)?;
    answer(v1::ReopenContainerLogResponse {})
}

pub(super) async fn update(
    services: &Services,
    request: v1::UpdateContainerResourcesRequest,
) -> Answer<v1::UpdateContainerResourcesResponse> {
    no_empty_id(&request.container_id, "container_id")?;
    let change = resources::change_from_cri(request.linux)?;
    let updated = services.containers.update(&request.container_id, change, request.annotations);
    updated.await.map_err(status)?;
    answer(v1::UpdateContainerResourcesResponse {})
}
