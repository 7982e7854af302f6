//! What a full node asks all the time: containers and their stats by the hundreds.

use std::time::Instant;

use anyhow::Result;
use berth_e2e::client::{Client, image_spec};
use berth_e2e::world::namespaces;
use berth_proto::cri::v1::*;

use super::report::{Results, Unit, percentile};
use super::{Contender, Flags, pods};

/// Containers of one pod.
const IN_POD: usize = 10;
/// Calls that are measured.
const CALLS: usize = 100;

/// Stats of running containers, and the list with further ones that were only created.
pub async fn measure(
    flags: &Flags,
    contenders: &[Contender],
    image: &str,
    results: &mut Results,
) -> Result<()> {
    if flags.containers == 0 {
        return Ok(());
    }
    for contender in contenders {
        let client = contender.node.client().await?;
        let mut ids = Vec::new();
        for _ in 0..flags.containers.div_ceil(IN_POD) {
            let (pod, _) = pods::up(&client, &contender.node, image).await?;
            further(&client, &pod, image, IN_POD - 1, true).await?;
            ids.push(pod);
        }
        let what = format!("ListContainerStats of {}", ids.len() * IN_POD);
        for _ in 0..CALLS / 5 {
            let start = Instant::now();
            let request = ListContainerStatsRequest::default();
            let reply = client.runtime.clone().list_container_stats(request).await?.into_inner();
            let took = start.elapsed().as_secs_f64() * 1000.0;
            anyhow::ensure!(reply.stats.len() == ids.len() * IN_POD, "{} stats", reply.stats.len());
            results.add(&contender.name, &what, Unit::Milliseconds, took);
        }
        list(&client, ids.len() * IN_POD, contender, results).await?;
        // Only here is a created container no process: elsewhere a thousand would take minutes and gigabytes.
        if contender.name != "containerd" && flags.listed > ids.len() * IN_POD {
            further(&client, &ids[0], image, flags.listed - ids.len() * IN_POD, false).await?;
            list(&client, flags.listed, contender, results).await?;
        }
        for pod in ids {
            pods::down(&client, &pod).await?;
        }
    }
    Ok(())
}

async fn list(client: &Client, count: usize, contender: &Contender, results: &mut Results) -> Result<()> {
    let mut samples = Vec::new();
    for _ in 0..CALLS {
        let start = Instant::now();
        let listed = client.containers(None).await?.len();
        samples.push(start.elapsed().as_secs_f64() * 1000.0);
        anyhow::ensure!(listed == count, "{listed} containers are listed");
    }
    if let Some(p99) = percentile(&samples, 99.0) {
        let what = format!("ListContainers of {count}, p99");
        results.add(&contender.name, &what, Unit::Milliseconds, p99);
    }
    Ok(())
}

/// More containers in a pod, started or not.
async fn further(client: &Client, pod: &str, image: &str, count: usize, start: bool) -> Result<()> {
    // containerd wants to be told of the pod once more.
    let metadata =
        PodSandboxMetadata { name: pod.into(), uid: pod.into(), namespace: "bench".into(), attempt: 0 };
    let config = PodSandboxConfig { metadata: Some(metadata), ..Default::default() };
    for number in 0..count {
        let spec = ContainerConfig {
            metadata: Some(ContainerMetadata { name: format!("further-{number}-{start}"), attempt: 0 }),
            image: Some(image_spec(image)),
            command: vec!["sleep".into(), "100000".into()],
            labels: [("io.kubernetes.container.name".to_owned(), format!("further-{number}"))].into(),
            linux: Some(LinuxContainerConfig {
                security_context: Some(LinuxContainerSecurityContext {
                    namespace_options: Some(namespaces()),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let id = client.create(pod, &spec, &config).await?;
        if start {
            client.start(&id).await?;
        }
    }
    Ok(())
}
