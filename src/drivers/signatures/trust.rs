//! Who may vouch: public keys and a trusted root, read from files. What does not live here: signatures.

use std::path::{Path, PathBuf};

use sigstore_verify::Verifier;
use sigstore_verify::crypto::{KeyAlgorithm, SigningScheme, verify_signature};
use sigstore_verify::trust_root::TrustedRoot;
use sigstore_verify::types::{DerPublicKey, SignatureBytes};

use super::crypto;
use crate::ids::{Digest, Hasher};

/// Which files, and how much they are asked for.
#[derive(Clone, Debug, Default)]
pub struct Files<'a> {
    /// PEM files of one public key each.
    pub keys: &'a [PathBuf],
    /// Whether a signature by one of the keys must be in the transparency log, too.
    pub keys_in_log: bool,
    /// sigstore's `trusted_root.json`: certificate authorities, logs, timestamp authorities.
    pub trusted_root: Option<&'a Path>,
}

/// Why a file vouches for nobody.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// It can't be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It does not hold what it should.
    #[error("{path} is no {wanted}: {problem}")]
    Bad {
        /// The file.
        path: PathBuf,
        /// What it should be.
        wanted: &'static str,
        /// What is wrong.
        problem: String,
    },
}

/// Whoever may vouch for an image. A signature by one of them is enough.
pub struct Trust {
    pub(super) keys: Vec<Key>,
    pub(super) keys_in_log: bool,
    pub(super) root: Option<Root>,
    pub(super) fingerprint: Digest,
}

/// A public key.
pub(super) struct Key {
    pub path: PathBuf,
    pub der: DerPublicKey,
    schemes: &'static [SigningScheme],
}

/// Authorities and logs.
pub(super) struct Root {
    pub verifier: Verifier,
    pub has_log: bool,
    pub has_certificate_log: bool,
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let keys: Vec<_> = self.keys.iter().map(|key| &key.path).collect();
        f.debug_struct("Trust").field("keys", &keys).field("root", &self.root.is_some()).finish()
    }
}

impl Trust {
    /// Reads the files.
    pub fn load(files: &Files<'_>) -> Result<Self, TrustError> {
        crypto::install();
        let mut hasher = Hasher::new();
        let mut keys = Vec::with_capacity(files.keys.len());
        for path in files.keys {
            let text = read(path)?;
            hasher.update(Digest::of(text.as_bytes()).as_str().as_bytes());
            keys.push(Key::parse(path, &text)?);
        }
        let root = match files.trusted_root {
            None => None,
            Some(path) => {
                let text = read(path)?;
                hasher.update(Digest::of(text.as_bytes()).as_str().as_bytes());
                Some(Root::parse(path, &text)?)
            }
        };
        let bad = |path: &Path, problem: &str| TrustError::Bad {
            path: path.to_path_buf(),
            wanted: "trusted root for these signatures",
            problem: problem.into(),
        };
        if let (Some(root), Some(path), true) = (&root, files.trusted_root, files.keys_in_log)
            && !root.has_log
        {
            return Err(bad(path, "it has no transparency log (tlogs)"));
        }
        Ok(Self { keys, keys_in_log: files.keys_in_log, root, fingerprint: hasher.finish() })
    }

    /// The digest of all files: another one means that they have changed.
    pub fn fingerprint(&self) -> &Digest {
        &self.fingerprint
    }

    /// The files of the keys, for messages.
    pub fn key_files(&self) -> impl Iterator<Item = &Path> {
        self.keys.iter().map(|key| key.path.as_path())
    }

    /// What the trusted root has no authority to check, and what therefore is not checked of certificates.
    pub fn unchecked(&self) -> Option<&'static str> {
        let root = self.root.as_ref()?;
        match (root.has_log, root.has_certificate_log) {
            (true, true) => None,
            (true, false) => Some("that certificates are in a certificate log (ctlogs)"),
            (false, true) => Some("that signatures are in a transparency log (tlogs)"),
            (false, false) => {
                Some("that signatures are in a transparency log (tlogs), or certificates in one (ctlogs)")
            }
        }
    }
}

fn read(path: &Path) -> Result<String, TrustError> {
    std::fs::read_to_string(path).map_err(|source| TrustError::Read { path: path.to_path_buf(), source })
}

impl Key {
    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, TrustError> {
        let bad = |problem: String| TrustError::Bad {
            path: path.to_path_buf(),
            wanted: "public key in PEM",
            problem,
        };
        let der = DerPublicKey::from_pem(text).map_err(|error| bad(error.to_string()))?;
        let algorithm = KeyAlgorithm::from_spki(&der).map_err(|error| bad(error.to_string()))?;
        // cosign has signed with P-384 by both digests.
        let schemes: &[_] = match algorithm {
            KeyAlgorithm::EcdsaP256 => &[SigningScheme::EcdsaP256Sha256],
            KeyAlgorithm::EcdsaP384 => &[SigningScheme::EcdsaP384Sha384, SigningScheme::EcdsaP384Sha256],
            KeyAlgorithm::Ed25519 => &[SigningScheme::Ed25519],
            KeyAlgorithm::Rsa => &[SigningScheme::RsaPkcs1Sha256],
            other => return Err(bad(format!("keys of the kind {other:?} are not supported"))),
        };
        Ok(Self { path: path.to_path_buf(), der, schemes })
    }

    /// Whether this key signed the message.
    pub(super) fn signed(&self, message: &[u8], signature: &SignatureBytes) -> bool {
        let verifies =
            |scheme: &SigningScheme| verify_signature(&self.der, message, signature, *scheme).is_ok();
        self.schemes.iter().any(verifies)
    }
}

impl Root {
    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, TrustError> {
        let bad = |problem: String| TrustError::Bad {
            path: path.to_path_buf(),
            wanted: "trusted root of sigstore",
            problem,
        };
        let root = TrustedRoot::from_json(text).map_err(|error| bad(error.to_string()))?;
        if root.tlogs.is_empty() && root.timestamp_authorities.is_empty() {
            let problem = "without tlogs and timestampAuthorities nobody can tell when a signature was made";
            return Err(bad(problem.into()));
        }
        let verifier = Verifier::new(&root).map_err(|error| bad(error.to_string()))?;
        let (has_log, has_certificate_log) = (!root.tlogs.is_empty(), !root.ctlogs.is_empty());
        Ok(Self { verifier, has_log, has_certificate_log })
    }
}
