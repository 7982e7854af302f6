//! Images: ImageSpec and AuthConfig in, Image out.

use berth_proto::cri::v1;

use super::{Invalid, required};
use crate::containers::user::image_user;
use crate::drivers::registry::Credentials;
use crate::images::image::Image;
use crate::images::reference::Reference;

/// The text of an ImageSpec, which must not be empty.
pub(in crate::api::cri) fn text(image: Option<v1::ImageSpec>) -> Result<String, Invalid> {
    match required(image, "image")?.image {
        text if text.is_empty() => Err(Invalid::new("image.image", "is empty")),
        text => Ok(text),
    }
}

pub(in crate::api::cri) fn reference(image: Option<v1::ImageSpec>) -> Result<Reference, Invalid> {
    let text = text(image)?;
    Reference::parse(&text).map_err(|error| Invalid::new("image.image", error.to_string()))
}

pub(in crate::api::cri) fn credentials(auth: Option<v1::AuthConfig>) -> Credentials {
    let auth = auth.unwrap_or_default();
    Credentials {
        username: auth.username,
        password: auth.password,
        auth: auth.auth,
        server_address: auth.server_address,
        identity_token: auth.identity_token,
        registry_token: auth.registry_token,
    }
}

pub(in crate::api::cri) fn image(image: &Image, pinned: bool) -> v1::Image {
    // Nobody runs an artifact.
    let (uid, username) = match image.artifact {
        None => image_user(&image.config.user),
        Some(_) => (None, String::new()),
    };
    v1::Image {
        id: image.id.to_string(),
        repo_tags: image.tags.iter().cloned().collect(),
        repo_digests: image.digests.iter().cloned().collect(),
        size: image.size,
        uid: uid.map(|uid| v1::Int64Value { value: uid.into() }),
        username,
        spec: None,
        pinned,
    }
}
