//! WebSocket connections with a client in the same process.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::connection::Writer;
use super::message::Protocol;
use super::*;
use crate::api::streaming::outcome::Outcome;
use crate::api::streaming::output::Output;
use crate::api::streaming::remote_command::{Channels, Wanted};
use crate::api::streaming::spdy::Frame;
use crate::api::streaming::spdy::client::Client;
use crate::api::streaming::watch::Watch;
use crate::api::streaming::{inbox, spdy};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(200);
const WANTED: Wanted = Wanted { tty: false, stdin: true, stdout: true, stderr: true };

type Socket = WebSocketStream<DuplexStream>;

fn version(name: &str) -> Protocol {
    *VERSIONS.iter().find(|version| version.name == name).unwrap()
}

async fn pair() -> (Socket, Socket) {
    let (ours, theirs) = tokio::io::duplex(16 << 10);
    (WebSocketStream::from_raw_socket(ours, Role::Client, None).await, socket(theirs).await)
}

async fn connect(name: &str) -> (Socket, Channels<Writer>, JoinHandle<()>) {
    let (client, server) = pair().await;
    let watch = Arc::new(Watch::without_socket(LONG));
    let (drive, channels) = command(server, version(name), WANTED, watch);
    (client, channels, tokio::spawn(drive))
}

async fn say(client: &mut Socket, bytes: &[u8]) {
    client.send(Message::Binary(Bytes::copy_from_slice(bytes))).await.unwrap();
}

async fn hear(client: &mut Socket) -> Option<Message> {
    timeout(LONG, client.next()).await.unwrap().map(Result::unwrap)
}

#[tokio::test]
async fn the_fifth_version_can_end_stdin() {
    let (mut client, channels, _driving) = connect("v5.channel.k8s.io").await;
    // The word that the connection is up.
    assert_eq!(hear(&mut client).await, Some(Message::Binary(Bytes::from_static(&[1]))));
    let mut stdin = channels.stdin.unwrap();
    say(&mut client, b"\0hello").await;
    assert_eq!(stdin.read().await, Ok(Some(Bytes::from_static(b"hello"))));
    say(&mut client, b"\xff\0").await;
    assert_eq!(timeout(LONG, stdin.read()).await.unwrap(), Ok(None));
    // What comes after the end is nothing.
    say(&mut client, b"\0late").await;
    assert_eq!(stdin.read().await, Ok(None));
}

