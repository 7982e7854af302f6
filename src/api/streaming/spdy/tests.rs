//! A connection against a client in the same process.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::client::Client;
use super::frame::{Frame, Status};
use super::link::STREAMS;
use super::{Streams, serve};
use crate::api::streaming::inbox::{self, Reset};
use crate::api::streaming::output::Output;
use crate::api::streaming::watch::Watch;

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(200);

fn connect() -> (Client<DuplexStream>, Streams, JoinHandle<()>) {
    let (ours, theirs) = tokio::io::duplex(16 << 10);
    let (drive, streams) = serve(theirs, Arc::new(Watch::without_socket(LONG)));
    (Client::new(ours), streams, tokio::spawn(drive))
}

#[tokio::test]
async fn bytes_go_both_ways_and_each_side_ends_its_own() {
    let (mut client, mut streams, driving) = connect();
    let id = client.open(&[("streamtype", "data")]).await;
    let stream = streams.next().await.unwrap();
    assert_eq!((stream.id, stream.headers.get("streamtype")), (id, Some("data")));
    let (mut reader, mut writer) = stream.accept().await.unwrap();
    assert!(matches!(client.next().await, Some(Frame::SynReply { stream: 1, fin: false, .. })));

    client.data(id, b"question", true).await;
    assert_eq!(reader.read().await, Ok(Some(Bytes::from_static(b"question"))));
    assert_eq!(reader.read().await, Ok(None));
    writer.write(Bytes::from_static(b"answer")).await.unwrap();
    writer.finish().await;
    assert_eq!(client.read_to_end(id).await, b"answer");

    drop((writer, streams));
    assert_eq!(client.next().await, Some(Frame::GoAway { last: 1, status: 0 }));
    assert_eq!(client.next().await, None);
    assert!(!driving.is_finished(), "the client closes first");
    drop(client);
    timeout(LONG, driving).await.unwrap().unwrap();
}

#[tokio::test]
async fn pings_are_answered_while_nobody_reads() {
    let (mut client, mut streams, _driving) = connect();
    let id = client.open(&[]).await;
    let _both = streams.next().await.unwrap().accept().await.unwrap();
    client.data(id, &[1; 100_000], false).await;
    client.send(Frame::Ping(2)).await;
    client.send(Frame::Ping(7)).await;
    assert!(matches!(client.next().await, Some(Frame::SynReply { .. })));
    assert_eq!(client.next_said().await, Some(Frame::Ping(7)), "an even ping would answer ours");
}

#[tokio::test]
async fn only_new_odd_streams_are_taken_and_only_so_many() {
    let (mut client, mut streams, _driving) = connect();
    let refused = async |client: &mut Client<_>, stream, why| {
        client.send(Frame::SynStream { stream, fin: false, headers: Default::default() }).await;
        assert_eq!(client.next().await, Some(Frame::Reset { stream, status: why }));
    };
    refused(&mut client, 2, Status::PROTOCOL_ERROR).await;
    for _ in 0..STREAMS {
        client.open(&[]).await;
    }
    let last = 2 * STREAMS as u32 + 1;
    refused(&mut client, last, Status::REFUSED_STREAM).await;
    refused(&mut client, 1, Status::PROTOCOL_ERROR).await;
    // One that goes makes room.
    drop(streams.next().await.unwrap());
    client.reset(1).await;
    client.send(Frame::SynStream { stream: last + 2, fin: false, headers: Default::default() }).await;
    client.send(Frame::Ping(1)).await;
    assert_eq!(client.next().await, Some(Frame::Ping(1)));
}

#[tokio::test]
async fn a_client_without_windows_gets_more_than_a_window() {
    let (mut client, mut streams, _driving) = connect();
    let id = client.open(&[]).await;
    let (_reader, mut writer) = streams.next().await.unwrap().accept().await.unwrap();
    let writing = tokio::spawn(async move {
        writer.write(vec![7; 1 << 20].into()).await.unwrap();
        writer.finish().await;
    });
    assert_eq!(timeout(LONG, client.read_to_end(id)).await.unwrap().len(), 1 << 20);
    writing.await.unwrap();
}

