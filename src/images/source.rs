//! Where an image's blobs come from: a registry or an archive on disk. What does not live here: what is in them.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;

use super::chunks::Feed;
use super::error::ImageError;
use super::manifest::Descriptor;
use super::progress::{Meter, Phase, Progress};
use crate::drivers::registry::{Credentials, Registry, RegistryError};
use crate::ids::Digest;
use crate::images::reference::Reference;

/// Bytes read from an archive at once.
const CHUNK: u64 = 256 << 10;

/// One image's blobs. Cheap to clone.
#[derive(Clone)]
pub struct Source {
    /// What the user asked for; for messages.
    pub image: Arc<str>,
    /// Where to ask.
    pub origin: Origin,
    /// For whoever looks.
    pub progress: Arc<Progress>,
}

/// Where the bytes are.
#[derive(Clone)]
pub enum Origin {
    /// A registry, and who asks.
    Registry(Arc<Registry>, Arc<Reference>, Arc<Credentials>),
    /// An archive, with offset and length of each blob.
    Archive(Arc<File>, Arc<HashMap<Digest, (u64, u64)>>),
}

impl Source {
    /// A small blob, verified.
    pub async fn small(&self, blob: &Descriptor, limit: u64) -> Result<Vec<u8>, ImageError> {
        let bytes = match &self.origin {
            Origin::Registry(registry, reference, credentials) => registry
                .blob_bytes(reference, &blob.digest, blob.size, limit, credentials)
                .await
                .map_err(|error| self.registry(error))?,
            Origin::Archive(file, blobs) => {
                let (offset, len) = self.locate(blobs, blob)?;
                let mut bytes = vec![0; usize::try_from(len.min(limit + 1)).unwrap_or_default()];
                file.read_exact_at(&mut bytes, offset).map_err(|error| self.read(error))?;
                bytes
            }
        };
        self.verify(blob, Digest::of(&bytes))?;
        Ok(bytes)
    }

    /// Sends a blob and verifies its size; the receiver verifies its digest. A receiver that gives up early does not keep
    /// its error from being explained: the rest comes all the same, as wrong bytes are the likeliest cause.
    pub(super) async fn feed(&self, blob: &Descriptor, to: Feed, meter: &Meter) -> Result<(), ImageError> {
        meter.begin();
        let mut total = 0;
        match &self.origin {
            Origin::Registry(registry, reference, credentials) => {
                let opened = registry.blob(reference, &blob.digest, blob.size, 0, credentials).await;
                let mut stream = opened.map_err(|error| self.registry(error))?;
                while let Some(chunk) = stream.next().await {
                    let chunk = chunk.map_err(|error| self.registry(error))?;
                    total += chunk.len() as u64;
                    meter.add(chunk.len() as u64);
                    to.send(chunk).await;
                }
            }
            Origin::Archive(file, blobs) => {
                let (offset, len) = self.locate(blobs, blob)?;
                while total < len {
                    let chunk = read(Arc::clone(file), offset + total, CHUNK.min(len - total)).await;
                    let chunk = chunk.map_err(|error| self.read(error))?;
                    total += chunk.len() as u64;
                    meter.add(chunk.len() as u64);
                    to.send(chunk).await;
                }
            }
        }
        drop(to);
        meter.enter(Phase::Unpacking);
        if total != blob.size {
            return Err(ImageError::SizeMismatch {
                image: self.image.to_string(),
                blob: blob.digest.clone(),
                expected: blob.size,
                actual: total,
            });
        }
        Ok(())
    }

    /// Whether the bytes that came are those that the manifest means.
    pub(super) fn verify(&self, blob: &Descriptor, actual: Digest) -> Result<(), ImageError> {
        if actual == blob.digest {
            return Ok(());
        }
        Err(ImageError::DigestMismatch {
            image: self.image.to_string(),
            expected: blob.digest.clone(),
            actual,
        })
    }

    fn locate(
        &self,
        blobs: &HashMap<Digest, (u64, u64)>,
        blob: &Descriptor,
    ) -> Result<(u64, u64), ImageError> {
        blobs.get(&blob.digest).copied().ok_or_else(|| ImageError::ArchiveLacks(blob.digest.as_str().into()))
    }

    /// For `map_err`.
    pub fn registry(&self, source: RegistryError) -> ImageError {
        ImageError::Registry { image: self.image.to_string(), source: Arc::new(source) }
    }

    fn read(&self, source: std::io::Error) -> ImageError {
        ImageError::ReadArchive(Arc::new(source))
    }
}

async fn read(file: Arc<File>, offset: u64, len: u64) -> std::io::Result<Bytes> {
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
        file.read_exact_at(&mut bytes, offset)?;
        Ok(Bytes::from(bytes))
    });
    read.await.unwrap_or_else(|_| Err(std::io::ErrorKind::Interrupted.into()))
}
