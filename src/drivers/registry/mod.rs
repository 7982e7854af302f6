//! Talks to image registries (distribution-spec): manifests verified, blobs as streams, mirrors, authorization, retries.
//! What does not live here: what to do with what they send.

mod auth;
mod auth_file;
mod blob;
mod challenge;
mod credentials;
mod error;
mod explain;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod hosts;
mod hosts_toml;
mod insecure;
mod manifest;
mod ranges;
mod referrers;
mod registries_conf;
mod request;
mod retry;
mod tls;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde::{Deserialize, Serialize};

use self::auth_file::Login;
pub use self::blob::{Blob, BlobStream};
pub use self::credentials::Credentials;
pub use self::error::{Outage, Refusal, RegistryError};
pub use self::explain::{Asked, check, explain};
use self::hosts::{Capability, Host};
use self::manifest::Promise;
pub use self::manifest::{DOCKER_LIST, DOCKER_MANIFEST, MAX_MANIFEST, Manifest, OCI_INDEX, OCI_MANIFEST};
pub use self::ranges::Download;
use self::request::{Request, Shared, Target};
use crate::error::chain;
use crate::ids::Digest;
use crate::images::reference::Reference;

/// `[registry]` of the configuration. Durations are spelled `300ms`, `30s`, `5m`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Directory of `HOST/hosts.toml` files, in containerd's format; read again at each pull.
    #[serde(deserialize_with = "crate::config::absolute")]
    pub config_path: PathBuf,
    /// A registries.conf, in CRI-O's format (containers-registries.conf(5)), and the directory of drop-ins beside it;
    /// read again at each pull. For the images that it knows it takes the place of hosts.toml.
    #[serde(deserialize_with = "crate::config::absolute_or_none")]
    pub registries_conf_path: Option<PathBuf>,
    /// An auth.json (containers-auth.json(5)) or Docker's config.json, for pulls that bring no credentials.
    #[serde(deserialize_with = "crate::config::absolute_or_none")]
    pub auth_file: Option<PathBuf>,
    /// How long DNS, TCP and TLS may take together.
    #[serde(with = "crate::config::duration")]
    pub connect_timeout: Duration,
    /// A pull ends if nothing (or nearly nothing) comes for this long.
    #[serde(with = "crate::config::duration")]
    pub no_progress: Duration,
    /// How often a request that failed in passing is tried again, and a cut blob resumed.
    pub retries: u32,
    /// How many connections one large layer may take, where a single one is slow.
    pub connections: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            config_path: "/etc/berth/certs.d".into(),
            registries_conf_path: None,
            auth_file: None,
            connect_timeout: Duration::from_secs(30),
            no_progress: Duration::from_secs(300),
            retries: 4,
            connections: 4,
        }
    }
}

