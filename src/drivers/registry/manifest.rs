//! Manifests and indexes, verified. What does not live here: which of an index's manifests fits this machine.

use reqwest::Response;
use reqwest::header::CONTENT_TYPE;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::error::RegistryError;
use super::request::{Target, read_body};
use crate::ids::Digest;

/// Image-spec's and Docker's index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// An image manifest of image-spec.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Docker's index, "manifest list".
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's image manifest, version 2, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// The largest manifest or index, in bytes (what registries take, too).
pub const MAX_MANIFEST: u64 = 4 << 20;

pub(super) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// A manifest or an index whose bytes have this digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Of `bytes`.
    pub digest: Digest,
    /// One of [`OCI_INDEX`], [`OCI_MANIFEST`], [`DOCKER_LIST`], [`DOCKER_MANIFEST`]: header and document agree on it.
    pub media_type: String,
    /// The document.
    pub bytes: Vec<u8>,
}

/// What is known of a manifest before it comes.
#[derive(Default)]
pub(super) struct Promise<'a> {
    pub(super) digest: Option<&'a Digest>,
    pub(super) size: Option<u64>,
    /// Which tag it has, if not the reference's.
    pub(super) tag: Option<&'a str>,
}

/// Reads and verifies the answer to a manifest request.
pub(super) async fn read(
    target: &Target<'_>,
    response: Response,
    promise: &Promise<'_>,
) -> Result<Manifest, RegistryError> {
    let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let content_type: String =
        content_type.unwrap_or("").chars().filter(|c| !c.is_control()).take(100).collect();
    let announced = announced(target, &response)?;
    let bytes = document(target, response, promise.size).await?;
    let (object, host) = (target.object.clone(), target.host.name());
    let digest = Digest::of(&bytes);
    for expected in promise.digest.into_iter().chain(announced.as_ref()) {
        if *expected != digest {
            let expected = expected.clone();
            return Err(RegistryError::DigestMismatch { object, host, expected, actual: digest });
        }
    }
    match media_type(&content_type, &bytes) {
        Ok(media_type) => Ok(Manifest { digest, media_type, bytes }),
        Err(reason) => Err(RegistryError::BadMediaType { object, host, media_type: content_type, reason }),
    }
}

/// The answer's body, of the promised size or at most as large as Berth takes.
async fn document(
    target: &Target<'_>,
    response: Response,
    size: Option<u64>,
) -> Result<Vec<u8>, RegistryError> {
    let (object, host) = (target.object.clone(), target.host.name());
    let limit = size.unwrap_or(MAX_MANIFEST);
    if limit > MAX_MANIFEST {
        return Err(RegistryError::TooLarge { object, limit: MAX_MANIFEST });
    }
    let length = response.content_length();
    let body = match tokio::time::timeout(target.no_progress, read_body(response, limit)).await {
        Ok(Ok(body)) => body,
        Ok(Err(cause)) => return Err(RegistryError::Unavailable { object, host, cause }),
        Err(_) => {
            let waited = target.no_progress;
            return Err(RegistryError::NoProgress { object, host, bytes: 0, waited });
        }
    };
    match (body, size) {
        (Some(bytes), Some(expected)) if bytes.len() as u64 != expected => {
            Err(RegistryError::SizeMismatch { object, host, expected, actual: bytes.len() as u64 })
        }
        (Some(bytes), _) => Ok(bytes),
        (None, Some(expected)) => {
            let actual = length.unwrap_or(expected + 1);
            Err(RegistryError::SizeMismatch { object, host, expected, actual })
        }
        (None, None) => Err(RegistryError::TooLarge { object, limit }),
    }
}

/// Docker-Content-Digest. Other algorithms than sha256 are left alone.
pub(super) fn announced(target: &Target<'_>, response: &Response) -> Result<Option<Digest>, RegistryError> {
    let Some(value) = response.headers().get("docker-content-digest") else {
        return Ok(None);
    };
    match value.to_str().unwrap_or("") {
        "" => Ok(None),
        text if text.starts_with("sha512:") => Ok(None),
        text => Digest::parse(text).map(Some).map_err(|_| RegistryError::BadAnswer {
            object: target.object.clone(),
            host: target.host.name(),
            what: "Docker-Content-Digest",
        }),
    }
}

