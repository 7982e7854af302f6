//! OCI artifacts: pulled like images, shown as directories of files, run by nobody.

use anyhow::Result;
use berth_e2e::client::{expect_refusal, image_spec};
use berth_e2e::images::{Artifact, Built};
use berth_e2e::runtime::Runtime;
use berth_e2e::world::World;
use berth_proto::cri::v1::*;
use tonic::Code;

const KIND: &str = "application/vnd.example.model";

/// None, with a word why, where the runtime knows no artifacts.
async fn world() -> Result<Option<World>> {
    let world = World::start().await?;
    if world.node.runtime() == Runtime::Containerd {
        println!("not run: containerd has no artifacts as volumes");
        return Ok(None);
    }
    Ok(Some(world))
}

fn publish(world: &World, name: &str, artifact: &Artifact) -> Result<(String, Built)> {
    let built = artifact.build()?;
    world.registry.storage().publish(name, "v1", &built)?;
    Ok((world.registry.reference(&format!("{name}:v1")), built))
}

fn volume(image: &str, sub_path: &str) -> Mount {
    Mount {
        container_path: "/model".into(),
        readonly: true,
        image: Some(image_spec(image)),
        image_sub_path: sub_path.into(),
        ..Default::default()
    }
}

async fn used(world: &World) -> Result<u64> {
    let info = world.client.images.clone().image_fs_info(ImageFsInfoRequest {}).await?.into_inner();
    Ok(info
        .image_filesystems
        .into_iter()
        .next()
        .and_then(|system| system.used_bytes)
        .unwrap_or_default()
        .value)
}

#[tokio::test]
async fn an_artifacts_blobs_are_the_files_of_a_volume() -> Result<()> {
    let Some(mut world) = world().await? else { return Ok(()) };
    let before = used(&world).await?;
    let weights: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    let artifact = Artifact::new(KIND)
        .file("weights.bin", weights.clone())
        .file("a name with spaces.txt", "text")
        .file("empty", "")
        .untitled("untitled");
    let (name, built) = publish(&world, "model", &artifact)?;
    let id = world.client.pull(&name).await?;
    assert_eq!(id, built.digest(), "the id of an artifact is its manifest's digest");

    let status = world.client.image(&name).await?.unwrap_or_default();
    let by_digest = world.registry.reference(&format!("model@{}", built.digest()));
    assert_eq!((&status.id, &status.repo_tags), (&id, &vec![name.clone()]));
    assert_eq!(status.repo_digests, std::slice::from_ref(&by_digest));
    assert!(status.size >= 3_000_000 && status.uid.is_none() && status.username.is_empty(), "{status:?}");
    assert!(world.client.list_images().await?.contains(&status));
    assert!(used(&world).await? >= before + 3_000_000);

    let config = world.pod("artifact");
    let mut spec = world.sleeper("main");
    spec.mounts = vec![volume(&id, "")];
    let (pod, container) = world.run(&config, &spec).await?;
    let script =
        "cd /model && ls | grep -v sha256 && cat a* sha256-* && sha256sum weights.bin && stat -c '%a %u' . *";
    let seen = world.client.shell(&container, script).await?;
    let digest = &built.blobs[0].digest["sha256:".len()..];
    let expected =
        format!("a name with spaces.txt\nempty\nweights.bin\ntextuntitled{digest}  weights.bin\n755 0\n");
    assert_eq!(seen, expected + &"644 0\n".repeat(4));
    let shown = world.client.status(&container).await?.mounts[0].image.clone().unwrap_or_default();
    assert_eq!(shown.image_ref, by_digest);
    let refused = world.client.exec(&container, &["touch", "/model/new"], 10).await?;
    assert_ne!(refused.exit_code, 0);

    world.client.remove_image(&name).await?;
    assert_eq!(world.client.image(&id).await?, None);
    world.node.kill()?;
    world.node.launch().await?;
    world.client = world.node.client().await?;
    assert_eq!(world.client.shell(&container, "wc -c < /model/weights.bin").await?.trim(), "3000000");
    world.client.end_pod(&pod).await?;
    for _ in 0..100 {
        if used(&world).await? < before + (1 << 20) {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("{} bytes in use, {before} before", used(&world).await?);
}

#[tokio::test]
async fn nothing_runs_from_an_artifact() -> Result<()> {
    let Some(world) = world().await? else { return Ok(()) };
    let (name, _) = publish(&world, "model", &Artifact::new(KIND).file("program", "#!/bin/sh"))?;
    let id = world.client.pull(&name).await?;
    let config = world.pod("runs");
    let pod = world.client.run_pod(&config).await?;
    let before = world.census()?;
    for image in [&name, &id] {
        let mut spec = world.sleeper("main");
        spec.image = Some(image_spec(image));
        let refused = world.client.create(&pod, &spec, &config).await;
        expect_refusal(refused, &[Code::InvalidArgument], &["artifact", KIND, image]);
    }
    world.expect_nothing_left(&before).await?;
    Ok(())
}

#[tokio::test]
async fn a_title_that_is_no_plain_name_is_refused_at_the_pull() -> Result<()> {
    let Some(world) = world().await? else { return Ok(()) };
    let before = world.client.list_images().await?;
    for (number, title) in ["../escape", "/etc/passwd", "..", "", "a/b", "good"].into_iter().enumerate() {
        let artifact = Artifact::new(KIND).file("good", "first").file(title, "second");
        let (name, _) = publish(&world, &format!("bad{number}"), &artifact)?;
        expect_refusal(world.client.pull(&name).await, &[Code::InvalidArgument], &[title, "titled"]);
    }
    assert_eq!(world.client.list_images().await?, before);
    assert_eq!(std::fs::read_dir(world.node.root().join("staging"))?.count(), 0);
    Ok(())
}

#[tokio::test]
async fn every_file_is_what_its_digest_says() -> Result<()> {
    let Some(world) = world().await? else { return Ok(()) };
    let artifact = Artifact::new(KIND).file("one", "the right content").file("two", "other");
    let (name, built) = publish(&world, "damaged", &artifact)?;
    let path = world.registry.storage().blob_path(&built.blobs[0].digest);
    for bad in [&b"the wrong content"[..], b"short"] {
        std::fs::write(&path, bad)?;
        let refused = world.client.pull(&name).await;
        assert!(refused.is_err(), "{refused:?}");
    }
    assert_eq!(world.client.image(&name).await?, None);
    assert_eq!(std::fs::read_dir(world.node.root().join("staging"))?.count(), 0);
    std::fs::write(&path, "the right content")?;
    world.client.pull(&name).await?;
    Ok(())
}

#[tokio::test]
async fn a_sub_path_of_an_artifact_is_no_file() -> Result<()> {
    let Some(world) = world().await? else { return Ok(()) };
    let (name, _) = publish(&world, "model", &Artifact::new(KIND).file("weights", "x"))?;
    let id = world.client.pull(&name).await?;
    let config = world.pod("sub");
    let pod = world.client.run_pod(&config).await?;
    let mut spec = world.sleeper("main");
    spec.mounts = vec![volume(&id, "weights")];
    let refused = world.client.create(&pod, &spec, &config).await;
    expect_refusal(
        refused,
        &[Code::InvalidArgument],
        &["ImageVolumeMountFailed", "weights", "Not a directory"],
    );
    Ok(())
}
