//! Other people's clients: the k8s-cri crate's binding and crictl see what ours sees.

use anyhow::Result;
use berth_e2e::client;
use berth_e2e::crictl::Crictl;
use berth_e2e::world::World;
use k8s_cri::v1 as other;

#[tokio::test]
async fn an_independent_binding_reads_the_same() -> Result<()> {
    let world = World::start().await?;
    let mut config = world.pod("bindings");
    config.labels.insert("app".into(), "web".into());
    let (pod, id) = world.run(&config, &world.sleeper("main")).await?;
    let channel = client::channel(&world.node.socket()).await?;
    let mut runtime = other::runtime_service_client::RuntimeServiceClient::new(channel.clone());
    let mut images = other::image_service_client::ImageServiceClient::new(channel);

    let request = other::PodSandboxStatusRequest { pod_sandbox_id: pod.clone(), verbose: true };
    let theirs = runtime.pod_sandbox_status(request).await?.into_inner().status.unwrap_or_default();
    let ours = world.client.pod_status(&pod).await?;
    assert_eq!((theirs.created_at, theirs.state), (ours.created_at, ours.state));
    assert_eq!(theirs.labels.get("app"), ours.labels.get("app"));
    assert_eq!(theirs.network.map(|network| network.ip), ours.network.map(|network| network.ip));
    let request = other::ContainerStatusRequest { container_id: id.clone(), verbose: true };
    let theirs = runtime.container_status(request).await?.into_inner().status.unwrap_or_default();
    let ours = world.client.status(&id).await?;
    assert_eq!((theirs.id, theirs.image_ref, theirs.log_path), (ours.id, ours.image_ref, ours.log_path));
    let list = images.list_images(other::ListImagesRequest::default()).await?.into_inner().images;
    let mut theirs: Vec<_> = list.into_iter().map(|image| (image.id, image.repo_tags, image.size)).collect();
    let ours = world.client.list_images().await?;
    let mut ours: Vec<_> = ours.into_iter().map(|image| (image.id, image.repo_tags, image.size)).collect();
    theirs.sort();
    ours.sort();
    assert_eq!(theirs, ours);
    Ok(())
}

#[tokio::test]
async fn the_version_is_told_in_full() -> Result<()> {
    let world = World::start().await?;
    let channel = client::channel(&world.node.socket()).await?;
    let mut runtime = other::runtime_service_client::RuntimeServiceClient::new(channel);
    let version = runtime.version(other::VersionRequest::default()).await?.into_inner();
    assert_eq!(version.runtime_api_version, "v1");
    assert!(
        ![&version.version, &version.runtime_name, &version.runtime_version]
            .iter()
            .any(|text| text.is_empty())
    );
    Ok(())
}

#[tokio::test]
async fn an_independent_binding_runs_a_pod() -> Result<()> {
    let world = World::start().await?;
    let channel = client::channel(&world.node.socket()).await?;
    let mut runtime = other::runtime_service_client::RuntimeServiceClient::new(channel);
    let config = other::PodSandboxConfig {
        metadata: Some(other::PodSandboxMetadata {
            name: "theirs".into(),
            uid: "theirs".into(),
            namespace: "e2e".into(),
            attempt: 0,
        }),
        linux: Some(other::LinuxPodSandboxConfig {
            cgroup_parent: world.node.cgroup_parent().of_pod("theirs"),
            ..Default::default()
        }),
        ..Default::default()
    };
    let request = other::RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
    let pod = runtime.run_pod_sandbox(request).await?.into_inner().pod_sandbox_id;
    assert_eq!(world.client.pod_status(&pod).await?.metadata.unwrap_or_default().name, "theirs");
    runtime.stop_pod_sandbox(other::StopPodSandboxRequest { pod_sandbox_id: pod.clone() }).await?;
    runtime.remove_pod_sandbox(other::RemovePodSandboxRequest { pod_sandbox_id: pod }).await?;
    assert!(world.client.pods(None).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn crictl_does_the_whole_round() -> Result<()> {
    let world = World::start().await?;
    let crictl = Crictl::new(&world.node)?;
    let logs = world.node.scratch().join("crictl-logs");
    std::fs::create_dir_all(&logs)?;
    let file = |name: &str, text: String| -> Result<String> {
        let path = world.node.scratch().join(name);
        std::fs::write(&path, text)?;
        Ok(path.to_string_lossy().into_owned())
    };
    let parent = world.node.cgroup_parent().of_pod("crictl");
    let pod_file = file(
        "pod.json",
        format!(
            r#"{{"metadata":{{"name":"hello","namespace":"e2e","uid":"crictl"}},"hostname":"hello",
                "log_directory":{logs:?},"linux":{{"cgroup_parent":"{parent}"}}}}"#
        ),
    )?;
    let container_file = file(
        "container.json",
        format!(
            r#"{{"metadata":{{"name":"greeter"}},"image":{{"image":"{}"}},"log_path":"greeter.log","linux":{{}},
                "command":["sh","-c","echo hello; exec sleep 1000"]}}"#,
            world.busybox
        ),
    )?;
    assert!(crictl.run(&["version"])?.contains("RuntimeApiVersion:  v1"));
    assert!(crictl.run(&["info"])?.contains("RuntimeReady"));
    assert!(crictl.run(&["images"])?.contains("busybox"));
    crictl.run(&["pull", &world.busybox])?;
    let pod = crictl.run(&["runp", &pod_file])?;
    let id = crictl.run(&["create", &pod, &container_file, &pod_file])?;
    crictl.run(&["start", &id])?;
    assert_eq!(crictl.run(&["pods", "-q", "--no-trunc"])?, pod);
    assert_eq!(crictl.run(&["ps", "-q", "--no-trunc"])?, id);
    assert_eq!(crictl.run(&["exec", "--sync", &id, "hostname"])?, "hello");
    let mut log = String::new();
    for _ in 0..50 {
        log = crictl.run(&["logs", &id])?;
        if !log.is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(log, "hello");
    assert!(crictl.run(&["inspect", &id])?.contains("CONTAINER_RUNNING"));
    assert!(crictl.run(&["inspectp", &pod])?.contains("SANDBOX_READY"));
    crictl.run(&["stop", "--timeout", "0", &id])?;
    crictl.run(&["rm", &id])?;
    crictl.run(&["stopp", &pod])?;
    crictl.run(&["rmp", &pod])?;
    crictl.run(&["rmi", &world.busybox])?;
    assert_eq!(crictl.run(&["images", "-q"])?.lines().filter(|line| line.contains("busybox")).count(), 0);
    Ok(())
}
