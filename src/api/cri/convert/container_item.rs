//! CRI's Container, written as it is encoded: no copy of what the container holds. `container_status::item` is its twin for
//! the streamed list, and e2e/tests/lists.rs compares the two.

use std::collections::BTreeMap;

use prost::encoding::{WireType, btree_map, encode_key, encode_varint, int32, int64, message, string};

use super::container_status::{image, metadata, state};
use crate::containers::Container;

/// Appends the container as a message; numbers are the fields' (proto/cri/api.proto, message Container).
pub(in crate::api::cri) fn encode(container: &Container, buf: &mut Vec<u8>) {
    text(1, container.id.as_str(), buf);
    text(2, container.sandbox.id.as_str(), buf);
    message::encode(3, &metadata(container), buf);
    message::encode(4, &image(container), buf);
    text(5, container.image.id.as_str(), buf);
    int32::encode(6, &state(&container.phase()), buf);
    int64::encode(7, &container.created_at, buf);
    map(8, &container.spec.labels, buf);
    map(9, &container.spec.annotations, buf);
    text(10, container.image.id.as_str(), buf);
}

fn text(tag: u32, text: &str, buf: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, buf);
    encode_varint(text.len() as u64, buf);
    buf.extend_from_slice(text.as_bytes());
}

fn map(tag: u32, map: &BTreeMap<String, String>, buf: &mut Vec<u8>) {
    btree_map::encode(
        string::encode,
        string::encoded_len,
        string::encode,
        string::encoded_len,
        tag,
        map,
        buf,
    );
}
