//! What pulls ask of a registry: nothing twice, and nothing that the node has.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use berth_e2e::faulty::{Fault, FaultyRegistry};
use berth_e2e::images::{Built, Image, Layer, catalog};
use berth_e2e::runtime::Runtime;
use berth_e2e::world::World;

const SHARED: usize = 4;
const IMAGES: usize = 10;

/// Layers that all have, and one of its own on top.
fn image(number: usize) -> Result<Built> {
    let layer = |name: String| Layer::default().file(&name, 0o644, name.repeat(1000));
    let shared = (0..SHARED).map(|place| layer(format!("shared-{place}")));
    let layers = shared.chain([layer(format!("own-{number}"))]).collect();
    Image { layers, ..Image::default() }.cmd(&["/none"]).build()
}

fn is_berth(world: &World) -> bool {
    let berth = world.node.runtime() == Runtime::Berth;
    if !berth {
        println!("not counted: others ask for more");
    }
    berth
}

/// Nothing compressed is kept, so what comes once is unpacked once.
#[tokio::test]
async fn ten_images_at_once_fetch_each_layer_that_they_share_once() -> Result<()> {
    let world = World::start().await?;
    let images = (0..IMAGES).map(image).collect::<Result<Vec<_>>>()?;
    let layers: Vec<String> = images
        .iter()
        .flat_map(|image| image.blobs.iter().filter(|blob| blob.digest != image.config_digest()))
        .map(|blob| blob.digest.clone())
        .collect();
    // Long enough that all ten meet on their way.
    let registry = FaultyRegistry::start_many(images, Fault::SlowLayer(Duration::from_millis(500)))?;
    let names: Vec<_> = (0..IMAGES).map(|number| registry.tagged(&number.to_string())).collect();
    let pulls = names.iter().map(|name| world.client.pull(name));
    for pulled in futures_util::future::join_all(pulls).await {
        pulled?;
    }
    if is_berth(&world) {
        let mut expected: BTreeMap<&str, usize> = layers.iter().map(|layer| (layer.as_str(), 1)).collect();
        assert_eq!(expected.len(), SHARED + IMAGES);
        for request in registry.requests() {
            let of_layer = layers.iter().find(|layer| request == format!("GET /v2/image/blobs/{layer}"));
            if let Some(count) = of_layer.and_then(|layer| expected.get_mut(layer.as_str())) {
                *count -= 1;
            }
        }
        assert!(expected.values().all(|left| *left == 0), "{expected:?} of {:?}", registry.requests());
    }
    for name in &names {
        world.client.remove_image(name).await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_image_that_is_here_costs_one_request_for_its_manifest() -> Result<()> {
    let world = World::start().await?;
    let one = catalog::tiny("present").build()?;
    let relabelled = catalog::tiny("present").label("made", "later").build()?;
    assert_eq!(one.blobs[0].digest, relabelled.blobs[0].digest);
    let config = relabelled.config_digest().to_owned();
    let registry = FaultyRegistry::start_many(vec![one, relabelled], Fault::None)?;
    let id = world.client.pull(&registry.tagged("index")).await?;
    // By an index, by a tag, and once more by a tag that was not pulled before; then only a new config comes.
    let again = [
        ("index", vec!["GET /v2/image/manifests/index".to_owned()]),
        ("0", vec!["GET /v2/image/manifests/0".to_owned()]),
        ("latest", vec!["GET /v2/image/manifests/latest".to_owned()]),
        ("1", vec!["GET /v2/image/manifests/1".to_owned(), format!("GET /v2/image/blobs/{config}")]),
    ];
    for (tag, expected) in again {
        let before = registry.requests().len();
        let pulled = world.client.pull(&registry.tagged(tag)).await?;
        assert_eq!(pulled == id, tag != "1", "{tag}");
        if is_berth(&world) {
            assert_eq!(registry.requests()[before..], expected, "{tag}");
        }
    }
    Ok(())
}
