//! A registry that misbehaves in one chosen way: it serves an image or several, by tag and digest, and spoils what the
//! fault says. Everything else it does right.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;

use crate::images::{self, Blob, Built, Format};

/// What goes wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Nothing; to look at requests.
    None,
    /// Every request for a manifest is answered with this status.
    Manifest(u16),
    /// The first so many requests for a manifest are answered with this status (429 and 503 with `Retry-After: 0`).
    ManifestFirst(usize, u16),
    /// Every request for a layer is answered with this status.
    Layer(u16),
    /// The connection ends in the middle of a layer, the first so many times; ranges are served.
    CutLayer(usize),
    /// As [`Fault::CutLayer`], but ranges are ignored: the whole layer comes again with status 200.
    CutLayerNoRange(usize),
    /// Layers come at so many bytes a second on each connection; ranges are served.
    ThrottledLayer(usize),
    /// The layer's bytes are others than its digest says.
    WrongLayer,
    /// The layer goes on after the size that the manifest names.
    LongLayer,
    /// The manifest's bytes are others than the digest in the request or in the header says.
    WrongManifest,
    /// A token service is named that answers with this status.
    Token(u16),
    /// A token is asked for and given; only with it things are served.
    Bearer,
    /// As [`Fault::Bearer`], but only the user of [`crate::registry`] is given a token.
    Login,
    /// The registry sends its clients round in a circle.
    RedirectLoop,
    /// Manifests that are no JSON.
    Garbage,
    /// Every layer waits this long before it comes, so that pulls meet.
    SlowLayer(Duration),
}

const TOKEN: &str = "t0ken";
/// `crate::registry`'s USER and PASSWORD.
const LOGIN: &str = "Basic YW5uOnMzY3JldA==";

struct State {
    address: SocketAddr,
    images: Vec<Built>,
    /// Over all of them.
    index: Blob,
    fault: Fault,
    count: AtomicUsize,
    requests: Mutex<Vec<String>>,
    sent: AtomicUsize,
    over: AtomicBool,
}

/// The running server.
pub struct FaultyRegistry {
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

struct Request {
    path: String,
    range_from: Option<usize>,
    /// Behind the last byte.
    range_to: Option<usize>,
    authorization: String,
}

struct Response {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// Bytes of the body after which the connection ends.
    cut: Option<usize>,
    /// Bytes a second.
    rate: Option<usize>,
}

impl Response {
    fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), cut: None, rate: None }
    }

    fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

impl FaultyRegistry {
    /// Serves `image` with a fault on a free loopback port.
    pub fn start(image: Built, fault: Fault) -> Result<Self> {
        Self::start_many(vec![image], fault)
    }

    /// Serves each image by its place in the list as its tag (`0` is `latest` too), and by the tag `index` an index over
    /// all of them.
    pub fn start_many(images: Vec<Built>, fault: Fault) -> Result<Self> {
        let index = images::index(Format::Oci, &images)?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let state = Arc::new(State {
            address: listener.local_addr()?,
            images,
            index,
            fault,
            count: AtomicUsize::new(0),
            requests: Mutex::default(),
            sent: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        });
        let server = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if server.over.load(Ordering::Relaxed) {
                    return;
                }
                let server = Arc::clone(&server);
                std::thread::spawn(move || serve(&server, &stream));
            }
        });
        Ok(Self { state, thread: Some(thread) })
    }

    /// The name of its first image.
    pub fn reference(&self) -> String {
        self.tagged("latest")
    }

    /// The name of what has this tag.
    pub fn tagged(&self, tag: &str) -> String {
        format!("{}/image:{tag}", self.state.address)
    }

    /// Host and port.
    pub fn host(&self) -> String {
        self.state.address.to_string()
    }

    /// Bytes of bodies that were sent.
    pub fn sent(&self) -> usize {
        self.state.sent.load(Ordering::Relaxed)
    }

    /// Paths that were asked for, in order, with their ranges.
    pub fn requests(&self) -> Vec<String> {
        self.state.requests.lock().map(|requests| requests.clone()).unwrap_or_default()
    }
}

impl Drop for FaultyRegistry {
    fn drop(&mut self) {
        self.state.over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.state.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Requests of one connection, until one side ends it.
fn serve(state: &State, stream: &TcpStream) {
    let mut reader = BufReader::new(stream);
    while let Some((method, request)) = read_request(&mut reader) {
        if let Ok(mut requests) = state.requests.lock() {
            let range = request.range_from.map(|from| format!(" from {from}")).unwrap_or_default();
            requests.push(format!("{method} {}{range}", request.path));
        }
        let response = state.answer(&request);
        if write_response(state, stream, &method, &response).is_err() || response.cut.is_some() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
            return;
        }
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<(String, Request)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let mut words = line.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut request = Request { path, range_from: None, range_to: None, authorization: String::new() };
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let header = header.trim();
        let Some((name, value)) = header.split_once(':') else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "range" => {
                let range = value.trim().strip_prefix("bytes=").and_then(|range| range.split_once('-'));
                let (from, last) = range.unwrap_or_default();
                request.range_from = from.parse().ok();
                request.range_to = last.parse().ok().map(|last: usize| last + 1);
            }
            "authorization" => value.trim().clone_into(&mut request.authorization),
            "content-length" => length = value.trim().parse().ok()?,
            _ => {}
        }
    }
    let mut body = Vec::new();
    reader.take(length).read_to_end(&mut body).ok()?;
    Some((method, request))
}