/// A handle to all registries; clones share connections and tokens.
#[derive(Clone)]
pub struct Registry {
    config: Arc<Config>,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Registry {
    /// Connects to nothing yet; reads no file.
    pub fn new(config: Config) -> Result<Self, RegistryError> {
        let shared = Shared {
            clients: Arc::new(tls::Clients::new(config.connect_timeout)),
            tokens: auth::Tokens::default(),
            pauses: retry::Pauses::default(),
            plain: insecure::Plain::default(),
            pieces: ranges::room(),
        };
        Ok(Self { config: Arc::new(config), shared: Arc::new(shared) })
    }

    /// The digest that a reference has now, without its document: most registries do not count this against limits.
    /// `None` if the host does not tell.
    pub async fn resolve(
        &self,
        reference: &Reference,
        credentials: &Credentials,
    ) -> Result<Option<Digest>, RegistryError> {
        if let Some(digest) = reference.digest() {
            return Ok(Some(digest.clone()));
        }
        let request = manifest_request(Method::HEAD, reference.tag().unwrap_or("latest"));
        let plan = self.plan(reference, Capability::Resolve).await?;
        let mut last = None;
        for (index, host) in plan.iter().enumerate() {
            let is_last = index + 1 == plan.len();
            let asked = async {
                let target = self.target(host, reference, credentials, reference.to_string())?;
                let response = self.shared.send(&target, &request, self.retries(is_last)).await?;
                manifest::announced(&target, &response)
            };
            match asked.await {
                Ok(digest) => return Ok(digest),
                Err(error) => last = passed_over(host, error, is_last),
            }
        }
        Err(last.unwrap_or_else(|| self.no_host(reference, Capability::Resolve)))
    }

    /// The manifest or index that a reference names, at most 4 MiB. Verified against the reference's digest, if it has
    /// one, and against the host's Docker-Content-Digest.
    pub async fn manifest(
        &self,
        reference: &Reference,
        credentials: &Credentials,
    ) -> Result<Manifest, RegistryError> {
        let promise = Promise { digest: reference.digest(), ..Promise::default() };
        self.fetch_manifest(reference, &promise, credentials).await
    }

    /// A further manifest of the same repository: the entry of an index, with the size that the index states.
    pub async fn manifest_by_digest(
        &self,
        reference: &Reference,
        digest: &Digest,
        size: Option<u64>,
        credentials: &Credentials,
    ) -> Result<Manifest, RegistryError> {
        let promise = Promise { digest: Some(digest), size, tag: None };
        self.fetch_manifest(reference, &promise, credentials).await
    }

    /// A blob as a stream, from byte `offset` on. It resumes after a cut, ends with an error if nothing comes, and never
    /// gives more bytes than the blob's size. Checking the digest of the whole is the caller's duty.
    pub async fn blob(&self, blob: Blob, offset: u64) -> Result<BlobStream, RegistryError> {
        BlobStream::open(self.clone(), blob, offset).await
    }

    /// As `blob`, for one that may be large: over several connections, if one alone is slow and the host serves ranges.
    pub async fn download(&self, blob: Blob, offset: u64) -> Result<Download, RegistryError> {
        Download::open(self.clone(), blob, offset).await
    }

    /// A small blob, whole and verified; refused if its size exceeds `limit` bytes.
    pub async fn blob_bytes(&self, blob: Blob, limit: u64) -> Result<Vec<u8>, RegistryError> {
        let (object, expected) = (blob.object(), blob.digest.clone());
        if blob.size > limit {
            return Err(RegistryError::TooLarge { object, limit });
        }
        let mut stream = self.blob(blob, 0).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.next().await {
            bytes.extend_from_slice(&chunk?);
        }
        let actual = Digest::of(&bytes);
        if actual != expected {
            let host = stream.host().to_string();
            return Err(RegistryError::DigestMismatch { object, host, expected, actual });
        }
        Ok(bytes)
    }

    async fn fetch_manifest(
        &self,
        reference: &Reference,
        promise: &Promise<'_>,
        credentials: &Credentials,
    ) -> Result<Manifest, RegistryError> {
        let (capability, name, object) = match (promise.digest, promise.tag) {
            (Some(digest), _) => (Capability::Pull, digest.as_str(), reference.digested(digest)),
            (None, Some(tag)) => (beside(reference), tag, reference.with_tag(tag)),
            (None, None) => (Capability::Resolve, reference.tag().unwrap_or("latest"), reference.to_string()),
        };
        let request = manifest_request(Method::GET, name);
        let plan = self.plan(reference, capability).await?;
        let mut last = None;
        for (index, host) in plan.iter().enumerate() {
            let is_last = index + 1 == plan.len();
            let asked = async {
                let target = self.target(host, reference, credentials, object.clone())?;
                let response = self.shared.send(&target, &request, self.retries(is_last)).await?;
                manifest::read(&target, response, promise).await
            };
            match asked.await {
                Ok(manifest) => return Ok(manifest),
                Err(error) => last = passed_over(host, error, is_last),
            }
        }
        Err(last.unwrap_or_else(|| self.no_host(reference, capability)))
    }

    /// A mirror is not worth waiting for while there is another host.
    fn retries(&self, is_last: bool) -> u32 {
        if is_last { self.config.retries } else { 0 }
    }

    /// The hosts to ask, at least one.
    async fn plan(&self, reference: &Reference, capability: Capability) -> Result<Vec<Host>, RegistryError> {
        let (config, wanted) = (self.config.clone(), reference.clone());
        let loaded = tokio::task::spawn_blocking(move || hosts::load(&config, &wanted)).await;
        // The task neither panics nor is cancelled, unless the runtime ends; then no host is left.
        let mut hosts = loaded.unwrap_or_else(|_| Ok(Vec::new()))?;
        hosts.retain(|host| host.may(capability));
        if hosts.is_empty() {
            return Err(self.no_host(reference, capability));
        }
        for host in hosts.iter_mut().filter(|host| host.insecure) {
            self.shared.plain.settle(&self.shared.clients, host).await;
        }
        Ok(hosts)
    }

    fn no_host(&self, reference: &Reference, capability: Capability) -> RegistryError {
        RegistryError::NoHost {
            registry: reference.registry().to_string(),
            capability: capability.name(),
            path: self.config.config_path.clone(),
        }
    }

    fn target<'a>(
        &self,
        host: &'a Host,
        reference: &'a Reference,
        credentials: &Credentials,
        object: String,
    ) -> Result<Target<'a>, RegistryError> {
        let mut secret = credentials.secret(reference.registry(), &host.name(), host.own)?;
        // What a pull brings counts before what the node has.
        match &host.login {
            Login::Stored { secret: stored, .. } if secret.is_empty() => secret = stored.clone(),
            Login::Program { program, file } if secret.is_empty() => {
                let (file, program) = (file.clone(), program.clone());
                return Err(RegistryError::CredentialProgram { file, host: host.name(), program });
            }
            _ => {}
        }
        Ok(Target {
            host,
            repository: &host.repository,
            registry: reference.registry(),
            object,
            secret,
            no_progress: self.config.no_progress,
            clients: self.shared.clients.clone(),
        })
    }

    fn config(&self) -> &Config {
        &self.config
    }

    fn shared(&self) -> &Shared {
        &self.shared
    }
}

/// What a host must be able to do to tell what stands beside an image: as much as for the image itself.
fn beside(reference: &Reference) -> Capability {
    if reference.digest().is_some() { Capability::Pull } else { Capability::Resolve }
}

fn manifest_request(method: Method, name: &str) -> Request {
    Request { method, path: format!("manifests/{name}"), accept: Some(manifest::ACCEPT), range: None }
}

/// A host failed: the last one's error is the caller's, the others' end here.
fn passed_over(host: &Host, error: RegistryError, is_last: bool) -> Option<RegistryError> {
    if !is_last && error.is_worth_a_warning() {
        tracing::warn!(host = host.name(), error = chain(&error), "a mirror failed; asking the next host");
    }
    Some(error)
}
