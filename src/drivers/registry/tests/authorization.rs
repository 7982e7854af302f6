//! Who gets to see which secret.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::{Blob, Credentials, RegistryError};
use super::server::{Reply, Seen, Server};
use super::{MANIFEST, reference, registry};
use crate::ids::Digest;

const NOWHERE: &str = "/nonexistent";

fn hush() -> Credentials {
    Credentials { username: "me".into(), password: "hush-hush".into(), ..Credentials::default() }
}

fn basic_only(seen: &Seen) -> Option<Reply> {
    (seen.header("authorization") != "Basic bWU6aHVzaC1odXNo")
        .then(|| Reply::new(401, "").with("www-authenticate", "Basic realm=\"x\""))
}

#[tokio::test]
async fn another_origin_never_sees_a_secret() {
    let thief = Server::start(|seen| match seen.path.contains("steal") {
        true => Reply::new(401, "").with("www-authenticate", "Basic realm=\"x\""),
        false => Reply::new(200, "content"),
    })
    .await;
    let target = thief.address.clone();
    let server = Server::start(move |seen| {
        let suffix = if seen.path.contains("manifests") { "steal" } else { "give?signature=s" };
        basic_only(seen).unwrap_or_else(|| Reply::to(&format!("http://{target}/{suffix}")))
    })
    .await;
    let registry = registry(Path::new(NOWHERE));
    let reference = reference(&format!("{}/a/b:1", server.address));
    let digest = Digest::of(b"content");
    let bytes = registry.blob_bytes(Blob::new(&reference, &digest, 7, &hush()), 100).await.unwrap();
    assert_eq!(bytes, b"content");
    let error = registry.manifest(&reference, &hush()).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unauthorized(_)), "{error}");
    assert_eq!(thief.seen().len(), 2);
    for seen in thief.seen() {
        assert_eq!(seen.header("authorization"), "");
        assert!(!format!("{seen:?}").contains("hush"));
    }
    assert!(server.seen().iter().filter(|seen| !seen.header("authorization").is_empty()).count() >= 2);
}

#[tokio::test]
async fn credentials_for_another_server_stay_here() {
    let server = Server::start(|seen| basic_only(seen).unwrap_or_else(|| Reply::manifest(MANIFEST))).await;
    let reference = reference(&format!("{}/a/b:1", server.address));
    let registry = registry(Path::new(NOWHERE));
    let other = Credentials { server_address: "quay.io".into(), ..hush() };
    let error = registry.manifest(&reference, &other).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unauthorized(_)), "{error}");
    assert!(server.seen().iter().all(|seen| seen.header("authorization").is_empty()));
    let same = Credentials { server_address: format!("http://{}/v2/", server.address), ..hush() };
    registry.manifest(&reference, &same).await.unwrap();
}

#[tokio::test]
async fn a_refusal_loop_ends_after_one_refresh_and_shows_no_secret() {
    let server = Server::start(|seen| {
        let body = format!(
            r#"{{"errors":[{{"code":"UNAUTHORIZED","message":"{} hush-hush"}}]}}"#,
            seen.header("authorization")
        );
        Reply::new(401, body).with("www-authenticate", "Basic realm=\"x\"")
    })
    .await;
    let reference = reference(&format!("{}/a/b:1", server.address));
    let error = registry(Path::new(NOWHERE)).manifest(&reference, &hush()).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unauthorized(_)));
    let text = format!("{error} {error:?}");
    assert!(!text.contains("hush") && !text.contains("bWU6") && text.contains("[redacted]"), "{text}");
    assert_eq!(server.seen().len(), 2);
}