/// The parts that tell what a document is. A key that comes twice is refused by the parser.
#[derive(Deserialize)]
struct Shape {
    #[serde(rename = "mediaType")]
    media_type: Option<String>,
    manifests: Option<Vec<IgnoredAny>>,
    layers: Option<Vec<IgnoredAny>>,
    config: Option<IgnoredAny>,
}

/// Whether it is an index of nothing.
pub(super) fn is_empty(bytes: &[u8]) -> bool {
    let shape = serde_json::from_slice::<Shape>(bytes);
    shape.is_ok_and(|shape| shape.manifests.is_some_and(|manifests| manifests.is_empty()))
}

fn media_type(content_type: &str, bytes: &[u8]) -> Result<String, &'static str> {
    let content_type = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    if content_type.starts_with("application/vnd.docker.distribution.manifest.v1+") {
        return Err("Docker schema 1 images are no longer supported; push the image again");
    }
    let shape: Shape =
        serde_json::from_slice(bytes).map_err(|_| "the document is no manifest, or names a key twice")?;
    let index = match (&shape.manifests, &shape.layers, &shape.config) {
        (Some(_), None, None) => true,
        (None, Some(_), Some(_)) => false,
        (Some(_), _, _) => return Err("the document claims to be both an index and a manifest"),
        _ => return Err("the document is neither a manifest nor an index"),
    };
    let known = |text: &str| matches!(text, OCI_INDEX | OCI_MANIFEST | DOCKER_LIST | DOCKER_MANIFEST);
    let chosen = match (content_type.as_str(), shape.media_type) {
        (header, Some(own)) if known(header) && own != header => {
            return Err("the document's mediaType differs from the Content-Type");
        }
        (header, _) if known(header) => header.to_string(),
        ("" | "application/json" | "text/plain" | "application/octet-stream", Some(own)) if known(&own) => {
            own
        }
        ("" | "application/json" | "text/plain" | "application/octet-stream", None) if index => {
            OCI_INDEX.to_string()
        }
        ("" | "application/json" | "text/plain" | "application/octet-stream", None) => {
            OCI_MANIFEST.to_string()
        }
        _ => return Err("not an image manifest or index"),
    };
    match matches!(chosen.as_str(), OCI_INDEX | DOCKER_LIST) == index {
        true => Ok(chosen),
        false => Err("the document is not what its media type says"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_and_document_must_agree() {
        let manifest = r#"{"config":{},"layers":[]}"#;
        let index = r#"{"manifests":[]}"#;
        let typed = format!(r#"{{"mediaType":"{DOCKER_MANIFEST}","config":{{}},"layers":[]}}"#);
        let twice = r#"{"layers":[],"config":{},"layers":[]}"#;
        for (header, document, result) in [
            (OCI_MANIFEST, manifest, Some(OCI_MANIFEST)),
            ("application/vnd.oci.image.index.v1+json; charset=utf-8", index, Some(OCI_INDEX)),
            ("application/json", manifest, Some(OCI_MANIFEST)),
            ("", index, Some(OCI_INDEX)),
            ("text/plain", &typed, Some(DOCKER_MANIFEST)),
            (DOCKER_MANIFEST, &typed, Some(DOCKER_MANIFEST)),
            (OCI_MANIFEST, &typed, None),
            (OCI_INDEX, manifest, None),
            (OCI_MANIFEST, index, None),
            (OCI_MANIFEST, twice, None),
            (OCI_MANIFEST, r#"{"config":{},"layers":[],"manifests":[]}"#, None),
            (OCI_MANIFEST, "[]", None),
            (OCI_MANIFEST, "", None),
            ("text/html", manifest, None),
            ("application/vnd.docker.distribution.manifest.v1+prettyjws", manifest, None),
        ] {
            let found = media_type(header, document.as_bytes());
            assert_eq!(found.ok().as_deref(), result, "{header} {document}");
        }
    }
}
