//! Bundles: one JSON with statement, signature, and what proves whose it is (what cosign 3 writes).

use sigstore_verify::types::bundle::VerificationMaterialContent;
use sigstore_verify::types::{Bundle, DsseEnvelope, Sha256Hash, SignatureContent, Statement};

use super::rejection::malformed;
use super::{Artifact, Rejection, SIGN, Signer, Trust, Verified};
use crate::ids::Digest;

/// What an envelope of in-toto says it holds.
const STATEMENT: &str = "application/vnd.in-toto+json";

pub(super) fn verify(trust: &Trust, json: &[u8], digests: &[Digest]) -> Result<Verified, Rejection> {
    let bundle: Bundle = serde_json::from_slice(json).map_err(malformed)?;
    let SignatureContent::DsseEnvelope(envelope) = &bundle.content else {
        return Err(malformed("it has no statement"));
    };
    let digest = subject(envelope, digests)?;
    let signer = match (&bundle.verification_material.content, &trust.root) {
        (VerificationMaterialContent::PublicKey(_), _) => {
            let key = trust.key(&envelope.pae(), envelope.signature.sig.as_bytes());
            let key = key.ok_or(Rejection::OtherKey)?;
            if let Some(root) = trust.log() {
                root.logged(key, &bundle, &Artifact::Digest(digest))?;
            }
            Signer::Key(key.path.clone())
        }
        (_, Some(root)) => root.certified(&bundle, &Artifact::Digest(digest))?,
        (_, None) => return Err(Rejection::NoRoot),
    };
    Ok(Verified { signer, name: None })
}

/// Which of the digests the statement approves of. The signature is of the envelope, so nothing here is true before it is
/// verified.
fn subject(envelope: &DsseEnvelope, digests: &[Digest]) -> Result<Sha256Hash, Rejection> {
    if envelope.payload_type != STATEMENT {
        return Err(malformed(format_args!("it holds {:?}, no statement", envelope.payload_type)));
    }
    let statement: Statement = serde_json::from_slice(envelope.payload.as_bytes()).map_err(malformed)?;
    if statement.type_ != Statement::TYPE_V1 {
        return Err(malformed(format_args!("a statement of version {:?}", statement.type_)));
    }
    if statement.predicate_type != SIGN {
        return Err(Rejection::OtherStatement(statement.predicate_type));
    }
    let hashes = || statement.subject.iter().filter_map(|subject| subject.digest.sha256.as_ref());
    let ours = |hash: &&Sha256Hash| digests.iter().any(|digest| digest.digits() == hash.to_hex());
    hashes().find(ours).copied().ok_or_else(|| {
        Rejection::OtherImage(
            hashes().next().map_or("of none".into(), |hash| format!("sha256:{}", hash.to_hex())),
        )
    })
}
