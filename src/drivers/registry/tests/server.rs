//! A small HTTP server whose every answer a test decides; one request a connection.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) method: String,
    /// With the query.
    pub(super) path: String,
    /// Names in lower case.
    pub(super) headers: HashMap<String, String>,
    pub(super) body: String,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

#[derive(Clone, Default)]
pub(super) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    length: Option<u64>,
    chunked: bool,
    cut_at: Option<usize>,
    stall: bool,
    drip: bool,
    rate: Option<usize>,
}

impl Reply {
    pub(super) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, body: body.into(), ..Self::default() }
    }

    pub(super) fn manifest(body: &str) -> Self {
        Self::new(200, body).with("content-type", super::super::OCI_MANIFEST)
    }

    pub(super) fn to(location: &str) -> Self {
        Self::new(307, "").with("location", location)
    }

    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Claims another Content-Length.
    pub(super) fn length(self, length: u64) -> Self {
        Self { length: Some(length), ..self }
    }

    /// No Content-Length: the end of the connection is the end of the body.
    pub(super) fn endless(self) -> Self {
        Self { chunked: true, ..self }
    }

    /// Breaks the connection after so many bytes of the body.
    pub(super) fn cut(self, at: usize) -> Self {
        Self { cut_at: Some(at), ..self }
    }

    /// Sends so many bytes of the body, and then nothing, but keeps the connection.
    pub(super) fn stall(self, at: usize) -> Self {
        Self { cut_at: Some(at), stall: true, ..self }
    }

    /// Sends so many bytes a second.
    pub(super) fn rate(self, rate: usize) -> Self {
        Self { rate: Some(rate), ..self }
    }

    /// Sends a byte every 20 ms.
    pub(super) fn drip(self) -> Self {
        Self { drip: true, ..self }
    }
}

type Handler = dyn Fn(&Seen) -> Reply + Send + Sync;

pub(super) struct Server {
    pub(super) address: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(super) async fn start(handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen(None, Arc::new(handler)).await
    }

    pub(super) async fn start_tls(
        config: rustls::ServerConfig,
        handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::listen(Some(tokio_rustls::TlsAcceptor::from(Arc::new(config))), Arc::new(handler)).await
    }

    async fn listen(tls: Option<tokio_rustls::TlsAcceptor>, handler: Arc<Handler>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (handler, log, tls) = (handler.clone(), log.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, &*handler, &log).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => serve(stream, &*handler, &log).await,
                            Err(_) => None,
                        },
                    }
                });
            }
        });
        Self { address, seen, task }
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    handler: &Handler,
    log: &Mutex<Vec<Seen>>,
) -> Option<()> {
    let seen = read(&mut stream).await?;
    log.lock().unwrap().push(seen.clone());
    let reply = handler(&seen);
    let mut head = format!("HTTP/1.1 {} X\r\nconnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !reply.chunked {
        head += &format!("content-length: {}\r\n", reply.length.unwrap_or(reply.body.len() as u64));
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).await.ok()?;
    let end = reply.cut_at.unwrap_or(reply.body.len()).min(reply.body.len());
    for byte in reply.body.iter().filter(|_| reply.drip) {
        stream.write_all(&[*byte]).await.ok()?;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    if seen.method != "HEAD" && !reply.drip {
        let slice = reply.rate.map_or(usize::MAX, |rate| rate / 20);
        for part in reply.body[..end].chunks(slice) {
            stream.write_all(part).await.ok()?;
            if reply.rate.is_some() {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
    stream.flush().await.ok()?;
    if reply.stall {
        tokio::time::sleep(std::time::Duration::from_secs(20)).await;
    }
    stream.shutdown().await.ok()
}

async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Option<Seen> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        let mut part = [0; 4096];
        match stream.read(&mut part).await.ok()? {
            0 => return None,
            n => bytes.extend_from_slice(&part[..n]),
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).to_string();
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let (method, path) = (first.next()?.to_string(), first.next()?.to_string());
    let headers: HashMap<_, _> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_string()))
        .collect();
    let length: usize = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = bytes.split_off(end + 4);
    while body.len() < length {
        let mut part = [0; 4096];
        match stream.read(&mut part).await.ok()? {
            0 => return None,
            n => body.extend_from_slice(&part[..n]),
        }
    }
    Some(Seen { method, path, headers, body: String::from_utf8_lossy(&body).to_string() })
}
