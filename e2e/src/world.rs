//! What nearly every test starts from: a registry with a busybox image, a node that pulled it, a client, and pod
//! and container configurations as the kubelet would send them.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use berth_proto::cri::v1::*;

use crate::census::Census;
use crate::client::{Client, Reply, image_spec};
use crate::images::{Built, catalog};
use crate::logs;
use crate::node::{Node, Options};
use crate::registry::Registry;
use crate::runtime::Runtime;

/// All of it. Fields are dropped in order: the node before the registry.
pub struct World {
    /// Our client.
    pub client: Client,
    /// The runtime.
    pub node: Node,
    /// Where its images come from.
    pub registry: Registry,
    /// Name of the busybox image, which the node has.
    pub busybox: String,
}

impl World {
    /// A node with default options.
    pub async fn start() -> Result<Self> {
        Self::start_with(Options::default()).await
    }

    /// A node of Berth's that is to withstand what comes, none where another runtime is tried: what others answer has many
    /// codes, and it is Berth that is judged.
    pub async fn start_to_attack() -> Result<Option<Self>> {
        let world = Self::start().await?;
        if world.node.runtime() != Runtime::Berth {
            println!("not run: other runtimes fall to some of this, and answer with other codes");
            return Ok(None);
        }
        Ok(Some(world))
    }

    /// A node that has busybox; `options.mirror` is filled in.
    pub async fn start_with(options: Options) -> Result<Self> {
        let registry = Registry::start()?;
        let [busybox, pause] = base_images()?;
        registry.storage().publish("busybox", "latest", busybox)?;
        registry.storage().publish("pause", "3.9", pause)?;
        let node = Node::start(&Options { mirror: Some(registry.host()), ..options }).await?;
        let client = node.client().await?;
        let busybox = registry.reference("busybox:latest");
        client.pull(&busybox).await?;
        Ok(Self { client, node, registry, busybox })
    }

    /// A pod of a name; unique in uid, with a log directory of its own.
    pub fn pod(&self, name: &str) -> PodSandboxConfig {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let uid = format!("{name}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let log_directory = self.log_directory(&uid);
        let _ = std::fs::create_dir_all(&log_directory);
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.into(),
                uid: uid.clone(),
                namespace: "e2e".into(),
                attempt: 0,
            }),
            hostname: name.into(),
            log_directory: log_directory.to_string_lossy().into_owned(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: self.node.cgroup_parent().of_pod(&uid),
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(namespaces()),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn log_directory(&self, uid: &str) -> PathBuf {
        self.node.scratch().join("logs").join(uid)
    }

    /// A container of busybox that runs a shell script.
    pub fn container(&self, name: &str, script: &str) -> ContainerConfig {
        ContainerConfig {
            metadata: Some(ContainerMetadata { name: name.into(), attempt: 0 }),
            image: Some(image_spec(&self.busybox)),
            command: vec!["sh".into(), "-c".into(), script.into()],
            log_path: format!("{name}.log"),
            linux: Some(LinuxContainerConfig {
                resources: Some(LinuxContainerResources::default()),
                security_context: Some(LinuxContainerSecurityContext {
                    namespace_options: Some(namespaces()),
                    ..Default::default()
                }),
            }),
            ..Default::default()
        }
    }

    /// A container that waits, and ends at once when it is told to.
    pub fn sleeper(&self, name: &str) -> ContainerConfig {
        self.container(name, "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done")
    }

    /// Creates and starts a container.
    pub async fn launch(
        &self,
        pod: &str,
        container: &ContainerConfig,
        config: &PodSandboxConfig,
    ) -> Reply<String> {
        let id = self.client.create(pod, container, config).await?;
        self.client.start(&id).await?;
        Ok(id)
    }

    /// Runs a pod with one container in it: their ids.
    pub async fn run(
        &self,
        config: &PodSandboxConfig,
        container: &ContainerConfig,
    ) -> Reply<(String, String)> {
        let pod = self.client.run_pod(config).await?;
        let id = self.launch(&pod, container, config).await?;
        Ok((pod, id))
    }

    /// The exit code of a container with this change that runs `script`, and what it printed.
    pub async fn printed(
        &self,
        script: &str,
        change: impl FnOnce(&mut ContainerConfig),
    ) -> Result<(i32, String)> {
        let mut spec = self.container("main", script);
        change(&mut spec);
        let (pod, id) = self.run(&self.pod("printed"), &spec).await?;
        let status = self.client.wait_exited(&id, Duration::from_secs(10)).await?;
        let text = logs::text(&status.log_path)?;
        self.client.end_pod(&pod).await?;
        Ok((status.exit_code, text.trim().to_owned()))
    }

    /// What is on the host because of this node.
    pub fn census(&self) -> Result<Census> {
        Census::take(&self.node)
    }

    /// A census after one pod has come and gone: bridges and base rules, which stay, are made with the first pod.
    pub async fn settled_census(&self) -> Result<Census> {
        let config = self.pod("settle");
        let (pod, _) = self.run(&config, &self.sleeper("settle")).await?;
        self.client.end_pod(&pod).await?;
        tokio::time::sleep(crate::bound(Duration::from_millis(500))).await;
        self.census()
    }

    /// Fails if something is on the host that was not there before; what the kernel removes in its own time gets it.
    pub async fn expect_nothing_left(&self, before: &Census) -> Result<()> {
        crate::eventually(Duration::from_secs(5), async || {
            let left = self.census()?.since(before);
            ensure!(left.is_empty(), "left behind:\n{}", left.join("\n"));
            Ok(())
        })
        .await
    }
}

/// Built once for all tests of a process.
fn base_images() -> Result<&'static [Built; 2]> {
    static IMAGES: OnceLock<[Built; 2]> = OnceLock::new();
    if let Some(images) = IMAGES.get() {
        return Ok(images);
    }
    let images = [catalog::busybox()?.build()?, catalog::pause()?.build()?];
    Ok(IMAGES.get_or_init(|| images))
}

/// The part of a container's request that tells its rights.
pub fn security(spec: &mut ContainerConfig) -> &mut LinuxContainerSecurityContext {
    spec.linux.get_or_insert_default().security_context.get_or_insert_default()
}

/// What the kubelet sends for an ordinary pod: all but the processes are shared by the pod.
pub fn namespaces() -> NamespaceOption {
    NamespaceOption { pid: NamespaceMode::Container as i32, ..Default::default() }
}
