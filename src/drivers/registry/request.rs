//! One request to one host: redirects, authorization, retries, and what a status means.
//! What does not live here: which hosts there are, and what the answer's body holds.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue, LOCATION, RANGE};
use reqwest::{Method, Response, StatusCode};
use serde::Deserialize;
use tokio::sync::Semaphore;
use url::Url;

use super::auth::{self, Tokens};
use super::challenge;
use super::credentials::Secret;
use super::error::{Outage, Refusal, RegistryError, connection};
use super::hosts::{Host, authority, is_loopback};
use super::insecure::Plain;
use super::retry::{self, Pauses};
use super::tls::Clients;
use crate::activity;
use crate::telemetry::{METRICS, metrics};

const MAX_REDIRECTS: usize = 10;
const MAX_REFUSAL: u64 = 64 << 10;

/// What all requests share.
pub(super) struct Shared {
    pub(super) clients: Arc<Clients>,
    pub(super) tokens: Tokens,
    pub(super) pauses: Pauses,
    pub(super) plain: Plain,
    /// Pieces of blobs that may be in memory, in the whole daemon.
    pub(super) pieces: Arc<Semaphore>,
}

/// What is asked, of whichever host.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) method: Method,
    /// Below the repository: `manifests/latest`.
    pub(super) path: String,
    pub(super) accept: Option<&'static str>,
    /// Which bytes are wanted, as the header has it; none asks for all.
    pub(super) range: Option<String>,
}

/// Whom it is asked of, and with which secret.
pub(super) struct Target<'a> {
    pub(super) host: &'a Host,
    pub(super) repository: &'a str,
    /// The registry that the reference names: mirrors want to know it.
    pub(super) registry: &'a str,
    /// For messages.
    pub(super) object: String,
    pub(super) secret: Secret,
    pub(super) no_progress: Duration,
    pub(super) clients: Arc<Clients>,
}

/// An answer, and whether another origin gave it.
struct Answer {
    response: Response,
    url: Url,
    foreign: bool,
}

impl Target<'_> {
    /// The client for a URL: only the host itself sees our certificate or is trusted blindly.
    pub(super) async fn client(
        &self,
        url: &Url,
        same_origin: bool,
    ) -> Result<reqwest::Client, RegistryError> {
        let files = if same_origin { self.host.tls.clone() } else { self.host.tls.for_strangers() };
        let direct = is_loopback(url);
        let clients = self.clients.clone();
        let made = tokio::task::spawn_blocking(move || clients.get(&files, direct)).await;
        let made = made.unwrap_or_else(|error| Err(Outage::Connection(error.to_string())));
        made.map_err(|cause| self.unavailable(url, cause))
    }

    fn unavailable(&self, url: &Url, cause: Outage) -> RegistryError {
        RegistryError::Unavailable { object: self.object.clone(), host: authority(url), cause }
    }

    fn url(&self, request: &Request) -> Result<Url, RegistryError> {
        let path = format!("{}/{}", self.repository, request.path);
        let mut url = self.host.base.clone();
        url.set_path(&format!("{}{path}", self.host.base.path()));
        if self.host.tells_registry && !self.host.own && authority(&url) != self.registry {
            url.query_pairs_mut().append_pair("ns", self.registry);
        }
        Ok(url)
    }
}

