//! A runtime's socket, Berth's or another's: does it answer, and its pods stopped and removed. What does not live here:
//! when that is due.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use berth_proto::admin::v1::DumpRequest;
use berth_proto::admin::v1::admin_client::AdminClient;
use berth_proto::cri::v1::runtime_service_client::RuntimeServiceClient;
use berth_proto::cri::v1::{
    ListPodSandboxRequest, RemovePodSandboxRequest, StatusRequest, StopPodSandboxRequest, VersionRequest,
};
use tonic::transport::Channel;

use super::NodeError;
use crate::activity::Verb;
use crate::channel;

/// Largest answer taken.
const MESSAGE: usize = 16 << 20;
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);
/// How long one pod may take to be stopped: its containers are killed, and plugins take its network apart.
const POD: Duration = Duration::from_secs(60);

/// A runtime that answers.
pub(super) struct Runtime {
    socket: PathBuf,
    client: RuntimeServiceClient<Channel>,
    /// If it is Berth.
    admin: AdminClient<Channel>,
}

impl Runtime {
    /// Fails if nobody answers.
    pub(super) async fn connect(socket: &Path) -> Result<Self, NodeError> {
        let channel = channel::connect(socket).await.map_err(|error| NodeError::Runtime {
            socket: socket.into(),
            call: "a connection",
            why: error.to_string(),
        })?;
        let client = RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MESSAGE);
        let admin = AdminClient::new(channel).max_decoding_message_size(MESSAGE);
        Ok(Self { socket: socket.into(), client, admin })
    }

    /// Its name and version, once it says that it is ready for pods.
    pub(super) async fn ready(&mut self) -> Result<String, NodeError> {
        let status = self.client.status(StatusRequest::default()).await;
        let status = status.map_err(|status| self.refused("Status", &status))?.into_inner();
        let conditions = status.status.unwrap_or_default().conditions;
        if let Some(bad) = conditions.iter().find(|found| found.r#type == "RuntimeReady" && !found.status) {
            let why = format!("not ready: {} {}", bad.reason, bad.message);
            return Err(NodeError::Runtime { socket: self.socket.clone(), call: "Status", why });
        }
        let version = self.client.version(VersionRequest::default()).await;
        let version = version.map_err(|status| self.refused("Version", &status))?.into_inner();
        Ok(format!("{} {}", version.runtime_name, version.runtime_version))
    }

    /// Ids of all pods.
    pub(super) async fn pods(&mut self) -> Result<Vec<String>, NodeError> {
        let listed = self.client.list_pod_sandbox(ListPodSandboxRequest::default()).await;
        let listed = listed.map_err(|status| self.refused("ListPodSandbox", &status))?;
        Ok(listed.into_inner().items.into_iter().map(|pod| pod.id).collect())
    }

    /// Waits until no pod is being made: Berth ends what a kubelet has begun that is gone since, and lists a pod when it is
    /// there. Another runtime gives up with its client, and has no such call.
    pub(super) async fn settle(&mut self) {
        let (verb, end) = (format!("{:?}", Verb::RunPodSandbox), Instant::now() + POD);
        while let Ok(dump) = self.admin.dump(DumpRequest {}).await {
            if Instant::now() > end || dump.into_inner().calls.iter().all(|call| call.verb != verb) {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Stops all pods; how many there were. What can't be stopped is told and left: the kubelet that comes next has to
    /// live with it, and would not live better without having come.
    pub(super) async fn stop_pods(&mut self) -> Result<usize, NodeError> {
        let pods = self.pods().await?;
        for id in &pods {
            let request = StopPodSandboxRequest { pod_sandbox_id: id.clone() };
            let stopped = tokio::time::timeout(POD, self.client.stop_pod_sandbox(request)).await;
            report("stop", id, stopped);
        }
        Ok(pods.len())
    }

    /// Removes all pods.
    pub(super) async fn remove_pods(&mut self) -> Result<(), NodeError> {
        for id in self.pods().await? {
            let request = RemovePodSandboxRequest { pod_sandbox_id: id.clone() };
            let removed = tokio::time::timeout(POD, self.client.remove_pod_sandbox(request)).await;
            report("remove", &id, removed);
        }
        Ok(())
    }

    fn refused(&self, call: &'static str, status: &tonic::Status) -> NodeError {
        NodeError::Runtime { socket: self.socket.clone(), call, why: status.message().to_owned() }
    }
}

fn report<T>(verb: &str, id: &str, done: Result<Result<T, tonic::Status>, tokio::time::error::Elapsed>) {
    let why = match done {
        Ok(Ok(_)) => return,
        Ok(Err(status)) => status.message().to_owned(),
        Err(_) => format!("no answer in {} seconds", POD.as_secs()),
    };
    tracing::warn!(pod = id, why, "cannot {verb} a pod");
}

/// Waits until a runtime is ready; its name and version.
pub(super) async fn wait(socket: &Path, patience: Duration) -> Result<String, NodeError> {
    let end = Instant::now() + patience;
    let ask = async || Runtime::connect(socket).await?.ready().await;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let why = match tokio::time::timeout(left, ask()).await {
            Ok(Ok(version)) => return Ok(version),
            Ok(Err(NodeError::Runtime { why, .. })) => why,
            Ok(Err(error)) => return Err(error),
            Err(_) => "no answer".into(),
        };
        if end.saturating_duration_since(Instant::now()) < PAUSE {
            return Err(NodeError::Silent { socket: socket.into(), patience, why });
        }
        tokio::time::sleep(PAUSE).await;
    }
}
