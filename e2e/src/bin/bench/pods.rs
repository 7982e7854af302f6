//! Pods and execs: how long one takes, and how many a second eight clients get.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use berth_e2e::client::{Client, image_spec};
use berth_e2e::crictl::Crictl;
use berth_e2e::node::Node;
use berth_e2e::world::namespaces;
use berth_proto::cri::v1::*;

use super::report::{Results, Unit};
use super::{Contender, Flags};

/// All turns of all runtimes.
pub async fn measure(
    flags: &Flags,
    contenders: &[Contender],
    image: &str,
    results: &mut Results,
) -> Result<()> {
    for contender in contenders {
        // Bridges, caches, profiles: what a node does once is not what a pod costs.
        let client = contender.node.client().await?;
        for _ in 0..2 {
            let (pod, _) = up(&client, &contender.node, image).await?;
            down(&client, &pod).await?;
        }
    }
    for round in 0..flags.rounds {
        for contender in contenders {
            turn(flags, contender, image, results).await?;
        }
        eprintln!("pods: round {} of {}", round + 1, flags.rounds);
    }
    if flags.burst == 0 {
        return Ok(());
    }
    for _ in 0..2 {
        for contender in contenders {
            let rate = burst(contender, image, Duration::from_secs(flags.burst)).await?;
            results.add(&contender.name, "pods/s up+down, 8 clients", Unit::PerSecond, rate);
        }
    }
    Ok(())
}

async fn turn(flags: &Flags, contender: &Contender, image: &str, results: &mut Results) -> Result<()> {
    let client = contender.node.client().await?;
    let mut add = |what: &str, from: Instant| {
        let took = from.elapsed().as_secs_f64() * 1000.0;
        results.add(&contender.name, what, Unit::Milliseconds, took);
    };
    for number in 0..flags.pods {
        let start = Instant::now();
        let (pod, container) = up(&client, &contender.node, image).await?;
        add("pod up", start);
        if number == 0 {
            for _ in 0..flags.execs {
                let start = Instant::now();
                let reply = client.exec(&container, &["true"], 10).await?;
                anyhow::ensure!(reply.exit_code == 0, "exec ended with {}", reply.exit_code);
                add("ExecSync true", start);
            }
            for _ in 0..flags.execs / 4 {
                let start = Instant::now();
                Crictl::new(&contender.node)?.run(&["exec", &container, "true"])?;
                add("crictl exec true", start);
            }
        }
        let start = Instant::now();
        down(&client, &pod).await?;
        add("pod down", start);
    }
    Ok(())
}

/// Pods a second while eight clients make and remove them.
async fn burst(contender: &Contender, image: &str, length: Duration) -> Result<f64> {
    let start = Instant::now();
    let worker = async || -> Result<u64> {
        let client = contender.node.client().await?;
        let mut count = 0;
        while start.elapsed() < length {
            let (pod, _) = up(&client, &contender.node, image).await?;
            down(&client, &pod).await?;
            count += 1;
        }
        Ok(count)
    };
    let counts =
        tokio::try_join!(worker(), worker(), worker(), worker(), worker(), worker(), worker(), worker())?;
    let all = counts.0 + counts.1 + counts.2 + counts.3 + counts.4 + counts.5 + counts.6 + counts.7;
    Ok(all as f64 / start.elapsed().as_secs_f64())
}

/// RunPodSandbox, CreateContainer, StartContainer, of a container that sleeps.
pub async fn up(client: &Client, node: &Node, image: &str) -> Result<(String, String)> {
    up_with(client, node, image, &["sleep", "100000"]).await
}

/// RunPodSandbox, CreateContainer, StartContainer.
pub async fn up_with(
    client: &Client,
    node: &Node,
    image: &str,
    command: &[&str],
) -> Result<(String, String)> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let uid = format!("bench-{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let config = PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: uid.clone(),
            uid: uid.clone(),
            namespace: "bench".into(),
            attempt: 0,
        }),
        hostname: uid.clone(),
        log_directory: node.scratch().join("logs").join(&uid).to_string_lossy().into_owned(),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: node.cgroup_parent().of_pod(&uid),
            security_context: Some(LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces()),
                seccomp: Some(runtime_default()),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let container = ContainerConfig {
        metadata: Some(ContainerMetadata { name: "main".into(), attempt: 0 }),
        image: Some(image_spec(image)),
        command: command.iter().map(|&word| word.into()).collect(),
        log_path: "main.log".into(),
        linux: Some(LinuxContainerConfig {
            resources: Some(LinuxContainerResources {
                cpu_shares: 102,
                memory_limit_in_bytes: 256 << 20,
                ..Default::default()
            }),
            security_context: Some(LinuxContainerSecurityContext {
                namespace_options: Some(namespaces()),
                seccomp: Some(runtime_default()),
                ..Default::default()
            }),
        }),
        ..Default::default()
    };
    let pod = client.run_pod(&config).await?;
    let id = client.create(&pod, &container, &config).await?;
    client.start(&id).await?;
    Ok((pod, id))
}

fn runtime_default() -> SecurityProfile {
    SecurityProfile {
        profile_type: security_profile::ProfileType::RuntimeDefault as i32,
        ..Default::default()
    }
}

/// StopPodSandbox, RemovePodSandbox, with the container still in it.
pub async fn down(client: &Client, pod: &str) -> Result<()> {
    Ok(client.end_pod(pod).await?)
}
