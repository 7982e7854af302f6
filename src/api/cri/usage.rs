//! What the stats and metrics RPCs of RuntimeService do. What does not live here: the messages (convert/, metrics/).

use std::path::PathBuf;

use berth_proto::cri::v1;
use tonic::Status;

use super::batches::{self, Batches};
use super::convert::{Invalid, stats as convert};
use super::status::status;
use super::{Services, metrics};

pub(super) async fn container(services: &Services, id: &str) -> Result<v1::ContainerStats, Status> {
    if id.is_empty() {
        return Err(Invalid::new("container_id", "is empty").into());
    }
    let stats = services.containers.stats(id).await.map_err(status)?;
    Ok(convert::container(&stats, services.drivers.layout.root()))
}

pub(super) async fn containers(
    services: &Services,
    filter: Option<v1::ContainerStatsFilter>,
) -> Result<Vec<v1::ContainerStats>, Status> {
    batches::whole(all_containers(services, filter).await, "StreamContainerStats")
}

pub(super) async fn stream_containers(
    services: &Services,
    filter: Option<v1::ContainerStatsFilter>,
) -> Batches<v1::StreamContainerStatsResponse> {
    batches::stream(all_containers(services, filter).await, |container_stats| {
        v1::StreamContainerStatsResponse { container_stats }
    })
}

async fn all_containers(
    services: &Services,
    filter: Option<v1::ContainerStatsFilter>,
) -> impl Iterator<Item = v1::ContainerStats> + Send + use<> {
    let (found, root) =
        (services.containers.list_stats(convert::container_filter(filter)).await, root(services));
    found.into_iter().map(move |stats| convert::container(&stats, &root))
}

pub(super) async fn pod(services: &Services, id: &str) -> Result<v1::PodSandboxStats, Status> {
    if id.is_empty() {
        return Err(Invalid::new("pod_sandbox_id", "is empty").into());
    }
    let stats = services.pods.stats(id).await.map_err(status)?;
    Ok(convert::pod(&stats, services.drivers.layout.root()))
}

pub(super) async fn pods(
    services: &Services,
    filter: Option<v1::PodSandboxStatsFilter>,
) -> Result<Vec<v1::PodSandboxStats>, Status> {
    batches::whole(all_pods(services, filter).await, "StreamPodSandboxStats")
}

pub(super) async fn stream_pods(
    services: &Services,
    filter: Option<v1::PodSandboxStatsFilter>,
) -> Batches<v1::StreamPodSandboxStatsResponse> {
    batches::stream(all_pods(services, filter).await, |pod_sandbox_stats| v1::StreamPodSandboxStatsResponse {
        pod_sandbox_stats,
    })
}

async fn all_pods(
    services: &Services,
    filter: Option<v1::PodSandboxStatsFilter>,
) -> impl Iterator<Item = v1::PodSandboxStats> + Send + use<> {
    let (found, root) = (services.pods.list_stats(convert::pod_filter(filter)).await, root(services));
    found.into_iter().map(move |stats| convert::pod(&stats, &root))
}

pub(super) fn metric_descriptors(services: &Services) -> Vec<v1::MetricDescriptor> {
    metrics::descriptors(&services.drivers.cgroups.sources())
}

pub(super) async fn pod_metrics(services: &Services) -> Result<Vec<v1::PodSandboxMetrics>, Status> {
    batches::whole(all_metrics(services).await, "StreamPodSandboxMetrics")
}

pub(super) async fn stream_metrics(services: &Services) -> Batches<v1::StreamPodSandboxMetricsResponse> {
    batches::stream(all_metrics(services).await, |pod_sandbox_metrics| v1::StreamPodSandboxMetricsResponse {
        pod_sandbox_metrics,
    })
}

async fn all_metrics(services: &Services) -> impl Iterator<Item = v1::PodSandboxMetrics> + Send + use<> {
    let (found, mode) = (services.pods.metrics().await, services.drivers.cgroups.mode());
    found.pods.into_iter().map(move |stats| metrics::pod(&stats, found.file_system.as_ref(), mode))
}

fn root(services: &Services) -> PathBuf {
    services.drivers.layout.root().to_path_buf()
}
