//! The verbose info of an image.

use serde_json::{Value, json};

use super::{Info, info};
use crate::api::cri::Services;
use crate::ids::Digest;
use crate::images::chain_ids;
use crate::images::image::Image;

/// An image's own config, its chain of layers and where they are.
pub(in crate::api::cri) async fn image(services: &Services, image: &Image) -> Info {
    let layout = &services.drivers.layout;
    let config: Value = services
        .images
        .config_blob(&image.id)
        .await
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    let diff_ids: Vec<Digest> = config["rootfs"]["diff_ids"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|id| Digest::parse(id.as_str()?).ok())
        .collect();
    let sizes = services.images.layer_sizes(&image.layers);
    let layer = |(id, bytes): (&Digest, &Option<u64>)| json!({ "id": id, "path": layout.layer(id), "usedBytes": bytes });
    info(&json!({
        "chainID": chain_ids(&diff_ids).last(),
        "imageSpec": config,
        "labels": image.config.labels,
        "manifest": { "digest": image.manifest, "path": layout.blob(&image.manifest) },
        "artifactType": image.artifact,
        "layers": image.layers.iter().zip(&sizes).map(layer).collect::<Vec<_>>(),
        "usedBytes": image.size,
        "blobs": image.blobs,
    }))
}
