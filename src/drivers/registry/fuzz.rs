//! What fuzzers say as a registry, or write into hosts.toml, and what must hold whatever it is. What does not live here:
//! who calls this (src/fuzzing.rs).

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderValue, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use url::Url;

use super::challenge::{self, Challenge};
use super::hosts::{Host, base_url, is_loopback};
use super::hosts_toml::HostsFile;
use super::request::{Target, redirect};
use super::tls::Clients;
use super::{Credentials, auth, retry};
use crate::images::reference::Reference;

/// The headers that lead elsewhere, one a line: credentials go to https or stay on this machine, and https never leads to
/// http.
pub fn headers(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let mut next = |name| {
        let value = HeaderValue::from_bytes(lines.next()?).ok()?;
        Some((name, value))
    };
    let known = [next(WWW_AUTHENTICATE), next(WWW_AUTHENTICATE), next(LOCATION), next(RETRY_AFTER)];
    let headers: HeaderMap = known.into_iter().flatten().collect();
    assert!(retry::after(&headers).is_none_or(|wait| wait <= Duration::from_secs(86_400)));
    for registry in ["registry.example", "127.0.0.1:5000"] {
        lead(registry, &headers);
    }
}

fn lead(registry: &str, headers: &HeaderMap) {
    let base = base_url(registry, false, false).expect("a good name");
    let host = Host { own: true, ..Host::new(base, "a/b") };
    let credentials =
        Credentials { username: "me".into(), password: "hush-hush".into(), ..Credentials::default() };
    let target = Target {
        host: &host,
        repository: "a/b",
        registry,
        object: "an object".into(),
        secret: credentials.secret(registry, registry, true).expect("good credentials"),
        no_progress: Duration::from_secs(1),
        clients: Arc::new(Clients::new(Duration::from_secs(1))),
    };
    if let Some(Challenge::Bearer { realm, service, scope }) = challenge::find(headers) {
        assert!(!realm.is_empty() && service.as_deref() != Some("") && scope.as_deref() != Some(""));
        if let Ok(url) = auth::realm_url(&target, &realm) {
            assert_safe(&host.base, &url);
        }
    }
    let mut answer = http::Response::builder().status(307);
    if let Some(location) = headers.get(LOCATION) {
        answer = answer.header(LOCATION, location);
    }
    let response = reqwest::Response::from(answer.body("").expect("an answer"));
    if let Ok(Some(url)) = redirect(&target, &host.base, &response) {
        assert!(url.username().is_empty() && url.password().is_none() && url.host_str().is_some());
        assert!(matches!(url.scheme(), "http" | "https"));
        assert!(host.base.scheme() == "http" || url.scheme() == "https", "{url}");
    }
}

fn assert_safe(base: &Url, realm: &Url) {
    let stays = is_loopback(base) && is_loopback(realm);
    assert!(realm.scheme() == "https" || (realm.scheme() == "http" && stays), "{realm}");
}

/// A file of the operator's: each host in it is one that can be asked, the registry itself comes last, and no other host is
/// taken for it.
pub fn hosts_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let directory = Path::new("/etc/berth/certs.d/quay.io");
    let reference = Reference::parse("quay.io/a/b").expect("a good reference");
    let file = HostsFile { path: directory, directory, reference: &reference, text };
    let hosts = match file.parse() {
        Ok(hosts) => hosts,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    assert!(!hosts.is_empty());
    for host in &hosts {
        assert!(matches!(host.base.scheme(), "http" | "https"), "{}", host.base);
        assert!(host.base.path().ends_with('/') && host.base.query().is_none(), "{}", host.base);
        assert!(host.base.username().is_empty() && host.base.password().is_none(), "{}", host.base);
        assert!(!host.own || host.base.host_str() == Some("quay.io"), "{}", host.base);
    }
}
