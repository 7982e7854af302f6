//! Servers that cut, stall, lie and refuse.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::super::{Blob, BlobStream, Credentials, RegistryError};
use super::server::{Reply, Seen, Server};
use super::{MANIFEST, reference, registry};
use crate::ids::Digest;

const NOWHERE: &str = "/nonexistent";

fn content() -> Vec<u8> {
    (0..200_000_u32).map(|n| (n * 7 + n / 251) as u8).collect()
}

fn start_of(seen: &Seen) -> usize {
    let range = seen.header("range").strip_prefix("bytes=").and_then(|range| range.strip_suffix('-'));
    range.map_or(0, |start| start.parse().unwrap())
}

fn ranged(seen: &Seen, content: &[u8]) -> Reply {
    match start_of(seen) {
        0 => Reply::new(200, content),
        start => Reply::new(206, &content[start..])
            .with("content-range", &format!("bytes {start}-{}/{}", content.len() - 1, content.len())),
    }
}

async fn open(server: &Server, size: u64, offset: u64) -> Result<BlobStream, RegistryError> {
    let digest = Digest::of(&content());
    let reference = reference(&format!("{}/a/b", server.address));
    let blob = Blob::new(&reference, &digest, size, &Credentials::default());
    registry(Path::new(NOWHERE)).blob(blob, offset).await
}

async fn all(stream: Result<BlobStream, RegistryError>) -> Result<Vec<u8>, RegistryError> {
    let mut stream = stream?;
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await {
        bytes.extend_from_slice(&chunk?);
    }
    assert!(stream.next().await.is_none());
    Ok(bytes)
}

#[tokio::test]
async fn a_cut_blob_is_resumed_where_it_broke() {
    let server = Server::start(|seen| ranged(seen, &content()).cut(70_000)).await;
    assert_eq!(all(open(&server, 200_000, 0).await).await.unwrap(), content());
    assert!(server.seen().len() >= 3);
    assert!(server.seen()[1..].iter().all(|seen| start_of(seen) > 0));
    let tail = all(open(&server, 200_000, 150_000).await).await.unwrap();
    assert_eq!(tail, content()[150_000..]);
    assert!(all(open(&server, 200_000, 200_000).await).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_server_that_ignores_the_range_is_skipped_through() {
    let count = AtomicUsize::new(0);
    let server = Server::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::new(200, content()).cut(70_000),
        _ => Reply::new(200, content()),
    })
    .await;
    assert_eq!(all(open(&server, 200_000, 0).await).await.unwrap(), content());
}

#[tokio::test]
async fn a_shifted_range_is_refused() {
    let server = Server::start(|seen| match start_of(seen) {
        0 => Reply::new(200, content()).cut(70_000),
        start => Reply::new(206, &content()[start - 1..])
            .with("content-range", &format!("bytes {}-199999/200000", start - 1)),
    })
    .await;
    let error = all(open(&server, 200_000, 0).await).await.unwrap_err();
    assert!(matches!(error, RegistryError::WrongRange { .. }), "{error}");
}

#[tokio::test]
async fn a_blob_that_always_breaks_ends_with_an_error() {
    let server = Server::start(|seen| ranged(seen, &content()).cut(10)).await;
    let error = all(open(&server, 200_000, 0).await).await.unwrap_err();
    assert!(matches!(error, RegistryError::Cut { at: 30, size: 200_000, .. }), "{error}");
    assert!(error.to_string().contains(&server.address));
}

#[tokio::test]
async fn a_stalled_blob_ends_after_no_progress() {
    let server = Server::start(|seen| ranged(seen, &content()).stall(50_000)).await;
    let error = all(open(&server, 200_000, 0).await).await.unwrap_err();
    assert!(matches!(error, RegistryError::NoProgress { bytes: 50_000, .. }), "{error}");
}

#[tokio::test]
async fn a_blob_that_drips_ends_after_no_progress() {
    let server = Server::start(|seen| ranged(seen, &content()).drip()).await;
    let error = all(open(&server, 200_000, 0).await).await.unwrap_err();
    assert!(matches!(error, RegistryError::NoProgress { bytes: 1.., .. }), "{error}");
}

#[tokio::test]
async fn many_cuts_are_mended_while_each_brings_progress() {
    let server = Server::start(|seen| ranged(seen, &content()).cut(20_000)).await;
    assert_eq!(all(open(&server, 200_000, 0).await).await.unwrap(), content());
    assert_eq!(server.seen().len(), 10);
}

#[tokio::test]
async fn localhost_is_found_by_name_without_the_hosts_name_service() {
    let server = Server::start(|_| Reply::manifest(MANIFEST)).await;
    let port = server.address.rsplit_once(':').unwrap().1;
    let reference = reference(&format!("localhost:{port}/a/b:1"));
    registry(Path::new(NOWHERE)).manifest(&reference, &Credentials::default()).await.unwrap();
}

#[tokio::test]
async fn no_more_than_the_size_is_given() {
    for reply in [Reply::new(200, content()), Reply::new(200, content()).endless()] {
        let server = Server::start(move |_| reply.clone()).await;
        let error = all(open(&server, 199_999, 0).await).await.unwrap_err();
        assert!(matches!(error, RegistryError::SizeMismatch { expected: 199_999, .. }), "{error}");
    }
    let server = Server::start(|_| Reply::new(200, content()).length(150_000)).await;
    let error = all(open(&server, 200_000, 0).await).await.unwrap_err();
    assert!(matches!(error, RegistryError::SizeMismatch { actual: 150_000, .. }), "{error}");
}

