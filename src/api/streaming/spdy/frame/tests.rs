//! Frames there and back, and what a hostile client may send.

use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;

use super::*;

fn control(kind: u16, length: u32, payload: &[u8]) -> BytesMut {
    let mut frame = BytesMut::new();
    frame.put_u16(0x8003);
    frame.put_u16(kind);
    frame.put_u32(length);
    frame.put_slice(payload);
    frame
}

fn decode(mut input: BytesMut) -> Result<Vec<Frame>, FrameError> {
    let mut decoder = Decoder::new();
    let mut frames = Vec::new();
    while let Some(frame) = decoder.next(&mut input)? {
        frames.push(frame);
    }
    Ok(frames)
}

#[test]
fn lengths_that_lie_are_refused_at_the_head() {
    for kind in 1..12 {
        let frame = control(kind, 0x00ff_ffff, &[]);
        assert_eq!(decode(frame), Err(FrameError::TooLarge(0x00ff_ffff)), "type {kind}");
    }
    let wrong = |kind, length| Err(FrameError::Length { kind, length });
    assert_eq!(decode(control(1, 9, &[1; 9])), wrong(1, 9));
    assert_eq!(decode(control(2, 3, &[1; 3])), wrong(2, 3));
    assert_eq!(decode(control(3, 0, &[])), wrong(3, 0));
    assert_eq!(decode(control(3, 12, &[1; 12])), wrong(3, 12));
    assert_eq!(decode(control(6, 8, &[1; 8])), wrong(6, 8));
    assert_eq!(decode(control(7, 4, &[1; 4])), wrong(7, 4));
    assert_eq!(decode(control(9, 4, &[1; 4])), wrong(9, 4));
    // 2^31 settings in a frame of 100 bytes.
    let mut payload = vec![0x80, 0, 0, 0];
    payload.resize(100, 0);
    assert_eq!(decode(control(4, 100, &payload)), wrong(4, 100));
    assert_eq!(decode(control(4, 6, &[0; 6])), wrong(4, 6));
}

#[test]
fn forbidden_values_are_refused() {
    assert_eq!(decode(control(9, 8, &[0, 0, 0, 1, 0, 0, 0, 0])), Err(FrameError::Value(9)));
    assert_eq!(decode(control(3, 8, &[0, 0, 0, 0, 0, 0, 0, 1])), Err(FrameError::Value(3)));
    let mut http = BytesMut::from(&b"\x80\x02\0\x01aaaaaaaa"[..]);
    assert_eq!(Decoder::new().next(&mut http), Err(FrameError::Version(2)));
}

#[test]
fn unknown_control_frames_are_passed_over() {
    let mut input = control(11, 5, b"12345");
    input.unsplit(control(6, 4, &[0, 0, 0, 9]));
    assert_eq!(decode(input), Ok(vec![Frame::Ping(9)]));
}

#[test]
fn data_passes_in_pieces_as_it_comes() {
    let mut whole = BytesMut::new();
    let frame = Frame::Data { stream: 5, fin: true, bytes: Bytes::from(vec![7; 100_000]) };
    Encoder::new().put(&frame, &mut whole).unwrap();
    let mut decoder = Decoder::new();
    let (mut input, mut total, mut ends) = (BytesMut::new(), 0, 0);
    while !whole.is_empty() {
        input.unsplit(whole.split_to(whole.len().min(999)));
        while let Some(frame) = decoder.next(&mut input).unwrap() {
            let Frame::Data { stream: 5, fin, bytes } = frame else { panic!("{frame:?}") };
            total += bytes.len();
            ends += usize::from(fin);
        }
        assert!(input.len() < 8, "{} bytes are held back", input.len());
    }
    assert_eq!((total, ends), (100_000, 1));
}

#[test]
fn an_empty_data_frame_can_end_a_stream() {
    let input = BytesMut::from(&[0, 0, 0, 3, 1, 0, 0, 0][..]);
    assert_eq!(decode(input), Ok(vec![Frame::Data { stream: 3, fin: true, bytes: Bytes::new() }]));
}

