//! Against a server that speaks TLS and says what an API server would say.

use std::sync::{Arc, Mutex};

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

const NODE: &str = r#"{"status":{"conditions":[{"type":"MemoryPressure","status":"False"},
    {"type":"Ready","status":"False","message":"container runtime is down","lastHeartbeatTime":"2026-01-02T03:04:05Z"}],
    "nodeInfo":{"containerRuntimeVersion":"containerd://2.3.0"}}}"#;
const DAEMON_SET: &str = r#"{"metadata":{"generation":3},"status":{"observedGeneration":3,
    "desiredNumberScheduled":5,"updatedNumberScheduled":4,"numberReady":2}}"#;

type Requests = Arc<Mutex<Vec<String>>>;

/// Serves one request a connection; credentials for it, and what it was asked.
async fn serve() -> (Credentials, Requests) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("https://{}", listener.local_addr().unwrap());
    let requests = Requests::default();
    let (acceptor, seen) = (TlsAcceptor::from(Arc::new(config)), requests.clone());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Who does not trust us goes away here.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = Vec::new();
            while !whole(&request) {
                request.push(stream.read_u8().await.unwrap());
            }
            let request = String::from_utf8(request).unwrap();
            let (code, body) = match request.split_whitespace().nth(1).unwrap() {
                _ if !request.contains("Bearer secret\r\n") => ("401 Unauthorized", r#"{"message":"who?"}"#),
                "/api/v1/nodes/n1" => ("200 OK", NODE),
                "/apis/apps/v1/namespaces/ns/daemonsets/berth" => ("200 OK", DAEMON_SET),
                _ => ("404 Not Found", r#"{"message":"nodes \"n2\" not found"}"#),
            };
            seen.lock().unwrap().push(request);
            let answer = format!(
                "HTTP/1.1 {code}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
            let _ = stream.shutdown().await;
        }
    });
    (Credentials { server, token: "secret".into(), authority: made.cert.pem() }, requests)
}

/// Head and body are there.
fn whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head
        .to_lowercase()
        .split_once("content-length: ")
        .map(|(_, rest)| rest.lines().next().unwrap_or_default().parse::<usize>().unwrap());
    body.len() >= length.unwrap_or(0)
}

#[tokio::test]
async fn a_node_is_as_the_cluster_says() {
    let (credentials, _) = serve().await;
    let cluster = Cluster::new(credentials).unwrap();
    let node = cluster.node("n1").await.unwrap();
    let wanted = NodeCondition {
        ready: false,
        message: "container runtime is down".into(),
        heartbeat: "2026-01-02T03:04:05Z".into(),
        runtime: "containerd://2.3.0".into(),
    };
    assert_eq!(node, wanted);
    let error = cluster.node("n2").await.unwrap_err().to_string();
    assert!(error.contains("read the node n2: 404 Not Found: nodes \"n2\" not found"), "{error}");
}

#[tokio::test]
async fn a_daemon_set_is_told_and_followed() {
    let (credentials, requests) = serve().await;
    let cluster = Cluster::new(credentials).unwrap();
    let set = DaemonSet { namespace: "ns".into(), name: "berth".into(), container: "agent".into() };
    cluster.set_variable(&set, "KEY", "true").await.unwrap();
    let request = requests.lock().unwrap().pop().unwrap();
    assert!(request.starts_with("PATCH /apis/apps/v1/namespaces/ns/daemonsets/berth "), "{request}");
    assert!(request.contains("content-type: application/strategic-merge-patch+json\r\n"), "{request}");
    let body = r#"{"spec":{"template":{"spec":{"containers":[{"env":[{"name":"KEY","value":"true"}],"name":"agent"}]}}}}"#;
    assert!(request.ends_with(body), "{request}");
    let rollout = cluster.rollout(&set).await.unwrap();
    assert_eq!(rollout, Rollout { desired: 5, updated: 4, ready: 2, observed: true });
}

#[tokio::test]
async fn nobody_else_is_trusted_and_a_refusal_is_told() {
    let (credentials, requests) = serve().await;
    let (other, _) = serve().await;
    let stranger = Credentials { authority: other.authority, ..credentials.clone() };
    let error = Cluster::new(stranger).unwrap().node("n1").await.unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");
    assert!(requests.lock().unwrap().is_empty(), "a stranger was given the token");
    let wrong = Credentials { token: "other".into(), ..credentials };
    let error = Cluster::new(wrong).unwrap().node("n1").await.unwrap_err().to_string();
    assert!(error.contains("401 Unauthorized: who?"), "{error}");
}
