//! What fuzzers give as documents, names and archives of images, and what must hold whatever it is. What does not live
//! here: who calls this (src/fuzzing.rs).

use serde_json::Value;

use super::import::Index;
use super::manifest::{self, Descriptor, Document, Manifest};
use super::reference::Reference;
use crate::drivers::layers::{LAYERS_MAX, fuzz::sealed};
use crate::ids::Digest;

/// A manifest or an index, a zero byte, a config. What is taken is seen by a reader that ignores case, and takes the last of
/// two equal fields, as it is by Berth.
pub fn documents(data: &[u8]) {
    let at = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let (document, config) = (&data[..at], data.get(at + 1..).unwrap_or_default());
    match manifest::parse(&Digest::of(document), "", document) {
        Err(error) => assert!(crate::error::chain(&error).len() < 4200),
        Ok(Document::Index(manifests)) => {
            assert_same(&manifests, as_go_reads(document, "manifests"));
            assert!(super::platform::offered(&manifests).len() < 10_000);
        }
        Ok(Document::Manifest(manifest)) => {
            assert_same(&manifest.layers, as_go_reads(document, "layers"));
            assert!(manifest.artifact.is_some() || manifest.layers.len() <= LAYERS_MAX);
            assert_config(&manifest, config);
        }
    }
}

fn assert_same(ours: &[Descriptor], theirs: Option<Vec<String>>) {
    let ours = ours.iter().map(|one| one.digest.to_string());
    assert!(theirs.is_none_or(|theirs| ours.eq(theirs)));
}

fn assert_config(manifest: &Manifest, config: &[u8]) {
    match manifest::parse_config(manifest, config) {
        Ok(parsed) => assert_eq!(parsed.diff_ids.len(), manifest.layers.len()),
        Err(error) => assert!(crate::error::chain(&error).len() < 4200),
    }
}

/// None: an ignored text in it is no Unicode, which no other reader takes.
fn as_go_reads(document: &[u8], list: &str) -> Option<Vec<String>> {
    let field = |object: &Value, name: &str| -> Value {
        let fields = object.as_object().into_iter().flatten();
        let mut found = fields.filter(|(key, _)| key.to_lowercase() == name).map(|(_, value)| value.clone());
        found.next_back().unwrap_or_default()
    };
    let document = serde_json::from_slice(document).ok()?;
    let list = field(&document, list);
    let digest = |one: &Value| field(one, "digest").as_str().unwrap_or_default().to_string();
    Some(list.as_array().into_iter().flatten().map(digest).collect())
}

/// A name: refused, or stable, and good for paths and URLs.
pub fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(reference) = Reference::parse(text) else { return };
    assert_eq!(Reference::parse(&reference.to_string()).as_ref(), Ok(&reference));
    let host = url::Url::parse(&format!("https://{}/v2/", reference.registry())).expect("a host");
    assert!(host.username().is_empty() && host.path() == "/v2/" && !reference.registry().contains('/'));
    let climbs = |part: &str| part.is_empty() || part == "." || part == "..";
    assert!(!reference.repository().split('/').any(climbs), "{text}");
    assert!(reference.tag().is_some() || reference.digest().is_some());
}

/// An archive for `image import`.
pub fn archive(data: &[u8]) {
    use std::io::Write;
    let memory = rustix::fs::memfd_create("fuzz", rustix::fs::MemfdFlags::CLOEXEC).expect("memory");
    let mut file = std::fs::File::from(memory);
    file.write_all(&sealed(data)).expect("memory");
    if let Ok(index) = Index::read(file) {
        let _ = index.images();
    }
}