#[tokio::test]
async fn wrong_content_is_named_by_both_digests() {
    let lie = Digest::of(b"other");
    let announced = lie.to_string();
    let server = Server::start(move |seen| match seen.path.contains("/blobs/") {
        true => Reply::new(200, content()),
        false => Reply::manifest(MANIFEST).with("docker-content-digest", &announced),
    })
    .await;
    let (registry, anonymous) = (registry(Path::new(NOWHERE)), Credentials::default());
    let reference = reference(&format!("{}/a/b:1", server.address));
    let blob = Blob::new(&reference, &lie, 200_000, &anonymous);
    let error = registry.blob_bytes(blob.clone(), 1 << 20).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains(lie.as_str()) && text.contains(Digest::of(&content()).as_str()), "{text}");
    let error = registry.blob_bytes(blob, 1000).await.unwrap_err();
    assert!(matches!(error, RegistryError::TooLarge { limit: 1000, .. }));
    let error = registry.manifest(&reference, &anonymous).await.unwrap_err();
    assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error}");
    let error = registry.manifest_by_digest(&reference, &lie, Some(7), &anonymous).await.unwrap_err();
    assert!(matches!(error, RegistryError::SizeMismatch { expected: 7, .. }), "{error}");
}

#[tokio::test]
async fn a_manifest_without_end_is_too_large() {
    let server = Server::start(|_| Reply::manifest(&" ".repeat((4 << 20) + 1)).endless()).await;
    let reference = reference(&format!("{}/a/b:1", server.address));
    let error = registry(Path::new(NOWHERE)).manifest(&reference, &Credentials::default()).await.unwrap_err();
    assert!(matches!(error, RegistryError::TooLarge { limit: 4_194_304, .. }), "{error}");
}

#[tokio::test]
async fn passing_failures_are_tried_again_and_lasting_ones_are_not() {
    for (status, tries) in [(500, 3), (503, 3), (429, 3), (408, 3), (404, 1), (403, 1), (418, 1), (401, 1)] {
        let server =
            Server::start(move |_| Reply::new(status, r#"{"errors":[{"code":"X","message":"why\u001b"}]}"#))
                .await;
        let reference = reference(&format!("{}/a/b:1", server.address));
        let error =
            registry(Path::new(NOWHERE)).manifest(&reference, &Credentials::default()).await.unwrap_err();
        assert_eq!(server.seen().len(), tries, "{status}");
        let text = error.to_string();
        assert!(text.contains(&server.address) && text.contains("a/b:1"), "{text}");
        let fits = match status {
            429 => matches!(error, RegistryError::RateLimited { .. }),
            404 => matches!(error, RegistryError::NotFound(_)) && text.contains("X: why"),
            403 => matches!(error, RegistryError::Denied(_)),
            401 => matches!(error, RegistryError::Unauthorized(_)),
            418 => matches!(error, RegistryError::Unexpected(_)),
            _ => matches!(error, RegistryError::Unavailable { .. }),
        };
        assert!(fits, "{status}: {error:?}");
    }
}

#[tokio::test]
async fn retry_after_is_honoured_and_a_long_one_is_an_error_at_once() {
    let count = AtomicUsize::new(0);
    let server = Server::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::new(429, "").with("retry-after", "1"),
        _ => Reply::manifest(MANIFEST),
    })
    .await;
    let begin = std::time::Instant::now();
    let text = format!("{}/a/b:1", server.address);
    registry(Path::new(NOWHERE)).manifest(&reference(&text), &Credentials::default()).await.unwrap();
    assert!(begin.elapsed() >= Duration::from_secs(1));
    let server = Server::start(|_| Reply::new(429, "").with("retry-after", "3600")).await;
    let (registry, text) = (registry(Path::new(NOWHERE)), format!("{}/a/b:1", server.address));
    for _ in 0..2 {
        let error = registry.manifest(&reference(&text), &Credentials::default()).await.unwrap_err();
        assert!(matches!(error, RegistryError::RateLimited { retry_after: Some(_), .. }), "{error}");
    }
    assert_eq!(server.seen().len(), 1, "a host that wants to be left alone is left alone");
}

#[tokio::test]
async fn a_failing_server_that_asks_for_an_hour_is_not_waited_for() {
    let server = Server::start(|_| Reply::new(503, "").with("retry-after", "3600")).await;
    let reference = reference(&format!("{}/a/b:1", server.address));
    let begin = std::time::Instant::now();
    registry(Path::new(NOWHERE)).manifest(&reference, &Credentials::default()).await.unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let reference = reference(&format!("{address}/a/b:1"));
    let error = registry(Path::new(NOWHERE)).manifest(&reference, &Credentials::default()).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unavailable { .. }));
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        error.to_string().contains(&address.to_string()) && cause.contains("refused"),
        "{error}: {cause}"
    );
}

#[tokio::test]
async fn redirects_end() {
    let server = Server::start(|_| Reply::to("/again")).await;
    let text = format!("{}/a/b:1", server.address);
    let error =
        registry(Path::new(NOWHERE)).manifest(&reference(&text), &Credentials::default()).await.unwrap_err();
    assert!(matches!(error, RegistryError::TooManyRedirects { .. }), "{error}");
    assert_eq!(server.seen().len(), 11);
    for target in ["file:///etc/passwd", "ftp://x/y", "http://"] {
        let server = Server::start(move |_| Reply::to(target)).await;
        let text = format!("{}/a/b:1", server.address);
        let error = registry(Path::new(NOWHERE))
            .manifest(&reference(&text), &Credentials::default())
            .await
            .unwrap_err();
        let refused = matches!(
            error,
            RegistryError::UnsafeRedirect { .. } | RegistryError::BadAnswer { what: "Location", .. }
        );
        assert!(refused, "{target}: {error}");
    }
}