/// Token server and registry in one; each token is good for `uses` requests.
async fn token_server(uses: usize) -> Server {
    let left = Arc::new(AtomicUsize::new(0));
    let issued = AtomicUsize::new(0);
    Server::start(move |seen| {
        if seen.path.starts_with("/token") {
            left.store(uses, Ordering::SeqCst);
            let number = issued.fetch_add(1, Ordering::SeqCst) + 1;
            return Reply::new(200, format!(r#"{{"access_token":"t{number}","expires_in":300}}"#));
        }
        let good = seen.header("authorization") == format!("Bearer t{}", issued.load(Ordering::SeqCst));
        let spent =
            left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err();
        match good && !spent {
            true => Reply::manifest(MANIFEST),
            false => Reply::new(401, "").with(
                "www-authenticate",
                "Bearer realm=\"/token\",service=\"the service\",scope=\"repository:a/b:pull\"",
            ),
        }
    })
    .await
}

#[tokio::test]
async fn a_token_is_used_again_until_it_expires_in_the_middle() {
    let server = token_server(2).await;
    let registry = registry(Path::new(NOWHERE));
    let reference = reference(&format!("{}/a/b:1", server.address));
    for _ in 0..4 {
        registry.manifest(&reference, &hush()).await.unwrap();
    }
    let tokens: Vec<_> = server.seen().into_iter().filter(|seen| seen.path.starts_with("/token")).collect();
    assert_eq!(tokens.len(), 2);
    let expected = "/token?service=the+service&scope=repository%3Aa%2Fb%3Apull&account=me";
    assert_eq!(
        (tokens[0].path.as_str(), tokens[0].header("authorization")),
        (expected, "Basic bWU6aHVzaC1odXNo")
    );
    let other = Credentials { password: "else".into(), ..hush() };
    registry.manifest(&reference, &other).await.unwrap();
    let tokens = server.seen().into_iter().filter(|seen| seen.path.starts_with("/token")).count();
    assert_eq!(tokens, 3, "a token is not lent to other credentials");
}

#[tokio::test]
async fn identity_and_registry_tokens_are_honoured() {
    let server = token_server(9).await;
    let registry = registry(Path::new(NOWHERE));
    let reference = reference(&format!("{}/a/b:1", server.address));
    let identity = Credentials { identity_token: "refresh&me".into(), ..Credentials::default() };
    registry.manifest(&reference, &identity).await.unwrap();
    let asked = server.seen().into_iter().find(|seen| seen.path == "/token").unwrap();
    assert_eq!(asked.method, "POST");
    assert!(
        asked.body.contains("grant_type=refresh_token") && asked.body.contains("refresh_token=refresh%26me")
    );
    let given = Credentials { registry_token: "t1".into(), ..Credentials::default() };
    registry.manifest(&reference, &given).await.unwrap();
    let wrong = Credentials { registry_token: "no".into(), ..Credentials::default() };
    let error = registry.manifest(&reference, &wrong).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unauthorized(_)), "{error}");
    assert_eq!(server.seen().iter().filter(|seen| seen.path.starts_with("/token")).count(), 1);
}

#[tokio::test]
async fn a_token_server_elsewhere_without_tls_is_refused() {
    let server = Server::start(|_| {
        Reply::new(401, "").with("www-authenticate", "Bearer realm=\"http://203.0.113.1/token?x=secret\"")
    })
    .await;
    let reference = reference(&format!("{}/a/b:1", server.address));
    let error = registry(Path::new(NOWHERE)).manifest(&reference, &hush()).await.unwrap_err();
    assert!(matches!(error, RegistryError::UnsafeRealm { .. }), "{error}");
    assert!(!error.to_string().contains("secret"));
}

#[tokio::test]
async fn a_token_server_that_sends_elsewhere_is_not_followed() {
    let thief = Server::start(|_| Reply::new(200, r#"{"token":"stolen"}"#)).await;
    let target = thief.address.clone();
    let server = Server::start(move |seen| match seen.path.starts_with("/token") {
        true => Reply::to(&format!("http://{target}/steal")),
        false => Reply::new(401, "").with("www-authenticate", "Bearer realm=\"/token\""),
    })
    .await;
    let reference = reference(&format!("{}/a/b:1", server.address));
    for credentials in [hush(), Credentials { identity_token: "hush-hush".into(), ..Credentials::default() }]
    {
        let error = registry(Path::new(NOWHERE)).manifest(&reference, &credentials).await.unwrap_err();
        assert!(matches!(error, RegistryError::Unauthorized(_)), "{error}");
        assert!(!format!("{error} {error:?}").contains("hush"));
    }
    assert!(thief.seen().is_empty(), "{:?}", thief.seen());
}

#[tokio::test]
async fn a_secret_in_a_redirect_is_in_no_message() {
    let thief = Server::start(|_| Reply::new(403, r#"{"errors":[{"message":"no\u001b[31m"}]}"#)).await;
    let target = thief.address.clone();
    let server = Server::start(move |seen| {
        basic_only(seen)
            .unwrap_or_else(|| Reply::to(&format!("http://user:pass@{target}/x?signature=hidden#part")))
    })
    .await;
    let reference = reference(&format!("{}/a/b:1", server.address));
    let error = registry(Path::new(NOWHERE)).manifest(&reference, &hush()).await.unwrap_err();
    let text = format!("{} {error:?}", crate::error::chain(&error));
    assert!(text.contains(&thief.address), "{text}");
    for secret in ["hidden", "pass@", "hush", "\u{1b}"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    assert!(thief.seen().iter().all(|seen| seen.header("authorization").is_empty()));
}
