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

pub(in crate::api::cri) fn image(image: &Image) -> v1::Image {
    let (uid, username) = user(&image.config.user);
    v1::Image {
        id: image.id.to_string(),
        repo_tags: image.tags.iter().cloned().collect(),
        repo_digests: image.digests.iter().cloned().collect(),
        size: image.size,
        uid,
        username,
        spec: None,
        pinned: image.pinned,
    }
}

/// USER `uid[:group]` gives the uid, `name[:group]` the name; never the group.
fn user(user: &str) -> (Option<v1::Int64Value>, String) {
    match image_user(user) {
        (Some(uid), _) => (Some(v1::Int64Value { value: uid.into() }), String::new()),
        (None, Some(name)) => (None, name),
        // An image that says nothing runs as root.
        (None, None) if user.is_empty() || user.starts_with(':') => {
            (Some(v1::Int64Value { value: 0 }), String::new())
        }
        // Nobody can run it; what it says is shown.
        (None, None) => (None, user.split(':').next().unwrap_or_default().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::user;

    #[test]
    fn the_user_of_an_image_is_a_number_or_a_name() {
        assert_eq!(user("1002:users").0.unwrap().value, 1002);
        assert_eq!(user("www-data:100"), (None, "www-data".into()));
        assert_eq!(user("").0.unwrap().value, 0);
        assert_eq!(user("4294967296"), (None, "4294967296".into()));
    }
}
