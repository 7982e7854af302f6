//! What RuntimeService does with processes beside a container's own, and with its streams and ports. What does not live here: the conversions (convert/).

use std::time::Duration;

use berth_proto::cri::v1;

use super::{Answer, answer, no_empty_id};
use crate::api::cri::Services;
use crate::api::cri::convert::streaming;
use crate::api::cri::status::status;
use crate::api::streaming::Promise;

/// The kubelet takes no larger message than 16 MiB: what of it is left for a command's output.
const EXEC_OUTPUT: usize = (16 << 20) - 64;

pub(super) async fn exec_sync(
    services: &Services,
    request: v1::ExecSyncRequest,
) -> Answer<v1::ExecSyncResponse> {
    no_empty_id(&request.container_id, "container_id")?;
    let limit = u64::try_from(request.timeout).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs);
    let output = services.containers.exec_sync(&request.container_id, request.cmd, limit).await;
    let output = output.map_err(status)?.fit(EXEC_OUTPUT);
    answer(v1::ExecSyncResponse { stdout: output.stdout, stderr: output.stderr, exit_code: output.exit_code })
}

pub(super) async fn exec(services: &Services, request: v1::ExecRequest) -> Answer<v1::ExecResponse> {
    no_empty_id(&request.container_id, "container_id")?;
    let id = request.container_id.clone();
    let request = streaming::exec(request)?;
    let id = services.containers.check_exec(&id).map_err(status)?;
    let url = services.streaming.promise(Promise::Exec(id, request))?;
    answer(v1::ExecResponse { url })
}

pub(super) async fn attach(services: &Services, request: v1::AttachRequest) -> Answer<v1::AttachResponse> {
    no_empty_id(&request.container_id, "container_id")?;
    let wanted = streaming::attach(&request)?;
    let id = services.containers.check_attach(&request.container_id, &wanted).map_err(status)?;
    let url = services.streaming.promise(Promise::Attach(id, wanted))?;
    answer(v1::AttachResponse { url })
}

pub(super) async fn port_forward(
    services: &Services,
    request: v1::PortForwardRequest,
) -> Answer<v1::PortForwardResponse> {
    no_empty_id(&request.pod_sandbox_id, "pod_sandbox_id")?;
    let ports = streaming::ports(&request.port)?;
    let id = services.pods.check_port_forward(&request.pod_sandbox_id).map_err(status)?;
    let url = services.streaming.promise(Promise::PortForward(id, ports))?;
    answer(v1::PortForwardResponse { url })
}
