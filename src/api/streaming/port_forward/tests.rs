//! Forwarding to real TCP servers, with a client in the same process.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, DuplexStream};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::api::streaming::spdy;
use crate::api::streaming::spdy::Frame;
use crate::api::streaming::spdy::client::Client;
use crate::api::streaming::watch::Watch;

const LONG: Duration = Duration::from_secs(60);

async fn dial(port: u16) -> Result<TcpStream, String> {
    TcpStream::connect(("127.0.0.1", port))
        .await
        .map_err(|error| format!("cannot reach port {port}: {error}"))
}

fn connect() -> (Client<DuplexStream>, JoinHandle<()>) {
    let (ours, theirs) = tokio::io::duplex(16 << 10);
    let (drive, streams) = spdy::serve(theirs, Arc::new(Watch::without_socket(LONG)));
    let serving = tokio::spawn(async move {
        tokio::pin!(drive);
        tokio::select! {
            () = &mut drive => {}
            () = serve(streams, dial) => {}
        }
    });
    (Client::new(ours), serving)
}

/// The error and the data stream of a forwarded connection.
async fn forward_to(client: &mut Client<DuplexStream>, port: u16, request: &str) -> (u32, u32) {
    let port = port.to_string();
    let error = client.open(&[("streamtype", "error"), ("port", &port), ("requestid", request)]).await;
    client.data(error, b"", true).await;
    let data = client.open(&[("streamtype", "data"), ("port", &port), ("requestid", request)]).await;
    (error, data)
}

async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

#[tokio::test]
async fn each_side_may_end_before_the_other() {
    let (mut client, _serving) = connect();
    let (listener, port) = listen().await;
    let (error, data) = forward_to(&mut client, port, "0").await;
    let (mut pod, _) = listener.accept().await.unwrap();
    client.data(data, b"question", true).await;
    let mut heard = Vec::new();
    pod.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"question");
    pod.write_all(b"answer").await.unwrap();
    drop(pod);
    assert_eq!(timeout(LONG, client.read_to_end(data)).await.unwrap(), b"answer");
    assert_eq!(timeout(LONG, client.read_to_end(error)).await.unwrap(), b"");
}

#[tokio::test]
async fn a_pod_that_has_said_all_may_still_listen() {
    let (mut client, _serving) = connect();
    let (listener, port) = listen().await;
    let (_, data) = forward_to(&mut client, port, "0").await;
    let (mut pod, _) = listener.accept().await.unwrap();
    pod.write_all(b"bye").await.unwrap();
    pod.shutdown().await.unwrap();
    assert_eq!(timeout(LONG, client.read_to_end(data)).await.unwrap(), b"bye");
    client.data(data, b"late", false).await;
    client.data(data, b" words", true).await;
    let mut heard = Vec::new();
    timeout(LONG, pod.read_to_end(&mut heard)).await.unwrap().unwrap();
    assert_eq!(heard, b"late words");
}