fn some_headers() -> impl Strategy<Value = Headers> {
    prop::collection::btree_map("[a-z]{1,20}", "[ -~]{0,60}", 0..8).prop_map(|map| map.into_iter().collect())
}

fn some_frame() -> impl Strategy<Value = Frame> {
    let id = 1..=i32::MAX as u32;
    prop_oneof![
        (id.clone(), any::<bool>(), some_headers()).prop_map(|(stream, fin, headers)| Frame::SynStream {
            stream,
            fin,
            headers
        }),
        (id.clone(), any::<bool>(), some_headers()).prop_map(|(stream, fin, headers)| Frame::SynReply {
            stream,
            fin,
            headers
        }),
        (id.clone(), any::<bool>(), some_headers()).prop_map(|(stream, fin, headers)| Frame::Headers {
            stream,
            fin,
            headers
        }),
        (id.clone(), any::<u32>())
            .prop_map(|(stream, status)| Frame::Reset { stream, status: Status(status) }),
        prop::option::of(0..=WINDOW).prop_map(|initial_window| Frame::Settings { initial_window }),
        any::<u32>().prop_map(Frame::Ping),
        (id.clone(), any::<u32>()).prop_map(|(last, status)| Frame::GoAway { last, status }),
        (0..=WINDOW, id.clone()).prop_map(|(stream, delta)| Frame::WindowUpdate { stream, delta }),
        (id, any::<bool>(), prop::collection::vec(any::<u8>(), 0..300))
            .prop_map(|(stream, fin, bytes)| Frame::Data { stream, fin, bytes: bytes.into() }),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read(frames in prop::collection::vec(some_frame(), 0..30)) {
        let mut encoder = Encoder::new();
        let mut bytes = BytesMut::new();
        for frame in &frames {
            encoder.put(frame, &mut bytes).unwrap();
        }
        prop_assert_eq!(decode(bytes), Ok(frames));
    }

    /// However the bytes are cut, the frames are the same.
    #[test]
    fn cuts_change_nothing(frames in prop::collection::vec(some_frame(), 0..10), cut in 1_usize..50) {
        let mut encoder = Encoder::new();
        let mut bytes = BytesMut::new();
        for frame in &frames {
            encoder.put(frame, &mut bytes).unwrap();
        }
        let (mut decoder, mut input, mut found) = (Decoder::new(), BytesMut::new(), Vec::new());
        while !bytes.is_empty() {
            input.unsplit(bytes.split_to(bytes.len().min(cut)));
            while let Some(frame) = decoder.next(&mut input).unwrap() {
                join(&mut found, frame);
            }
        }
        let mut joined = Vec::new();
        frames.into_iter().for_each(|frame| join(&mut joined, frame));
        prop_assert_eq!(found, joined);
    }

    /// Heads that look right, with any length and any payload: no panic, and nothing kept beyond a control frame.
    #[test]
    fn no_input_panics_or_is_hoarded(
        parts in prop::collection::vec((any::<bool>(), 0_u16..13, 0_u32..400, prop::collection::vec(any::<u8>(), 0..300)), 0..20)
    ) {
        let (mut decoder, mut input) = (Decoder::new(), BytesMut::new());
        for (is_control, kind, length, payload) in parts {
            if is_control {
                input.unsplit(control(kind, length, &payload));
            } else {
                input.put_slice(&payload);
            }
            loop {
                match decoder.next(&mut input) {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => return Ok(()),
                }
            }
            prop_assert!(input.len() <= HEAD + CONTROL);
        }
    }
}

/// Data of one stream in a row counts as one frame.
fn join(frames: &mut Vec<Frame>, frame: Frame) {
    if let (
        Some(Frame::Data { stream: a, fin: end, bytes: first }),
        Frame::Data { stream: b, fin, bytes: second },
    ) = (frames.last_mut(), &frame)
        && a == b
        && !*end
    {
        *first = [first.as_ref(), second.as_ref()].concat().into();
        *end = *fin;
        return;
    }
    frames.push(frame);
}
