//! RuntimeService: each RPC converts, calls the domain, converts back; a file for each noun.

mod containers;
mod pods;
mod sessions;

use berth_proto::cri::v1::{self, runtime_service_server::RuntimeService};
use tonic::{Request, Response, Status};

use super::batches::Batches;
use super::convert::Invalid;
use super::status::unimplemented;
use super::{Services, info, usage, watch};

/// CRI RuntimeService.
#[derive(Clone)]
pub struct RuntimeApi {
    services: Services,
}

impl RuntimeApi {
    /// Over the daemon's services.
    pub fn new(services: Services) -> Self {
        Self { services }
    }
}

type Answer<T> = Result<Response<T>, Status>;

fn answer<T>(message: T) -> Answer<T> {
    Ok(Response::new(message))
}

fn no_empty_id(id: &str, field: &str) -> Result<(), Status> {
    if id.is_empty() { Err(Invalid::new(field, "is empty").into()) } else { Ok(()) }
}

#[tonic::async_trait]
impl RuntimeService for RuntimeApi {
    async fn version(&self, _: Request<v1::VersionRequest>) -> Answer<v1::VersionResponse> {
        answer(v1::VersionResponse {
            version: "0.1.0".into(),
            runtime_name: "berth".into(),
            runtime_version: env!("CARGO_PKG_VERSION").into(),
            runtime_api_version: "v1".into(),
        })
    }

    async fn status(&self, request: Request<v1::StatusRequest>) -> Answer<v1::StatusResponse> {
        answer(info::status(&self.services, request.into_inner().verbose).await)
    }

    async fn runtime_config(
        &self,
        _: Request<v1::RuntimeConfigRequest>,
    ) -> Answer<v1::RuntimeConfigResponse> {
        answer(info::runtime_config(&self.services.drivers))
    }

    async fn update_runtime_config(
        &self,
        request: Request<v1::UpdateRuntimeConfigRequest>,
    ) -> Answer<v1::UpdateRuntimeConfigResponse> {
        let network = request.into_inner().runtime_config.and_then(|config| config.network_config);
        let pod_cidr = network.unwrap_or_default().pod_cidr;
        if !pod_cidr.is_empty() {
            let set = self.services.drivers.network.set_pod_cidr(&pod_cidr).await;
            set.map_err(|error| Status::invalid_argument(crate::error::chain(&error)))?;
        }
        answer(v1::UpdateRuntimeConfigResponse {})
    }

    async fn run_pod_sandbox(
        &self,
        request: Request<v1::RunPodSandboxRequest>,
    ) -> Answer<v1::RunPodSandboxResponse> {
        pods::run(&self.services, request.into_inner()).await
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<v1::StopPodSandboxRequest>,
    ) -> Answer<v1::StopPodSandboxResponse> {
        pods::stop(&self.services, request.into_inner()).await
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<v1::RemovePodSandboxRequest>,
    ) -> Answer<v1::RemovePodSandboxResponse> {
        pods::remove(&self.services, request.into_inner()).await
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<v1::PodSandboxStatusRequest>,
    ) -> Answer<v1::PodSandboxStatusResponse> {
        pods::show(&self.services, request.into_inner()).await
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<v1::ListPodSandboxRequest>,
    ) -> Answer<v1::ListPodSandboxResponse> {
        pods::list(&self.services, request.into_inner()).await
    }

    async fn create_container(
        &self,
        request: Request<v1::CreateContainerRequest>,
    ) -> Answer<v1::CreateContainerResponse> {
        containers::create(&self.services, request.into_inner()).await
    }

    async fn start_container(
        &self,
        request: Request<v1::StartContainerRequest>,
    ) -> Answer<v1::StartContainerResponse> {
        containers::start(&self.services, request.into_inner()).await
    }

    async fn stop_container(
        &self,
        request: Request<v1::StopContainerRequest>,
    ) -> Answer<v1::StopContainerResponse> {
        containers::stop(&self.services, request.into_inner()).await
    }

    async fn remove_container(
        &self,
        request: Request<v1::RemoveContainerRequest>,
    ) -> Answer<v1::RemoveContainerResponse> {
        containers::remove(&self.services, request.into_inner()).await
    }

    async fn list_containers(
        &self,
        request: Request<v1::ListContainersRequest>,
    ) -> Answer<v1::ListContainersResponse> {
        containers::list(&self.services, request.into_inner()).await
    }

    async fn container_status(
        &self,
        request: Request<v1::ContainerStatusRequest>,
    ) -> Answer<v1::ContainerStatusResponse> {
        containers::show(&self.services, request.into_inner()).await
    }

    async fn reopen_container_log(
        &self,
        request: Request<v1::ReopenContainerLogRequest>,
    ) -> Answer<v1::ReopenContainerLogResponse> {
        containers::reopen_log(&self.services, request.into_inner()).await
    }

    async fn exec_sync(&self, request: Request<v1::ExecSyncRequest>) -> Answer<v1::ExecSyncResponse> {
        sessions::exec_sync(&self.services, request.into_inner()).await
    }

    async fn exec(&self, request: Request<v1::ExecRequest>) -> Answer<v1::ExecResponse> {
        sessions::exec(&self.services, request.into_inner()).await
    }

