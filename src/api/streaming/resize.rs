//! Sizes of a client's window: JSON objects one after the other, with or without line ends, cut anywhere.

use serde::Deserialize;

/// Most bytes kept of an object that has not ended.
const OBJECT: usize = 4096;

/// Columns and rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Size {
    /// Columns.
    #[serde(rename = "Width")]
    pub width: u16,
    /// Rows.
    #[serde(rename = "Height")]
    pub height: u16,
}

/// What has come of a stream of sizes.
#[derive(Default)]
pub struct Sizes {
    unfinished: Vec<u8>,
}

impl Sizes {
    /// The sizes that these bytes complete. What is no size is passed over.
    pub fn take(&mut self, bytes: &[u8]) -> Vec<Size> {
        self.unfinished.extend_from_slice(bytes);
        let mut objects = serde_json::Deserializer::from_slice(&self.unfinished).into_iter::<Size>();
        let mut sizes = Vec::new();
        let mut taken = 0;
        let mut broken = false;
        while let Some(object) = objects.next() {
            match object {
                Ok(size) => sizes.push(size),
                Err(error) => {
                    broken = !error.is_eof();
                    break;
                }
            }
            taken = objects.byte_offset();
        }
        if broken || self.unfinished.len() - taken > OBJECT {
            self.unfinished = Vec::new();
        } else {
            self.unfinished.drain(..taken);
        }
        sizes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_found_however_they_are_cut() {
        let text = b"{\"Width\":80,\"Height\":24}\n{\"Width\":100,\"Height\":30}{\"Height\":1,\"Width\":2}";
        let all = [(80, 24), (100, 30), (2, 1)].map(|(width, height)| Size { width, height });
        for cut in 1..text.len() {
            let mut sizes = Sizes::default();
            let found: Vec<_> = text.chunks(cut).flat_map(|part| sizes.take(part)).collect();
            assert_eq!(found, all, "cut at {cut}");
        }
    }

    #[test]
    fn what_is_no_size_is_passed_over() {
        let mut sizes = Sizes::default();
        for bad in ["{\"Width\":-1,\"Height\":70000}", "hello", "[1]", "{\"Width\":1}", "}"] {
            assert_eq!(sizes.take(bad.as_bytes()), [], "{bad}");
        }
        assert_eq!(sizes.take(b"{\"Width\":1,\"Height\":2}").len(), 1);
    }

    #[test]
    fn an_object_without_end_is_not_hoarded() {
        let mut sizes = Sizes::default();
        for _ in 0..100 {
            assert_eq!(sizes.take(&[b' '; 1000]), []);
            assert_eq!(sizes.take(format!("{{\"x\":\"{}", "y".repeat(1000)).as_bytes()), []);
            assert!(sizes.unfinished.len() <= 2 * OBJECT);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..20)) {
            let mut sizes = Sizes::default();
            for part in parts {
                sizes.take(&part);
            }
        }
    }
}
