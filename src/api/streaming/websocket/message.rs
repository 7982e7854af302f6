//! The channel protocol: each message begins with the number of its channel. What does not live here: connections.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use tokio_tungstenite::tungstenite::Message;

use crate::api::streaming::outcome::Format;

/// In the fifth version: the client sends nothing more on the channel named by the second byte.
const CLOSE: u8 = 255;

/// A version of the channel protocol, as clients name it in `Sec-WebSocket-Protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// Its name; empty where a client names none.
    pub name: &'static str,
    /// How the outcome is told.
    pub format: Format,
    /// For clients that can only send text: the channel is a digit, and the rest base64.
    base64: bool,
    /// Whether a channel can be closed.
    closes: bool,
}

/// What is spoken.
pub const VERSIONS: [Protocol; 6] = [
    Protocol { name: "v5.channel.k8s.io", format: Format::Status, base64: false, closes: true },
    Protocol { name: "v4.channel.k8s.io", format: Format::Status, base64: false, closes: false },
    Protocol { name: "v4.base64.channel.k8s.io", format: Format::Status, base64: true, closes: false },
    Protocol { name: "channel.k8s.io", format: Format::Text, base64: false, closes: false },
    Protocol { name: "base64.channel.k8s.io", format: Format::Text, base64: true, closes: false },
    Protocol { name: "", format: Format::Text, base64: false, closes: false },
];

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Bytes of a channel.
    Bytes(u8, Bytes),
    /// The end of a channel.
    Close(u8),
    /// Nothing for a session.
    Nothing,
}

/// A message that has no meaning. What it would have said to a process can't be left out: the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Of what should be base64.
    #[error("a message is not in base64")]
    Base64,
    /// More or less than one channel.
    #[error("a message that closes a channel has {0} bytes instead of 2")]
    Close(usize),
}

impl Protocol {
    /// What a message says.
    pub fn decode(self, message: Message) -> Result<Said, MessageError> {
        let mut bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => text.into(),
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => Bytes::new(),
        };
        if bytes.is_empty() {
            return Ok(Said::Nothing);
        }
        let rest = bytes.split_off(1);
        match bytes[0] {
            CLOSE if self.closes => match rest.as_ref() {
                [channel] => Ok(Said::Close(*channel)),
                _ => Err(MessageError::Close(1 + rest.len())),
            },
            digit if self.base64 => {
                let bytes = STANDARD.decode(rest).map_err(|_| MessageError::Base64)?;
                Ok(Said::Bytes(digit.wrapping_sub(b'0'), bytes.into()))
            }
            channel => Ok(Said::Bytes(channel, rest)),
        }
    }

    /// A message with bytes of a channel; of base64, there are 79.
    pub fn encode(self, channel: u8, bytes: &[u8]) -> Message {
        if self.base64 {
            let mut text = char::from(b'0'.wrapping_add(channel)).to_string();
            STANDARD.encode_string(bytes, &mut text);
            return Message::Text(text.into());
        }
        let mut message = BytesMut::with_capacity(1 + bytes.len());
        message.put_u8(channel);
        message.put_slice(bytes);
        Message::Binary(message.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn version(name: &str) -> Protocol {
        *VERSIONS.iter().find(|version| version.name == name).unwrap()
    }

    #[test]
    fn only_the_fifth_version_closes_channels() {
        let message = Message::Binary(Bytes::from_static(&[255, 0]));
        assert_eq!(version("v5.channel.k8s.io").decode(message.clone()), Ok(Said::Close(0)));
        let said = version("v4.channel.k8s.io").decode(message);
        assert_eq!(said, Ok(Said::Bytes(255, Bytes::from_static(&[0]))));
        for bad in [&[255][..], &[255, 0, 0]] {
            let message = Message::Binary(Bytes::copy_from_slice(bad));
            assert_eq!(version("v5.channel.k8s.io").decode(message), Err(MessageError::Close(bad.len())));
        }
    }

    #[test]
    fn base64_is_for_text_alone() {
        let base64 = version("base64.channel.k8s.io");
        assert_eq!(base64.encode(1, b"foo\n"), Message::Text("1Zm9vCg==".into()));
        let said = base64.decode(Message::Text("0Zm9vCg==".into()));
        assert_eq!(said, Ok(Said::Bytes(0, Bytes::from_static(b"foo\n"))));
        assert_eq!(base64.decode(Message::Text("0*".into())), Err(MessageError::Base64));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(index in 0..VERSIONS.len(), channel in 0_u8..79, bytes: Vec<u8>) {
            let version = VERSIONS[index];
            let said = version.decode(version.encode(channel, &bytes));
            prop_assert_eq!(said, Ok(Said::Bytes(channel, bytes.into())));
        }

        #[test]
        fn no_message_panics(index in 0..VERSIONS.len(), bytes: Vec<u8>, text: String) {
            let _ = VERSIONS[index].decode(Message::Binary(bytes.into()));
            let _ = VERSIONS[index].decode(Message::Text(text.into()));
        }
    }
}
