//! ImageService: each RPC converts, calls the domain, converts back.

use std::sync::Arc;

use berth_proto::cri::v1::{self, image_service_server::ImageService};
use tonic::{Request, Response, Status};

use super::Services;
use super::batches::{self, Batches};
use super::convert::image as convert;
use super::info;
use super::status::status;
use crate::clock;
use crate::images::image::Image;
use crate::telemetry::subject;

/// CRI ImageService.
#[derive(Clone)]
pub struct ImageApi {
    services: Services,
}

impl ImageApi {
    /// Over the daemon's services.
    pub fn new(services: Services) -> Self {
        Self { services }
    }

    fn image(&self, image: &Image) -> v1::Image {
        convert::image(image, self.services.images.is_pinned(image))
    }

    /// Those that a filter of ListImages or StreamImages admits.
    fn matching(&self, filter: Option<v1::ImageFilter>) -> Vec<Arc<Image>> {
        let wanted = filter.and_then(|filter| filter.image).unwrap_or_default().image;
        let images = &self.services.images;
        if wanted.is_empty() { images.list() } else { images.find(&wanted).into_iter().collect() }
    }
}

#[tonic::async_trait]
impl ImageService for ImageApi {
    type StreamImagesStream = Batches<v1::StreamImagesResponse>;

    async fn list_images(
        &self,
        request: Request<v1::ListImagesRequest>,
    ) -> Result<Response<v1::ListImagesResponse>, Status> {
        let found = self.matching(request.into_inner().filter);
        let items = found.iter().map(|image| self.image(image));
        Ok(Response::new(v1::ListImagesResponse { images: batches::whole(items, "StreamImages")? }))
    }

    async fn stream_images(
        &self,
        request: Request<v1::StreamImagesRequest>,
    ) -> Result<Response<Self::StreamImagesStream>, Status> {
        let found = self.matching(request.into_inner().filter);
        let images = Arc::clone(&self.services.images);
        let items = found.into_iter().map(move |image| convert::image(&image, images.is_pinned(&image)));
        Ok(Response::new(batches::stream(items, |images| v1::StreamImagesResponse { images })))
    }

    async fn image_status(
        &self,
        request: Request<v1::ImageStatusRequest>,
    ) -> Result<Response<v1::ImageStatusResponse>, Status> {
        let request = request.into_inner();
        let image = self.services.images.find(&convert::text(request.image)?);
        let mut response = v1::ImageStatusResponse {
            image: image.as_deref().map(|image| self.image(image)),
            ..Default::default()
        };
        if let (Some(image), true) = (image, request.verbose) {
            response.info = info::image(&self.services, &image).await;
        }
        Ok(Response::new(response))
    }

    async fn pull_image(
        &self,
        request: Request<v1::PullImageRequest>,
    ) -> Result<Response<v1::PullImageResponse>, Status> {
        let request = request.into_inner();
        if let Some(pod) = request.sandbox_config.and_then(|pod| pod.metadata) {
            subject::note_pod(&format_args!("{}/{}", pod.namespace, pod.name), None);
        }
        let (reference, credentials) =
            (convert::reference(request.image)?, convert::credentials(request.auth));
        let image = self.services.images.pull(&reference, &credentials).await.map_err(status)?;
        Ok(Response::new(v1::PullImageResponse { image_ref: image.id.to_string() }))
    }

    async fn remove_image(
        &self,
        request: Request<v1::RemoveImageRequest>,
    ) -> Result<Response<v1::RemoveImageResponse>, Status> {
        let image = convert::text(request.into_inner().image)?;
        self.services.images.remove(&image).await.map_err(status)?;
        Ok(Response::new(v1::RemoveImageResponse {}))
    }

    async fn image_fs_info(
        &self,
        _: Request<v1::ImageFsInfoRequest>,
    ) -> Result<Response<v1::ImageFsInfoResponse>, Status> {
        let usage = self.services.images.usage();
        let file_system = v1::FilesystemUsage {
            timestamp: clock::now(),
            fs_id: Some(v1::FilesystemIdentifier {
                mountpoint: self.services.drivers.layout.root().to_string_lossy().into_owned(),
            }),
            used_bytes: Some(v1::UInt64Value { value: usage.bytes }),
            inodes_used: Some(v1::UInt64Value { value: usage.inodes }),
        };
        Ok(Response::new(v1::ImageFsInfoResponse {
            image_filesystems: vec![file_system.clone()],
            container_filesystems: vec![file_system],
        }))
    }
}
