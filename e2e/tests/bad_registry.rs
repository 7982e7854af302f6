//! Registries that fail: the right code, a cause, nothing cached, and a pull that works afterwards.

use anyhow::Result;
use berth_e2e::client::expect_refusal;
use berth_e2e::faulty::{Fault, FaultyRegistry};
use berth_e2e::images::layer::{Entry, Node};
use berth_e2e::images::{Blob, Built, Image, Layer, catalog};
use berth_e2e::runtime::Runtime;
use berth_e2e::world::World;
use tonic::Code;

/// One layer of a megabyte that does not pack well.
fn image() -> Result<Built> {
    let mut state = 7_u64;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    });
    let content = noise.take(1 << 20).collect();
    let mut layer = Layer::default();
    layer.push(Entry { path: "data".into(), mode: 0o644, uid: 0, gid: 0, node: Node::File(content) });
    Image::of(layer).cmd(&["/data"]).build()
}

fn berth(world: &World) -> bool {
    world.node.runtime() == Runtime::Berth
}

/// What must be refused, with which codes and words; then the fault goes away and the pull works.
async fn refused(world: &World, fault: Fault, codes: &[Code], words: &[&str]) -> Result<()> {
    let described = format!("{fault:?}");
    let registry = FaultyRegistry::start(image()?, fault)?;
    let name = registry.reference();
    let mut codes = codes.to_vec();
    if !berth(world) {
        codes.extend([
            Code::Unknown,
            Code::NotFound,
            Code::Internal,
            Code::Unavailable,
            Code::FailedPrecondition,
        ]);
    }
    let host = name.split('/').next().unwrap_or_default();
    let reply = world.client.pull(&name).await;
    println!("{described}: {:?}", reply.as_ref().err().map(tonic::Status::message));
    expect_refusal(reply, &codes, &[host]);
    if berth(world) {
        expect_refusal(world.client.pull(&name).await, &codes, words);
    }
    assert_eq!(world.client.image(&name).await?, None, "{described}");
    Ok(())
}

#[tokio::test]
async fn statuses_become_codes() -> Result<()> {
    let world = World::start().await?;
    refused(&world, Fault::Manifest(404), &[Code::NotFound], &["image:latest"]).await?;
    refused(&world, Fault::Manifest(403), &[Code::PermissionDenied], &["image"]).await?;
    refused(&world, Fault::Manifest(401), &[Code::Unauthenticated, Code::PermissionDenied], &["image"])
        .await?;
    refused(&world, Fault::Token(403), &[Code::Unauthenticated, Code::PermissionDenied], &["image"]).await?;
    if berth(&world) {
        // Others try these again for longer than a test likes to wait.
        refused(&world, Fault::Manifest(429), &[Code::Unavailable, Code::ResourceExhausted], &["rate"])
            .await?;
        // A code of its own would hide the word from the kubelet.
        refused(&world, Fault::Manifest(500), &[Code::Unknown], &["RegistryUnavailable: ", "500"]).await?;
        refused(&world, Fault::Layer(404), &[Code::NotFound, Code::Unavailable], &["sha256:"]).await?;
        refused(&world, Fault::RedirectLoop, &[Code::Unavailable, Code::FailedPrecondition], &["redirect"])
            .await?;
    }
    Ok(())
}

#[tokio::test]
async fn content_that_is_not_what_its_digest_says_is_data_loss() -> Result<()> {
    let world = World::start().await?;
    let data_loss = [Code::DataLoss];
    if !berth(&world) {
        println!("not run: containerd tries a wrong blob again and again");
        return Ok(());
    }
    refused(&world, Fault::WrongLayer, &data_loss, &["sha256:"]).await?;
    refused(&world, Fault::LongLayer, &data_loss, &["sha256:"]).await?;
    refused(&world, Fault::WrongManifest, &data_loss, &["sha256:"]).await?;
    refused(
        &world,
        Fault::Garbage,
        &[Code::DataLoss, Code::InvalidArgument, Code::FailedPrecondition],
        &["image"],
    )
    .await
}

