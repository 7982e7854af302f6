//! The CRI client of the tests: our own binding over a unix socket. Errors are the server's own statuses, because
//! codes and messages are what tests look at.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use berth_proto::cri::v1::image_service_client::ImageServiceClient;
use berth_proto::cri::v1::runtime_service_client::RuntimeServiceClient;
use berth_proto::cri::v1::*;
use tokio::net::UnixStream;
use tonic::Status;
use tonic::transport::{Channel, Endpoint, Uri};

/// What a call gives.
pub type Reply<T> = Result<T, Status>;

/// Both services of one runtime.
#[derive(Clone, Debug)]
pub struct Client {
    /// The generated client of RuntimeService, for calls that have no method here.
    pub runtime: RuntimeServiceClient<Channel>,
    /// The generated client of ImageService.
    pub images: ImageServiceClient<Channel>,
}

/// A channel to a gRPC server on a unix socket.
pub async fn channel(socket: &Path) -> Result<Channel, tonic::transport::Error> {
    let socket: PathBuf = socket.into();
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(hyper_util::rt::TokioIo::new) }
    });
    // A call that hangs is a failure of its own; nothing that a test asks for takes this long.
    let endpoint =
        Endpoint::from_static("http://runtime.sock").timeout(crate::bound(Duration::from_secs(120)));
    endpoint.connect_with_connector(connector).await
}

impl Client {
    /// Connects; fails if nobody listens.
    pub async fn connect(socket: &Path) -> anyhow::Result<Self> {
        let channel = channel(socket).await?;
        let size = 16 << 20;
        Ok(Self {
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(size),
            images: ImageServiceClient::new(channel).max_decoding_message_size(size),
        })
    }

    /// RunPodSandbox with the default handler.
    pub async fn run_pod(&self, config: &PodSandboxConfig) -> Reply<String> {
        self.run_pod_with(config, "").await
    }

