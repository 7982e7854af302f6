//! Volumes that show images: finding and holding the images, mounting them. What does not live here: volumes of the
//! host's paths, and attaching either, which the shim does.

use std::os::fd::OwnedFd;

use berth_proto::shim::MAX_VOLUMES;

use super::container::ImageUse;
use super::spec::{ContainerSpec, ImageVolume, Mount};
use super::{Cause, Containers};
use crate::drivers::layers::{LayerError, View};
use crate::error::Kind;
use crate::images::{Hold, NotHeld};

/// Why an image is no volume.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// The kubelet pulls it first.
    #[error("it is not on this node: pull it first")]
    NotHere,
    /// It is, but the policy has not let it in.
    #[error("it was not admitted by the policy in force: pull it again by its name")]
    NotAdmitted,
    /// The talk with the shim has its limits.
    #[error("a container can have {MAX_VOLUMES} image volumes at most")]
    TooMany,
    /// Its layers, or its sub path.
    #[error(transparent)]
    Layers(#[from] LayerError),
}

impl From<NotHeld> for VolumeError {
    fn from(why: NotHeld) -> Self {
        match why {
            NotHeld::Unknown => Self::NotHere,
            NotHeld::Withheld => Self::NotAdmitted,
        }
    }
}

impl VolumeError {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NotHere => Kind::NotFound,
            Self::NotAdmitted => Kind::SignatureValidationFailed,
            Self::TooMany => Kind::InvalidArgument,
            Self::Layers(error) => error.kind(),
        }
    }
}

/// The images of a container's volumes, which stay while this lives.
pub(super) struct Volumes {
    pub uses: Vec<ImageUse>,
    pub holds: Vec<Hold>,
}

fn of_images(spec: &ContainerSpec) -> impl Iterator<Item = (&Mount, &ImageVolume)> {
    spec.mounts.iter().filter_map(|mount| Some((mount, mount.image.as_ref()?)))
}

/// The user's own words where they are known.
fn name(volume: &ImageVolume) -> &str {
    if volume.user_specified_image.is_empty() { &volume.image } else { &volume.user_specified_image }
}

fn failed(mount: &Mount, volume: &ImageVolume, source: impl Into<VolumeError>) -> Cause {
    let (image, target) = (name(volume).to_string(), mount.container_path.clone());
    Cause::Volume { image, target, source: source.into() }
}

impl Containers {
    /// Finds the images of all image volumes, in the request's order.
    pub(super) fn hold_volumes(&self, spec: &ContainerSpec) -> Result<Volumes, Cause> {
        let mut volumes = Volumes { uses: Vec::new(), holds: Vec::new() };
        for (mount, volume) in of_images(spec) {
            if volumes.uses.len() == MAX_VOLUMES {
                return Err(failed(mount, volume, VolumeError::TooMany));
            }
            let hold = self.images.hold_named(&volume.image).map_err(|why| failed(mount, volume, why))?;
            volumes.uses.push(ImageUse::of(hold.image(), name(volume)));
            volumes.holds.push(hold);
        }
        Ok(volumes)
    }

    /// Mounts them, attached nowhere, under the ids of the pod's user namespace where it has one.
    pub(super) fn mount_volumes(
        &self,
        spec: &ContainerSpec,
        uses: &[ImageUse],
        view: View<'_>,
    ) -> Result<Vec<OwnedFd>, Cause> {
        let mount_one = |((mount, volume), image): ((&Mount, &ImageVolume), &ImageUse)| {
            let mounted = self.drivers.layers.volume(&image.layers, volume.sub_path.as_deref(), view);
            mounted.map_err(|error| failed(mount, volume, error))
        };
        of_images(spec).zip(uses).map(mount_one).collect()
    }
}
