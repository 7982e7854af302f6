//! Writing and reading netlink messages and their attributes (include/uapi/linux/netlink.h).
//! What does not live here: what a message means.

/// The message tells only of success or failure.
pub const ERROR: u16 = 2;
/// The end of a dump.
pub const DONE: u16 = 3;
/// Every message to the kernel has it.
pub const REQUEST: u16 = 0x1;
/// Answer, even on success.
pub const ACK: u16 = 0x4;
/// All objects of the kind.
pub const DUMP: u16 = 0x300;
/// Fail if there is one.
pub const EXCL: u16 = 0x200;
/// Make it if there is none.
pub const CREATE: u16 = 0x400;
/// Put it after those that are there.
pub const APPEND: u16 = 0x800;
/// Length of the header before a message's payload.
pub const HEADER: usize = 16;

const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;

/// What one message asks: its kind, flags beyond REQUEST, and the fixed header of its family.
pub struct Head<'a> {
    /// RTM_*, or subsystem and message of nfnetlink.
    pub kind: u16,
    /// ACK, CREATE, ...
    pub flags: u16,
    /// ifinfomsg, nfgenmsg, ...
    pub family: &'a [u8],
}

/// Messages that are sent together.
#[derive(Default)]
pub struct Batch {
    bytes: Vec<u8>,
    count: u32,
    last: usize,
    awaited: u32,
}

impl Batch {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a message; its sequence number is its index until the socket shifts it.
    pub fn message(&mut self, head: &Head<'_>, attributes: impl FnOnce(&mut Attributes<'_>)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&head.kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(head.flags | REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&self.count.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(head.family);
        attributes(&mut Attributes(&mut self.bytes));
        let length = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        pad(&mut self.bytes);
        self.last = start;
        if head.flags & ACK != 0 {
            self.awaited = self.count;
        }
        self.count += 1;
    }

    /// Makes the last message so far the one that is answered.
    pub fn await_last(&mut self) {
        if let Some(flags) = self.bytes.get_mut(self.last + 6) {
            *flags |= ACK as u8;
            self.awaited = self.count.saturating_sub(1);
        }
    }

    /// Index of the last message that asks for an answer.
    pub fn awaited(&self) -> u32 {
        self.awaited
    }

    /// How many messages.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The bytes to send, sequence numbers counted from `first`.
    pub fn finish(mut self, first: u32) -> Vec<u8> {
        let mut at = 0;
        while let Some(length) = read_u32(&self.bytes, at) {
            let sequence = read_u32(&self.bytes, at + 8).unwrap_or(0).wrapping_add(first);
            self.bytes[at + 8..at + 12].copy_from_slice(&sequence.to_ne_bytes());
            at += aligned(length as usize);
        }
        self.bytes
    }
}

/// Where attributes are written.
pub struct Attributes<'a>(&'a mut Vec<u8>);

impl Attributes<'_> {
    /// An attribute of some bytes.
    pub fn bytes(&mut self, kind: u16, value: &[u8]) {
        let length = (value.len() + 4) as u16;
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        pad(self.0);
    }

    /// A text with its closing NUL.
    pub fn text(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes);
    }

    /// One byte.
    pub fn u8(&mut self, kind: u16, value: u8) {
        self.bytes(kind, &[value]);
    }

    /// In the machine's byte order, as rtnetlink wants it.
    pub fn u32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    /// In network byte order, as nfnetlink wants it.
    pub fn be32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// A fixed struct in the midst of attributes (a veth's peer starts with an ifinfomsg).
    pub fn raw(&mut self, value: &[u8]) {
        self.0.extend_from_slice(value);
        pad(self.0);
    }

    /// Attributes inside an attribute.
    pub fn nest(&mut self, kind: u16, inner: impl FnOnce(&mut Attributes<'_>)) {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; 2]);
        self.0.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        inner(&mut Attributes(self.0));
        let length = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }
}

/// A message as received.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// RTM_*, ERROR, DONE, ...
    pub kind: u16,
    /// That of the request.
    pub sequence: u32,
    /// After the header.
    pub payload: &'a [u8],
}

/// The messages of one datagram; stops at the first that is cut.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = read_u32(bytes, 0)? as usize;
        if length < HEADER || length > bytes.len() {
            return None;
        }
        let kind = read_u16(bytes, 4)?;
        let sequence = read_u32(bytes, 8)?;
        let payload = &bytes[HEADER..length];
        bytes = bytes.get(aligned(length)..).unwrap_or(&[]);
        Some(Message { kind, sequence, payload })
    })
}

/// The attributes of a payload after its fixed header of `skip` bytes; stops at the first that is cut.
pub fn attributes(payload: &[u8], skip: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut bytes = payload.get(skip..).unwrap_or(&[]);
    std::iter::from_fn(move || {
        let length = usize::from(read_u16(bytes, 0)?);
        let kind = read_u16(bytes, 2)?;
        if length < 4 || length > bytes.len() {
            return None;
        }
        let value = &bytes[4..length];
        bytes = bytes.get(aligned(length)..).unwrap_or(&[]);
        Some((kind & TYPE_MASK, value))
    })
}

/// The text of an attribute, without its NUL.
pub fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// Two bytes in the machine's order.
pub fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// Four bytes in the machine's order.
pub fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(aligned(bytes.len()), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut batch = Batch::new();
        for kind in [20, 21] {
            batch.message(&Head { kind, flags: ACK, family: &[7; 8] }, |m| {
                m.text(1, "name");
                m.nest(2, |m| m.be32(3, 9));
            });
        }
        let bytes = batch.finish(100);
        let all: Vec<_> = messages(&bytes).collect();
        assert_eq!((all.len(), all[1].kind, all[1].sequence), (2, 21, 101));
        let found: Vec<_> = attributes(all[1].payload, 8).collect();
        assert_eq!((found[0].0, text(found[0].1)), (1, "name".to_string()));
        assert_eq!(attributes(found[1].1, 0).next(), Some((3, &9_u32.to_be_bytes()[..])));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            for message in messages(&bytes) {
                for (_, value) in attributes(message.payload, 16) {
                    text(value);
                }
            }
        }
    }
}
