//! Names of images as users write them, in Docker's normal form. What does not live here: finding what they name.

use std::fmt;
use std::hash::{Hash, Hasher};

use crate::ids::{Digest, IdError};

const DOCKER_HUB: &str = "docker.io";
/// No registry takes more; the parts have their own limits.
const MAX_TEXT: usize = 700;
const MAX_REPOSITORY: usize = 255;
const MAX_TAG: usize = 128;

/// Why a text names no image. The text is shown shortened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Nothing was given.
    #[error("the image reference is empty")]
    Empty,
    /// Longer than any reference can be.
    #[error("the image reference {0:?}... is too long")]
    TooLong(String),
    /// The registry is no host name or address with an optional port.
    #[error("image reference {0:?} has a bad registry host")]
    Host(String),
    /// The repository breaks the grammar; upper case is the usual cause.
    #[error(
        "image reference {0:?} has a bad repository: lower-case letters, digits and single . _ - between them"
    )]
    Repository(String),
    /// The tag breaks the grammar.
    #[error("image reference {0:?} has a bad tag")]
    Tag(String),
    /// The part after `@`.
    #[error("image reference {0:?} has a bad digest")]
    Digest(String, #[source] IdError),
    /// 64 hexadecimal digits are an image's id.
    #[error("{0:?} is an image id, not a reference")]
    Id(String),
}

/// A reference in normal form: the registry is spelled out, a reference without tag and digest has the tag `latest`.
#[derive(Clone, Debug)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
    /// The name as it was written, without tag and digest, if no registry was: how it was written makes no other reference.
    short: Option<String>,
}

impl Reference {
    fn parts(&self) -> (&str, &str, Option<&str>, Option<&Digest>) {
        (&self.registry, &self.repository, self.tag(), self.digest())
    }
}

impl PartialEq for Reference {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for Reference {}

impl Hash for Reference {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

impl Reference {
    /// Takes what users write: `busybox`, `quay.io/a/b:1`, `localhost:5000/x@sha256:...` (grammar of the distribution
    /// project's reference package, with Docker's defaults).
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if text.len() > MAX_TEXT {
            return Err(ReferenceError::TooLong(text.chars().take(60).collect()));
        }
        if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ReferenceError::Id(text.to_string()));
        }
        let (name, digest) = split_digest(text)?;
        let (name, tag) = split_tag(name);
        let (registry, repository) = split_registry(name);
        let named = name.split_once('/').is_some_and(|(host, _)| looks_like_host(host));
        let short = (!named).then(|| name.to_string());
        if !is_host(&registry) {
            return Err(ReferenceError::Host(text.to_string()));
        }
        if repository.len() > MAX_REPOSITORY || !repository.split('/').all(is_component) {
            return Err(ReferenceError::Repository(text.to_string()));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(ReferenceError::Tag(text.to_string()));
        }
        let tag = match (tag, &digest) {
            (None, None) => Some("latest".to_string()),
            (tag, _) => tag.map(str::to_string),
        };
        Ok(Self { registry, repository, tag, digest, short })
    }

    /// Host and optional port, lower case: `docker.io`, `localhost:5000`, `[::1]:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// `library/busybox`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Whether both are of one repository, of one registry.
    pub fn is_of_repository_of(&self, other: &Self) -> bool {
        (self.registry(), self.repository()) == (other.registry(), other.repository())
    }

    /// The tag, absent if only a digest was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one was given: it then decides, and the tag is only a name.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The name without tag and digest, if it was written without a registry: `busybox`, `user/app`.
    pub fn short(&self) -> Option<&str> {
        self.short.as_deref()
    }

    /// `docker.io/library/busybox:latest`.
    pub fn tagged(&self) -> Option<String> {
        self.tag.as_ref().map(|tag| self.with_tag(tag))
    }

    /// `docker.io/library/busybox:other`.
    pub fn with_tag(&self, tag: &str) -> String {
        format!("{}/{}:{tag}", self.registry, self.repository)
    }

    /// `docker.io/library/busybox@sha256:...` for some digest.
    pub fn digested(&self, digest: &Digest) -> String {
        format!("{}/{}@{digest}", self.registry, self.repository)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

fn split_digest(text: &str) -> Result<(&str, Option<Digest>), ReferenceError> {
    match text.split_once('@') {
        None => Ok((text, None)),
        Some((name, digest)) => match Digest::parse(digest) {
            Ok(digest) => Ok((name, Some(digest))),
            Err(error) => Err(ReferenceError::Digest(text.to_string(), error)),
        },
    }
}

/// A colon before the last slash belongs to the port.
fn split_tag(name: &str) -> (&str, Option<&str>) {
    match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (name, None),
    }
}

fn split_registry(name: &str) -> (String, String) {
    let (host, rest) = match name.split_once('/') {
        Some((host, rest)) if looks_like_host(host) => (host.to_ascii_lowercase(), rest),
        _ => (DOCKER_HUB.to_string(), name),
    };
    let hub = host == DOCKER_HUB || host == "index.docker.io";
    match hub {
        true if rest.contains('/') => (DOCKER_HUB.to_string(), rest.to_string()),
        true => (DOCKER_HUB.to_string(), format!("library/{rest}")),
        false => (host, rest.to_string()),
    }
}

