//! The cluster's API, as far as an installation needs it: one node's condition, and one DaemonSet. What does not live here: when
//! it is asked.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{NodeError, file, place};
use crate::layout::host::SERVICE_ACCOUNT;

/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(10);

/// Who we are in a cluster: what a pod's service account gives.
#[derive(Clone, Serialize, Deserialize)]
pub struct Credentials {
    /// `https://HOST:PORT`
    pub server: String,
    /// Secret.
    pub token: String,
    /// PEM.
    pub authority: String,
}

impl Credentials {
    /// Those of the pod that this process runs in; None outside of a cluster, and for a pod without one.
    pub fn of_this_pod() -> Result<Option<Self>, NodeError> {
        let variable = |name: &str| std::env::var(name).ok();
        let Some(host) = variable("KUBERNETES_SERVICE_HOST") else { return Ok(None) };
        if !Path::new(SERVICE_ACCOUNT).is_dir() {
            return Ok(None);
        }
        let port = variable("KUBERNETES_SERVICE_PORT").unwrap_or_else(|| "443".into());
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let read = |name: &str| {
            let path = Path::new(SERVICE_ACCOUNT).join(name);
            std::fs::read_to_string(&path).map_err(file("read", &path))
        };
        let token = read("token")?.trim().to_owned();
        Ok(Some(Self { server: format!("https://{host}:{port}"), token, authority: read("ca.crt")? }))
    }

    /// For a switch that outlives this pod's process; nobody but root can read it.
    pub(super) fn keep(&self, path: &Path) -> Result<(), NodeError> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(file("make", dir))?;
        }
        let text = serde_json::to_vec(self)
            .map_err(|source| NodeError::Garbled { path: PathBuf::from(path), source })?;
        place::write(path, &text, 0o600)
    }

    /// What [`Self::keep`] has kept; None: nothing.
    pub(super) fn kept(path: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }
}

/// The API server.
pub(super) struct Cluster {
    credentials: Credentials,
    http: reqwest::Client,
}

/// What the cluster knows of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodeCondition {
    /// The condition Ready is True.
    pub(super) ready: bool,
    /// Why not, in the kubelet's words.
    pub(super) message: String,
    /// When the kubelet has said so, RFC 3339.
    pub(super) heartbeat: String,
    /// `NAME://VERSION`
    pub(super) runtime: String,
}

/// How far a DaemonSet's rollout is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rollout {
    /// Nodes that shall have a pod of the newest kind.
    pub(super) desired: u64,
    /// Nodes that have one.
    pub(super) updated: u64,
    /// Nodes that have one that is ready.
    pub(super) ready: u64,
    /// The controller has seen the newest kind.
    pub(super) observed: bool,
}

impl Cluster {
    pub(super) fn new(credentials: Credentials) -> Result<Self, NodeError> {
        let refused = |why: String| NodeError::Cluster {
            server: credentials.server.clone(),
            what: "be spoken to".into(),
            why,
        };
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(credentials.authority.as_bytes()) {
            let certificate = certificate.map_err(|error| refused(error.to_string()))?;
            roots.add(certificate).map_err(|error| refused(error.to_string()))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| refused(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .timeout(REQUEST)
            .user_agent(concat!("berth/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| refused(crate::error::chain(&error)))?;
        Ok(Self { credentials, http })
    }

    /// What the cluster knows of a node.
    pub(super) async fn node(&self, name: &str) -> Result<NodeCondition, NodeError> {
        let node =
            self.ask(&format!("read the node {name}"), self.get(&format!("/api/v1/nodes/{name}"))).await?;
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let ready = conditions.into_iter().find(|found| found["type"] == "Ready").unwrap_or_default();
        Ok(NodeCondition {
            ready: ready["status"] == "True",
            message: text(&ready["message"]),
            heartbeat: text(&ready["lastHeartbeatTime"]),
            runtime: text(&node["status"]["nodeInfo"]["containerRuntimeVersion"]),
        })
    }

    /// Sets a variable of a DaemonSet's container, which rolls all of its pods.
    pub(super) async fn set_variable(
        &self,
        set: &DaemonSet,
        name: &str,
        value: &str,
    ) -> Result<(), NodeError> {
        let containers =
            [serde_json::json!({ "name": set.container, "env": [{ "name": name, "value": value }] })];
        let patch = serde_json::json!({ "spec": { "template": { "spec": { "containers": containers } } } });
        let request = self.http.patch(format!("{}{}", self.credentials.server, set.path()));
        let request =
            request.header("content-type", "application/strategic-merge-patch+json").body(patch.to_string());
        self.ask(&format!("change the DaemonSet {}/{}", set.namespace, set.name), request).await.map(drop)
    }

    /// How far a DaemonSet's rollout is.
    pub(super) async fn rollout(&self, set: &DaemonSet) -> Result<Rollout, NodeError> {
        let what = format!("read the DaemonSet {}/{}", set.namespace, set.name);
        let found = self.ask(&what, self.get(&set.path())).await?;
        let count = |name: &str| found["status"][name].as_u64().unwrap_or_default();
        Ok(Rollout {
            desired: count("desiredNumberScheduled"),
            updated: count("updatedNumberScheduled"),
            ready: count("numberReady"),
            observed: count("observedGeneration")
                >= found["metadata"]["generation"].as_u64().unwrap_or(u64::MAX),
        })
    }

    fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.http.get(format!("{}{path}", self.credentials.server))
    }

    async fn ask(&self, what: &str, request: reqwest::RequestBuilder) -> Result<Value, NodeError> {
        let refused = |why: String| NodeError::Cluster {
            server: self.credentials.server.clone(),
            what: what.into(),
            why,
        };
        let answer = request.bearer_auth(&self.credentials.token).send().await;
        let answer = answer.map_err(|error| refused(crate::error::chain(&error.without_url())))?;
        let code = answer.status();
        let body =
            answer.bytes().await.map_err(|error| refused(crate::error::chain(&error.without_url())))?;
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        if code.is_success() { Ok(body) } else { Err(refused(format!("{code}: {}", text(&body["message"])))) }
    }
}

/// One DaemonSet, and the container that installs.
#[derive(Clone, Debug)]
pub(super) struct DaemonSet {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) container: String,
}

impl DaemonSet {
    fn path(&self) -> String {
        format!("/apis/apps/v1/namespaces/{}/daemonsets/{}", self.namespace, self.name)
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
