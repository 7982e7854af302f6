//! An archive to import that arrives in pieces. What does not live here: what is in it (import).

use std::sync::Arc;

use bytes::Bytes;

use super::Images;
use super::error::ImageError;
use super::image::Image;
use crate::drivers::layers::{Incoming, LayerError};

/// A growing archive, plain or gzip. Dropping it forgets it.
pub struct Upload {
    images: Images,
    incoming: Incoming,
}

impl Images {
    /// Begins one.
    pub async fn upload(&self) -> Result<Upload, ImageError> {
        let layers = self.shared.layers.clone();
        let incoming = blocking(move || layers.incoming()).await?;
        Ok(Upload { images: self.clone(), incoming })
    }
}

impl Upload {
    /// Takes the next piece.
    pub async fn write(self, piece: Bytes) -> Result<Self, ImageError> {
        let Self { images, incoming } = self;
        let incoming = blocking(move || incoming.write(&piece)).await?;
        Ok(Self { images, incoming })
    }

    /// Imports the archive: it is whole now.
    pub async fn import(self) -> Result<Vec<Arc<Image>>, ImageError> {
        let Self { images, incoming } = self;
        let archive = blocking(move || incoming.finish()).await?;
        images.import(archive).await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LayerError> + Send + 'static,
) -> Result<T, ImageError> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.map_err(|_| ImageError::Interrupted { image: "of the archive".into() })?;
    done.map_err(|source| ImageError::Upload(Arc::new(source)))
}
