//! Why the policy does not admit an image.

use crate::ids::Digest;

/// Why, in words for `kubectl describe pod`.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PolicyError {
    /// A rule says so.
    #[error("the policy for {0} rejects all images")]
    Rejected(String),
    /// No rule speaks for it.
    #[error("the policy has no rule for it and rejects by default")]
    Unlisted,
    /// Nobody signed it.
    #[error("the policy for {scope} asks for a signature, and {digest} has none")]
    Unsigned {
        /// Of the rule.
        scope: String,
        /// What the reference means now.
        digest: Digest,
    },
    /// Somebody did, and it does not count.
    #[error("no signature of {digest} is one that the policy for {scope} asks for: {reasons}")]
    NoneGood {
        /// Of the rule.
        scope: String,
        /// What the reference means now.
        digest: Digest,
        /// What is wrong with each.
        reasons: String,
    },
    /// The registry makes it last.
    #[error("the registry gave no good signature of {digest} within {seconds} s")]
    Slow {
        /// What the reference means now.
        digest: Digest,
        /// How long was waited.
        seconds: u64,
    },
}