impl Shared {
    /// Asks, and asks again while that may help; at most `retries` more times.
    pub(super) async fn send(
        &self,
        target: &Target<'_>,
        request: &Request,
        retries: u32,
    ) -> Result<Response, RegistryError> {
        let host = target.host.name();
        let _waiting = activity::wait(|| format!("registry {host} to answer for {}", target.object));
        let mut attempt = 0;
        loop {
            attempt += 1;
            let result = match self.pauses.rest(&host) {
                Some(rest) if retries == 0 || retry::delay(1, Some(rest)).is_none() => {
                    return Err(RegistryError::RateLimited {
                        object: target.object.clone(),
                        host,
                        retry_after: Some(rest),
                    });
                }
                Some(rest) => {
                    tokio::time::sleep(rest).await;
                    self.authorized(target, request).await
                }
                None => self.authorized(target, request).await,
            };
            let error = match result {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            let asked = match &error {
                RegistryError::RateLimited { retry_after, .. } => *retry_after,
                _ => None,
            };
            match retry::delay(attempt, asked) {
                Some(wait) if attempt <= retries && error.is_passing() => {
                    METRICS.pull_retries.get_or_create(&metrics::registry(target.registry)).inc();
                    tokio::time::sleep(wait).await;
                }
                _ => return Err(error),
            }
        }
    }

    /// With the authorization that is known; after a 401, once more with a fresh one.
    async fn authorized(&self, target: &Target<'_>, request: &Request) -> Result<Response, RegistryError> {
        let known = auth::known(&self.tokens, target);
        let answer = self.follow(target, request, known).await?;
        let unauthorized = answer.response.status() == StatusCode::UNAUTHORIZED;
        // Another origin must not make us talk to its token server.
        let challenge = match unauthorized && !answer.foreign && target.secret.registry_token.is_none() {
            true => challenge::find(answer.response.headers()),
            false => None,
        };
        let Some(challenge) = challenge else {
            return self.judge(target, answer).await;
        };
        self.tokens.forget(target);
        match auth::answer(&self.tokens, target, &challenge).await? {
            None => self.judge(target, answer).await,
            Some(fresh) => {
                let answer = self.follow(target, request, Some(fresh)).await?;
                if answer.response.status() == StatusCode::UNAUTHORIZED {
                    self.tokens.forget(target);
                }
                self.judge(target, answer).await
            }
        }
    }

    /// Sends, and goes where redirects lead; what is secret stays with the first origin.
    async fn follow(
        &self,
        target: &Target<'_>,
        request: &Request,
        authorization: Option<HeaderValue>,
    ) -> Result<Answer, RegistryError> {
        let mut url = target.url(request)?;
        let mut foreign = false;
        for _ in 0..=MAX_REDIRECTS {
            let client = target.client(&url, !foreign).await?;
            let mut builder = client.request(request.method.clone(), url.clone());
            if let Some(accept) = request.accept {
                builder = builder.header(ACCEPT, accept);
            }
            if let Some(range) = &request.range {
                builder = builder.header(RANGE, range);
            }
            if !foreign {
                builder = builder.headers(target.host.headers.clone());
                if let Some(value) = &authorization {
                    let single = reqwest::header::HeaderMap::from_iter([(AUTHORIZATION, value.clone())]);
                    builder = builder.headers(single);
                }
            }
            let response = match tokio::time::timeout(target.no_progress, builder.send()).await {
                Ok(sent) => sent.map_err(|error| target.unavailable(&url, connection(error)))?,
                Err(_) => return Err(stalled(target, &url)),
            };
            let Some(next) = redirect(target, &url, &response)? else {
                return Ok(Answer { response, url, foreign });
            };
            foreign |= next.origin() != target.host.base.origin();
            url = next;
        }
        let host = authority(&url);
        Err(RegistryError::TooManyRedirects { object: target.object.clone(), host, limit: MAX_REDIRECTS })
    }

    async fn judge(&self, target: &Target<'_>, answer: Answer) -> Result<Response, RegistryError> {
        let (response, host) = (answer.response, authority(&answer.url));
        let object = target.object.clone();
        match response.status().as_u16() {
            200..=299 => Ok(response),
            429 => {
                let retry_after = retry::after(response.headers());
                if let Some(wait) = retry_after {
                    self.pauses.set(&target.host.name(), wait);
                }
                Err(RegistryError::RateLimited { object, host, retry_after })
            }
            503 if retry::after(response.headers()).is_some_and(|wait| !wait.is_zero()) => {
                self.pauses.set(&target.host.name(), retry::after(response.headers()).unwrap_or_default());
                Err(RegistryError::Unavailable { object, host, cause: Outage::Status(503) })
            }
            status @ (408 | 500..=599) => {
                Err(RegistryError::Unavailable { object, host, cause: Outage::Status(status) })
            }
            416 => Err(RegistryError::WrongRange { object, host, at: 0 }),
            status => {
                let refusal = refusal(response, object, host, target).await;
                Err(match status {
                    401 => RegistryError::Unauthorized(refusal),
                    403 => RegistryError::Denied(refusal),
                    404 => RegistryError::NotFound(refusal),
                    _ => RegistryError::Unexpected(refusal),
                })
            }
        }
    }
}

fn stalled(target: &Target<'_>, url: &Url) -> RegistryError {
    let object = target.object.clone();
    RegistryError::NoProgress { object, host: authority(url), bytes: 0, waited: target.no_progress }
}

/// Where an answer leads, if elsewhere.
pub(super) fn redirect(
    target: &Target<'_>,
    from: &Url,
    response: &Response,
) -> Result<Option<Url>, RegistryError> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let next = location.and_then(|location| from.join(location).ok());
    let bad = || RegistryError::BadAnswer {
        object: target.object.clone(),
        host: authority(from),
        what: "Location",
    };
    let mut next = next.ok_or_else(bad)?;
    let downgrade = from.scheme() == "https" && next.scheme() == "http";
    if downgrade || !matches!(next.scheme(), "http" | "https") || next.host_str().is_none() {
        return Err(RegistryError::UnsafeRedirect {
            object: target.object.clone(),
            host: authority(from),
            target: format!("{}://{}", next.scheme(), authority(&next)),
        });
    }
    let _ = next.set_username("");
    let _ = next.set_password(None);
    Ok(Some(next))
}

#[derive(Deserialize)]
struct ErrorDocument {
    errors: Vec<ErrorEntry>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// What a refusal's error document says, made fit for a terminal.
pub(super) async fn refusal(
    response: Response,
    object: String,
    host: String,
    target: &Target<'_>,
) -> Refusal {
    let status = response.status().as_u16();
    let read = tokio::time::timeout(
        target.no_progress.min(Duration::from_secs(10)),
        read_body(response, MAX_REFUSAL),
    );
    let body = match read.await {
        Ok(Ok(Some(body))) => body,
        _ => Vec::new(),
    };
    let document = serde_json::from_slice::<ErrorDocument>(&body).ok();
    let entry = document.and_then(|document| document.errors.into_iter().next());
    let detail = match entry {
        Some(entry) if entry.message.is_empty() => entry.code,
        Some(entry) if entry.code.is_empty() => entry.message,
        Some(entry) => format!("{}: {}", entry.code, entry.message),
        None => String::new(),
    };
    let detail = target.secret.redact(detail).chars().filter(|c| !c.is_control()).take(300).collect();
    Refusal { object, host, status, detail }
}

/// A whole body; none if it is larger than `limit` bytes.
pub(super) async fn read_body(mut response: Response, limit: u64) -> Result<Option<Vec<u8>>, Outage> {
    if response.content_length().is_some_and(|length| length > limit) {
        return Ok(None);
    }
    let mut body = Vec::new();
    loop {
        let chunk: Option<Bytes> = response.chunk().await.map_err(connection)?;
        let Some(chunk) = chunk else { return Ok(Some(body)) };
        if (body.len() + chunk.len()) as u64 > limit {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
}
