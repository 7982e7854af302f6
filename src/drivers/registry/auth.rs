//! Answers to challenges: basic, bearer tokens and their cache. What does not live here: sending the request itself.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use serde::Deserialize;
use url::Url;

use super::challenge::Challenge;
use super::credentials::Secret;
use super::error::{Outage, RegistryError, connection};
use super::hosts::{authority, is_loopback};
use super::request::{Target, read_body, refusal};
use crate::ids::Digest;

/// distribution's token specification: a token without `expires_in` lives this long.
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
const LONGEST_LIFE: Duration = Duration::from_secs(3600);
/// A token is not used in its last seconds.
const MARGIN: Duration = Duration::from_secs(5);
const MAX_TOKENS: usize = 1024;
const MAX_ANSWER: u64 = 256 << 10;

#[derive(PartialEq, Eq, Hash)]
struct Key {
    origin: String,
    repository: String,
    fingerprint: Digest,
}

/// Authorizations that worked, for each origin, repository and secret.
#[derive(Default)]
pub(super) struct Tokens(Mutex<HashMap<Key, (HeaderValue, Instant)>>);

impl Tokens {
    fn get(&self, target: &Target<'_>) -> Option<HeaderValue> {
        let tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (value, until) = tokens.get(&key(target))?;
        (*until > Instant::now()).then(|| value.clone())
    }

    fn set(&self, target: &Target<'_>, value: HeaderValue, life: Duration) {
        let now = Instant::now();
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.retain(|_, (_, until)| *until > now);
        if tokens.len() >= MAX_TOKENS {
            tokens.clear();
        }
        tokens.insert(key(target), (value, now + life));
    }

    pub(super) fn forget(&self, target: &Target<'_>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&key(target));
    }
}

fn key(target: &Target<'_>) -> Key {
    Key {
        origin: target.host.base.origin().ascii_serialization(),
        repository: target.repository.to_string(),
        fingerprint: target.secret.fingerprint(),
    }
}

/// The header that answers a challenge; none if there is nothing to answer with.
pub(super) async fn answer(
    tokens: &Tokens,
    target: &Target<'_>,
    challenge: &Challenge,
) -> Result<Option<HeaderValue>, RegistryError> {
    let (value, life) = match challenge {
        Challenge::Basic => match &target.secret.basic {
            Some((username, password)) => (basic(username, password), LONGEST_LIFE),
            None => return Ok(None),
        },
        Challenge::Bearer { realm, service, scope } => {
            let ask = Ask {
                target,
                realm: realm_url(target, realm)?,
                service: service.as_deref(),
                scope: scope.as_deref(),
            };
            let token = ask.send().await?;
            let life =
                token.expires_in.map_or(DEFAULT_LIFE, Duration::from_secs).clamp(MARGIN * 2, LONGEST_LIFE);
            let Some(value) = token.header() else {
                return Err(bad_answer(target, "token"));
            };
            (Some(value), life - MARGIN)
        }
    };
    if let Some(value) = &value {
        tokens.set(target, value.clone(), life);
    }
    Ok(value)
}

/// The registry token of the caller, which needs no challenge.
fn direct(secret: &Secret) -> Option<HeaderValue> {
    bearer(secret.registry_token.as_deref()?)
}

fn basic(username: &str, password: &str) -> Option<HeaderValue> {
    sensitive(&format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))))
}

