//! Where an image's blobs come from: a registry or an archive on disk. What does not live here: what is in them.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::chunks::Feed;
use super::error::ImageError;
use super::manifest::Descriptor;
use super::progress::{Meter, Phase, Progress};
use super::resume::Resume;
use crate::drivers::registry::{Blob, Credentials, Registry, RegistryError};
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
            Origin::Registry(registry, reference, credentials) => {
                let blob = Blob::new(reference, &blob.digest, blob.size, credentials);
                registry.blob_bytes(blob, limit).await.map_err(|error| self.registry(error))?
            }
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
    pub(super) async fn feed(
        &self,
        blob: &Descriptor,
        to: Feed,
        meter: &Meter,
        resume: Option<&mut Resume>,
    ) -> Result<(), ImageError> {
        meter.begin();
        let mut outlet = Outlet { to, meter, total: 0 };
        match &self.origin {
            Origin::Registry(..) => self.download(blob, &mut outlet, resume).await?,
            Origin::Archive(file, blobs) => {
                let (offset, len) = self.locate(blobs, blob)?;
                while outlet.total < len {
                    let (at, len) = (offset + outlet.total, CHUNK.min(len - outlet.total));
                    let chunk = read(Arc::clone(file), at, len).await.map_err(|error| self.read(error))?;
                    outlet.pass(chunk).await;
                }
            }
        }
        let Outlet { to, total, .. } = outlet;
        drop(to);
        meter.enter(Phase::Unpacking);
        let (image, expected) = (self.image.to_string(), blob.size);
        if total != expected {
            let blob = blob.digest.clone();
            return Err(ImageError::SizeMismatch { image, blob, expected, actual: total });
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

    /// What is kept of it first, and the rest from the registry.
    async fn download(
        &self,
        blob: &Descriptor,
        outlet: &mut Outlet<'_>,
        mut resume: Option<&mut Resume>,
    ) -> Result<(), ImageError> {
        let Origin::Registry(registry, reference, credentials) = &self.origin else {
            return Ok(());
        };
        if let Some(resume) = &mut resume {
            while let Some(chunk) = resume.read(outlet.total).await {
                outlet.pass(chunk).await;
            }
        }
        let blob = Blob::new(reference, &blob.digest, blob.size, credentials);
        let mut stream = registry.download(blob, outlet.total).await.map_err(|error| self.registry(error))?;
        loop {
            let started = Instant::now();
            let Some(chunk) = stream.next().await else { return Ok(()) };
            let waited = started.elapsed();
            let chunk = chunk.map_err(|error| self.registry(error))?;
            // While there is something left to unpack, nobody waits for the network.
            let idle = if outlet.is_drained() { waited } else { Duration::ZERO };
            stream.note_idle(chunk.len(), idle);
            if let Some(resume) = &mut resume {
                resume.add(&chunk, idle).await;
            }
            outlet.pass(chunk).await;
        }
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

/// Where a blob's bytes go.
struct Outlet<'a> {
    to: Feed,
    meter: &'a Meter,
    total: u64,
}

impl Outlet<'_> {
    /// Whether the receiver has taken everything.
    fn is_drained(&self) -> bool {
        self.to.is_drained()
    }

    async fn pass(&mut self, chunk: Bytes) {
        self.total += chunk.len() as u64;
        self.meter.add(chunk.len() as u64);
        self.to.send(chunk).await;
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
