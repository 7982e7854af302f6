//! Puts signatures where registries keep them. What does not live here: making them (sigstore).

use anyhow::Result;
use serde_json::{Value, json};

use super::Blob;
use super::publish::Storage;
use crate::sigstore::{self, Annotations};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// A manifest, and the config that it needs.
fn manifest(config: &str, layers: &[(Blob, Annotations)], more: Value) -> Result<(Blob, Blob)> {
    let config = Blob::new(config, b"{}".to_vec());
    let layer = |(blob, annotations): &(Blob, Annotations)| {
        let mut layer = blob.descriptor();
        layer["annotations"] = json!(annotations);
        layer
    };
    let mut whole = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config.descriptor() });
    whole["layers"] = layers.iter().map(layer).collect();
    for (key, value) in more.as_object().into_iter().flatten() {
        whole[key] = value.clone();
    }
    Ok((Blob::new(MANIFEST, serde_json::to_vec(&whole)?), config))
}

/// As cosign 2 does: one manifest with a layer for each signature, the oldest first.
pub fn sign_simple(
    storage: &Storage,
    repository: &str,
    digest: &str,
    all: &[(Vec<u8>, Annotations)],
) -> Result<()> {
    let layers: Vec<_> = all
        .iter()
        .map(|(payload, annotations)| (Blob::new(sigstore::SIMPLE, payload.clone()), annotations.clone()))
        .collect();
    let (manifest, config) = manifest("application/vnd.oci.image.config.v1+json", &layers, json!({}))?;
    for blob in layers.iter().map(|(blob, _)| blob).chain([&config]) {
        storage.put_blob(repository, blob)?;
    }
    storage.tag(repository, &format!("{}.sig", digest.replace(':', "-")), &manifest)
}

/// As cosign 3 does where the registry does not list referrers: an index of manifests with a bundle each.
pub fn sign_bundles(storage: &Storage, repository: &str, digest: &str, bundles: &[Value]) -> Result<()> {
    let mut manifests = Vec::new();
    for bundle in bundles {
        let layer = Blob::new(sigstore::BUNDLE, bundle.to_string().into_bytes());
        let subject = json!({ "mediaType": MANIFEST, "digest": digest, "size": 1 });
        let more = json!({ "artifactType": sigstore::BUNDLE, "subject": subject });
        let (manifest, config) = manifest(EMPTY, &[(layer.clone(), Annotations::new())], more)?;
        storage.put_blob(repository, &layer)?;
        storage.put_blob(repository, &config)?;
        storage.put_manifest(repository, &manifest)?;
        let mut descriptor = manifest.descriptor();
        // cosign's library takes the config's type for it.
        descriptor["artifactType"] = json!(EMPTY);
        manifests.push(descriptor);
    }
    let kind = "application/vnd.oci.image.index.v1+json";
    let index = json!({ "schemaVersion": 2, "mediaType": kind, "manifests": manifests });
    storage.tag(repository, &digest.replace(':', "-"), &Blob::new(kind, serde_json::to_vec(&index)?))
}
