//! Large blobs over several connections, from servers that allow it, ignore it and refuse it.

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::super::{Blob, Config, Credentials, Download, Registry, RegistryError};
use super::reference;
use super::server::{Reply, Seen, Server};
use crate::ids::Digest;

const SIZE: usize = 32 << 20;
/// Of each connection.
const RATE: usize = 8 << 20;

static CONTENT: LazyLock<Arc<[u8]>> = LazyLock::new(|| {
    let word = |n: usize| (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    (0..SIZE / 8).flat_map(word).collect()
});

/// First byte, and the one behind the last.
fn range(seen: &Seen) -> Option<(usize, usize)> {
    let (first, last) = seen.header("range").strip_prefix("bytes=")?.split_once('-')?;
    Some((first.parse().ok()?, last.parse().map_or(SIZE, |last: usize| last + 1)))
}

fn ranged(seen: &Seen) -> Reply {
    match range(seen) {
        None => Reply::new(200, &CONTENT[..]),
        Some((from, to)) => Reply::new(206, &CONTENT[from..to])
            .with("content-range", &format!("bytes {from}-{}/{SIZE}", to - 1)),
    }
    .rate(RATE)
}

fn registry(connections: u32) -> Registry {
    let config = Config {
        config_path: Path::new("/nonexistent").into(),
        no_progress: Duration::from_secs(5),
        retries: 1,
        connections,
        ..Config::default()
    };
    Registry::new(config).unwrap()
}

async fn open(registry: &Registry, server: &Server, offset: usize) -> Download {
    let reference = reference(&format!("{}/a/b", server.address));
    let none = Credentials::default();
    let blob = Blob::new(&reference, &Digest::of(b""), SIZE as u64, &none);
    registry.download(blob, offset as u64).await.unwrap()
}

/// As a reader that does nothing but wait.
async fn next(download: &mut Download) -> Option<Result<Bytes, RegistryError>> {
    let started = Instant::now();
    let chunk = download.next().await?;
    download.note_idle(chunk.as_ref().map_or(0, Bytes::len), started.elapsed());
    Some(chunk)
}

async fn all(mut download: Download, offset: usize) -> Result<(), RegistryError> {
    let mut at = offset;
    while let Some(chunk) = next(&mut download).await {
        let chunk = chunk?;
        assert!(chunk == CONTENT[at..at + chunk.len()], "at {at}");
        at += chunk.len();
    }
    assert_eq!(at, SIZE);
    assert!(download.next().await.is_none());
    Ok(())
}

/// Requests for a part, in the order of their first bytes.
fn parts(server: &Server) -> Vec<(usize, usize)> {
    let closed = |seen: &Seen| range(seen).filter(|_| !seen.header("range").ends_with('-'));
    let mut parts: Vec<_> = server.seen().iter().filter_map(closed).collect();
    parts.sort_unstable();
    parts
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_blob_comes_over_several_connections_and_no_byte_is_asked_for_twice() {
    let server = Server::start(ranged).await;
    let registry = registry(4);
    for offset in [0, 1_000_003] {
        let before = parts(&server).len();
        all(open(&registry, &server, offset).await, offset).await.unwrap();
        let parts = parts(&server).split_off(before);
        assert!(parts.len() >= 4, "{parts:?}");
        if offset == 0 {
            assert!(parts.windows(2).all(|pair| pair[0].1 == pair[1].0), "{parts:?}");
            assert_eq!(parts.last().unwrap().1, SIZE);
        }
    }
    assert_eq!(registry.shared().pieces.available_permits(), 8, "all room is given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn pieces_wait_for_their_reader_and_are_bounded_over_all_downloads() {
    let server = Server::start(ranged).await;
    let registry = registry(16);
    let mut download = open(&registry, &server, 0).await;
    while registry.shared().pieces.available_permits() == 8 {
        next(&mut download).await.unwrap().unwrap();
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let asked = parts(&server).len();
    assert!(asked >= 3 && asked + registry.shared().pieces.available_permits() == 8, "{asked}");
    // Another one finds what is left, and both come to their ends.
    let other = open(&registry, &server, 0).await;
    let rest = async {
        while let Some(chunk) = download.next().await {
            chunk.unwrap();
        }
    };
    let (other, ()) = tokio::join!(all(other, 0), rest);
    other.unwrap();
    assert_eq!(registry.shared().pieces.available_permits(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_does_where_ranges_are_ignored_shifted_or_refused() {
    type Answer = fn(&Seen) -> Reply;
    let ignored: Answer = |_| Reply::new(200, &CONTENT[..]).rate(RATE);
    let shifted: Answer = |seen| match range(seen) {
        Some((from, to)) => Reply::new(206, &CONTENT[from - 1..to])
            .with("content-range", &format!("bytes {}-{}/{SIZE}", from - 1, to - 1)),
        None => ranged(seen),
    };
    let limited: Answer = |seen| match range(seen) {
        Some(_) => Reply::new(429, "").with("retry-after", "1"),
        None => ranged(seen),
    };
    for answer in [ignored, shifted, limited] {
        let server = Server::start(answer).await;
        all(open(&registry(3), &server, 0).await, 0).await.unwrap();
        let whole = server.seen().iter().filter(|seen| range(seen).is_none()).count();
        // Who was told to wait by the first answer does not ask.
        assert!(whole == 1 && (1..=2).contains(&parts(&server).len()), "{whole} {:?}", parts(&server));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_goes_on_where_a_later_range_is_refused() {
    let server = Server::start(|seen| match range(seen) {
        Some((from, _)) if from > SIZE / 2 && !seen.header("range").ends_with('-') => Reply::new(503, ""),
        _ => ranged(seen),
    })
    .await;
    all(open(&registry(3), &server, 0).await, 0).await.unwrap();
    let last = server.seen().pop().unwrap();
    assert!(last.header("range").ends_with('-') && range(&last).unwrap().0 > SIZE / 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fast_or_small_blob_or_one_with_a_single_connection_is_asked_for_once() {
    let fast = Server::start(|seen| match range(seen) {
        Some((from, SIZE)) if seen.header("range").ends_with('-') => Reply::new(206, &CONTENT[from..])
            .with("content-range", &format!("bytes {from}-{}/{SIZE}", SIZE - 1)),
        _ => Reply::new(500, ""),
    })
    .await;
    let offset = SIZE - (20 << 20);
    all(open(&registry(4), &fast, offset).await, offset).await.unwrap();
    assert_eq!(fast.seen().len(), 1);
    let slow = Server::start(ranged).await;
    let offset = SIZE - (12 << 20);
    all(open(&registry(4), &slow, offset).await, offset).await.unwrap();
    all(open(&registry(1), &slow, offset - (8 << 20)).await, offset - (8 << 20)).await.unwrap();
    // A reader that is busy all the time.
    let mut busy = open(&registry(4), &slow, offset - (8 << 20)).await;
    while let Some(chunk) = busy.next().await {
        busy.note_idle(chunk.unwrap().len(), Duration::ZERO);
    }
    assert_eq!((slow.seen().len(), parts(&slow).len()), (3, 0));
}
