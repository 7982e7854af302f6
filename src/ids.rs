//! Identifiers, each a type born at the edge by `parse` or `generate`. What does not live here: names that users choose.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;

use serde::{Deserialize, Serialize};

/// Why a text is no identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Nothing was given.
    #[error("the {0} is empty")]
    Empty(&'static str),
    /// Something else than 64 lower-case hexadecimal digits.
    #[error("{0} {1:?} is not 64 lower-case hexadecimal digits")]
    NotHex(&'static str, String),
    /// A digest that is not `sha256:` and 64 lower-case hexadecimal digits (image-spec, descriptor.md "Digests").
    #[error("digest {0:?} is not sha256: and 64 lower-case hexadecimal digits")]
    Digest(String),
}

fn is_hex64(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}

fn random_hex() -> String {
    let mut bytes = [0_u8; 32];
    // The kernel's generator fails only before its first seeding, long before a daemon runs.
    if getrandom::fill(&mut bytes).is_err() {
        std::process::abort();
    }
    hex(&bytes)
}

/// Lower-case hexadecimal digits of some bytes.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

macro_rules! object_id {
    ($name:ident, $noun:literal) => {
        #[doc = concat!("The id of a ", $noun, ": 64 lower-case hexadecimal digits.")]
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// A new random id.
            pub fn generate() -> Self {
                Self(random_hex())
            }

            /// Takes a whole id.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                match text {
                    "" => Err(IdError::Empty(concat!($noun, " id"))),
                    text if is_hex64(text) => Ok(Self(text.to_string())),
                    text => Err(IdError::NotHex(concat!($noun, " id"), shorten(text))),
                }
            }

            /// The 64 digits.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The first 13 digits, as crictl shows them.
            pub fn short(&self) -> &str {
                &self.0[..13]
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.short())
            }
        }

        /// Equal, ordered and hashed as the digits are.
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
    };
}

/// What a text names among objects with ids.
#[derive(Debug, PartialEq, Eq)]
pub enum Named<'a, T> {
    /// Nothing.
    Nothing,
    /// The object with this id, or the only one whose id begins so.
    One(&'a T),
    /// Ids of several objects begin so.
    Several,
}

/// Looks for an object by its id, or by the beginning of it; an empty text names nothing.
pub fn named<'a, K, T>(table: &'a HashMap<K, T>, text: &str) -> Named<'a, T>
where
    K: Borrow<str> + Eq + Hash,
{
    if let Some(exact) = table.get(text) {
        return Named::One(exact);
    }
    let mut found = table.iter().filter(|(id, _)| !text.is_empty() && (*id).borrow().starts_with(text));
    match (found.next(), found.next()) {
        (None, _) => Named::Nothing,
        (Some((_, one)), None) => Named::One(one),
        (Some(_), Some(_)) => Named::Several,
    }
}

object_id!(PodId, "pod sandbox");
object_id!(ContainerId, "container");

/// A sha256 digest, `sha256:` and 64 lower-case hexadecimal digits (image-spec, descriptor.md "Digests").
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// Takes `sha256:<64 hex>` and nothing else.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        match text.strip_prefix("sha256:") {
            Some(digits) if is_hex64(digits) => Ok(Self(text.to_string())),
            _ => Err(IdError::Digest(shorten(text))),
        }
    }

    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(bytes);
        hasher.finish()
    }

    /// From the eight words of a finished hash.
    pub fn from_words(words: [u32; 8]) -> Self {
        Self(format!("sha256:{}", hex(words.map(u32::to_be_bytes).as_flattened())))
    }

    /// With the algorithm: `sha256:...`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The 64 digits alone.
    pub fn digits(&self) -> &str {
        &self.0["sha256:".len()..]
    }
}

/// Makes the digest of bytes as they come. ring, because it is the fastest where the processor has no instructions for
/// SHA-256 (and layers are hashed twice), and as fast as others where it has.
pub struct Hasher(ring::digest::Context);

impl Hasher {
    /// Of nothing yet.
    pub fn new() -> Self {
        Self(ring::digest::Context::new(&ring::digest::SHA256))
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all.
    pub fn finish(self) -> Digest {
        Digest(format!("sha256:{}", hex(self.0.finish().as_ref())))
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Digest {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        Self::parse(&text)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_64_lower_case_digits_are_an_id() {
        let id = PodId::generate();
        assert_eq!(PodId::parse(id.as_str()), Ok(id.clone()));
        assert_ne!(id, PodId::generate());
        let upper = id.as_str().to_uppercase().replace(|c: char| c.is_ascii_digit(), "A");
        for bad in ["", "..", "a/b", &id.as_str()[1..], &upper, &format!("{id}0"), "../../x"] {
            assert!(PodId::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_a_whole_sha256_is_a_digest() {
        let digest = Digest::of(b"");
        assert_eq!(digest.digits(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(Digest::parse(digest.as_str()), Ok(digest.clone()));
        let upper = format!("sha256:{}", digest.digits().to_uppercase());
        for bad in
            ["", "sha256:", "sha256:../../x", digest.digits(), &upper, "sha512:00", &"x".repeat(1 << 20)]
        {
            let error = Digest::parse(bad).expect_err(bad);
            assert!(error.to_string().len() < 200);
        }
    }

    #[test]
    fn an_object_is_named_by_its_id_or_by_a_beginning_that_no_other_has() {
        let id = |text: &str| PodId::parse(&format!("{text:0<64}")).unwrap();
        let table: HashMap<_, _> = [(id("abc1"), 1), (id("abc2"), 2), (id("b"), 3)].into();
        assert_eq!(named(&table, "b"), Named::One(&3));
        assert_eq!(named(&table, id("abc2").as_str()), Named::One(&2));
        assert_eq!(named(&table, "abc"), Named::Several);
        for nothing in ["", "c", "abc3", "B"] {
            assert_eq!(named(&table, nothing), Named::Nothing, "{nothing:?}");
        }
    }
}
