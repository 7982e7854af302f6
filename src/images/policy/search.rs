//! Finding what a registry keeps as signatures of a digest: under a tag made of it, and among what refers to it. All of it
//! is a stranger's: every answer has a limit, and so has their number.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::super::manifest::Descriptor;
use super::super::unambiguous::{self, Object};
use crate::drivers::registry::{Blob, Credentials, Registry, RegistryError};
use crate::drivers::signatures::{BUNDLE, SIGN, SIMPLE, Signature};
use crate::ids::Digest;
use crate::images::reference::Reference;

/// Signatures that are looked at for one pull.
pub(super) const SIGNATURES_MAX: usize = 64;
/// Bytes of a payload of simple signing; cosign's have 250.
const PAYLOAD_MAX: u64 = 64 << 10;
/// Bytes of a bundle; cosign's have 5 KiB.
const BUNDLE_MAX: u64 = 512 << 10;
/// Bytes of the manifest of one bundle.
const MANIFEST_MAX: u64 = 64 << 10;
/// A config that is none (image-spec, manifest.md, "Guidance for an Empty Descriptor").
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// What a statement is about; cosign writes it beside the bundle.
const PREDICATE: &str = "dev.sigstore.bundle.predicateType";

/// Where signatures are kept.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// `sha256-DIGITS.sig`: a manifest with a layer for each signature.
    Tag,
    /// A manifest for each signature that has the image as its subject.
    Referrers,
}

/// In the order in which they are asked.
pub(super) const PLACES: [Place; 2] = [Place::Tag, Place::Referrers];

/// A signature that could be fetched.
pub(super) enum Candidate {
    Simple(Descriptor),
    Bundle(Referrer),
}

#[derive(Deserialize)]
struct Layers {
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Referrers {
    manifests: Vec<Referrer>,
}

/// As a descriptor; a registry adds the artifact's type.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Referrer {
    digest: Digest,
    size: u64,
    artifact_type: Option<String>,
    annotations: Option<BTreeMap<String, String>>,
}

/// Why a candidate is none: what the registry says, or what it keeps.
pub(super) enum Failure {
    Registry(RegistryError),
    Unusable(String),
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        Self::Registry(error)
    }
}

/// One image's signatures, asked of the hosts that the image is asked of, with the same credentials.
pub(super) struct Search<'a> {
    pub registry: &'a Registry,
    pub reference: &'a Reference,
    pub credentials: &'a Credentials,
}

impl Search<'_> {
    /// The newest first.
    pub async fn list(&self, place: Place, digest: &Digest) -> Result<Vec<Candidate>, Failure> {
        match place {
            Place::Tag => {
                let tag = format!("sha256-{}.sig", digest.digits());
                let found = self.registry.tagged(self.reference, &tag, self.credentials).await?;
                let Some(manifest) = found else { return Ok(Vec::new()) };
                let Layers { layers } = read(&manifest.bytes)?;
                let simple = layers.into_iter().rev().filter(|layer| layer.media_type == SIMPLE);
                Ok(simple.map(Candidate::Simple).collect())
            }
            Place::Referrers => {
                let found = self.registry.referrers(self.reference, digest, self.credentials).await?;
                let Some(index) = found else { return Ok(Vec::new()) };
                let Referrers { manifests } = read(&index.bytes)?;
                let bundles = manifests.into_iter().rev().filter(Referrer::is_signature);
                Ok(bundles.map(Candidate::Bundle).collect())
            }
        }
    }

    pub async fn fetch(&self, candidate: Candidate) -> Result<Signature, Failure> {
        match candidate {
            Candidate::Simple(layer) => {
                let payload = self.blob(&layer, PAYLOAD_MAX).await?;
                Ok(Signature::Simple(payload, layer.annotations.unwrap_or_default()))
            }
            Candidate::Bundle(referrer) => {
                if referrer.size > MANIFEST_MAX {
                    return Err(Failure::Unusable(format!("has a manifest of {} bytes", referrer.size)));
                }
                let (digest, size) = (&referrer.digest, Some(referrer.size));
                let asked = self.registry.manifest_by_digest(self.reference, digest, size, self.credentials);
                let Layers { layers } = read(&asked.await?.bytes)?;
                let bundle = layers.iter().find(|layer| is_bundle(&layer.media_type));
                let bundle = bundle.ok_or_else(|| Failure::Unusable("has no bundle".into()))?;
                Ok(Signature::Bundle(self.blob(bundle, BUNDLE_MAX).await?))
            }
        }
    }

    async fn blob(&self, blob: &Descriptor, limit: u64) -> Result<Vec<u8>, RegistryError> {
        let blob = Blob::new(self.reference, &blob.digest, blob.size, self.credentials);
        self.registry.blob_bytes(blob, limit).await
    }
}

impl Referrer {
    /// What calls itself something else is passed over; what the rest says of itself is never believed. Some clients
    /// write the type of the artifact's empty config for the artifact's own.
    pub fn is_signature(&self) -> bool {
        let predicate = self.annotations.as_ref().and_then(|all| all.get(PREDICATE));
        let may_be = |kind: &str| kind == EMPTY || is_bundle(kind);
        self.artifact_type.as_deref().is_none_or(may_be) && predicate.is_none_or(|kind| kind == SIGN)
    }
}

/// Of whichever version.
fn is_bundle(media_type: &str) -> bool {
    media_type.starts_with(BUNDLE)
}

fn read<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    let read = unambiguous::check(Object::Document, bytes).and_then(|()| serde_json::from_slice(bytes));
    read.map_err(|error| Failure::Unusable(format!("can't be read: {error}")))
}
