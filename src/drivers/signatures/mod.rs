//! Signatures of images in the forms of sigstore's cosign: is this a signature of that digest, and by whom? What does not
//! live here: where signatures are found, and who has to have signed what (images/policy).

mod bundle;
mod crypto;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod rejection;
mod simple;
#[cfg(test)]
pub mod tests;
mod trust;

use std::collections::BTreeMap;
use std::path::PathBuf;

use sigstore_verify::types::{Bundle, Sha256Hash};
use sigstore_verify::{PublicKeyVerificationPolicy, VerificationPolicy};

pub use self::rejection::Rejection;
use self::rejection::malformed;
pub use self::trust::{Files, Trust, TrustError};
use self::trust::{Key, Root};
use crate::ids::Digest;

/// How the media types of bundles begin, as blobs and as artifacts (sigstore's protobuf-specs).
pub const BUNDLE: &str = "application/vnd.dev.sigstore.bundle";
/// The media type of a payload of simple signing (containers/image, "atomic container signature").
pub const SIMPLE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// What a statement must say: other statements about an image, such as a scan's, do not approve of it.
pub const SIGN: &str = "https://sigstore.dev/cosign/sign/v1";

/// A signature as a registry keeps it; nothing of it is verified.
#[derive(Clone, Debug)]
pub enum Signature {
    /// A payload of simple signing, and the annotations of its descriptor.
    Simple(Vec<u8>, BTreeMap<String, String>),
    /// A bundle in JSON.
    Bundle(Vec<u8>),
}

/// Whose signature it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signer {
    /// Of the public key in this file.
    Key(PathBuf),
    /// Of whoever the certificate was made for.
    Certificate {
        /// The subject's alternative name: an e-mail address, or a workload's URI.
        subject: String,
        /// Who identified the subject to the authority: the URL of an OpenID provider.
        issuer: String,
    },
}

/// A signature that is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// By whom.
    pub signer: Signer,
    /// The image's name at the time, as the signer wrote it. Statements have none.
    pub name: Option<String>,
}

impl Trust {
    /// Whether this is a signature of one of these digests, and by whom. Authorization is the caller's: any subject that
    /// the trusted root's authorities vouch for is found.
    pub fn verify(&self, signature: &Signature, digests: &[Digest]) -> Result<Verified, Rejection> {
        match signature {
            Signature::Simple(payload, annotations) => simple::verify(self, payload, annotations, digests),
            Signature::Bundle(json) => bundle::verify(self, json, digests),
        }
    }

    /// The key that signed the message.
    fn key(&self, message: &[u8], signature: &[u8]) -> Option<&Key> {
        let signature = signature.to_vec().into();
        self.keys.iter().find(|key| key.signed(message, &signature))
    }

    /// For keys whose signatures must be in the log.
    fn log(&self) -> Option<&Root> {
        self.root.as_ref().filter(|_| self.keys_in_log)
    }
}

/// What was signed, for the crate.
enum Artifact<'a> {
    Payload(&'a [u8]),
    Digest(Sha256Hash),
}

impl Root {
    /// The log entry of a signature by a key: inclusion proof or promise, and that it is of this signature.
    fn logged(&self, key: &Key, bundle: &Bundle, artifact: &Artifact<'_>) -> Result<(), Rejection> {
        let policy = PublicKeyVerificationPolicy::new(key.der.clone());
        let verified = match artifact {
            Artifact::Payload(payload) => self.verifier.verify(*payload, bundle, &policy),
            Artifact::Digest(digest) => self.verifier.verify(*digest, bundle, &policy),
        };
        verified.map(drop).map_err(|error| Rejection::Sigstore(Box::new(error)))
    }

    /// Chain, purpose and time of the certificate, its entry in the certificate log, the signature's in the transparency
    /// log, and the signature. A log that the root does not have is not asked for.
    fn certified(&self, bundle: &Bundle, artifact: &Artifact<'_>) -> Result<Signer, Rejection> {
        let mut policy = VerificationPolicy::any_identity();
        if !self.has_log {
            policy = policy.skip_tlog_unsafe();
        }
        if !self.has_certificate_log {
            policy = policy.skip_sct();
        }
        let verified = match artifact {
            Artifact::Payload(payload) => self.verifier.verify(*payload, bundle, &policy),
            Artifact::Digest(digest) => self.verifier.verify(*digest, bundle, &policy),
        };
        let verified = verified.map_err(|error| Rejection::Sigstore(Box::new(error)))?;
        if !verified.certificate_verified() {
            return Err(malformed("its certificate was not verified"));
        }
        match (verified.identity(), verified.issuer()) {
            (Some(subject), Some(issuer)) => {
                Ok(Signer::Certificate { subject: subject.to_string(), issuer: issuer.to_string() })
            }
            _ => Err(malformed("its certificate names no subject, or nobody who identified it")),
        }
    }
}
