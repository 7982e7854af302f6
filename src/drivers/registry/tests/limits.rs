//! One host's limits and tokens are that host's alone.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::super::{Credentials, RegistryError};
use super::server::{Reply, Server};
use super::{MANIFEST, reference, registry};

#[tokio::test]
async fn a_host_that_limits_its_rate_delays_no_other() {
    let count = AtomicUsize::new(0);
    let limited = Server::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::new(429, "").with("retry-after", "2"),
        _ => Reply::manifest(MANIFEST),
    })
    .await;
    let free = Server::start(|_| Reply::manifest(MANIFEST)).await;
    let (registry, none) = (registry(Path::new("/nonexistent")), Credentials::default());
    let (slow, quick) =
        (reference(&format!("{}/a:1", limited.address)), reference(&format!("{}/a:1", free.address)));
    let begin = Instant::now();
    let waiting = registry.manifest(&slow, &none);
    let meanwhile = async {
        // The limit is known by then.
        tokio::time::sleep(Duration::from_millis(500)).await;
        for _ in 0..3 {
            registry.manifest(&quick, &none).await.unwrap();
        }
        begin.elapsed()
    };
    let (waited, other) = tokio::join!(waiting, meanwhile);
    waited.unwrap();
    assert!(other < Duration::from_millis(1500) && begin.elapsed() >= Duration::from_secs(2), "{other:?}");
}

#[tokio::test]
async fn a_token_is_for_its_repository_and_its_time() {
    let issued = AtomicUsize::new(0);
    let server = Server::start(move |seen| {
        if seen.path.starts_with("/token") {
            let number = issued.fetch_add(1, Ordering::SeqCst);
            return Reply::new(200, format!(r#"{{"token":"t{number}","expires_in":1}}"#));
        }
        match seen.header("authorization") {
            "" => Reply::new(401, "").with("www-authenticate", "Bearer realm=\"/token\""),
            _ => Reply::manifest(MANIFEST),
        }
    })
    .await;
    let (registry, none) = (registry(Path::new("/nonexistent")), Credentials::default());
    let tokens = || server.seen().iter().filter(|seen| seen.path.starts_with("/token")).count();
    let one = reference(&format!("{}/a/one:1", server.address));
    let two = reference(&format!("{}/a/two:1", server.address));
    registry.manifest(&one, &none).await.unwrap();
    registry.manifest(&one, &none).await.unwrap();
    assert_eq!(tokens(), 1);
    registry.manifest(&two, &none).await.unwrap();
    assert_eq!(tokens(), 2, "a token is not lent to another repository");
    // A life that short is taken for a clock that is wrong; see auth.
    tokio::time::sleep(Duration::from_millis(5200)).await;
    registry.manifest(&one, &none).await.unwrap();
    assert_eq!(tokens(), 3, "its time is over");
}

#[tokio::test]
async fn credentials_of_the_node_are_for_pulls_that_bring_none() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(|seen| match seen.header("authorization") {
        // node:hush, pull:hush
        "Basic bm9kZTpodXNo" | "Basic cHVsbDpodXNo" => Reply::manifest(MANIFEST),
        _ => Reply::new(401, "").with("www-authenticate", "Basic realm=\"x\""),
    })
    .await;
    let path = dir.path().join("auth.json");
    let write = |text: String| std::fs::write(&path, text).unwrap();
    write(format!(r#"{{"auths":{{"{}/team":{{"auth":"bm9kZTpodXNo"}}}}}}"#, server.address));
    let config = super::Config { auth_file: Some(path.clone()), ..super::Config::default() };
    let registry = super::Registry::new(config).unwrap();
    let team = reference(&format!("{}/team/app:1", server.address));
    let none = Credentials::default();
    registry.manifest(&team, &none).await.unwrap();
    let pulls = Credentials { username: "pull".into(), password: "hush".into(), ..Credentials::default() };
    registry.manifest(&team, &pulls).await.unwrap();
    let sent: Vec<_> = server.seen().iter().map(|seen| seen.header("authorization").to_string()).collect();
    assert_eq!(sent, ["", "Basic bm9kZTpodXNo", "", "Basic cHVsbDpodXNo"]);
    let other = reference(&format!("{}/other/app:1", server.address));
    let error = registry.manifest(&other, &none).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unauthorized(_)), "{error}");

    write(format!(r#"{{"credHelpers":{{"{}":"ecr-login"}}}}"#, server.address));
    let error = registry.manifest(&team, &none).await.unwrap_err();
    assert!(error.to_string().contains("docker-credential-ecr-login"), "{error}");
    registry.manifest(&team, &pulls).await.unwrap();
}
