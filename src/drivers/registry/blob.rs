//! A blob as a stream that survives cuts. What does not live here: what the bytes mean; whoever reads a stream checks its digest.

use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;
use reqwest::header::CONTENT_RANGE;
use reqwest::{Method, Response, StatusCode};

use super::Registry;
use super::credentials::Credentials;
use super::error::RegistryError;
use super::hosts::{Capability, Host};
use super::request::Request;
use crate::ids::Digest;
use crate::images::reference::Reference;
use crate::telemetry::{METRICS, metrics};

/// Progress that resets patience and the count of cuts: less in a whole window of patience is a stall.
const PROGRESS: u64 = 16 << 10;

/// What to fetch.
#[derive(Clone)]
pub struct Blob {
    pub(super) reference: Reference,
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) credentials: Credentials,
}

impl Blob {
    /// Of `size` bytes, in the reference's repository.
    pub fn new(reference: &Reference, digest: &Digest, size: u64, credentials: &Credentials) -> Self {
        let (reference, digest) = (reference.clone(), digest.clone());
        Self { reference, digest, size, credentials: credentials.clone() }
    }

    pub(super) fn object(&self) -> String {
        format!("blob {} of {}/{}", self.digest, self.reference.registry(), self.reference.repository())
    }
}

/// Bytes of a blob from an offset to its end; a cut is mended inside.
pub struct BlobStream {
    registry: Registry,
    blob: Blob,
    host: String,
    /// Behind the last byte to be given.
    end: u64,
    /// Whether only these bytes are wanted, of this host alone; else all to the blob's end, of any host.
    part: bool,
    /// Where the next byte given belongs.
    position: u64,
    /// Bytes of the answer that were given before, because the host ignored the Range.
    skip: u64,
    response: Option<Response>,
    cuts: u32,
    since_cut: u64,
    since_progress: u64,
    waited: Duration,
    failed: bool,
    received: Counter,
}

impl BlobStream {
    pub(super) async fn open(registry: Registry, blob: Blob, offset: u64) -> Result<Self, RegistryError> {
        let mut stream = Self::new(registry, blob, offset);
        if offset > stream.blob.size {
            return Err(stream.wrong_range());
        }
        if offset < stream.blob.size {
            stream.request().await?;
        }
        Ok(stream)
    }

    /// A part of the blob from a host that serves ranges; an error if it does not.
    pub(super) async fn open_part(
        registry: Registry,
        blob: Blob,
        range: Range<u64>,
        host: String,
    ) -> Result<Self, RegistryError> {
        let stream = Self::new(registry, blob, range.start);
        let mut stream = Self { host, end: range.end, part: true, ..stream };
        stream.request().await?;
        Ok(stream)
    }

    fn new(registry: Registry, blob: Blob, offset: u64) -> Self {
        let of = metrics::registry(blob.reference.registry());
        Self {
            received: METRICS.pull_bytes.get_or_create_owned(&of),
            registry,
            host: blob.reference.registry().to_string(),
            end: blob.size,
            part: false,
            blob,
            position: offset,
            skip: 0,
            response: None,
            cuts: 0,
            since_cut: 0,
            since_progress: 0,
            waited: Duration::ZERO,
            failed: false,
        }
    }

    /// Who sends: host and optional port.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Where the next byte belongs in the blob.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next bytes; none at the end, when exactly `size` bytes were given. After an error there is nothing more.
    pub async fn next(&mut self) -> Option<Result<Bytes, RegistryError>> {
        if self.failed {
            return None;
        }
        let result = self.advance().await;
        self.failed = matches!(result, Some(Err(_)));
        result
    }

    async fn advance(&mut self) -> Option<Result<Bytes, RegistryError>> {
        loop {
            if self.position == self.end {
                return self.surplus().await.map(Err);
            }
            let Some(response) = &mut self.response else {
                match self.request().await {
                    Ok(()) => continue,
                    Err(error) => return Some(Err(error)),
                }
            };
            let started = Instant::now();
            let patience = self.registry.config().no_progress.saturating_sub(self.waited);
            let chunk = tokio::time::timeout(patience, response.chunk()).await;
            self.waited += started.elapsed();
            match chunk {
                Err(_) => return Some(Err(self.no_progress())),
                Ok(Ok(Some(chunk))) => match self.take(chunk) {
                    Ok(chunk) if chunk.is_empty() => {}
                    result => return Some(result),
                },
                Ok(Ok(None) | Err(_)) => {
                    if let Err(error) = self.cut().await {
                        return Some(Err(error));
                    }
                }
            }
        }
    }

    /// Drops what was given before, and refuses what exceeds the size.
    fn take(&mut self, mut chunk: Bytes) -> Result<Bytes, RegistryError> {
        self.received.inc_by(chunk.len() as u64);
        self.since_progress += chunk.len() as u64;
        if self.since_progress >= PROGRESS {
            (self.since_progress, self.waited) = (0, Duration::ZERO);
        }
        let old = self.skip.min(chunk.len() as u64);
        self.skip -= old;
        let chunk = chunk.split_off(usize::try_from(old).unwrap_or(chunk.len()));
        let position = self.position + chunk.len() as u64;
        if position > self.end {
            return Err(self.size_mismatch(position));
        }
        self.since_cut += position - self.position;
        if self.since_cut >= PROGRESS {
            self.cuts = 0;
        }
        self.position = position;
        Ok(chunk)
    }

