//! Why something that a registry keeps as a signature of an image counts for nothing.

use crate::error::chain;

/// Why, in words that follow "a signature".
#[derive(Debug, thiserror::Error)]
pub enum Rejection {
    /// It is not what it should be.
    #[error("can't be read: {0}")]
    Malformed(String),
    /// It is a signature of something else.
    #[error("is of another image: {0}")]
    OtherImage(String),
    /// It says something else than that somebody approves of the image.
    #[error("is a statement of type {0:?}, not {sign:?}", sign = super::SIGN)]
    OtherStatement(String),
    /// It has no certificate, and none of the keys fits.
    #[error("is by another key")]
    OtherKey,
    /// It has a certificate, and the policy trusts keys only.
    #[error("is by another key, or by certificate, which needs a trusted root")]
    NoRoot,
    /// There is no proof that it was ever made public.
    #[error("is in no transparency log")]
    NotLogged,
    /// Its cryptography, certificate, log entry or time.
    #[error("does not verify")]
    Sigstore(#[source] Box<sigstore_verify::Error>),
}

impl Rejection {
    /// In one line, and short: most of the words may be the registry's.
    pub fn line(&self) -> String {
        let line = chain(self);
        match line.char_indices().nth(200) {
            Some((end, _)) => format!("{}...", line[..end].trim_end()),
            None => line,
        }
        .replace(char::is_control, " ")
    }
}

/// For `map_err`.
pub(super) fn malformed(problem: impl std::fmt::Display) -> Rejection {
    Rejection::Malformed(problem.to_string())
}
