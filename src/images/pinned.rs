//! `[image]` of the configuration, and which images are pinned, so that the kubelet's garbage collection spares them.
//! What does not live here: refusing to remove them, for CRI has a runtime obey who asks for that.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::image::Image;
use super::reference::Reference;
use super::{Images, glob, policy};

/// `[image]` of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// An image is pinned if one of its names fits one of these.
    #[serde(deserialize_with = "patterns")]
    pub pinned: Vec<Pattern>,
    /// Which images may be pulled.
    pub policy: policy::Config,
}

/// Fits names of images in normal form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// This name, with its tag or digest in normal form.
    Exact(Reference),
    /// A text in which each `*` stands for any text.
    Glob(String),
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Exact(reference) => serializer.collect_str(reference),
            Self::Glob(glob) => serializer.serialize_str(glob),
        }
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, String> {
        if text.contains('*') {
            return Ok(Self::Glob(text.to_string()));
        }
        Reference::parse(text).map(Self::Exact).map_err(|error| error.to_string())
    }

    fn fits(&self, name: &str) -> bool {
        match self {
            Self::Exact(reference) => match reference.digest() {
                Some(digest) => reference.digested(digest) == name,
                None => reference.tagged().as_deref() == Some(name),
            },
            Self::Glob(glob) => glob::fits(glob, name),
        }
    }
}

fn patterns<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Pattern>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| Pattern::parse(text).map_err(serde::de::Error::custom)).collect()
}

impl Images {
    /// Whether the node's configuration pins the image, under any of its names.
    pub fn is_pinned(&self, image: &Image) -> bool {
        let mut names = image.tags.iter().chain(&image.digests);
        names.any(|name| self.shared.config.pinned.iter().any(|pattern| pattern.fits(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_exactly_in_normal_form_or_by_stars() {
        let digest = format!("quay.io/a/b@sha256:{}", "0".repeat(64));
        for (pattern, name, fits) in [
            ("busybox", "docker.io/library/busybox:latest", true),
            ("busybox", "docker.io/library/busybox:1", false),
            ("quay.io/a/b:1", "quay.io/a/b:1", true),
            ("quay.io/a/b:1", "quay.io/a/b:11", false),
            (&digest, &digest, true),
            (&digest, "quay.io/a/b:latest", false),
            ("quay.io/*", "quay.io/a/b:1", true),
            ("quay.io/*", "other.io/quay.io/a:1", false),
            ("*/pause:*", "registry.k8s.io/pause:3.10", true),
            ("*/pause:*", "registry.k8s.io/paused:3.10", false),
            ("*a*b*", "xaxbx", true),
            ("*a*b*", "xbxax", false),
            ("ab*ba", "aba", false),
            ("ab*ba", "abba", true),
            ("*", "quay.io/a/b:1", true),
            ("q**1", "quay.io/a/b:1", true),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap().fits(name), fits, "{pattern} {name}");
        }
        assert!(Pattern::parse("Not/An/Image").is_err());
    }
}