#[tokio::test]
async fn output_the_outcome_and_a_close_come_in_this_order() {
    let (mut client, mut channels, driving) = connect("v4.channel.k8s.io").await;
    hear(&mut client).await;
    channels.stdout.as_mut().unwrap().write(Bytes::from_static(b"out")).await.unwrap();
    channels.stderr.as_mut().unwrap().write(Bytes::from_static(b"err")).await.unwrap();
    channels.tell(Outcome::Exited(0)).await;
    assert_eq!(hear(&mut client).await, Some(Message::Binary(Bytes::from_static(b"\x01out"))));
    assert_eq!(hear(&mut client).await, Some(Message::Binary(Bytes::from_static(b"\x02err"))));
    let Some(Message::Binary(status)) = hear(&mut client).await else { panic!("no status") };
    assert_eq!((status[0], &status[1..]), (3, &br#"{"metadata":{},"status":"Success"}"#[..]));
    let Some(Message::Close(Some(close))) = hear(&mut client).await else { panic!("no close") };
    assert_eq!(u16::from(close.code), 1000);
    assert_eq!(hear(&mut client).await, None);
    timeout(LONG, driving).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_is_for_no_channel_reaches_none() {
    let (mut client, channels, _driving) = connect("v4.channel.k8s.io").await;
    let mut stdin = channels.stdin.unwrap();
    for nothing in [&b""[..], b"\x01x", b"\x04{}", b"\xff\0", b"\x09x"] {
        say(&mut client, nothing).await;
    }
    client.send(Message::Ping(Bytes::from_static(b"?"))).await.unwrap();
    say(&mut client, b"\0hello").await;
    assert_eq!(timeout(LONG, stdin.read()).await.unwrap(), Ok(Some(Bytes::from_static(b"hello"))));
    let first = [hear(&mut client).await, hear(&mut client).await];
    assert!(first.contains(&Some(Message::Pong(Bytes::from_static(b"?")))), "{first:?}");
}

#[tokio::test]
async fn a_message_that_is_too_large_ends_the_connection_unread() {
    let (mut client, channels, driving) = connect("v5.channel.k8s.io").await;
    let mut stdin = channels.stdin.unwrap();
    // The connection may end while it is being sent.
    let _ = client.send(Message::Binary(vec![0; MESSAGE + 1].into())).await;
    assert_eq!(timeout(LONG, stdin.read()).await.unwrap(), Err(inbox::Reset));
    timeout(LONG, driving).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_session_that_does_not_read_makes_the_client_wait() {
    let (mut client, _channels, _driving) = connect("v5.channel.k8s.io").await;
    let mut sent = 0;
    while timeout(SHORT, say(&mut client, &[0; 8 << 10])).await.is_ok() {
        sent += 8 << 10;
        assert!(sent < 4 * inbox::STREAM, "{sent} bytes were taken from the client");
    }
}

#[tokio::test]
async fn a_slow_client_makes_the_session_wait() {
    let (_client, mut channels, _driving) = connect("v5.channel.k8s.io").await;
    let stdout = channels.stdout.as_mut().unwrap();
    let mut written = 0;
    while timeout(SHORT, stdout.write(vec![7; 32 << 10].into())).await.is_ok() {
        written += 32 << 10;
        assert!(written < 1 << 20, "{written} bytes were taken from the session");
    }
}

#[tokio::test]
async fn a_client_that_vanishes_ends_the_session() {
    let (client, mut channels, driving) = connect("v5.channel.k8s.io").await;
    drop(client);
    assert_eq!(timeout(LONG, channels.stdin.as_mut().unwrap().read()).await.unwrap(), Err(inbox::Reset));
    timeout(LONG, driving).await.unwrap().unwrap();
    assert_eq!(channels.error.write(Bytes::from_static(b"x")).await, Err(inbox::Reset));
}

/// A WebSocket client as a stream of bytes, as client-go's tunnel makes it.
fn bytes_of(mut client: Socket) -> (DuplexStream, JoinHandle<()>) {
    let (ours, theirs) = tokio::io::duplex(16 << 10);
    let pump = tokio::spawn(async move {
        let (mut from, mut to) = tokio::io::split(theirs);
        let mut buffer = [0; 1000];
        loop {
            tokio::select! {
                read = tokio::io::AsyncReadExt::read(&mut from, &mut buffer) => match read.unwrap() {
                    0 => break,
                    count => say(&mut client, &buffer[..count]).await,
                },
                message = client.next() => match message {
                    Some(Ok(Message::Binary(bytes))) => tokio::io::AsyncWriteExt::write_all(&mut to, &bytes).await.unwrap(),
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                    Some(Ok(_)) => {}
                },
            }
        }
        client.close(None).await.unwrap();
    });
    (ours, pump)
}

#[tokio::test]
async fn spdy_passes_through_a_tunnel_however_it_is_cut() {
    let (client, server) = pair().await;
    let (pump, io) = tunnel(server);
    let (drive, mut streams) = spdy::serve(io, Arc::new(Watch::without_socket(LONG)));
    let serving = tokio::spawn(async move {
        tokio::join!(pump, drive);
    });
    let (io, pumping) = bytes_of(client);
    let mut client = Client::new(io);
    let id = client.open(&[("streamtype", "data")]).await;
    let (mut reader, mut writer) = streams.next().await.unwrap().accept().await.unwrap();
    let sending = tokio::spawn(async move {
        writer.write(vec![7; 300_000].into()).await.unwrap();
        writer.finish().await;
        let mut read = 0;
        while let Ok(Some(bytes)) = reader.read().await {
            read += bytes.len();
        }
        (read, streams)
    });
    assert_eq!(timeout(LONG, client.read_to_end(id)).await.unwrap().len(), 300_000);
    for _ in 0..50 {
        client.data(id, &[1; 5000], false).await;
    }
    client.data(id, b"", true).await;
    let (read, streams) = timeout(LONG, sending).await.unwrap().unwrap();
    assert_eq!(read, 250_000);
    drop(streams);
    while let Some(frame) = timeout(LONG, client.next_said()).await.unwrap() {
        assert!(matches!(frame, Frame::GoAway { .. }), "{frame:?}");
    }
    timeout(LONG, pumping).await.unwrap().unwrap();
    timeout(LONG, serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn ports_that_were_named_beforehand_are_forwarded() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (mut client, server) = pair().await;
    let watch = Arc::new(Watch::without_socket(LONG));
    let (drive, named) = ports(server, version("v4.channel.k8s.io"), &[port, 1], watch);
    let connect = async |port| {
        let dialed = tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
        dialed.map_err(|error| error.to_string())
    };
    let serving = tokio::spawn(async move {
        let serve = named.into_iter().map(async |mut named| {
            named.announce().await.unwrap();
            let port = named.port;
            named.serve(connect(port)).await;
        });
        tokio::join!(drive, futures_util::future::join_all(serve));
    });
    say(&mut client, b"\0question").await;
    let (mut pod, _) = listener.accept().await.unwrap();
    let mut heard = [0; 8];
    tokio::io::AsyncReadExt::read_exact(&mut pod, &mut heard).await.unwrap();
    assert_eq!(&heard, b"question");
    tokio::io::AsyncWriteExt::write_all(&mut pod, b"answer").await.unwrap();
    drop(pod);
    let mut channels = [const { Vec::new() }; 4];
    while let Some(Message::Binary(bytes)) = hear(&mut client).await {
        channels[usize::from(bytes[0])].extend_from_slice(&bytes[1..]);
    }
    let of = port.to_le_bytes();
    assert_eq!(channels[0], [&of[..], b"answer"].concat());
    assert_eq!((&channels[1][..], &channels[2][..]), (&of[..], &[1, 0][..]));
    assert!(String::from_utf8_lossy(&channels[3][2..]).contains("refused"), "{channels:?}");
    assert_eq!(hear(&mut client).await, None);
    timeout(LONG, serving).await.unwrap().unwrap();
}
