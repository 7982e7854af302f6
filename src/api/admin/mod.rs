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
use crate::images::image::Image;
use crate::images::progress::{LayerProgress, Phase, Progress};
use crate::images::reference::Reference;
use crate::images::{Garbage, Images, Part, State, Verified, What};

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
    type VerifyStream = ReceiverStream<Result<v1::Verified, Status>>;

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

    async fn verify(
        &self,
        request: Request<v1::VerifyRequest>,
    ) -> Result<Response<Self::VerifyStream>, Status> {
        let names = request.into_inner().images;
        let (updates, stream) = mpsc::channel(1);
        let verify = verify(Arc::clone(&self.services.images), names, updates);
        tokio::spawn(verify.in_current_span());
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn collect(
        &self,
        request: Request<v1::CollectRequest>,
    ) -> Result<Response<v1::CollectResponse>, Status> {
        let (images, dry_run) = (Arc::clone(&self.services.images), request.into_inner().dry_run);
        // It goes on if the caller goes away.
        let collect = tokio::spawn(async move { images.gc(dry_run).await }.in_current_span());
        let garbage = collect.await.map_err(|error| Status::internal(error.to_string()))?.map_err(status)?;
        Ok(Response::new(v1::CollectResponse { garbage: garbage.into_iter().map(thrown_away).collect() }))
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

/// Whoever listens no more ends the work.
async fn verify(
    images: Arc<Images>,
    names: Vec<String>,
    updates: mpsc::Sender<Result<v1::Verified, Status>>,
) {
    let (tell, mut found) = mpsc::channel(1);
    let verify = tokio::spawn(async move { images.verify(&names, tell).await }.in_current_span());
    while let Some(one) = found.recv().await {
        if updates.send(Ok(verified(one))).await.is_err() {
            return;
        }
    }
    if let Ok(Err(error)) = verify.await {
        let _ = updates.send(Err(status(error))).await;
    }
}

fn verified(verified: Verified) -> v1::Verified {
    let Verified { id, part, bytes, images, state } = verified;
    let part = match part {
        Part::Layer => v1::Part::Layer,
        Part::Blob => v1::Part::Blob,
    };
    let (condition, problem) = match state {
        State::Whole => (v1::Condition::Whole, String::new()),
        State::Unsealed => (v1::Condition::Unsealed, String::new()),
        State::Damaged(problem) => (v1::Condition::Damaged, problem),
    };
    let (part, condition) = (part.into(), condition.into());
    v1::Verified { id: id.to_string(), part, bytes, images, condition, problem }
}

fn thrown_away(Garbage { what, name, bytes }: Garbage) -> v1::Garbage {
    let kind = match what {
        What::Layer => "layer",
        What::Blob => "blob",
        What::Unfinished => "unfinished",
        What::Spool => "spool",
        What::Quarantined => "quarantined",
        What::Removed => "removed",
    };
    v1::Garbage { kind: kind.into(), name, bytes }
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