    /// All is here; does the host have yet more to say? Reading its end also frees the connection for others.
    async fn surplus(&mut self) -> Option<RegistryError> {
        let mut response = self.response.take()?;
        match tokio::time::timeout(Duration::from_secs(1), response.chunk()).await {
            Ok(Ok(Some(more))) if !more.is_empty() => {
                Some(self.size_mismatch(self.position + more.len() as u64))
            }
            _ => None,
        }
    }

    async fn cut(&mut self) -> Result<(), RegistryError> {
        self.response = None;
        self.since_cut = 0;
        self.cuts += 1;
        let delay = super::retry::delay(self.cuts, None);
        match delay {
            Some(delay) if self.cuts <= self.registry.config().retries => {
                let registry = metrics::registry(self.blob.reference.registry());
                METRICS.pull_retries.get_or_create(&registry).inc();
                tokio::time::sleep(delay).await;
                Ok(())
            }
            _ => Err(RegistryError::Cut {
                object: self.blob.object(),
                host: self.host.clone(),
                at: self.position,
                size: self.blob.size,
            }),
        }
    }

    /// Asks for the rest of the blob, of each host that may give it.
    async fn request(&mut self) -> Result<(), RegistryError> {
        let range = match (self.part, self.position) {
            (true, from) => Some(format!("bytes={from}-{}", self.end - 1)),
            (false, 0) => None,
            (false, from) => Some(format!("bytes={from}-")),
        };
        let path = format!("blobs/{}", self.blob.digest);
        let request = Request { method: Method::GET, path, accept: None, range };
        let mut plan = self.registry.plan(&self.blob.reference, Capability::Pull).await?;
        plan.retain(|host| !self.part || host.name() == self.host);
        let mut last = None;
        for (index, host) in plan.iter().enumerate() {
            // A part that is refused is fetched another way.
            let last_resort = index + 1 == plan.len() && !self.part;
            let retries = if last_resort { self.registry.config().retries } else { 0 };
            let asked = async {
                let (blob, registry) = (&self.blob, &self.registry);
                let target = registry.target(host, &blob.reference, &blob.credentials, blob.object())?;
                let response = registry.shared().send(&target, &request, retries).await?;
                self.accept(host, response)
            };
            match asked.await {
                Ok(()) => return Ok(()),
                Err(error) => last = super::passed_over(host, error, index + 1 == plan.len()),
            }
        }
        Err(last.unwrap_or_else(|| self.wrong_range()))
    }

    fn accept(&mut self, host: &Host, response: Response) -> Result<(), RegistryError> {
        self.host = host.name();
        let (size, at) = (self.blob.size, self.position);
        let partial = response.status() == StatusCode::PARTIAL_CONTENT;
        let expected = match (partial, at) {
            (true, 0) if !self.part => return Err(self.wrong_range()),
            (true, at) => {
                let header = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
                match header.and_then(content_range) {
                    Some((range, whole))
                        if range == (at..self.end) && whole.is_none_or(|whole| whole == size) => {}
                    _ => return Err(self.wrong_range()),
                }
                self.end - at
            }
            (false, _) if self.part => return Err(self.wrong_range()),
            (false, _) => size,
        };
        if let Some(length) = response.content_length().filter(|length| *length != expected) {
            return Err(self.size_mismatch(length + size - expected));
        }
        self.skip = if partial { 0 } else { at };
        self.response = Some(response);
        Ok(())
    }

    fn size_mismatch(&self, actual: u64) -> RegistryError {
        if self.part {
            return self.wrong_range();
        }
        let (object, host) = (self.blob.object(), self.host.clone());
        RegistryError::SizeMismatch { object, host, expected: self.blob.size, actual }
    }

    fn wrong_range(&self) -> RegistryError {
        RegistryError::WrongRange { object: self.blob.object(), host: self.host.clone(), at: self.position }
    }

    fn no_progress(&self) -> RegistryError {
        RegistryError::NoProgress {
            object: self.blob.object(),
            host: self.host.clone(),
            bytes: self.position,
            waited: self.registry.config().no_progress,
        }
    }
}

/// The bytes that come, and the whole size if it is told.
fn content_range(text: &str) -> Option<(Range<u64>, Option<u64>)> {
    let (range, size) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    let size = match size.trim() {
        "*" => None,
        size => Some(size.parse().ok()?),
    };
    Some((first..last.checked_add(1)?, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_range_has_a_first_and_a_last_byte() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5..10, Some(10))));
        assert_eq!(content_range("bytes 5-8/*"), Some((5..9, None)));
        for bad in
            ["", "bytes", "bytes */10", "items 5-9/10", "bytes 5-/10", "bytes 5-18446744073709551615/10"]
        {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }
}
