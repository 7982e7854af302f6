//! Admitting an image, or not: between the manifest, whose digest is known by then, and everything that it names. What was
//! verified is what is unpacked, for nothing is resolved a second time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::super::Shared;
use super::super::error::ImageError;
use super::super::publish::Names;
use super::super::reference::Reference;
use super::super::source::{Origin, Source};
use super::search::{Failure, PLACES, SIGNATURES_MAX, Search};
use super::{Check, Judgement, PolicyError};
use crate::activity;
use crate::drivers::registry::{Credentials, RegistryError};
use crate::drivers::signatures::{Signature, Signer};
use crate::error::{Kind, chain};
use crate::ids::Digest;
use crate::telemetry;

/// How long a registry may take to come up with signatures.
const PATIENCE: Duration = Duration::from_secs(120);
/// Reasons in an error.
const REASONS_MAX: usize = 4;

impl Shared {
    /// Refuses an image that the policy does not admit under these names. `digests` are those of the index that a
    /// reference means and of this machine's manifest in it: whoever signs either approves of the image.
    pub(in super::super) async fn admit(
        &self,
        source: &Source,
        names: &Names,
        digests: &[Digest],
    ) -> Result<(), ImageError> {
        let refused =
            |error| ImageError::NotAdmitted { image: source.image.to_string(), source: Arc::new(error) };
        let references = match &source.origin {
            Origin::Registry(_, reference, _) => vec![Reference::clone(reference)],
            Origin::Archive(..) => named(names),
        };
        if references.is_empty()
            && let Judgement::Reject(error) = self.policy.otherwise()
        {
            return Err(refused(error));
        }
        for reference in &references {
            let check = match self.policy.judge(reference) {
                Judgement::Accept => continue,
                Judgement::Reject(error) => return Err(refused(error)),
                Judgement::Verify(check) => check,
            };
            activity::step("signatures");
            let signer =
                self.verify(check, source, reference, digests).await.map_err(|error| match error {
                    Refused::Policy(error) => refused(error),
                    Refused::Registry(error) => source.registry(error),
                })?;
            tracing::debug!(image = &*source.image, ?signer, "the policy admits the image");
            self.note_admission(source, names, check).await?;
        }
        Ok(())
    }

    async fn verify(
        &self,
        check: &Arc<Check>,
        source: &Source,
        reference: &Reference,
        digests: &[Digest],
    ) -> Result<Signer, Refused> {
        let nobody = Credentials::default();
        let credentials = match &source.origin {
            Origin::Registry(_, _, credentials) => credentials,
            Origin::Archive(..) => &nobody,
        };
        let search = Search { registry: &self.registry, reference, credentials };
        let found = tokio::time::timeout(PATIENCE, first_good(check, &search, digests)).await;
        found.unwrap_or_else(|_| {
            let (digest, seconds) = (digests[0].clone(), PATIENCE.as_secs());
            Err(Refused::Policy(PolicyError::Slow { digest, seconds }))
        })
    }
}

async fn first_good(check: &Arc<Check>, search: &Search<'_>, digests: &[Digest]) -> Result<Signer, Refused> {
    let mut tried = Tried::default();
    let places = digests.iter().flat_map(|digest| PLACES.map(|place| (place, digest)));
    for (place, digest) in places {
        let candidates = search.list(place, digest).await;
        for candidate in tried.or_note(candidates).unwrap_or_default() {
            if !tried.may_go_on() {
                break;
            }
            let Some(signature) = tried.or_note(search.fetch(candidate).await) else { continue };
            match judge(check, signature, search.reference, digests).await {
                Ok(signer) => return Ok(signer),
                Err(reason) => tried.note(reason),
            }
        }
    }
    Err(tried.refuse(check, &digests[0]))
}

/// Cryptography takes milliseconds, so it has a thread of its own.
async fn judge(
    check: &Arc<Check>,
    signature: Signature,
    reference: &Reference,
    digests: &[Digest],
) -> Result<Signer, String> {
    let (check, reference, digests) = (Arc::clone(check), reference.clone(), digests.to_vec());
    let judged = telemetry::blocking(move || {
        let verified = check.trust.verify(&signature, &digests).map_err(|rejection| rejection.line())?;
        check.authorize(&verified, &reference).map(|()| verified.signer)
    });
    judged.await.unwrap_or_else(|_| Err("can't be verified".into()))
}

/// Each repository that the names are of, once.
fn named(names: &Names) -> Vec<Reference> {
    let mut found: Vec<Reference> = Vec::new();
    for name in names.tags.iter().chain(&names.digests) {
        let Ok(reference) = Reference::parse(name) else { continue };
        if !found.iter().any(|other| other.is_of_repository_of(&reference)) {
            found.push(reference);
        }
    }
    found
}

enum Refused {
    Policy(PolicyError),
    Registry(RegistryError),
}

/// What was not good enough.
#[derive(Default)]
struct Tried {
    count: usize,
    reasons: BTreeSet<String>,
    failure: Option<RegistryError>,
}

impl Tried {
    fn may_go_on(&mut self) -> bool {
        self.count += 1;
        if self.count > SIGNATURES_MAX {
            self.note(format!("is beyond the {SIGNATURES_MAX} that are looked at"));
        }
        self.count <= SIGNATURES_MAX
    }

    fn note(&mut self, reason: String) {
        if self.reasons.len() < REASONS_MAX {
            self.reasons.insert(reason);
        }
    }

    fn or_note<T>(&mut self, result: Result<T, Failure>) -> Option<T> {
        match result {
            Ok(found) => return Some(found),
            Err(Failure::Unusable(reason)) => self.note(reason),
            Err(Failure::Registry(error)) => self.failure = Some(error),
        }
        None
    }

    /// A registry that may answer later is not an image without signatures.
    fn refuse(mut self, check: &Check, digest: &Digest) -> Refused {
        let (scope, digest) = (check.rule.scope.to_string(), digest.clone());
        if let Some(error) = self.failure.take() {
            let passing = matches!(
                error.kind(),
                Kind::RegistryUnavailable | Kind::Unavailable | Kind::DeadlineExceeded
            );
            if passing && self.reasons.is_empty() {
                return Refused::Registry(error);
            }
            self.reasons.insert(format!("can't be fetched: {}", chain(&error)));
        }
        Refused::Policy(match self.reasons.is_empty() {
            true => PolicyError::Unsigned { scope, digest },
            false => {
                let mut reasons = String::new();
                for reason in self.reasons {
                    reasons.push_str(if reasons.is_empty() { "one " } else { "; one " });
                    reasons.push_str(&reason);
                }
                PolicyError::NoneGood { scope, digest, reasons }
            }
        })
    }
}