#[tokio::test]
async fn a_client_that_counts_is_not_overrun() {
    let (mut client, mut streams, _driving) = connect();
    client.send(Frame::Settings { initial_window: Some(10_000) }).await;
    let id = client.open(&[]).await;
    let (_reader, mut writer) = streams.next().await.unwrap().accept().await.unwrap();
    let writing = tokio::spawn(async move {
        writer.write(vec![7; 50_000].into()).await.unwrap();
        writer.finish().await;
    });
    let mut read = 0;
    while let Ok(frame) = timeout(SHORT, client.next()).await {
        if let Frame::Data { bytes, .. } = frame.unwrap() {
            read += bytes.len();
        }
    }
    assert_eq!(read, 10_000);
    client.send(Frame::WindowUpdate { stream: id, delta: 50_000 }).await;
    assert_eq!(timeout(LONG, client.read_to_end(id)).await.unwrap().len(), 40_000);
    writing.await.unwrap();
}

#[tokio::test]
async fn the_window_of_all_streams_counts_once_the_client_names_it() {
    let (mut client, mut streams, _driving) = connect();
    client.send(Frame::WindowUpdate { stream: 0, delta: 1 }).await;
    let id = client.open(&[]).await;
    let (_reader, mut writer) = streams.next().await.unwrap().accept().await.unwrap();
    let writing = tokio::spawn(async move { writer.write(vec![7; 100_000].into()).await });
    let mut read = 0;
    while let Ok(frame) = timeout(SHORT, client.next()).await {
        if let Frame::Data { bytes, .. } = frame.unwrap() {
            read += bytes.len();
        }
    }
    assert_eq!(read, (64 << 10) + 1);
    client.reset(id).await;
    assert_eq!(timeout(LONG, writing).await.unwrap().unwrap(), Err(Reset));
}

#[tokio::test]
async fn a_window_that_grows_too_far_ends_the_stream() {
    let (mut client, mut streams, _driving) = connect();
    let id = client.open(&[]).await;
    let (mut reader, _writer) = streams.next().await.unwrap().accept().await.unwrap();
    assert!(matches!(client.next().await, Some(Frame::SynReply { .. })));
    client.send(Frame::WindowUpdate { stream: id, delta: i32::MAX as u32 }).await;
    let reset = Frame::Reset { stream: id, status: Status::FLOW_CONTROL_ERROR };
    assert_eq!(client.next().await, Some(reset));
    assert_eq!(reader.read().await, Err(Reset));
}

#[tokio::test]
async fn what_is_read_is_credited() {
    let (mut client, mut streams, _driving) = connect();
    let id = client.open(&[]).await;
    let (mut reader, _writer) = streams.next().await.unwrap().accept().await.unwrap();
    let reading = tokio::spawn(async move { while let Ok(Some(_)) = reader.read().await {} });
    let (mut stream, mut all) = (0, 0);
    for _ in 0..8 {
        client.data(id, &[1; 32 << 10], false).await;
    }
    while stream < 7 * (32 << 10) || all < 7 * (32 << 10) {
        match timeout(LONG, client.next()).await.unwrap().unwrap() {
            Frame::WindowUpdate { stream: 0, delta } => all += delta,
            Frame::WindowUpdate { delta, .. } => stream += delta,
            _ => {}
        }
    }
    client.data(id, b"", true).await;
    timeout(LONG, reading).await.unwrap().unwrap();
}

#[tokio::test]
async fn streams_that_never_were_leave_no_trace() {
    let (mut client, streams, _driving) = connect();
    for stream in 1..2000 {
        client.data(stream, b"", true).await;
        client.data(stream, b"x", false).await;
    }
    client.send(Frame::Ping(1)).await;
    assert_eq!(client.next().await, Some(Frame::Ping(1)));
    assert_eq!(streams.link.credited(), 1, "all of them count for the connection alone");
}

#[tokio::test]
async fn a_slow_client_makes_the_writer_wait() {
    let (mut client, mut streams, _driving) = connect();
    client.open(&[]).await;
    let (_reader, mut writer) = streams.next().await.unwrap().accept().await.unwrap();
    let mut written = 0;
    let mut write = async || {
        writer.write(vec![7; 32 << 10].into()).await.unwrap();
        written += 32 << 10;
    };
    while timeout(SHORT, write()).await.is_ok() {}
    assert!(written < 1 << 20, "{written} bytes were taken from the session");
}

#[tokio::test]
async fn a_session_that_does_not_read_makes_the_client_wait() {
    let (mut client, mut streams, _driving) = connect();
    let id = client.open(&[]).await;
    let _both = streams.next().await.unwrap().accept().await.unwrap();
    let mut sent = 0;
    while timeout(SHORT, client.data(id, &[7; 8 << 10], false)).await.is_ok() {
        sent += 8 << 10;
    }
    assert!(sent < 2 * inbox::STREAM, "{sent} bytes were taken from the client");
}

