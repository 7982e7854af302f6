//! Metrics as Prometheus gets them: fetched over HTTP, and parsed by the Prometheus project's own Python client.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;

/// Families of a page, by name.
pub type Page = BTreeMap<String, Family>;

/// One family.
#[derive(Debug, Deserialize)]
pub struct Family {
    /// `counter`, `gauge`, `histogram`, `info`.
    pub kind: String,
    /// What people are told.
    pub help: String,
    /// Its samples: name, labels, value.
    pub samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

/// Debian's own: it has what e2e/setup installs, whatever else is called python3.
const PYTHON: &str = "/usr/bin/python3";
const PARSER: &str = "
import json, sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse
print(json.dumps({family.name: {
    'kind': family.type,
    'help': family.documentation,
    'samples': [[sample.name, sample.labels, sample.value] for sample in family.samples],
} for family in parse(sys.stdin.read())}))
";

/// GET of a URL's path: status, content type, body.
pub async fn get(address: &str, path: &str) -> Result<(StatusCode, String, String)> {
    let stream = TcpStream::connect(address).await.with_context(|| format!("connect to {address}"))?;
    let (mut client, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get(path).header("host", address).body(Empty::<Bytes>::new())?;
    let response = client.send_request(request).await?;
    let kind = response.headers().get("content-type").map_or("", |value| value.to_str().unwrap_or("?"));
    let (status, kind) = (response.status(), kind.to_owned());
    let body = response.into_body().collect().await?.to_bytes();
    Ok((status, kind, String::from_utf8(body.to_vec())?))
}

/// Whether the parser is there.
pub fn parser_is_there() -> bool {
    let import = ["-c", "import prometheus_client.openmetrics.parser"];
    Command::new(PYTHON).args(import).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Fetches `http://ADDRESS/metrics`; a page that is not OpenMetrics is an error.
pub async fn scrape(address: &str) -> Result<Page> {
    let (status, kind, text) = get(address, "/metrics").await?;
    ensure!(status == StatusCode::OK, "{status}: {text}");
    ensure!(kind.starts_with("application/openmetrics-text; version=1.0.0"), "{kind}");
    let mut parser =
        Command::new(PYTHON).args(["-c", PARSER]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    parser.stdin.take().context("the parser takes nothing")?.write_all(text.as_bytes())?;
    let output = parser.wait_with_output()?;
    if !output.status.success() {
        bail!("the page does not parse:\n{text}");
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The sum of all samples of this name that have these labels; 0 if there are none.
pub fn value(page: &Page, name: &str, labels: &[(&str, &str)]) -> f64 {
    let samples = page.values().flat_map(|family| &family.samples).filter(|sample| sample.0 == name);
    let matching = samples.filter(|sample| {
        labels.iter().all(|(key, value)| sample.1.get(*key).is_some_and(|found| found == value))
    });
    matching.map(|sample| sample.2).sum()
}
