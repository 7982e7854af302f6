//! ListContainersResponse, by hand: the server fills it with items that are encoded already. The kubelet asks for it every
//! second, and to make a thousand owned messages of what is in memory anyway took longer than all the rest.

use prost::bytes::{Buf, BufMut};
use prost::encoding::{DecodeContext, WireType, encode_key, encode_varint, message, skip_field};
use prost::{DecodeError, Message};

use super::v1::Container;

/// The field's number.
const CONTAINERS: u32 = 1;

/// CRI's ListContainersResponse: `repeated Container containers = 1`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ListContainersResponse {
    /// What was decoded; to be encoded behind those that are already.
    pub containers: Vec<Container>,
    /// Whole fields: tag, length, container.
    encoded: Vec<u8>,
}

impl ListContainersResponse {
    /// Adds a container, given as its encoded message.
    pub fn push(&mut self, container: &[u8]) {
        encode_key(CONTAINERS, WireType::LengthDelimited, &mut self.encoded);
        encode_varint(container.len() as u64, &mut self.encoded);
        self.encoded.extend_from_slice(container);
    }
}

impl Message for ListContainersResponse {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        buf.put_slice(&self.encoded);
        message::encode_repeated(CONTAINERS, &self.containers, buf);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            CONTAINERS => message::merge_repeated(wire_type, &mut self.containers, buf, context),
            _ => skip_field(wire_type, tag, buf, context),
        }
    }

    fn encoded_len(&self) -> usize {
        self.encoded.len() + message::encoded_len_repeated(CONTAINERS, &self.containers)
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pushed_is_decoded_in_order() {
        let one = |id: &str| Container { id: id.into(), ..Container::default() };
        let mut list = ListContainersResponse { containers: vec![one("c")], ..Default::default() };
        list.push(&one("a").encode_to_vec());
        list.push(&one("b").encode_to_vec());
        let bytes = list.encode_to_vec();
        assert_eq!(bytes.len(), list.encoded_len());
        let decoded = ListContainersResponse::decode(&bytes[..]).unwrap();
        assert_eq!(decoded.containers, [one("a"), one("b"), one("c")]);
    }
}