#[tokio::test]
async fn a_reset_ends_both_ways() {
    let (mut client, mut streams, _driving) = connect();
    let id = client.open(&[]).await;
    let (mut reader, mut writer) = streams.next().await.unwrap().accept().await.unwrap();
    client.data(id, b"void", false).await;
    client.reset(id).await;
    assert_eq!(timeout(LONG, async { while let Ok(Some(_)) = reader.read().await {} }).await, Ok(()));
    assert_eq!(reader.read().await, Err(Reset));
    assert_eq!(writer.write(Bytes::from_static(b"x")).await, Err(Reset));
}

#[tokio::test]
async fn a_client_that_vanishes_ends_its_streams() {
    let (mut client, mut streams, driving) = connect();
    client.open(&[]).await;
    let (mut reader, mut writer) = streams.next().await.unwrap().accept().await.unwrap();
    drop(client);
    assert_eq!(timeout(LONG, reader.read()).await.unwrap(), Err(Reset));
    assert_eq!(writer.write(Bytes::from_static(b"x")).await, Err(Reset));
    assert!(streams.next().await.is_none());
    timeout(LONG, driving).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_that_breaks_the_protocol_is_told_and_left() {
    let (client, mut streams, driving) = connect();
    let mut io = client.into_io();
    io.write_all(b"\x80\x03\x00\x04\x00\x00\x00\x04\x80\x00\x00\x00").await.unwrap();
    let mut said = Vec::new();
    timeout(LONG, io.read_to_end(&mut said)).await.unwrap().unwrap();
    assert_eq!(said, b"\x80\x03\x00\x07\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x01");
    assert!(streams.next().await.is_none());
    timeout(LONG, driving).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_connection_on_which_nothing_moves_is_ended() {
    let (ours, theirs) = tokio::io::duplex(1024);
    let (drive, mut streams) = serve(theirs, Arc::new(Watch::without_socket(SHORT)));
    let driving = tokio::spawn(drive);
    let mut client = Client::new(ours);
    assert_eq!(timeout(LONG, client.next()).await.unwrap(), Some(Frame::GoAway { last: 0, status: 0 }));
    assert!(streams.next().await.is_none());
    timeout(LONG, driving).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_flood_of_questions_waits_for_its_answers() {
    let (client, _streams, _driving) = connect();
    let mut io = client.into_io();
    let ping = b"\x80\x03\x00\x06\x00\x00\x00\x04\x00\x00\x00\x01".repeat(1000);
    let mut sent = 0;
    while timeout(SHORT, io.write_all(&ping)).await.is_ok() {
        sent += ping.len();
        assert!(sent < 1 << 20, "{sent} bytes of questions were taken, and no answer was read");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a client sends, the connection ends with it, and nothing panics.
    #[test]
    fn any_bytes_end_in_order(parts in prop::collection::vec(prop_oneof![
        prop::collection::vec(any::<u8>(), 0..100),
        (0_u8..10, 0_u8..3, prop::collection::vec(0_u8..4, 0..30)).prop_map(|(kind, fin, payload)| {
            let mut frame = vec![0x80, 3, 0, kind, fin, 0, 0, payload.len() as u8];
            frame.extend(payload);
            frame
        }),
        (0_u8..6, 0_u8..2, prop::collection::vec(any::<u8>(), 0..30)).prop_map(|(stream, fin, payload)| {
            let mut frame = vec![0, 0, 0, stream, fin, 0, 0, payload.len() as u8];
            frame.extend(payload);
            frame
        }),
    ], 0..20)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (client, mut streams, driving) = connect();
            let session = tokio::spawn(async move {
                while let Some(stream) = streams.next().await {
                    if let Ok((mut reader, mut writer)) = stream.accept().await {
                        tokio::spawn(async move {
                            while let Ok(Some(bytes)) = reader.read().await {
                                let _ = writer.write(bytes).await;
                            }
                            writer.finish().await;
                        });
                    }
                }
            });
            let (mut from, mut to) = tokio::io::split(client.into_io());
            let draining = tokio::spawn(async move {
                let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
            });
            for part in parts {
                if to.write_all(&part).await.is_err() {
                    break;
                }
            }
            let _ = to.shutdown().await;
            timeout(LONG, driving).await.unwrap().unwrap();
            timeout(LONG, session).await.unwrap().unwrap();
            timeout(LONG, draining).await.unwrap().unwrap();
        });
    }
}
