//! What fuzzers say as clients of exec, attach and port-forward, and what must hold whatever it is. What does not live here:
//! who calls this (src/fuzzing.rs).

use bytes::{Bytes, BytesMut};
use tokio_tungstenite::tungstenite::Message;

use super::spdy::{CONTROL, Decoder, Frame};
use super::websocket::{Said, VERSIONS};

/// SPDY's frames: the first byte says how the bytes behind it are cut, and that changes nothing.
pub fn spdy(data: &[u8]) {
    let Some((cut, data)) = data.split_first() else { return };
    let whole = decode(data, data.len().max(1));
    assert_eq!(decode(data, usize::from(*cut).max(1)), whole);
}

/// The frames up to an error, if there is one; a stream's data as one piece.
fn decode(data: &[u8], cut: usize) -> (Vec<Frame>, bool) {
    let (mut decoder, mut input, mut frames) = (Decoder::new(), BytesMut::new(), Vec::new());
    for piece in data.chunks(cut) {
        input.extend_from_slice(piece);
        loop {
            match decoder.next(&mut input) {
                Ok(Some(frame)) => join(&mut frames, frame),
                Ok(None) => break,
                Err(_) => return (frames, true),
            }
        }
        assert!(input.len() <= CONTROL + 8, "hoarded");
    }
    (frames, false)
}

fn join(frames: &mut Vec<Frame>, frame: Frame) {
    if let (Some(Frame::Data { stream, fin, bytes }), Frame::Data { stream: next, fin: last, bytes: more }) =
        (frames.last_mut(), &frame)
        && *stream == *next
        && !*fin
    {
        *bytes = [&bytes[..], &more[..]].concat().into();
        *fin = *last;
        return;
    }
    frames.push(frame);
}

/// A message of the channel protocol in each of its versions: what is understood can be said again.
pub fn websocket(data: &[u8]) {
    for version in VERSIONS {
        let text = std::str::from_utf8(data).ok().map(|text| Message::Text(text.into()));
        for message in [Some(Message::Binary(Bytes::copy_from_slice(data))), text].into_iter().flatten() {
            let Ok(Said::Bytes(channel, bytes)) = version.decode(message) else { continue };
            assert!(bytes.len() <= data.len());
            let _ = version.encode(channel, &bytes);
        }
    }
}
