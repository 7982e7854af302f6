//! Manifests, indexes and configs (image-spec; Docker's schema 2 is the same with other media types): JSON into types.
//! What does not live here: choosing a platform, fetching.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::image::ImageConfig;
use super::platform::Platform;
use super::unambiguous::{self, Object};
use crate::drivers::layers::LAYERS_MAX;
use crate::ids::Digest;

/// Largest manifest or index, in bytes.
pub const MANIFEST_MAX: u64 = 4 << 20;
/// Largest config, in bytes.
pub const CONFIG_MAX: u64 = 8 << 20;
/// Deepest nesting of indexes.
pub const INDEX_DEPTH_MAX: usize = 3;

const MANIFESTS: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];
const INDEXES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
const CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
const LAYERS: [&str; 2] = ["application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs."];

/// Why a document is refused.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON, or a field that is wrong; the source names line and column.
    #[error("{what} {digest} does not parse")]
    Json {
        /// Which kind.
        what: &'static str,
        /// Of the document.
        digest: Digest,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// Larger than any honest one.
    #[error("{what} {digest} is larger than {limit} bytes")]
    TooLarge {
        /// Which kind.
        what: &'static str,
        /// Of the document.
        digest: Digest,
        /// The limit.
        limit: u64,
    },
    /// Neither a manifest nor an index, or both.
    #[error("manifest {digest} {problem}")]
    Ambiguous {
        /// Of the document.
        digest: Digest,
        /// What is unclear.
        problem: &'static str,
    },
    /// Something that is stored like an image, but is none.
    #[error("manifest {digest} has a {what} of media type {media_type:?}, so it is no image that can run")]
    NotAnImage {
        /// Of the document.
        digest: Digest,
        /// `config` or `layer`.
        what: &'static str,
        /// What it is.
        media_type: String,
    },
    /// Nobody gave Berth a key, and nobody can.
    #[error("layer {0} is encrypted, and Berth does not decrypt layers")]
    Encrypted(Digest),
    /// A file of an artifact whose name is none.
    #[error("artifact {digest} has a file titled {title:?}: {problem}")]
    Title {
        /// Of the manifest.
        digest: Digest,
        /// As written, shortened.
        title: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// More than a directory should have.
    #[error("artifact {digest} has {files} files, more than the {most} that are supported")]
    TooManyFiles {
        /// Of the manifest.
        digest: Digest,
        /// How many.
        files: usize,
        /// The limit.
        most: usize,
    },
    /// More than overlay takes.
    #[error("manifest {digest} has {layers} layers, more than the {max} that are supported", max = LAYERS_MAX)]
    TooManyLayers {
        /// Of the document.
        digest: Digest,
        /// How many.
        layers: usize,
    },
    /// Config and manifest disagree.
    #[error("manifest {digest} has {layers} layers, but its config has {diff_ids}")]
    LayerCount {
        /// Of the manifest.
        digest: Digest,
        /// In the manifest.
        layers: usize,
        /// In the config.
        diff_ids: usize,
    },
    /// Indexes within indexes.
    #[error("index {0} is nested too deeply")]
    TooDeep(Digest),
}

/// A pointer to a blob.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    #[serde(default)]
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// In an index: what it is made for.
    pub platform: Option<Platform>,
    /// In an OCI layout: its name.
    #[serde(default)]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// One platform's image, or an artifact.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// Of the document.
    pub digest: Digest,
    /// The config blob.
    pub config: Descriptor,
    /// Bottom first; of an artifact its files.
    pub layers: Vec<Descriptor>,
    /// The type of an artifact (image-spec, manifest.md "Guidelines for Artifact Usage"): anything but a config of an
    /// image makes one. None: an image that can run.
    pub artifact: Option<String>,
}

