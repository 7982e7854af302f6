//! Lists of pods, containers and images: whole, or as streams where they are too long. The client is our own binding:
//! the independent one of other tests has no streams.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::Result;
use berth_e2e::client::expect_refusal;
use berth_e2e::runtime::Runtime;
use berth_e2e::world::World;
use berth_proto::cri::v1::*;
use tonic::Code;

async fn stream_containers(world: &World, filter: Option<ContainerFilter>) -> Result<Vec<Vec<Container>>> {
    let request = StreamContainersRequest { filter };
    let mut stream = world.client.runtime.clone().stream_containers(request).await?.into_inner();
    let mut messages = Vec::new();
    while let Some(message) = stream.message().await? {
        messages.push(message.containers);
    }
    Ok(messages)
}

#[tokio::test]
async fn streams_give_what_lists_give() -> Result<()> {
    let world = World::start().await?;
    if world.node.runtime() == Runtime::Containerd {
        println!("not run: containerd has no streams yet");
        return Ok(());
    }
    assert!(stream_containers(&world, None).await?.is_empty(), "no items, no message");
    let mut config = world.pod("listed");
    config.labels.insert("app".into(), "web".into());
    let (pod, running) = world.run(&config, &world.sleeper("running")).await?;
    let created = world.client.create(&pod, &world.sleeper("created"), &config).await?;
    world.client.run_pod(&world.pod("other")).await?;

    assert_eq!(stream_containers(&world, None).await?, [world.client.containers(None).await?]);
    let state = ContainerStateValue { state: ContainerState::ContainerCreated as i32 };
    let filter = ContainerFilter { state: Some(state), ..Default::default() };
    let found = stream_containers(&world, Some(filter)).await?.concat();
    assert_eq!(found.iter().map(|one| &one.id).collect::<Vec<_>>(), [&created]);
    let filter = ContainerFilter { id: running[..12].into(), ..Default::default() };
    assert_eq!(stream_containers(&world, Some(filter)).await?.concat().len(), 1);

    let filter = PodSandboxFilter { label_selector: config.labels.clone(), ..Default::default() };
    for (filter, count) in [(None, 2), (Some(filter), 1)] {
        let request = StreamPodSandboxesRequest { filter: filter.clone() };
        let mut stream = world.client.runtime.clone().stream_pod_sandboxes(request).await?.into_inner();
        let pods = stream.message().await?.unwrap_or_default().pod_sandboxes;
        assert_eq!((pods.len(), &pods), (count, &world.client.pods(filter).await?));
        assert_eq!(stream.message().await?, None);
    }

    let mut stream = world.client.images.clone().stream_images(StreamImagesRequest { filter: None }).await?;
    let images = stream.get_mut().message().await?.unwrap_or_default().images;
    assert_eq!(images, world.client.list_images().await?);
    assert_eq!(stream.get_mut().message().await?, None);
    Ok(())
}

/// 2,000 containers that were never started cost no process. Their annotations, 200 MB, are far more than one message
/// may hold.
#[tokio::test]
async fn two_thousand_containers_with_big_annotations_are_streamed_and_survive_a_crash() -> Result<()> {
    const COUNT: usize = 2000;
    let mut world = World::start().await?;
    if world.node.runtime() == Runtime::Containerd {
        println!("not run: containerd has no streams yet");
        return Ok(());
    }
    let start = Instant::now();
    let config = world.pod("big");
    let pod = world.client.run_pod(&config).await?;
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..4 {
        let (client, config, pod) = (world.client.clone(), config.clone(), pod.clone());
        let mut container = world.sleeper("main");
        container.annotations.insert("big".into(), "x".repeat(100 << 10));
        workers.spawn(async move {
            for number in (worker..COUNT).step_by(4) {
                container.metadata = Some(ContainerMetadata { name: format!("c{number}"), attempt: 0 });
                client.create(&pod, &container, &config).await?;
            }
            Ok::<_, tonic::Status>(())
        });
    }
    for done in workers.join_all().await {
        done?;
    }
    println!("created in {:?}", start.elapsed());
    for crashed in [false, true] {
        if crashed {
            world.node.kill()?;
            world.node.launch().await?;
            world.client = world.node.client().await?;
        }
        let start = Instant::now();
        let messages = stream_containers(&world, None).await?;
        println!("{} messages in {:?}", messages.len(), start.elapsed());
        let names: BTreeSet<_> =
            messages.iter().flatten().map(|one| one.metadata.clone().unwrap_or_default().name).collect();
        assert_eq!((names.len(), messages.iter().flatten().count()), (COUNT, COUNT));
        assert!(messages.iter().flatten().all(|one| one.annotations["big"].len() == 100 << 10));
        assert!(messages.iter().all(|message| (1..=10).contains(&message.len())));
        let list = world.client.containers(None).await;
        expect_refusal(list.map(|list| list.len()), &[Code::ResourceExhausted], &["StreamContainers"]);
        let filter = ContainerFilter { id: messages[0][0].id.clone(), ..Default::default() };
        assert_eq!(world.client.containers(Some(filter)).await?.len(), 1);
    }
    world.client.end_pod(&pod).await?;
    println!("all of it in {:?}", start.elapsed());
    Ok(())
}