#[tokio::test]
async fn what_the_client_breaks_off_is_broken_off_in_the_pod() {
    let (mut client, _serving) = connect();
    let (listener, port) = listen().await;
    let (_, data) = forward_to(&mut client, port, "0").await;
    let (mut pod, _) = listener.accept().await.unwrap();
    client.reset(data).await;
    let error = timeout(LONG, pod.read(&mut [0; 8])).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn what_breaks_in_the_pod_is_told_and_reset() {
    let (mut client, _serving) = connect();
    let (listener, port) = listen().await;
    let (error, data) = forward_to(&mut client, port, "0").await;
    let (pod, _) = listener.accept().await.unwrap();
    pod.set_zero_linger().unwrap();
    drop(pod);
    let message = String::from_utf8(timeout(LONG, client.read_to_end(error)).await.unwrap()).unwrap();
    assert!(message.contains(&port.to_string()) && message.contains("reset"), "{message}");
    loop {
        match timeout(LONG, client.next()).await.unwrap().unwrap() {
            Frame::Reset { stream, .. } if stream == data => break,
            Frame::Data { stream, .. } if stream == data => panic!("the data stream ended in good order"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_closed_port_is_named_and_the_connection_goes_on() {
    let (mut client, _serving) = connect();
    let (listener, port) = listen().await;
    drop(listener);
    let (error, _) = forward_to(&mut client, port, "0").await;
    let message = String::from_utf8(timeout(LONG, client.read_to_end(error)).await.unwrap()).unwrap();
    assert!(message.contains(&format!("port {port}")), "{message}");
    let (listener, port) = listen().await;
    let (_, data) = forward_to(&mut client, port, "1").await;
    let (mut pod, _) = listener.accept().await.unwrap();
    pod.write_all(b"open").await.unwrap();
    drop(pod);
    assert_eq!(timeout(LONG, client.read_to_end(data)).await.unwrap(), b"open");
}

#[tokio::test]
async fn many_connections_share_one() {
    let (mut client, _serving) = connect();
    let (listener, port) = listen().await;
    let echo = tokio::spawn(async move {
        let mut echoes = JoinSet::new();
        loop {
            let (mut pod, _) = listener.accept().await.unwrap();
            echoes.spawn(async move {
                let (mut from, mut to) = pod.split();
                tokio::io::copy(&mut from, &mut to).await.unwrap();
                to.shutdown().await.unwrap();
            });
        }
    });
    let mut wanted = HashMap::new();
    for request in 0..200 {
        let (_, data) = forward_to(&mut client, port, &request.to_string()).await;
        let text = format!("connection {request}");
        client.data(data, text.as_bytes(), true).await;
        wanted.insert(data, text.into_bytes());
    }
    let mut heard: HashMap<u32, Vec<u8>> = HashMap::new();
    let mut ended = 0;
    while ended < wanted.len() {
        if let Frame::Data { stream, fin, bytes } = timeout(LONG, client.next()).await.unwrap().unwrap()
            && wanted.contains_key(&stream)
        {
            heard.entry(stream).or_default().extend_from_slice(&bytes);
            ended += usize::from(fin);
        }
    }
    assert_eq!(heard, wanted);
    echo.abort();
}

#[tokio::test]
async fn streams_without_a_purpose_are_refused() {
    let (mut client, _serving) = connect();
    let bad: [&[(&str, &str)]; 6] = [
        &[],
        &[("streamtype", "data")],
        &[("streamtype", "data"), ("port", "0")],
        &[("streamtype", "data"), ("port", "65536")],
        &[("streamtype", "data"), ("port", "-1")],
        &[("streamtype", "stdin"), ("port", "80")],
    ];
    for headers in bad {
        let stream = client.open(headers).await;
        let refused = Frame::Reset { stream, status: Status::REFUSED_STREAM };
        assert_eq!(timeout(LONG, client.next()).await.unwrap(), Some(refused), "{headers:?}");
    }
    // Twice the same half.
    let first = client.open(&[("streamtype", "error"), ("port", "80"), ("requestid", "7")]).await;
    let second = client.open(&[("streamtype", "error"), ("port", "80"), ("requestid", "7")]).await;
    assert!(matches!(client.next().await, Some(Frame::SynReply { stream, .. }) if stream == first));
    assert!(matches!(client.next().await, Some(Frame::Reset { stream, .. }) if stream == second));
}

#[tokio::test]
async fn old_clients_number_nothing() {
    let (mut client, _serving) = connect();
    let (listener, port) = listen().await;
    let port = port.to_string();
    client.open(&[("streamtype", "error"), ("port", &port)]).await;
    let data = client.open(&[("streamtype", "data"), ("port", &port)]).await;
    let (mut pod, _) = listener.accept().await.unwrap();
    pod.write_all(b"hello").await.unwrap();
    drop(pod);
    assert_eq!(timeout(LONG, client.read_to_end(data)).await.unwrap(), b"hello");
}

#[tokio::test]
async fn connections_end_with_their_client() {
    let (mut client, serving) = connect();
    let (listener, port) = listen().await;
    forward_to(&mut client, port, "0").await;
    let (mut pod, _) = listener.accept().await.unwrap();
    drop(client);
    timeout(LONG, serving).await.unwrap().unwrap();
    assert!(matches!(timeout(LONG, pod.read(&mut [0; 8])).await.unwrap(), Ok(0) | Err(_)));
}
