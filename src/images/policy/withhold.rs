//! What is on the node already when the policy changes: a name that the policy in force has not admitted is taken from its
//! image, so that the kubelet, which asks for images by name, pulls again, and the pull decides. Layers stay, and so do
//! containers. What does not live here: pulls.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::super::error::ImageError;
use super::super::image::Image;
use super::super::publish::Names;
use super::super::reference::Reference;
use super::super::source::Source;
use super::super::{Shared, load, store_error};
use super::{Check, Judgement, Policy};
use crate::drivers::store::{Durability, Record, Transaction};
use crate::ids::Digest;

/// Under the name: which check, with which keys, an image has passed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Admission {
    name: String,
    check: Digest,
}

impl Record for Admission {
    const TABLE: &'static str = "admissions";
}

impl Shared {
    pub(super) async fn note_admission(
        &self,
        source: &Source,
        names: &Names,
        check: &Check,
    ) -> Result<(), ImageError> {
        let mut transaction = Transaction::new();
        let scope = &check.rule.scope;
        for name in names.tags.iter().chain(&names.digests) {
            if Reference::parse(name).is_ok_and(|reference| scope.covers(&reference)) {
                let admission = Admission { name: name.clone(), check: check.fingerprint.clone() };
                transaction.put(name, &admission).map_err(store_error(&source.image))?;
            }
        }
        self.store.commit(transaction, Durability::Process).await.map_err(store_error(&source.image))
    }

    /// Once, before anybody can see an image.
    pub(in super::super) async fn withhold(&self) -> Result<(), ImageError> {
        let admitted: BTreeMap<String, Digest> =
            load::<Admission>(&self.store)?.into_iter().map(|one| (one.name, one.check)).collect();
        let mut transaction = Transaction::new();
        let images: Vec<_> = self.catalog().all().cloned().collect();
        let mut named = BTreeSet::new();
        for image in images.into_iter().filter(|image| !image.removed) {
            let rest = self.policy.keep(&image, &admitted);
            named.extend(rest.tags.iter().chain(&rest.digests).cloned());
            if rest != *image {
                tracing::info!(image = %image.id, tags = ?image.tags, left = ?rest.tags, "not admitted by the policy in force: pull it again");
                transaction.put(rest.id.as_str(), &rest).map_err(store_error(""))?;
                self.catalog().put_image(Arc::new(rest));
            }
        }
        for name in admitted.keys().filter(|name| !named.contains(*name)) {
            transaction.delete::<Admission>(name);
        }
        self.store.commit(transaction, Durability::Process).await.map_err(store_error(""))
    }
}

impl Policy {
    /// The image with those of its names that it has been admitted under.
    fn keep(&self, image: &Image, admitted: &BTreeMap<String, Digest>) -> Image {
        let keeps = |name: &String| {
            let Ok(reference) = Reference::parse(name) else { return true };
            match self.judge(&reference) {
                Judgement::Accept => true,
                Judgement::Reject(_) => false,
                Judgement::Verify(check) => admitted.get(name) == Some(&check.fingerprint),
            }
        };
        let mut rest = image.clone();
        rest.tags.retain(keeps);
        rest.digests.retain(keeps);
        let lost = rest.tags != image.tags || rest.digests != image.digests;
        if rest.tags.is_empty() && rest.digests.is_empty() {
            rest.withheld |= lost || matches!(self.otherwise(), Judgement::Reject(_));
        }
        rest
    }
}
