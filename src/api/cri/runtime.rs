//! RuntimeService: each RPC converts, calls the domain, converts back.

use std::collections::BTreeMap;
use std::time::Duration;

use berth_proto::cri::v1::{self, runtime_service_server::RuntimeService};
use tonic::{Request, Response, Status};

use super::batches::{self, Batches};
use super::convert::{Invalid, container, container_status, event, pod, resources, streaming};
use super::status::{status, unimplemented};
use super::{Services, info, usage, watch};
use crate::api::streaming::Promise;
use crate::containers::ContainerSnapshot;

/// The kubelet takes no larger message than 16 MiB: what of it is left for a command's output.
const EXEC_OUTPUT: usize = (16 << 20) - 64;

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
        let request = request.into_inner();
        let spec = pod::spec(request.config, request.runtime_handler)?;
        let id = self.services.pods.run(spec).await.map_err(status)?;
        answer(v1::RunPodSandboxResponse { pod_sandbox_id: id.to_string() })
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<v1::StopPodSandboxRequest>,
    ) -> Answer<v1::StopPodSandboxResponse> {
        let id = request.into_inner().pod_sandbox_id;
        no_empty_id(&id, "pod_sandbox_id")?;
        self.services.pods.stop(&id).await.map_err(status)?;
        answer(v1::StopPodSandboxResponse {})
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<v1::RemovePodSandboxRequest>,
    ) -> Answer<v1::RemovePodSandboxResponse> {
        let id = request.into_inner().pod_sandbox_id;
        no_empty_id(&id, "pod_sandbox_id")?;
        self.services.pods.remove(&id).await.map_err(status)?;
        answer(v1::RemovePodSandboxResponse {})
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<v1::PodSandboxStatusRequest>,
    ) -> Answer<v1::PodSandboxStatusResponse> {
        let request = request.into_inner();
        no_empty_id(&request.pod_sandbox_id, "pod_sandbox_id")?;
        let found = self.services.pods.look(&request.pod_sandbox_id).map_err(status)?;
        let drivers = &self.services.drivers;
        let info = if request.verbose { info::pod(drivers, &found.pod)? } else { BTreeMap::new() };
        answer(v1::PodSandboxStatusResponse {
            status: Some(pod::status(&found)),
            info,
            containers_statuses: event::containers(&found),
            timestamp: found.at,
        })
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<v1::ListPodSandboxRequest>,
    ) -> Answer<v1::ListPodSandboxResponse> {
        let found = self.services.pods.list(&pod::filter(request.into_inner().filter));
        let items = batches::whole(found.iter().map(|found| pod::item(found)), "StreamPodSandboxes")?;
        answer(v1::ListPodSandboxResponse { items })
    }

    async fn create_container(
        &self,
        request: Request<v1::CreateContainerRequest>,
    ) -> Answer<v1::CreateContainerResponse> {
        let request = request.into_inner();
        no_empty_id(&request.pod_sandbox_id, "pod_sandbox_id")?;
        let pod = self.services.pods.find(&request.pod_sandbox_id).map_err(status)?;
        let spec = container::spec(request.config, &pod.sandbox.spec)?;
        let made = self.services.containers.create(pod.sandbox.clone(), spec).await.map_err(status)?;
        answer(v1::CreateContainerResponse { container_id: made.id.to_string() })
    }

    async fn start_container(
        &self,
        request: Request<v1::StartContainerRequest>,
    ) -> Answer<v1::StartContainerResponse> {
        let id = request.into_inner().container_id;
        no_empty_id(&id, "container_id")?;
        self.services.containers.start(&id).await.map_err(status)?;
        answer(v1::StartContainerResponse {})
    }

    async fn stop_container(
        &self,
        request: Request<v1::StopContainerRequest>,
    ) -> Answer<v1::StopContainerResponse> {
        let request = request.into_inner();
        no_empty_id(&request.container_id, "container_id")?;
        let grace = Duration::from_secs(u64::try_from(request.timeout).unwrap_or(0));
        self.services.containers.stop(&request.container_id, grace).await.map_err(status)?;
        answer(v1::StopContainerResponse {})
    }

    async fn remove_container(
        &self,
        request: Request<v1::RemoveContainerRequest>,
    ) -> Answer<v1::RemoveContainerResponse> {
        let id = request.into_inner().container_id;
        no_empty_id(&id, "container_id")?;
        self.services.containers.remove(&id).await.map_err(status)?;
        answer(v1::RemoveContainerResponse {})
    }

    async fn list_containers(
        &self,
        request: Request<v1::ListContainersRequest>,
    ) -> Answer<v1::ListContainersResponse> {
        let found = self.services.containers.list(&container::filter(request.into_inner().filter));
        answer(batches::containers(&found, "StreamContainers")?)
    }

    async fn container_status(
        &self,
        request: Request<v1::ContainerStatusRequest>,
    ) -> Answer<v1::ContainerStatusResponse> {
        let request = request.into_inner();
        no_empty_id(&request.container_id, "container_id")?;
        let found = self.services.containers.find(&request.container_id).map_err(status)?;
        let info =
            if request.verbose { info::container(&self.services.drivers, &found)? } else { BTreeMap::new() };
        let status = container_status::status(&ContainerSnapshot::now(found));
        answer(v1::ContainerStatusResponse { status: Some(status), info })
    }

    async fn reopen_container_log(
        &self,
        request: Request<v1::ReopenContainerLogRequest>,
    ) -> Answer<v1::ReopenContainerLogResponse> {
        let id = request.into_inner().container_id;
        no_empty_id(&id, "container_id")?;
        self.services.containers.reopen_log(&id).await.map_err(status)?;
        answer(v1::ReopenContainerLogResponse {})
    }

    async fn exec_sync(&self, request: Request<v1::ExecSyncRequest>) -> Answer<v1::ExecSyncResponse> {
        let request = request.into_inner();
        no_empty_id(&request.container_id, "container_id")?;
        let limit =
            u64::try_from(request.timeout).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs);
        let output = self.services.containers.exec_sync(&request.container_id, request.cmd, limit).await;
        let output = output.map_err(status)?.fit(EXEC_OUTPUT);
        answer(v1::ExecSyncResponse {
            stdout: output.stdout,
            stderr: output.stderr,
            exit_code: output.exit_code,
        })
    }

    async fn exec(&self, request: Request<v1::ExecRequest>) -> Answer<v1::ExecResponse> {
        let request = request.into_inner();
        no_empty_id(&request.container_id, "container_id")?;
        let id = request.container_id.clone();
        let request = streaming::exec(request)?;
        let id = self.services.containers.check_exec(&id).map_err(status)?;
        let url = self.services.streaming.promise(Promise::Exec(id, request))?;
        answer(v1::ExecResponse { url })
    }

    async fn attach(&self, request: Request<v1::AttachRequest>) -> Answer<v1::AttachResponse> {
        let request = request.into_inner();
        no_empty_id(&request.container_id, "container_id")?;
        let wanted = streaming::attach(&request)?;
        let id = self.services.containers.check_attach(&request.container_id, &wanted).map_err(status)?;
        let url = self.services.streaming.promise(Promise::Attach(id, wanted))?;
        answer(v1::AttachResponse { url })
    }

    async fn port_forward(
        &self,
        request: Request<v1::PortForwardRequest>,
    ) -> Answer<v1::PortForwardResponse> {
        let request = request.into_inner();
        no_empty_id(&request.pod_sandbox_id, "pod_sandbox_id")?;
        let ports = streaming::ports(&request.port)?;
        let id = self.services.pods.check_port_forward(&request.pod_sandbox_id).map_err(status)?;
        let url = self.services.streaming.promise(Promise::PortForward(id, ports))?;
        answer(v1::PortForwardResponse { url })
    }

    type StreamPodSandboxesStream = Batches<v1::StreamPodSandboxesResponse>;
    type StreamContainersStream = Batches<v1::StreamContainersResponse>;

    async fn stream_pod_sandboxes(
        &self,
        request: Request<v1::StreamPodSandboxesRequest>,
    ) -> Answer<Self::StreamPodSandboxesStream> {
        let found = self.services.pods.list(&pod::filter(request.into_inner().filter));
        let items = found.into_iter().map(|found| pod::item(&found));
        answer(batches::stream(items, |pod_sandboxes| v1::StreamPodSandboxesResponse { pod_sandboxes }))
    }

    async fn stream_containers(
        &self,
        request: Request<v1::StreamContainersRequest>,
    ) -> Answer<Self::StreamContainersStream> {
        let found = self.services.containers.list(&container::filter(request.into_inner().filter));
        let items = found.into_iter().map(|found| container_status::item(&found));
        answer(batches::stream(items, |containers| v1::StreamContainersResponse { containers }))
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
        let request = request.into_inner();
        no_empty_id(&request.container_id, "container_id")?;
        let change = resources::change_from_cri(request.linux)?;
        let updated = self.services.containers.update(&request.container_id, change, request.annotations);
        updated.await.map_err(status)?;
        answer(v1::UpdateContainerResourcesResponse {})
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: Request<v1::UpdatePodSandboxResourcesRequest>,
    ) -> Answer<v1::UpdatePodSandboxResourcesResponse> {
        let request = request.into_inner();
        no_empty_id(&request.pod_sandbox_id, "pod_sandbox_id")?;
        let limits = resources::pod_limits(request.overhead, request.resources)?;
        self.services.pods.update(&request.pod_sandbox_id, limits).await.map_err(status)?;
        answer(v1::UpdatePodSandboxResourcesResponse {})
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
