//! Anonymous volumes: a directory of the container's own for each VOLUME of its image. It begins with what the image has
//! there, can be written to also where the root can't, is no overlay, counts as written by the container, and goes with
//! it. What does not live here: where they go (oci), copying (drivers/layers).

use std::os::fd::OwnedFd;

use super::oci::{self, AnonymousVolume};
use super::spec::ContainerSpec;
use super::{Cause, Containers};
use crate::ids::ContainerId;
use crate::images::image::ImageConfig;
use crate::pods::spec::UserNamespace;
use crate::telemetry;

impl Containers {
    /// Makes those of a new container from its mounted root.
    pub(super) async fn make_anonymous_volumes(
        &self,
        id: &ContainerId,
        (spec, image): (&ContainerSpec, &ImageConfig),
        root: &OwnedFd,
        user: Option<&UserNamespace>,
    ) -> Result<Vec<AnonymousVolume>, Cause> {
        let places = oci::anonymous_places(image, spec)?;
        if places.is_empty() {
            return Ok(Vec::new());
        }
        self.drivers.bundles.make_volumes(id)?;
        let directory = |number| self.drivers.layout.anonymous_volume(id, number);
        let volume = |(number, place)| AnonymousVolume { place, directory: directory(number) };
        let volumes: Vec<_> = places.into_iter().enumerate().map(volume).collect();
        let (layers, user, image) = (self.drivers.layers.clone(), user.cloned(), spec.image.clone());
        let root =
            root.try_clone().map_err(|source| Cause::Io { step: "open the container's root", source })?;
        let work = telemetry::blocking(move || {
            for AnonymousVolume { place, directory } in &volumes {
                let copied = layers.copy_directory(&root, place, directory, user.as_ref());
                copied.map_err(|source| Cause::AnonymousVolume {
                    image: image.clone(),
                    target: place.clone(),
                    source,
                })?;
            }
            Ok(volumes)
        });
        work.await.unwrap_or(Err(Cause::Stopping))
    }
}