fn looks_like_host(part: &str) -> bool {
    part.contains(['.', ':']) || part == "localhost"
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if address.parse::<std::net::Ipv6Addr>().is_ok() => ("localhost", port),
            _ => return false,
        },
        None => match text.find(':') {
            Some(colon) => text.split_at(colon),
            None => (text, ""),
        },
    };
    let port_fits = match port.strip_prefix(':') {
        Some(digits) => {
            digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<u16>().is_ok_and(|p| p > 0)
        }
        None => port.is_empty(),
    };
    port_fits && host.len() <= 253 && host.split('.').all(is_host_label) && means_itself(host)
}

/// Not so `127.1` and `0x7f.1`, which URLs take for 127.0.0.1, and `a.15`, which they take for no host (WHATWG URL, host parsing).
fn means_itself(host: &str) -> bool {
    url::Host::parse(host).is_ok_and(|parsed| parsed.to_string() == host)
}

fn is_host_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= 63
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// Runs of lower-case letters and digits, with one of `.`, `_`, `__`, or any number of `-` between them.
fn is_component(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    alphanumeric(*first)
        && alphanumeric(*last)
        && bytes.iter().all(|b| alphanumeric(*b) || matches!(b, b'.' | b'_' | b'-'))
        && component.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).all(|separator| {
            matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-')
        })
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= MAX_TAG
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_users_write_becomes_its_normal_form() {
        let digest = Digest::of(b"x");
        let with_digest = format!("busybox@{digest}");
        let with_both = format!("quay.io/a/b:1@{digest}");
        for (text, normal) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36"),
            ("docker.io/busybox", "docker.io/library/busybox:latest"),
            ("index.docker.io/busybox", "docker.io/library/busybox:latest"),
            ("user/app", "docker.io/user/app:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/app", "localhost:5000/app:latest"),
            ("127.0.0.1:5000/a/b:v1", "127.0.0.1:5000/a/b:v1"),
            ("[::1]:5000/app", "[::1]:5000/app:latest"),
            ("GCR.io/proj", "gcr.io/proj:latest"),
            ("registry.k8s.io/e2e__x/a--b.c_d", "registry.k8s.io/e2e__x/a--b.c_d:latest"),
            (&with_digest, &format!("docker.io/library/busybox@{digest}")),
            (&with_both, &with_both),
        ] {
            assert_eq!(Reference::parse(text).expect(text).to_string(), normal, "{text}");
        }
    }

    #[test]
    fn a_name_without_a_registry_is_known_as_short_and_is_the_same_reference() {
        let short = Reference::parse("user/app:1").unwrap();
        let whole = Reference::parse("docker.io/user/app:1").unwrap();
        assert_eq!((short.short(), whole.short()), (Some("user/app"), None));
        assert_eq!(short, whole);
        let both = std::collections::HashSet::from([short, whole]);
        assert_eq!(both.len(), 1);
    }

    #[test]
    fn tags_and_digests_are_told_apart() {
        let digest = Digest::of(b"x");
        let reference = Reference::parse(&format!("a/b@{digest}")).unwrap();
        assert_eq!((reference.tag(), reference.tagged()), (None, None));
        assert_eq!(reference.digest(), Some(&digest));
        assert_eq!(reference.digested(&digest), format!("docker.io/a/b@{digest}"));
    }

    #[test]
    fn what_breaks_the_grammar_is_refused() {
        let long_tag = format!("a:{}", "t".repeat(129));
        let long_name = format!("quay.io/{}", "n".repeat(256));
        let huge = "a".repeat(1 << 20);
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "..",
            "../a",
            "quay.io/../a",
            "quay.io//a",
            "Busybox",
            "Registry/app",
            "quay.io/A/b",
            "a:",
            ":a",
            "a:-b",
            "a@",
            "a@sha256:",
            "a@sha256:../../x",
            "a@sha512:00",
            "localhost:0/a",
            "localhost:99999/a",
            "localhost:/a",
            "localhost:5x/a",
            "-a.b/c",
            "a..b/c",
            "a.15/c",
            "127.1/c",
            "0x7f.1/c",
            "1.2.3.256/c",
            "10.0.0.010/c",
            "xn--a.io/c",
            "[::1/a",
            "[x]/a",
            "[::1]x/a",
            "a b",
            "a\nb",
            "quay.io/a___b",
            "quay.io/a..b",
            "quay.io/a-",
            "quay.io/.a",
            "a:b:c",
            "http://quay.io/a",
            "user@host/a",
            "é",
            &"0".repeat(64),
            &long_tag,
            &long_name,
            &huge,
        ] {
            let error = Reference::parse(bad).expect_err(bad);
            assert!(error.to_string().len() < 1000);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_stable(text in "\\PC{0,80}") {
            if let Ok(reference) = Reference::parse(&text) {
                let again = Reference::parse(&reference.to_string());
                prop_assert_eq!(again.as_ref(), Ok(&reference));
            }
        }

        #[test]
        fn any_reference_is_stable_and_never_climbs(text in "([a-zA-Z0-9.:\\[\\]-]{1,12}/)?[a-z0-9._/-]{1,20}(:[a-z0-9._-]{1,5})?") {
            if let Ok(reference) = Reference::parse(&text) {
                prop_assert!(!reference.registry().is_empty());
                prop_assert!(!reference.repository().split('/').any(|part| part == ".." || part.is_empty()));
                prop_assert_eq!(Reference::parse(&reference.to_string()), Ok(reference));
            }
        }
    }
}
