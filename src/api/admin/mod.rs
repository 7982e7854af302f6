//! Berth's own service beside CRI: each RPC converts, calls the domain, converts back. What CRI can say is not here.

mod dump;

use std::sync::Arc;
use std::time::Duration;

use berth_proto::admin::v1::{self, admin_server::Admin};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument;

use super::cri::Services;
use super::cri::status::status;
use crate::drivers::registry::Credentials;
use crate::images::Images;
use crate::images::image::Image;
use crate::images::progress::{LayerProgress, Phase, Progress};
use crate::images::reference::Reference;

/// How often a pull tells of its progress.
const TICK: Duration = Duration::from_millis(100);

/// The service.
pub struct AdminApi {
    services: Services,
}

impl AdminApi {
    /// Over the daemon's services.
    pub fn new(services: Services) -> Self {
        Self { services }
    }
}

type Update = Result<v1::PullProgress, Status>;

#[tonic::async_trait]
impl Admin for AdminApi {
    type PullStream = ReceiverStream<Update>;

    async fn pull(&self, request: Request<v1::PullRequest>) -> Result<Response<Self::PullStream>, Status> {
        let request = request.into_inner();
        let reference =
            Reference::parse(&request.image).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let (updates, stream) = mpsc::channel(1);
        let pull =
            pull(Arc::clone(&self.services.images), reference, credentials(request.credentials), updates);
        tokio::spawn(pull.in_current_span());
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn import(
        &self,
        request: Request<Streaming<v1::ImportChunk>>,
    ) -> Result<Response<v1::ImportResponse>, Status> {
        let mut chunks = request.into_inner();
        let mut upload = self.services.images.upload().await.map_err(status)?;
        while let Some(chunk) = chunks.message().await? {
            upload = upload.write(chunk.data).await.map_err(status)?;
        }
        let images = upload.import().await.map_err(status)?;
        Ok(Response::new(v1::ImportResponse { images: images.iter().map(|image| imported(image)).collect() }))
    }

    async fn dump(&self, _: Request<v1::DumpRequest>) -> Result<Response<v1::DumpResponse>, Status> {
        Ok(Response::new(dump::dump(&self.services).await))
    }
}

/// Looks at the progress from time to time; a caller who goes away, or is slow, does not touch the pull.
async fn pull(
    images: Arc<Images>,
    reference: Reference,
    credentials: Credentials,
    updates: mpsc::Sender<Update>,
) {
    let progress = Arc::new(Progress::default());
    let mut pulling = std::pin::pin!(images.pull_watched(&reference, &credentials, Arc::clone(&progress)));
    let mut tick = tokio::time::interval(TICK);
    let mut told = Vec::new();
    let pulled = loop {
        tokio::select! {
            pulled = &mut pulling => break pulled,
            _ = tick.tick() => {}
        }
        let now = progress.layers();
        if now != told && updates.try_send(Ok(update(&now, String::new()))).is_ok() {
            told = now;
        }
    };
    let last = pulled.map(|image| update(&progress.layers(), image.id.to_string())).map_err(status);
    if let Err(status) = &last {
        tracing::warn!(code = ?status.code(), error = status.message(), "Pull failed");
    }
    let _ = updates.send(last).await;
}

fn update(layers: &[LayerProgress], image_id: String) -> v1::PullProgress {
    v1::PullProgress { layers: layers.iter().map(layer).collect(), image_id }
}

fn layer(layer: &LayerProgress) -> v1::Layer {
    let phase = match layer.phase {
        Phase::Waiting => v1::Phase::Waiting,
        Phase::Downloading => v1::Phase::Downloading,
        Phase::Unpacking => v1::Phase::Unpacking,
        Phase::Done => v1::Phase::Done,
        Phase::Present => v1::Phase::Present,
    };
    let (downloaded, total) = (layer.downloaded, layer.total);
    v1::Layer { digest: layer.digest.to_string(), phase: phase.into(), downloaded, total }
}

fn credentials(credentials: Option<v1::Credentials>) -> Credentials {
    let v1::Credentials { username, password } = credentials.unwrap_or_default();
    Credentials { username, password, ..Credentials::default() }
}

fn imported(image: &Image) -> v1::ImportedImage {
    v1::ImportedImage { id: image.id.to_string(), tags: image.tags.iter().cloned().collect() }
}