/// What a registry calls a manifest.
#[derive(Clone, Debug)]
pub enum Document {
    /// One image.
    Manifest(Box<Manifest>),
    /// One for each platform.
    Index(Vec<Descriptor>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: Option<u64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
}

/// Reads a manifest or an index whose digest was verified. `media_type` is what the registry or the descriptor says;
/// empty if nobody said anything.
pub fn parse(digest: &Digest, media_type: &str, bytes: &[u8]) -> Result<Document, ManifestError> {
    check_size("manifest", digest, bytes, MANIFEST_MAX)?;
    let raw: Raw = read("manifest", digest, Object::Document, bytes)?;
    let ambiguous = |problem| Err(ManifestError::Ambiguous { digest: digest.clone(), problem });
    if raw.schema_version.is_some_and(|version| version != 2) {
        return ambiguous("is of another schema version than 2");
    }
    let said = media_type.split(';').next().unwrap_or_default().trim();
    if raw.media_type.as_deref().is_some_and(|own| !said.is_empty() && own != said) {
        return ambiguous("calls itself something else than the registry does");
    }
    let said = raw.media_type.as_deref().unwrap_or(said);
    match (raw.manifests, raw.config, raw.layers) {
        (Some(manifests), None, None) if !MANIFESTS.contains(&said) => Ok(Document::Index(manifests)),
        (None, Some(config), Some(layers)) if !INDEXES.contains(&said) => {
            manifest(digest, (config, layers), raw.artifact_type)
                .map(|manifest| Document::Manifest(Box::new(manifest)))
        }
        (Some(_), ..) => ambiguous("is an index and an image at once"),
        _ => ambiguous("is neither an index nor an image with config and layers"),
    }
}

fn manifest(
    digest: &Digest,
    (config, layers): (Descriptor, Vec<Descriptor>),
    artifact_type: Option<String>,
) -> Result<Manifest, ManifestError> {
    let digest = digest.clone();
    if !CONFIGS.contains(&config.media_type.as_str()) {
        let named =
            artifact_type.into_iter().chain([config.media_type.clone()]).find(|name| !name.is_empty());
        return match named {
            // RFC 6838, section 4.2, allows 127 characters on each side of the slash.
            Some(kind) if kind.len() > 255 => Err(ManifestError::NotAnImage {
                digest,
                what: "type",
                media_type: kind.chars().take(255).collect(),
            }),
            Some(kind) => Ok(Manifest { digest, config, layers, artifact: Some(kind) }),
            None => Err(ManifestError::NotAnImage { digest, what: "config", media_type: config.media_type }),
        };
    }
    if layers.len() > LAYERS_MAX {
        return Err(ManifestError::TooManyLayers { digest, layers: layers.len() });
    }
    if config.size > CONFIG_MAX {
        return Err(ManifestError::TooLarge { what: "config", digest: config.digest, limit: CONFIG_MAX });
    }
    if let Some(secret) = layers.iter().find(|layer| layer.media_type.ends_with("+encrypted")) {
        return Err(ManifestError::Encrypted(secret.digest.clone()));
    }
    // Layers with `urls` are fetched from the registry like all others: a URL in a document gets no request.
    match layers.iter().find(|layer| !LAYERS.iter().any(|prefix| layer.media_type.starts_with(prefix))) {
        Some(other) => {
            let media_type = other.media_type.chars().take(255).collect();
            Err(ManifestError::NotAnImage { digest, what: "layer", media_type })
        }
        None => Ok(Manifest { digest, config, layers, artifact: None }),
    }
}

fn read<T: serde::de::DeserializeOwned>(
    what: &'static str,
    digest: &Digest,
    object: Object,
    bytes: &[u8],
) -> Result<T, ManifestError> {
    let read = unambiguous::check(object, bytes).and_then(|()| serde_json::from_slice(bytes));
    read.map_err(|source| ManifestError::Json { what, digest: digest.clone(), source })
}

fn check_size(what: &'static str, digest: &Digest, bytes: &[u8], limit: u64) -> Result<(), ManifestError> {
    if bytes.len() as u64 > limit {
        return Err(ManifestError::TooLarge { what, digest: digest.clone(), limit });
    }
    Ok(())
}

/// An image's config blob.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// For containers.
    pub config: ImageConfig,
    /// What it is made for.
    pub platform: Platform,
    /// Of the plain layers, bottom first.
    pub diff_ids: Vec<Digest>,
}

#[derive(Deserialize)]
struct RawConfig {
    #[serde(default)]
    architecture: Option<String>,
    #[serde(default)]
    os: Option<String>,
    #[serde(default)]
    variant: Option<String>,
    #[serde(default)]
    config: Option<RawExecution>,
    rootfs: RawRootfs,
}