    async fn attach(&self, request: Request<v1::AttachRequest>) -> Answer<v1::AttachResponse> {
        sessions::attach(&self.services, request.into_inner()).await
    }

    async fn port_forward(
        &self,
        request: Request<v1::PortForwardRequest>,
    ) -> Answer<v1::PortForwardResponse> {
        sessions::port_forward(&self.services, request.into_inner()).await
    }

    type StreamPodSandboxesStream = Batches<v1::StreamPodSandboxesResponse>;
    type StreamContainersStream = Batches<v1::StreamContainersResponse>;

    async fn stream_pod_sandboxes(
        &self,
        request: Request<v1::StreamPodSandboxesRequest>,
    ) -> Answer<Self::StreamPodSandboxesStream> {
        pods::stream(&self.services, request.into_inner()).await
    }

    async fn stream_containers(
        &self,
        request: Request<v1::StreamContainersRequest>,
    ) -> Answer<Self::StreamContainersStream> {
        containers::stream(&self.services, request.into_inner()).await
    }

    type GetContainerEventsStream = Batches<v1::ContainerEventResponse>;

    async fn get_container_events(
        &self,
        _: Request<v1::GetEventsRequest>,
    ) -> Answer<Self::GetContainerEventsStream> {
        answer(watch::events(&self.services.pods))
    }

    async fn update_container_resources(
        &self,
        request: Request<v1::UpdateContainerResourcesRequest>,
    ) -> Answer<v1::UpdateContainerResourcesResponse> {
        containers::update(&self.services, request.into_inner()).await
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: Request<v1::UpdatePodSandboxResourcesRequest>,
    ) -> Answer<v1::UpdatePodSandboxResourcesResponse> {
        pods::update(&self.services, request.into_inner()).await
    }

    // What follows comes with later versions.

    type StreamContainerStatsStream = Batches<v1::StreamContainerStatsResponse>;
    type StreamPodSandboxStatsStream = Batches<v1::StreamPodSandboxStatsResponse>;
    type StreamPodSandboxMetricsStream = Batches<v1::StreamPodSandboxMetricsResponse>;

    async fn container_stats(
        &self,
        request: Request<v1::ContainerStatsRequest>,
    ) -> Answer<v1::ContainerStatsResponse> {
        let stats = Some(usage::container(&self.services, &request.into_inner().container_id).await?);
        answer(v1::ContainerStatsResponse { stats })
    }

    async fn list_container_stats(
        &self,
        request: Request<v1::ListContainerStatsRequest>,
    ) -> Answer<v1::ListContainerStatsResponse> {
        let stats = usage::containers(&self.services, request.into_inner().filter).await?;
        answer(v1::ListContainerStatsResponse { stats })
    }

    async fn pod_sandbox_stats(
        &self,
        request: Request<v1::PodSandboxStatsRequest>,
    ) -> Answer<v1::PodSandboxStatsResponse> {
        let stats = Some(usage::pod(&self.services, &request.into_inner().pod_sandbox_id).await?);
        answer(v1::PodSandboxStatsResponse { stats })
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<v1::ListPodSandboxStatsRequest>,
    ) -> Answer<v1::ListPodSandboxStatsResponse> {
        let stats = usage::pods(&self.services, request.into_inner().filter).await?;
        answer(v1::ListPodSandboxStatsResponse { stats })
    }

    async fn checkpoint_container(
        &self,
        _: Request<v1::CheckpointContainerRequest>,
    ) -> Answer<v1::CheckpointContainerResponse> {
        unimplemented("CheckpointContainer")
    }

    async fn checkpoint_pod(
        &self,
        _: Request<v1::CheckpointPodRequest>,
    ) -> Answer<v1::CheckpointPodResponse> {
        unimplemented("CheckpointPod")
    }

    async fn restore_pod(&self, _: Request<v1::RestorePodRequest>) -> Answer<v1::RestorePodResponse> {
        unimplemented("RestorePod")
    }

    async fn list_metric_descriptors(
        &self,
        _: Request<v1::ListMetricDescriptorsRequest>,
    ) -> Answer<v1::ListMetricDescriptorsResponse> {
        let descriptors = usage::metric_descriptors(&self.services);
        answer(v1::ListMetricDescriptorsResponse { descriptors })
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<v1::ListPodSandboxMetricsRequest>,
    ) -> Answer<v1::ListPodSandboxMetricsResponse> {
        let pod_metrics = usage::pod_metrics(&self.services).await?;
        answer(v1::ListPodSandboxMetricsResponse { pod_metrics })
    }

    async fn stream_container_stats(
        &self,
        request: Request<v1::StreamContainerStatsRequest>,
    ) -> Answer<Self::StreamContainerStatsStream> {
        answer(usage::stream_containers(&self.services, request.into_inner().filter).await)
    }

    async fn stream_pod_sandbox_stats(
        &self,
        request: Request<v1::StreamPodSandboxStatsRequest>,
    ) -> Answer<Self::StreamPodSandboxStatsStream> {
        answer(usage::stream_pods(&self.services, request.into_inner().filter).await)
    }

    async fn stream_pod_sandbox_metrics(
        &self,
        _: Request<v1::StreamPodSandboxMetricsRequest>,
    ) -> Answer<Self::StreamPodSandboxMetricsStream> {
        answer(usage::stream_metrics(&self.services).await)
    }
}
