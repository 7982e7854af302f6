//! What readers of archives understand in different ways: Berth refuses it, so that nobody is shown other files than those
//! that a scanner saw (attacks.md A44).

use proptest::prelude::*;

use super::agreement::{Reader, differences, ours};
use super::archive::{Head, Tar, head, record, seal};
use super::snapshot::Snapshot;

/// Something about a header that readers may understand in different ways.
#[derive(Clone, Debug)]
enum Oddity {
    /// Both sizes, of which the extended one is the first.
    Sizes(u64, u64),
    Path(String),
    LongName(String),
    Global(String, String),
    Record(Vec<u8>),
    Field(usize, Vec<u8>),
    Type(u8),
}

fn oddity() -> impl Strategy<Value = Oddity> {
    let name = prop::sample::select(vec!["a", "b/", "./c", "d//e", "f/.", "/g", "h", ""]);
    let key = prop::sample::select(vec![
        "path",
        "size",
        "mtime",
        "uid",
        "comment",
        "GNU.sparse.name",
        "GNU.sparse.size",
        "GNU.sparse.major",
    ]);
    let value = prop::sample::select(vec!["", "x", "0", "600", "1", "-1", "1.5", "b/"]);
    let octal = prop::sample::select(vec![
        &b"0000000000\0"[..],
        b"      1000 ",
        b"1000\0\0\0\0\0\0\0",
        b"\x80\0\0\0\0\0\0\0\0\0\x02\0",
        b" 1000\0junk ",
        b"00000001000 ",
        b"0000000001000",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0",
    ]);
    prop_oneof![
        (
            prop::sample::select(vec![0_u64, 1, 511, 512, 513, 1024]),
            prop::sample::select(vec![0_u64, 1, 512, 1024])
        )
            .prop_map(|(extended, own)| Oddity::Sizes(extended, own)),
        name.clone().prop_map(|name| Oddity::Path(name.into())),
        name.prop_map(|name| Oddity::LongName(name.into())),
        (key.clone(), value.clone()).prop_map(|(key, value)| Oddity::Global(key.into(), value.into())),
        (key, value).prop_map(|(key, value)| Oddity::Record(record(key, value.as_bytes()))),
        prop::collection::vec(prop::sample::select(b"0123456789 =\n\0pathsize".to_vec()), 0..24)
            .prop_map(Oddity::Record),
        octal.prop_map(|text| Oddity::Field(124, text.to_vec())),
        (
            prop::sample::select(vec![100_usize, 108, 136]),
            prop::sample::select(vec![&b"644 "[..], b"\0\0\0\0", b"  7\0"])
        )
            .prop_map(|(at, text)| Oddity::Field(at, text.to_vec())),
        prop::sample::select(vec![&b"ustar  \0"[..], b"ustar\x0000", b"\0\0\0\0\0\0\0\0", b"ustar\0\0\0"])
            .prop_map(|magic| Oddity::Field(257, magic.to_vec())),
        prop::sample::select(vec![&b"prefix"[..], b"p/q\0", b"/"])
            .prop_map(|prefix| Oddity::Field(345, prefix.to_vec())),
        Just(Oddity::Field(508, b"tar\0".to_vec())),
        prop::sample::select(b"\x000157xgLKS".to_vec()).prop_map(Oddity::Type),
    ]
}

/// Files with oddities, each with data that reads as a header to whoever takes it for one.
fn odd_archive(files: &[Vec<Oddity>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, oddities) in files.iter().enumerate() {
        let name = format!("file{number}");
        let mut hidden = Tar::default();
        hidden.file(&format!("hidden{number}"), "");
        let data = hidden.bytes()[..1024].to_vec();
        let mut before = Tar::default();
        let mut file = Tar::default();
        let mut size = data.len() as u64;
        for oddity in oddities {
            match oddity {
                Oddity::Sizes(extended, own) => {
                    before.pax(&[("size", extended.to_string().as_bytes())]);
                    size = *own;
                }
                Oddity::Path(path) => {
                    before.pax(&[("path", path.as_bytes())]);
                }
                Oddity::LongName(name) => {
                    before.raw(&head("L", b'L'), &[name.as_bytes(), b"\0"].concat());
                }
                Oddity::Global(key, value) => {
                    before.raw(&head("g", b'g'), &record(key, value.as_bytes()));
                }
                Oddity::Record(record) => {
                    before.raw(&head("x", b'x'), record);
                }
                Oddity::Field(..) | Oddity::Type(_) => {}
            }
        }
        file.raw(&Head { size: Some(size), ..head(&name, b'0') }, &data);
        let mut file = file.bytes();
        file.truncate(file.len() - 1024);
        let mut header: [u8; 512] = file[..512].try_into().unwrap();
        for oddity in oddities {
            match oddity {
                Oddity::Field(at, text) => header[*at..*at + text.len().min(512 - at)].copy_from_slice(text),
                Oddity::Type(kind) => header[156] = *kind,
                _ => {}
            }
        }
        file[..512].copy_from_slice(&seal(header));
        let before = before.bytes();
        bytes.extend_from_slice(&before[..before.len() - 1024]);
        bytes.extend(file);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

#[test]
fn what_readers_disagree_about_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("archive");
    let compared = std::cell::Cell::new([0; 2]);
    let files = prop::collection::vec(prop::collection::vec(oddity(), 0..3), 1..4);
    let config =
        ProptestConfig { cases: 500, failure_persistence: None, max_shrink_iters: 500, ..Default::default() };
    let run = |files: Vec<Vec<Oddity>>| {
        let bytes = odd_archive(&files);
        std::fs::write(&archive, &bytes).unwrap();
        let Ok(ours) = ours(&archive) else { return Ok(()) };
        for (index, reader) in [Reader::Gnu, Reader::Bsd].into_iter().enumerate() {
            // A reader that refuses what Berth takes shows nobody other files.
            let Some(theirs) = reader.read(&archive) else { continue };
            let mut counts = compared.get();
            counts[index] += 1;
            compared.set(counts);
            let differences = differences(&named(&ours), &named(&theirs));
            prop_assert!(differences.is_empty(), "{reader:?}: {differences:?}");
        }
        Ok(())
    };
    proptest::test_runner::TestRunner::new(config).run(&files, run).unwrap();
    let [gnu, bsd] = compared.get();
    println!("{gnu} of 500 archives compared with GNU tar, {bsd} with bsdtar");
    assert!(gnu > 100 && bsd > 100, "{gnu} {bsd}");
}

/// Names, types, contents and owners: that is what the trick would be about. Directories that no entry describes are the
/// reader's own.
fn named(snapshot: &Snapshot) -> Snapshot {
    let mut named = snapshot.clone();
    for seen in named.values_mut() {
        seen.mtime = (0, 0);
        if seen.kind == "directory" {
            (seen.mode, seen.owner) = (0, (0, 0));
        }
    }
    named
}
