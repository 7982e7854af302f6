//! What stands beside an image in its repository, asked of the hosts that are asked for the image. What does not live here:
//! what it means.

use reqwest::Method;

use super::manifest::{self, Manifest, Promise};
use super::{Credentials, Registry, RegistryError, beside, manifest_request, passed_over};
use crate::ids::Digest;
use crate::images::reference::Reference;

impl Registry {
    /// The manifest of another tag of the same repository; none if no host has it.
    pub async fn tagged(
        &self,
        reference: &Reference,
        tag: &str,
        credentials: &Credentials,
    ) -> Result<Option<Manifest>, RegistryError> {
        let promise = Promise { tag: Some(tag), ..Promise::default() };
        match self.fetch_manifest(reference, &promise, credentials).await {
            Ok(manifest) => Ok(Some(manifest)),
            Err(RegistryError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// An index of what refers to a manifest (distribution-spec, "Listing Referrers"), from the first host that knows of
    /// any; from the tag that takes its place where hosts do not list. One answer of at most 4 MiB: no further pages.
    pub async fn referrers(
        &self,
        reference: &Reference,
        digest: &Digest,
        credentials: &Credentials,
    ) -> Result<Option<Manifest>, RegistryError> {
        let mut request = manifest_request(Method::GET, "");
        request.path = format!("referrers/{digest}");
        let object = format!("referrers of {}", reference.digested(digest));
        let plan = self.plan(reference, beside(reference)).await?;
        let (mut found, mut last) = (None, None);
        for (index, host) in plan.iter().enumerate() {
            let is_last = index + 1 == plan.len();
            let asked = async {
                let target = self.target(host, reference, credentials, object.clone())?;
                let response = self.shared.send(&target, &request, self.retries(is_last)).await?;
                manifest::read(&target, response, &Promise::default()).await
            };
            match asked.await {
                Ok(index) if manifest::is_empty(&index.bytes) => found = Some(index),
                Ok(index) => return Ok(Some(index)),
                // Older hosts do not know the question.
                Err(RegistryError::NotFound(_) | RegistryError::Unexpected(_)) => {}
                Err(error) => last = passed_over(host, error, is_last),
            }
        }
        match (found, last) {
            (Some(index), _) => Ok(Some(index)),
            (None, Some(error)) => Err(error),
            (None, None) => {
                let tag = format!("sha256-{}", digest.digits());
                self.tagged(reference, &tag, credentials).await
            }
        }
    }
}
