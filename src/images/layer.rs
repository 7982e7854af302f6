//! A layer as the cache keeps it: its record. What does not live here: its files.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::drivers::layers::{Seal, Sealed};
use crate::drivers::store::Record;
use crate::ids::Digest;

/// A whole layer, for `Layout::layer`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    /// Its diff_id; or its chain ID, if its files depend on the layers below; or, for restored directories, a digest
    /// of what they say.
    pub id: Digest,
    /// What it looks like on disk; none in records of versions that did not ask.
    #[serde(default)]
    pub seal: Option<Seal>,
    /// Bytes on disk.
    pub bytes: u64,
    /// Inodes on disk.
    pub inodes: u64,
    /// Directories that its archive only implies, as real paths. Paths are bytes: each is kept as the character of the
    /// same number.
    #[serde(with = "paths")]
    pub implied: Arc<BTreeSet<Vec<u8>>>,
    /// Directories in which it has whiteouts.
    #[serde(with = "paths")]
    pub hiding: Arc<BTreeSet<Vec<u8>>>,
}

impl Layer {
    /// One that implies and hides nothing.
    pub fn empty(id: Digest) -> Self {
        Self { id, seal: None, bytes: 0, inodes: 0, implied: Arc::default(), hiding: Arc::default() }
    }

    /// As the disk has it now.
    pub fn sealed(self, sealed: Sealed) -> Self {
        let Sealed { seal, bytes, inodes } = sealed;
        Self { seal: Some(seal), bytes, inodes, ..self }
    }
}

impl Record for Layer {
    const TABLE: &'static str = "layers";
}

/// The chain IDs of a stack, bottom first (image-spec, config.md "Layer ChainID").
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chain.last() {
            None => diff_id.clone(),
            Some(below) => {
                let text = format!("{below} {diff_id}");
                Digest::of(text.as_bytes())
            }
        };
        chain.push(next);
    }
    chain
}

mod paths {
    use super::{Arc, BTreeSet, Deserialize};

    pub fn serialize<S: serde::Serializer>(
        paths: &BTreeSet<Vec<u8>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let text = |path: &Vec<u8>| path.iter().map(|byte| char::from(*byte)).collect::<String>();
        serializer.collect_seq(paths.iter().map(text))
    }

    pub fn deserialize<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<BTreeSet<Vec<u8>>>, D::Error> {
        let bytes =
            |text: String| text.chars().map(|c| u8::try_from(c).map_err(serde::de::Error::custom)).collect();
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts.into_iter().map(bytes).collect::<Result<_, _>>().map(Arc::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_keeps_paths_that_are_no_text() {
        let implied = Arc::new(BTreeSet::from([b"".to_vec(), b"a/\xff\x80\n".to_vec()]));
        let plain = Layer { hiding: Arc::clone(&implied), implied, ..Layer::empty(Digest::of(b"x")) };
        let seal = serde_json::from_str("\"xxh3:7\"").unwrap();
        for layer in [plain.clone().sealed(Sealed { seal, bytes: 1, inodes: 2 }), plain] {
            let json = serde_json::to_string(&layer).unwrap();
            assert_eq!(serde_json::from_str::<Layer>(&json).unwrap(), layer);
        }
    }
}