#[tokio::test]
async fn a_wrong_diff_id_is_data_loss_and_caches_nothing() -> Result<()> {
    let world = World::start().await?;
    let mut built = catalog::tiny("diff").build()?;
    let other = catalog::tiny("other").build()?;
    // The config of another image: its diff_id is not that of this layer.
    let (layer, config) = (built.blobs[0].clone(), other.blobs[1].clone());
    let text = String::from_utf8(read(&built.manifest))?.replace(built.config_digest(), &config.digest);
    let size = format!("\"size\":{}", built.blobs[1].size);
    let text = text.replace(&size, &format!("\"size\":{}", config.size));
    built.manifest = Blob::new(&built.manifest.media_type, text.into_bytes());
    built.blobs = vec![layer, config];
    world.registry.storage().publish("diff", "latest", &built)?;
    let name = world.registry.reference("diff:latest");
    let codes =
        if berth(&world) { vec![Code::DataLoss] } else { vec![Code::Unknown, Code::FailedPrecondition] };
    expect_refusal(world.client.pull(&name).await, &codes, &["sha256:"]);

    world.registry.publish("diff", "latest", &catalog::tiny("diff"))?;
    world.client.pull(&name).await?;
    Ok(())
}

fn read(blob: &Blob) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = blob.source.open().map(|mut source| std::io::Read::read_to_end(&mut source, &mut bytes));
    bytes
}

#[tokio::test]
async fn a_registry_that_recovers_is_pulled_from() -> Result<()> {
    let world = World::start().await?;
    for fault in [
        Fault::None,
        Fault::Bearer,
        Fault::ManifestFirst(2, 503),
        Fault::ManifestFirst(1, 429),
        Fault::CutLayer(1),
    ] {
        let again = matches!(fault, Fault::CutLayer(_));
        let described = format!("{fault:?}");
        let registry = FaultyRegistry::start(image()?, fault)?;
        let pulled = world.client.pull(&registry.reference()).await;
        if !berth(&world) && pulled.is_err() {
            println!("{described}: {pulled:?}");
            continue;
        }
        pulled?;
        if again && berth(&world) {
            let requests = registry.requests();
            assert!(
                requests.iter().any(|request| request.contains(" from ")),
                "no range asked for: {requests:?}"
            );
        }
        world.client.remove_image(&registry.reference()).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_layer_that_cannot_be_resumed_is_fetched_anew() -> Result<()> {
    let world = World::start().await?;
    if !berth(&world) {
        println!("not run: others give up");
        return Ok(());
    }
    let registry = FaultyRegistry::start(image()?, Fault::CutLayerNoRange(1))?;
    world.client.pull(&registry.reference()).await?;
    Ok(())
}

#[tokio::test]
async fn a_registry_that_is_down_is_unavailable() -> Result<()> {
    let world = World::start().await?;
    let name = "127.0.0.1:1/team/app:v1";
    let codes = if berth(&world) { vec![Code::Unknown] } else { vec![Code::Unavailable, Code::Unknown] };
    let reply = world.client.pull(name).await;
    if let (true, Err(status)) = (berth(&world), &reply) {
        assert!(status.message().starts_with("RegistryUnavailable: "), "{status}");
    }
    expect_refusal(reply, &codes, &["127.0.0.1:1", "onnection refused"]);
    Ok(())
}

#[tokio::test]
async fn names_that_are_no_names_are_invalid() -> Result<()> {
    let world = World::start().await?;
    for name in ["UPPER/case:x y", "127.0.0.1:5000/a@sha256:123", "host/a:b:c", ""] {
        let reply = world.client.pull(name).await;
        if berth(&world) {
            expect_refusal(reply, &[Code::InvalidArgument], &[]);
        } else {
            assert!(reply.is_err());
        }
    }
    Ok(())
}

#[tokio::test]
async fn an_image_for_another_machine_is_told() -> Result<()> {
    let world = World::start().await?;
    let foreign = Image { architecture: "s390x".into(), ..catalog::tiny("foreign") }.build()?;
    let storage = world.registry.storage();
    storage.publish_untagged("foreign", &foreign)?;
    storage.tag(
        "foreign",
        "latest",
        &berth_e2e::images::index(berth_e2e::images::Format::Oci, &[foreign])?,
    )?;
    let name = world.registry.reference("foreign:latest");
    let codes = [Code::NotFound, Code::FailedPrecondition, Code::InvalidArgument];
    let words: &[&str] = if berth(&world) { &["amd64"] } else { &[] };
    expect_refusal(world.client.pull(&name).await, &codes, words);
    Ok(())
}
