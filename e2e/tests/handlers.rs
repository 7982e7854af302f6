//! Runtime handlers, by which RuntimeClasses name a runtime.

use anyhow::{Context, Result};
use berth_e2e::client::expect_refusal;
use berth_e2e::node::Options;
use berth_e2e::runtime::Runtime;
use berth_e2e::world::World;
use berth_proto::cri::v1::StatusRequest;
use tonic::Code;

/// Names that Status tells, each with the same features.
async fn told(world: &World) -> Result<Vec<String>> {
    let status = world.client.runtime.clone().status(StatusRequest::default()).await?.into_inner();
    let first = status.runtime_handlers.first().context("no handler")?.features;
    assert!(first.is_some_and(|features| features.recursive_read_only_mounts));
    assert!(status.runtime_handlers.iter().all(|handler| handler.features == first));
    Ok(status.runtime_handlers.into_iter().map(|handler| handler.name).collect())
}

/// As pods come with it from a node that had another runtime.
#[tokio::test]
async fn a_pod_that_asks_for_runc_runs_and_keeps_the_name_over_a_restart() -> Result<()> {
    let mut world = World::start().await?;
    let names = told(&world).await?;
    assert!(names.contains(&String::new()) && names.contains(&"runc".into()), "{names:?}");
    if world.node.runtime() == Runtime::Berth {
        assert_eq!(names, ["", "berth", "crun", "runc"]);
    }
    let config = world.pod("classy");
    let id = world.client.run_pod_with(&config, "runc").await?;
    assert_eq!(world.client.pod_status(&id).await?.runtime_handler, "runc");
    let container = world.launch(&id, &world.sleeper("main"), &config).await?;
    let reply = world.client.exec(&container, &["echo", "here"], 10).await?;
    assert_eq!(reply.stdout, b"here\n");
    world.node.kill()?;
    world.node.launch().await?;
    world.client = world.node.client().await?;
    let pods = world.client.pods(None).await?;
    assert_eq!(pods.iter().map(|pod| pod.runtime_handler.as_str()).collect::<Vec<_>>(), ["runc"]);
    Ok(())
}

#[tokio::test]
async fn the_configuration_says_which_handlers_there_are() -> Result<()> {
    if Runtime::from_env()? != Runtime::Berth {
        println!("not run: it is about a key of berth's configuration");
        return Ok(());
    }
    let config = "[pods]\nhandlers = [\"fast\"]\n".to_string();
    let mut world = World::start_with(Options { config, ..Options::default() }).await?;
    assert_eq!(told(&world).await?, ["", "fast"]);
    let id = world.client.run_pod_with(&world.pod("fast"), "fast").await?;
    let refused = [Code::InvalidArgument];
    let reply = world.client.run_pod_with(&world.pod("refused"), "runc").await;
    expect_refusal(reply, &refused, &["e2e/refused", r#"no runtime handler "runc""#, r#"only "", "fast""#]);

    // One that is taken away is no longer given; who has it keeps it.
    let file = world.node.config_file();
    let text = std::fs::read_to_string(&file)?.replace("handlers = [\"fast\"]", "handlers = []");
    std::fs::write(&file, text)?;
    world.node.stop()?;
    world.node.launch().await?;
    world.client = world.node.client().await?;
    assert_eq!(told(&world).await?, [""]);
    let reply = world.client.run_pod_with(&world.pod("late"), "fast").await;
    expect_refusal(reply, &refused, &[r#"no runtime handler "fast""#]);
    assert_eq!(world.client.pod_status(&id).await?.runtime_handler, "fast");
    world.client.end_pod(&id).await?;
    Ok(())
}
