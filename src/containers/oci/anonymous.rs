//! Where anonymous volumes go: the places that an image declares as VOLUME. What does not live here: making them.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::SpecError;
use super::mounts::{normal, target_of_ours};
use crate::containers::spec::ContainerSpec;
use crate::images::image::ImageConfig;

/// Each is a directory and a mount.
const MOST: usize = 64;

/// Where the image has a volume and nothing else is mounted, parents first. What lies below a volume of the request is
/// that one's: who mounts a claim at /data means it to keep /data/db too.
pub fn anonymous_places(image: &ImageConfig, container: &ContainerSpec) -> Result<Vec<PathBuf>, SpecError> {
    let asked: Vec<_> = container.mounts.iter().filter_map(|mount| normal(&mount.container_path)).collect();
    let free = |place: &PathBuf| {
        place.as_path() != Path::new("/")
            && !target_of_ours(place)
            && !asked.iter().any(|mount| place.starts_with(mount))
    };
    // No path on Linux has a NUL.
    let declared = image.volumes.iter().filter(|path| !path.contains('\0'));
    let places: BTreeSet<_> = declared.map(|path| inside(path)).filter(free).collect();
    if places.len() > MOST {
        return Err(SpecError::TooManyVolumes { count: places.len(), most: MOST });
    }
    Ok(places.into_iter().collect())
}

/// An absolute path that leads nowhere above the root.
fn inside(path: &str) -> PathBuf {
    let mut place = PathBuf::from("/");
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => place.push(name),
            Component::ParentDir => {
                place.pop();
            }
            _ => {}
        }
    }
    place
}
