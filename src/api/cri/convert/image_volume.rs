//! Mount.image and image_sub_path to an ImageVolume, and what of the rest of a Mount does not go with it.

use std::path::Path;

use berth_proto::cri::v1;

use super::{Invalid, absolute};
use crate::containers::spec::ImageVolume;
use crate::error::IMAGE_VOLUME_MOUNT_FAILED;

/// None where the mount is of a path of the host. `field` names the mount.
pub(super) fn image_volume(mount: &v1::Mount, field: &str) -> Result<Option<ImageVolume>, Invalid> {
    let Some(image) = &mount.image else { return Ok(None) };
    let wrong = |name: &str, problem: &str| {
        let kubelet_word = Some(IMAGE_VOLUME_MOUNT_FAILED);
        Invalid { kubelet_word, ..Invalid::new(format!("{field}.{name}"), problem) }
    };
    if image.image.is_empty() {
        return Err(wrong("image.image", "is empty"));
    }
    if !mount.host_path.is_empty() {
        return Err(wrong("host_path", "must be empty: the volume is an image"));
    }
    if !mount.readonly {
        return Err(wrong("readonly", "must be true: an image can't be written"));
    }
    let sub_path = match mount.image_sub_path.as_str() {
        "" => None,
        path => {
            // Checked as if it began at the image's root, which it does.
            let refused = absolute(&format!("/{path}"), "");
            refused.map_err(|refused| wrong("image_sub_path", &refused.problem))?;
            Some(Path::new(path).to_path_buf())
        }
    };
    Ok(Some(ImageVolume {
        image: image.image.clone(),
        user_specified_image: image.user_specified_image.clone(),
        sub_path,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(image: &str) -> v1::Mount {
        let image = v1::ImageSpec { image: image.into(), ..Default::default() };
        v1::Mount { image: Some(image), readonly: true, ..Default::default() }
    }

    #[test]
    fn an_image_volume_has_an_image_perhaps_a_sub_path_and_nothing_of_the_host() {
        let plain = image_volume(&mount("x"), "m").unwrap().unwrap();
        assert_eq!(plain, ImageVolume { image: "x".into(), ..Default::default() });
        let sub = v1::Mount { image_sub_path: "a/b".into(), ..mount("x") };
        assert_eq!(image_volume(&sub, "m").unwrap().unwrap().sub_path.unwrap(), Path::new("a/b"));
        let host = v1::Mount { image: None, host_path: "/h".into(), ..mount("x") };
        assert_eq!(image_volume(&host, "m"), Ok(None));
        for (bad, field) in [
            (mount(""), "m.image.image"),
            (v1::Mount { host_path: "/h".into(), ..mount("x") }, "m.host_path"),
            (v1::Mount { readonly: false, ..mount("x") }, "m.readonly"),
            (v1::Mount { image_sub_path: "a/../..".into(), ..mount("x") }, "m.image_sub_path"),
            (v1::Mount { image_sub_path: "a\0b".into(), ..mount("x") }, "m.image_sub_path"),
        ] {
            let message = image_volume(&bad, "m").unwrap_err().to_string();
            assert!(message.starts_with(&format!("ImageVolumeMountFailed: {field}: ")), "{message}");
        }
    }
}