#[derive(Deserialize)]
struct RawRootfs {
    #[serde(default)]
    diff_ids: Option<Vec<Digest>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RawExecution {
    user: Option<String>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    working_dir: Option<String>,
    stop_signal: Option<String>,
    volumes: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    labels: Option<BTreeMap<String, String>>,
}

/// Reads a config whose digest was verified.
pub fn parse_config(manifest: &Manifest, bytes: &[u8]) -> Result<Config, ManifestError> {
    let digest = &manifest.config.digest;
    check_size("config", digest, bytes, CONFIG_MAX)?;
    let raw: RawConfig = read("config", digest, Object::Config, bytes)?;
    let diff_ids = raw.rootfs.diff_ids.unwrap_or_default();
    if diff_ids.len() != manifest.layers.len() {
        let (layers, diff_ids) = (manifest.layers.len(), diff_ids.len());
        return Err(ManifestError::LayerCount { digest: manifest.digest.clone(), layers, diff_ids });
    }
    let platform = Platform {
        os: raw.os.unwrap_or_default(),
        architecture: raw.architecture.unwrap_or_default(),
        variant: raw.variant.unwrap_or_default(),
    };
    let execution = raw.config.unwrap_or_default();
    let config = ImageConfig {
        user: execution.user.unwrap_or_default(),
        env: execution.env.unwrap_or_default(),
        entrypoint: execution.entrypoint.unwrap_or_default(),
        cmd: execution.cmd.unwrap_or_default(),
        working_dir: execution.working_dir.unwrap_or_default(),
        stop_signal: execution.stop_signal.unwrap_or_default(),
        volumes: execution.volumes.unwrap_or_default().into_keys().collect(),
        labels: execution.labels.unwrap_or_default(),
        os: platform.os.clone(),
        architecture: platform.architecture.clone(),
    };
    Ok(Config { config, platform, diff_ids })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OCI: &str = "application/vnd.oci.image.manifest.v1+json";

    fn document(json: &str) -> Result<Document, ManifestError> {
        parse(&Digest::of(json.as_bytes()), OCI, json.as_bytes())
    }

    fn descriptor(media_type: &str) -> String {
        format!(r#"{{"mediaType":"{media_type}","size":1,"digest":"{}"}}"#, Digest::of(b"x"))
    }

    #[test]
    fn a_document_that_is_two_things_is_refused() {
        let config = descriptor(CONFIGS[0]);
        assert!(document(&format!(r#"{{"config":{config},"layers":[]}}"#)).is_ok());
        for bad in [
            format!(r#"{{"config":{config},"layers":[],"manifests":[]}}"#),
            format!(r#"{{"config":{config},"layers":[],"layers":[]}}"#),
            format!(r#"{{"mediaType":"{}","config":{config},"layers":[]}}"#, INDEXES[0]),
            r#"{"manifests":[]}"#.to_string(),
            "{}".to_string(),
            "[".to_string(),
        ] {
            assert!(document(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_has_no_config_of_an_image_is_an_artifact_of_some_type() {
        let kind = |json: String| match document(&json).unwrap() {
            Document::Manifest(manifest) => manifest.artifact,
            Document::Index(_) => panic!("an index: {json}"),
        };
        let (wasm, empty) = ("application/vnd.wasm.config.v0+json", "application/vnd.oci.empty.v1+json");
        let (config, none) = (descriptor(wasm), descriptor(empty));
        assert_eq!(kind(format!(r#"{{"config":{config},"layers":[]}}"#)).as_deref(), Some(wasm));
        let typed = format!(r#"{{"artifactType":"text/x","config":{none},"layers":[]}}"#);
        assert_eq!(kind(typed).as_deref(), Some("text/x"));
        let image = descriptor(CONFIGS[0]);
        assert_eq!(kind(format!(r#"{{"artifactType":"text/x","config":{image},"layers":[]}}"#)), None);
        assert!(document(&format!(r#"{{"config":{},"layers":[]}}"#, descriptor(""))).is_err());
    }

    #[test]
    fn odd_layers_and_too_many_are_refused_by_name() {
        let (config, wasm) = (descriptor(CONFIGS[0]), descriptor("application/wasm"));
        let error = document(&format!(r#"{{"config":{config},"layers":[{wasm}]}}"#)).unwrap_err();
        assert!(error.to_string().contains("wasm"), "{error}");
        let config = descriptor(CONFIGS[0]);
        let secret = descriptor("application/vnd.oci.image.layer.v1.tar+gzip+encrypted");
        let error = document(&format!(r#"{{"config":{config},"layers":[{secret}]}}"#)).unwrap_err();
        assert!(error.to_string().contains("is encrypted"), "{error}");
        let layer = descriptor("application/vnd.oci.image.layer.v1.tar+gzip");
        let many = vec![layer.as_str(); 129].join(",");
        let error = document(&format!(r#"{{"config":{config},"layers":[{many}]}}"#)).unwrap_err();
        assert!(matches!(error, ManifestError::TooManyLayers { layers: 129, .. }));
    }
}
