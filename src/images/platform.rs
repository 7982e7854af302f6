//! Which of an image's platforms fits this machine. What does not live here: fetching it.

use std::fmt;

use serde::Deserialize;

use super::manifest::Descriptor;

/// Platforms that a message names.
const OFFERED_MAX: usize = 20;

/// In Go's words (image-spec, image-index.md "platform").
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, ...
    pub architecture: String,
    /// `v7`, `v8`, ...; often empty.
    pub variant: String,
}

impl Platform {
    /// This machine's.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", ""),
            "aarch64" => ("arm64", "v8"),
            "arm" => ("arm", "v7"),
            "x86" => ("386", ""),
            "powerpc64" => ("ppc64le", ""),
            other => (other, ""),
        };
        Self { os: "linux".into(), architecture: architecture.into(), variant: variant.into() }
    }

    /// Whether `other` runs here, and how well it fits: higher is better. Empty fields of old images fit.
    pub fn fit(&self, other: &Self) -> Option<u32> {
        let same = |ours: &str, theirs: &str| theirs.is_empty() || ours == theirs;
        if !same(&self.os, &other.os) || !same(&self.architecture, &other.architecture) {
            return None;
        }
        let level = |variant: &str| variant.trim_start_matches('v').parse::<u32>().ok();
        match (level(&self.variant), level(&other.variant)) {
            _ if self.variant == other.variant => Some(1000),
            (Some(ours), Some(theirs)) if theirs > ours => None,
            (Some(_), Some(theirs)) => Some(theirs),
            // Levels above the first need instructions that we do not ask the processor for.
            (None, Some(theirs)) => (theirs <= 1).then_some(500),
            _ => Some(500),
        }
    }

    /// The best one of an index.
    pub fn choose<'a>(&self, manifests: &'a [Descriptor]) -> Option<&'a Descriptor> {
        let fits = manifests.iter().filter_map(|one| {
            let fit = one.platform.as_ref().map_or(Some(0), |platform| self.fit(platform))?;
            Some((fit, one))
        });
        // The first of equals wins, as the index's author ordered them.
        fits.rev().max_by_key(|(fit, _)| *fit).map(|(_, one)| one)
    }
}

/// For messages: what an image says of itself is made fit for a terminal.
impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |text: &str| -> String { text.chars().filter(|c| !c.is_control()).take(32).collect() };
        write!(f, "{}/{}", plain(&self.os), plain(&self.architecture))?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", plain(&self.variant)) }
    }
}

/// The platforms of an index, for a message, which needs no more than some of them.
pub fn offered(manifests: &[Descriptor]) -> String {
    let platforms = || manifests.iter().filter_map(|one| one.platform.as_ref());
    let mut names: Vec<_> = platforms().take(OFFERED_MAX).map(Platform::to_string).collect();
    names.extend(platforms().nth(OFFERED_MAX).map(|_| "...".to_string()));
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        let mut parts = text.split('/').map(str::to_string);
        let mut next = || parts.next().unwrap_or_default();
        Platform { os: next(), architecture: next(), variant: next() }
    }

    #[test]
    fn the_best_variant_that_runs_here_is_chosen() {
        let choose = |ours: &str, offers: &[&str]| {
            let manifests: Vec<_> = offers
                .iter()
                .map(|offer| Descriptor {
                    media_type: String::new(),
                    digest: crate::ids::Digest::of(offer.as_bytes()),
                    size: 1,
                    platform: Some(platform(offer)),
                    annotations: None,
                })
                .collect();
            platform(ours).choose(&manifests).map(|one| one.platform.clone().unwrap().to_string())
        };
        assert_eq!(
            choose("linux/arm/v7", &["linux/arm/v5", "linux/arm/v6", "linux/arm/v8"]).unwrap(),
            "linux/arm/v6"
        );
        assert_eq!(choose("linux/arm64/v8", &["linux/amd64", "linux/arm64"]).unwrap(), "linux/arm64");
        assert_eq!(choose("linux/amd64", &["linux/amd64/v3", "linux/amd64"]).unwrap(), "linux/amd64");
        assert_eq!(choose("linux/amd64", &["windows/amd64", "linux/s390x", "unknown/unknown"]), None);
    }
}
