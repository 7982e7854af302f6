//! Waits for a node to be Ready after its kubelet was started: the kubelet says it is healthy, and the cluster says so
//! of the node. What does not live here: what follows if it is not.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::cluster::{Cluster, Credentials};
use super::{Host, Kubelet, NodeError};

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the kubelet may take to say how it is.
const ANSWER: Duration = Duration::from_secs(5);

/// Whose runtime the node shall have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Runtime {
    Berth,
    Any,
}

/// None: Ready in time. Else why not, in words for an operator. `stale`: the heartbeat that was there before.
pub(super) async fn wait(host: &Host, how: &Kubelet, wanted: Runtime, stale: Option<&str>) -> Option<String> {
    let end = Instant::now() + how.ready_within;
    loop {
        let Err(why) = look(host, how, wanted, stale).await else { return None };
        if Instant::now() + PAUSE > end {
            return Some(format!("the node was not Ready within {} s: {why}", how.ready_within.as_secs()));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// When the kubelet has last spoken of its node, RFC 3339; None: nobody can be asked.
pub(super) async fn heartbeat(
    how: &Kubelet,
    credentials: Option<Credentials>,
) -> Result<Option<String>, NodeError> {
    match (&how.node, credentials) {
        (Some(node), Some(credentials)) => Ok(Some(Cluster::new(credentials)?.node(node).await?.heartbeat)),
        _ => Ok(None),
    }
}

async fn look(host: &Host, how: &Kubelet, wanted: Runtime, stale: Option<&str>) -> Result<(), String> {
    match tokio::time::timeout(ANSWER, healthy(&how.healthz)).await {
        Ok(answer) => answer?,
        Err(_) => return Err(format!("the kubelet says nothing at {}", how.healthz)),
    }
    let Some(name) = &how.node else { return Ok(()) };
    let credentials = Credentials::kept(&host.layout.credentials());
    let credentials = credentials.ok_or("no credentials for the API server are there")?;
    let cluster = Cluster::new(credentials).map_err(|error| error.to_string())?;
    let node = cluster.node(name).await.map_err(|error| error.to_string())?;
    if wanted == Runtime::Berth && !node.runtime.starts_with("berth://") {
        return Err(format!("the node still has the runtime {}", node.runtime));
    }
    if stale == Some(&node.heartbeat) {
        return Err(format!("the kubelet has not spoken since {}", node.heartbeat));
    }
    if node.ready { Ok(()) } else { Err(node.message) }
}

/// The kubelet's own word.
async fn healthy(address: &str) -> Result<(), String> {
    let ask = async || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n").await?;
        let mut answer = Vec::new();
        stream.take(4096).read_to_end(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = ask().await.map_err(|error| format!("the kubelet at {address}: {error}"))?;
    let line = answer.lines().next().unwrap_or_default();
    match line.split_whitespace().nth(1) {
        Some("200") => Ok(()),
        _ => Err(format!("the kubelet at {address} answers {line:?}")),
    }
}