    /// RunPodSandbox.
    pub async fn run_pod_with(&self, config: &PodSandboxConfig, handler: &str) -> Reply<String> {
        let request = RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: handler.into() };
        Ok(self.runtime.clone().run_pod_sandbox(request).await?.into_inner().pod_sandbox_id)
    }

    /// StopPodSandbox.
    pub async fn stop_pod(&self, id: &str) -> Reply<()> {
        let request = StopPodSandboxRequest { pod_sandbox_id: id.into() };
        self.runtime.clone().stop_pod_sandbox(request).await.map(drop)
    }

    /// RemovePodSandbox.
    pub async fn remove_pod(&self, id: &str) -> Reply<()> {
        let request = RemovePodSandboxRequest { pod_sandbox_id: id.into() };
        self.runtime.clone().remove_pod_sandbox(request).await.map(drop)
    }

    /// Stop and remove, as the kubelet does.
    pub async fn end_pod(&self, id: &str) -> Reply<()> {
        self.stop_pod(id).await?;
        self.remove_pod(id).await
    }

    /// PodSandboxStatus.
    pub async fn pod_status(&self, id: &str) -> Reply<PodSandboxStatus> {
        let request = PodSandboxStatusRequest { pod_sandbox_id: id.into(), verbose: false };
        let reply = self.runtime.clone().pod_sandbox_status(request).await?.into_inner();
        reply.status.ok_or_else(|| Status::internal("the reply holds no status"))
    }

    /// ListPodSandbox.
    pub async fn pods(&self, filter: Option<PodSandboxFilter>) -> Reply<Vec<PodSandbox>> {
        Ok(self.runtime.clone().list_pod_sandbox(ListPodSandboxRequest { filter }).await?.into_inner().items)
    }

    /// CreateContainer.
    pub async fn create(
        &self,
        pod: &str,
        spec: &ContainerConfig,
        config: &PodSandboxConfig,
    ) -> Reply<String> {
        let request = CreateContainerRequest {
            pod_sandbox_id: pod.into(),
            config: Some(spec.clone()),
            sandbox_config: Some(config.clone()),
        };
        Ok(self.runtime.clone().create_container(request).await?.into_inner().container_id)
    }

    /// StartContainer.
    pub async fn start(&self, id: &str) -> Reply<()> {
        self.runtime
            .clone()
            .start_container(StartContainerRequest { container_id: id.into() })
            .await
            .map(drop)
    }

    /// StopContainer with a grace period in seconds.
    pub async fn stop(&self, id: &str, timeout: i64) -> Reply<()> {
        let request = StopContainerRequest { container_id: id.into(), timeout };
        self.runtime.clone().stop_container(request).await.map(drop)
    }

    /// RemoveContainer.
    pub async fn remove(&self, id: &str) -> Reply<()> {
        self.runtime
            .clone()
            .remove_container(RemoveContainerRequest { container_id: id.into() })
            .await
            .map(drop)
    }

    /// ContainerStatus.
    pub async fn status(&self, id: &str) -> Reply<ContainerStatus> {
        let request = ContainerStatusRequest { container_id: id.into(), verbose: false };
        let reply = self.runtime.clone().container_status(request).await?.into_inner();
        reply.status.ok_or_else(|| Status::internal("the reply holds no status"))
    }

    /// ListContainers.
    pub async fn containers(&self, filter: Option<ContainerFilter>) -> Reply<Vec<Container>> {
        Ok(self
            .runtime
            .clone()
            .list_containers(ListContainersRequest { filter })
            .await?
            .into_inner()
            .containers)
    }

    /// ReopenContainerLog.
    pub async fn reopen_log(&self, id: &str) -> Reply<()> {
        let request = ReopenContainerLogRequest { container_id: id.into() };
        self.runtime.clone().reopen_container_log(request).await.map(drop)
    }

    /// ExecSync; `timeout` in seconds, 0 for none.
    pub async fn exec(&self, id: &str, cmd: &[&str], timeout: i64) -> Reply<ExecSyncResponse> {
        let cmd = cmd.iter().map(|word| (*word).to_owned()).collect();
        let request = ExecSyncRequest { container_id: id.into(), cmd, timeout };
        Ok(self.runtime.clone().exec_sync(request).await?.into_inner())
    }

    /// ExecSync of a shell script that must succeed; its standard output.
    pub async fn shell(&self, id: &str, script: &str) -> Reply<String> {
        let reply = self.exec(id, &["sh", "-c", script], 30).await?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if reply.exit_code == 0 {
            return Ok(text(&reply.stdout));
        }
        Err(Status::unknown(format!("{script:?} ended with {}: {}", reply.exit_code, text(&reply.stderr))))
    }

    /// PullImage without a login.
    pub async fn pull(&self, image: &str) -> Reply<String> {
        self.pull_as(image, None).await
    }

    /// PullImage.
    pub async fn pull_as(&self, image: &str, auth: Option<AuthConfig>) -> Reply<String> {
        let request = PullImageRequest { image: Some(image_spec(image)), auth, ..Default::default() };
        Ok(self.images.clone().pull_image(request).await?.into_inner().image_ref)
    }

    /// ImageStatus; `None` if there is no such image.
    pub async fn image(&self, image: &str) -> Reply<Option<Image>> {
        let request = ImageStatusRequest { image: Some(image_spec(image)), verbose: false };
        Ok(self.images.clone().image_status(request).await?.into_inner().image)
    }

    /// ListImages.
    pub async fn list_images(&self) -> Reply<Vec<Image>> {
        Ok(self.images.clone().list_images(ListImagesRequest::default()).await?.into_inner().images)
    }

    /// RemoveImage.
    pub async fn remove_image(&self, image: &str) -> Reply<()> {
        let request = RemoveImageRequest { image: Some(image_spec(image)) };
        self.images.clone().remove_image(request).await.map(drop)
    }

    /// Waits until a container has ended; fails after `patience` (see [`crate::bound`]).
    pub async fn wait_exited(&self, id: &str, patience: Duration) -> Reply<ContainerStatus> {
        let end = Instant::now() + crate::bound(patience);
        loop {
            let status = self.status(id).await?;
            if status.state() == ContainerState::ContainerExited {
                return Ok(status);
            }
            if Instant::now() > end {
                return Err(Status::deadline_exceeded(format!("container {id} is {:?}", status.state())));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Stops and removes every pod that the runtime knows.
    pub async fn end_all_pods(&self) -> Reply<()> {
        for pod in self.pods(None).await? {
            self.end_pod(&pod.id).await?;
        }
        Ok(())
    }
}

/// An ImageSpec of a name.
pub fn image_spec(image: &str) -> ImageSpec {
    ImageSpec { image: image.into(), user_specified_image: image.into(), ..Default::default() }
}

/// Fails unless a call was refused with one of these codes and a message that holds all of these words.
#[track_caller]
pub fn expect_refusal<T: std::fmt::Debug>(reply: Reply<T>, codes: &[tonic::Code], words: &[&str]) {
    let status = match reply {
        Ok(value) => panic!("not refused: {value:?}"),
        Err(status) => status,
    };
    assert!(
        codes.contains(&status.code()),
        "{:?} is not one of {codes:?}: {}",
        status.code(),
        status.message()
    );
    for word in words {
        assert!(status.message().contains(word), "{word:?} is not in {:?}", status.message());
    }
}