fn bearer(token: &str) -> Option<HeaderValue> {
    sensitive(&format!("Bearer {token}"))
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// A token server must be https. On this machine it may be plain http if the registry is here, too; and where the
/// operator chose plain http for a registry, its own origin may serve tokens.
pub(super) fn realm_url(target: &Target<'_>, realm: &str) -> Result<Url, RegistryError> {
    let base = &target.host.base;
    let url = base.join(realm).map_err(|_| bad_answer(target, "WWW-Authenticate realm"))?;
    let same = url.origin() == base.origin();
    let safe = match url.scheme() {
        // Who can forge a plain answer must not choose where secrets go.
        "https" if same => true,
        "https" if is_loopback(&url) => is_loopback(base),
        "https" => base.scheme() == "https" || is_loopback(base) || target.secret.is_empty(),
        "http" => (same && base.scheme() == "http") || (is_loopback(base) && is_loopback(&url)),
        _ => false,
    };
    if safe {
        return Ok(url);
    }
    let realm = format!("{}://{}", url.scheme(), authority(&url));
    Err(RegistryError::UnsafeRealm { host: target.host.name(), realm })
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Token {
    fn header(&self) -> Option<HeaderValue> {
        let token =
            self.token.as_deref().filter(|token| !token.is_empty()).or(self.access_token.as_deref())?;
        if token.is_empty() { None } else { bearer(token) }
    }
}

struct Ask<'a> {
    target: &'a Target<'a>,
    realm: Url,
    service: Option<&'a str>,
    scope: Option<&'a str>,
}

impl Ask<'_> {
    async fn send(&self) -> Result<Token, RegistryError> {
        let host = authority(&self.realm);
        let limit = self.target.no_progress;
        let unavailable = |cause| self.unavailable(&host, cause);
        let same = self.realm.origin() == self.target.host.base.origin();
        let client = self.target.client(&self.realm, same).await?;
        let request = self.request(&client);
        let sent = tokio::time::timeout(limit, request.send()).await;
        let response = match sent {
            Ok(sent) => sent.map_err(|error| unavailable(connection(error)))?,
            Err(_) => return Err(self.stalled(host)),
        };
        let object = format!("a token for {}", self.target.object);
        match response.status().as_u16() {
            200..=299 => {}
            429 => {
                let retry_after = super::retry::after(response.headers());
                return Err(RegistryError::RateLimited { object, host, retry_after });
            }
            status @ (408 | 500..=599) => return Err(unavailable(Outage::Status(status))),
            403 => {
                return Err(RegistryError::Denied(refusal(response, object, host, self.target).await));
            }
            // A redirect, too: it would take the credentials elsewhere.
            _ => {
                return Err(RegistryError::Unauthorized(refusal(response, object, host, self.target).await));
            }
        }
        let body = match tokio::time::timeout(limit, read_body(response, MAX_ANSWER)).await {
            Ok(body) => body.map_err(unavailable)?,
            Err(_) => return Err(self.stalled(host)),
        };
        body.and_then(|body| serde_json::from_slice(&body).ok())
            .ok_or_else(|| bad_answer(self.target, "token"))
    }

    fn request(&self, client: &reqwest::Client) -> reqwest::RequestBuilder {
        let own_scope = format!("repository:{}:pull", self.target.repository);
        let scope = self.scope.unwrap_or(&own_scope);
        if let Some(token) = &self.target.secret.identity_token {
            let mut form = url::form_urlencoded::Serializer::new(String::new());
            form.append_pair("grant_type", "refresh_token").append_pair("client_id", "berth");
            form.append_pair("service", self.service.unwrap_or("")).append_pair("scope", scope);
            let body = form.append_pair("refresh_token", token).finish();
            return client
                .post(self.realm.clone())
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(body);
        }
        let mut url = self.realm.clone();
        if let Some(service) = self.service {
            url.query_pairs_mut().append_pair("service", service);
        }
        for scope in scope.split(' ').filter(|scope| !scope.is_empty()) {
            url.query_pairs_mut().append_pair("scope", scope);
        }
        let Some((username, password)) = &self.target.secret.basic else {
            return client.get(url);
        };
        url.query_pairs_mut().append_pair("account", username);
        match basic(username, password) {
            Some(value) => client.get(url).header(AUTHORIZATION, value),
            None => client.get(url),
        }
    }

    fn unavailable(&self, host: &str, cause: Outage) -> RegistryError {
        let object = format!("a token for {}", self.target.object);
        RegistryError::Unavailable { object, host: host.to_string(), cause }
    }

    fn stalled(&self, host: String) -> RegistryError {
        let object = format!("a token for {}", self.target.object);
        RegistryError::NoProgress { object, host, bytes: 0, waited: self.target.no_progress }
    }
}

fn bad_answer(target: &Target<'_>, what: &'static str) -> RegistryError {
    RegistryError::BadAnswer { object: target.object.clone(), host: target.host.name(), what }
}

/// The request's first header: a token from the caller, or what worked last time.
pub(super) fn known(tokens: &Tokens, target: &Target<'_>) -> Option<HeaderValue> {
    direct(&target.secret).or_else(|| tokens.get(target))
}