fn write_response(
    state: &State,
    mut stream: &TcpStream,
    method: &str,
    response: &Response,
) -> std::io::Result<()> {
    let mut head =
        format!("HTTP/1.1 {} status\r\nContent-Length: {}\r\n", response.status, response.body.len());
    for (name, value) in &response.headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    if method == "HEAD" {
        return Ok(());
    }
    let body = &response.body[..response.cut.unwrap_or(response.body.len())];
    let slice = response.rate.map_or(usize::MAX, |rate| rate / 20);
    for part in body.chunks(slice) {
        stream.write_all(part)?;
        state.sent.fetch_add(part.len(), Ordering::Relaxed);
        if response.rate.is_some() {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(())
}

impl State {
    fn answer(&self, request: &Request) -> Response {
        let path = request.path.split('?').next().unwrap_or_default();
        if path == "/token" {
            return self.token(request);
        }
        let wants_token = matches!(self.fault, Fault::Bearer | Fault::Login | Fault::Token(_));
        if wants_token && request.authorization != format!("Bearer {TOKEN}") {
            let realm = format!("http://{}/token", self.address);
            let challenge =
                format!("Bearer realm=\"{realm}\",service=\"e2e\",scope=\"repository:image:pull\"");
            return Response::empty(401).header("WWW-Authenticate", challenge);
        }
        if let Some((_, name)) = path.split_once("/manifests/") {
            return self.manifest(name, path);
        }
        if let Some((_, digest)) = path.split_once("/blobs/") {
            return self.blob(digest, request);
        }
        Response::empty(if path == "/v2/" { 200 } else { 404 })
    }

    fn token(&self, request: &Request) -> Response {
        match self.fault {
            Fault::Token(status) => Response::empty(status),
            Fault::Login if request.authorization != LOGIN => Response::empty(401),
            _ => Response {
                body: format!("{{\"token\":\"{TOKEN}\"}}").into_bytes(),
                ..Response::empty(200).header("Content-Type", "application/json")
            },
        }
    }

    /// Whether this is one of the first `limit` requests of its kind.
    fn one_of_first(&self, limit: usize) -> bool {
        self.count.fetch_add(1, Ordering::Relaxed) < limit
    }

    /// What has this tag or digest.
    fn document(&self, name: &str) -> Option<&Blob> {
        let tagged = match name {
            "latest" => Some(0),
            "index" => return Some(&self.index),
            tag => tag.parse::<usize>().ok(),
        };
        let manifests = || self.images.iter().map(|image| &image.manifest);
        let by_digest = || manifests().chain([&self.index]).find(|document| document.digest == name);
        tagged.and_then(|place| manifests().nth(place)).or_else(by_digest)
    }

    fn manifest(&self, name: &str, path: &str) -> Response {
        let failed = match self.fault {
            Fault::Manifest(status) => Some(status),
            Fault::ManifestFirst(limit, status) if self.one_of_first(limit) => Some(status),
            _ => None,
        };
        if let Some(status) = failed {
            return Response::empty(status).header("Retry-After", "0");
        }
        if matches!(self.fault, Fault::RedirectLoop) {
            return Response::empty(307).header("Location", format!("http://{}{path}", self.address));
        }
        let Some(manifest) = self.document(name) else {
            return Response::empty(404);
        };
        let mut body = read(manifest);
        match self.fault {
            Fault::WrongManifest => body.push(b' '),
            Fault::Garbage => body = b"<html>proxy login</html>".to_vec(),
            _ => {}
        }
        let response = Response::empty(200)
            .header("Content-Type", manifest.media_type.clone())
            .header("Docker-Content-Digest", manifest.digest.clone());
        Response { body, ..response }
    }

    fn blob(&self, digest: &str, request: &Request) -> Response {
        let mut blobs = self.images.iter().flat_map(|image| &image.blobs);
        let Some(blob) = blobs.find(|blob| blob.digest == digest) else {
            return Response::empty(404);
        };
        let body = read(blob);
        if self.images.iter().any(|image| image.config_digest() == digest) {
            return Response { body, ..Response::empty(200) };
        }
        self.layer(body, request)
    }

    fn layer(&self, mut body: Vec<u8>, request: &Request) -> Response {
        let half = body.len() / 2;
        match self.fault {
            Fault::SlowLayer(wait) => {
                std::thread::sleep(wait);
                Response { body, ..Response::empty(200) }
            }
            Fault::Layer(status) => Response::empty(status),
            Fault::WrongLayer => {
                body[half] ^= 1;
                Response { body, ..Response::empty(200) }
            }
            Fault::LongLayer => {
                body.extend_from_slice(&[0; 4096]);
                Response { body, ..Response::empty(200) }
            }
            Fault::CutLayerNoRange(limit) => {
                let cut = self.one_of_first(limit).then_some(half);
                Response { body, cut, ..Response::empty(200) }
            }
            Fault::CutLayer(limit) => {
                let part = ranged(body, request);
                let cut = self.one_of_first(limit).then_some(part.body.len() / 2);
                Response { cut, ..part }
            }
            Fault::ThrottledLayer(rate) => Response { rate: Some(rate), ..ranged(body, request) },
            _ => Response { body, ..Response::empty(200) },
        }
    }
}

/// The part of a body that is asked for.
fn ranged(mut body: Vec<u8>, request: &Request) -> Response {
    let whole = body.len();
    let Some(from) = request.range_from else {
        return Response { body, ..Response::empty(200).header("Accept-Ranges", "bytes") };
    };
    let to = request.range_to.unwrap_or(whole).min(whole);
    body.truncate(to);
    let body = body.split_off(from.min(to));
    let range = format!("bytes {from}-{}/{whole}", to.saturating_sub(1));
    Response { body, ..Response::empty(206).header("Content-Range", range) }
}

fn read(blob: &Blob) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Ok(mut source) = blob.source.open() {
        let _ = source.read_to_end(&mut bytes);
    }
    bytes
}
