//! Every cap of the tar reader and the applier (attacks.md A46, A47): what is just within is taken, what is just beyond is
//! refused with the cap in the message, and leaves nothing.

use std::path::PathBuf;

use super::archive::{Head, Tar, head, seal};
use super::*;
use crate::error::Kind;

/// The layer, until it is dropped with its cache.
struct Taken {
    layer: Unpacked,
    _cache: Cache,
}

impl Taken {
    fn path(&self, name: &str) -> PathBuf {
        self.layer.staged.path().join(name)
    }
}

fn taken(archive: &[u8]) -> Taken {
    let cache = Cache::in_memory();
    let layer = cache.unpack(archive).unwrap_or_else(|error| panic!("{}", told(&error)));
    Taken { layer, _cache: cache }
}

#[track_caller]
fn refused(archive: &[u8], words: &[&str]) -> Kind {
    let cache = Cache::in_memory();
    let error = cache.unpack(archive).unwrap_err();
    for word in words {
        assert!(told(&error).contains(word), "{word:?} is not in {:?}", told(&error));
    }
    assert!(told(&error).len() < 2000);
    cache.assert_nothing_staged();
    error.kind()
}

/// A path of `length` bytes, of long names.
fn path(length: usize) -> String {
    let mut path = String::new();
    while path.len() + 201 < length {
        path += &"d".repeat(200);
        path.push('/');
    }
    path.clone() + &"f".repeat(length - path.len())
}

/// A record that makes the header's body `length` bytes long.
fn comment(length: usize) -> Vec<u8> {
    let rest = format!("{length} comment=").len() + 1;
    [format!("{length} comment=").into_bytes(), vec![b'c'; length - rest], b"\n".to_vec()].concat()
}

#[test]
fn names_paths_and_targets() {
    taken(&Tar::default().file(&path(4096), "").bytes());
    let kind = refused(&Tar::default().file(&path(4097), "").bytes(), &["4096"]);
    assert_eq!(kind, Kind::InvalidArgument);
    taken(&Tar::default().file(&"n".repeat(255), "").bytes());
    refused(&Tar::default().file(&"n".repeat(256), "").bytes(), &["255"]);
    refused(&Tar::default().file(&format!("{}/f", "n".repeat(256)), "").bytes(), &["255"]);
    taken(&Tar::default().link("l", b'2', &"t".repeat(4095)).bytes());
    refused(&Tar::default().link("l", b'2', &"t".repeat(4096)).bytes(), &["4095", "target"]);
    refused(&Tar::default().link("l", b'2', "").bytes(), &["link to nothing"]);
    taken(&Tar::default().file(&("d/".repeat(512) + "f"), "").bytes());
    refused(&Tar::default().file(&("d/".repeat(513) + "f"), "").bytes(), &["512"]);
    // GNU's long names, which have no length of their own.
    let long = |length: usize| {
        Tar::default().raw(&head("././@LongLink", b'L'), path(length).as_bytes()).file("f", "").bytes()
    };
    taken(&long(4096));
    assert_eq!(refused(&long(4097), &["4096"]), Kind::ResourceExhausted);
}

#[test]
fn extended_headers() {
    let with = |body: &[u8]| Tar::default().raw(&head("pax", b'x'), body).file("f", "").bytes();
    taken(&with(&comment(1 << 20)));
    assert_eq!(refused(&with(&comment((1 << 20) + 1)), &["1048576"]), Kind::ResourceExhausted);
    for kind in [b'x', b'g', b'L', b'K'] {
        for size in [(1 << 20) + 1, 1 << 40, i64::MAX as u64] {
            let tar = Tar::default().raw(&Head { size: Some(size), ..head("h", kind) }, b"").clone();
            refused(&tar.bytes(), &["longer than 1048576"]);
        }
        let tar = Tar::default().raw(&Head { size: Some(1 << 63), ..head("h", kind) }, b"").clone();
        refused(&tar.bytes(), &["size"]);
    }
    refused(&Tar::default().pax(&[("path", b"a")]).pax(&[("path", b"b")]).file("f", "").bytes(), &["two"]);
    refused(&Tar::default().pax(&[("path", b"a")]).bytes(), &["no entry behind it"]);
}

#[test]
fn extended_attributes() {
    let with = |name: &str, size: usize| {
        let value = vec![b'v'; size];
        let mut tar = Tar::default();
        tar.pax(&[(&format!("SCHILY.xattr.{name}"), value.as_slice())]).file("f", "").bytes()
    };
    taken(&with("user.a", 1000));
    refused(&with("user.a", (64 << 10) + 1), &["64 KiB"]);
    refused(&with("", 1), &["impossible name"]);
    refused(&with(&format!("user.{}", "n".repeat(251)), 1), &["impossible name"]);
    let unpacked = taken(&with("trusted.overlay.opaque", 1));
    assert!(!tree::is_opaque(unpacked.layer.staged.open().unwrap().as_fd()).unwrap());
}

#[test]
fn numbers() {
    let device =
        |major, minor| Tar::default().add(&Head { device: (major, minor), ..head("n", b'3') }, b"").bytes();
    let made = taken(&device(4095, 0xf_ffff));
    let stat =
        rustix::fs::statat(made.layer.staged.open().unwrap(), "n", rustix::fs::AtFlags::empty()).unwrap();
    assert_eq!((rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)), (4095, 0xf_ffff));
    refused(&device(4096, 0), &["device number"]);
    refused(&device(0, 0x10_0000), &["device number"]);
    for (key, value, word) in [
        ("uid", "4294967295", "owner out of range"),
        ("gid", "4294967296", "owner out of range"),
        ("uid", "-1", "user id"),
        ("gid", "", "group id"),
    ] {
        refused(&Tar::default().pax(&[(key, value.as_bytes())]).file("f", "").bytes(), &[word]);
    }
    for size in ["18446744073709551616", "-1", "0x10", "", " 1", "1 "] {
        refused(&Tar::default().pax(&[("size", size.as_bytes())]).file("f", "").bytes(), &["size"]);
    }
    for size in [u64::MAX / 4 + 1, i64::MAX as u64] {
        let tar = Tar::default().raw(&Head { size: Some(size), ..head("f", b'0') }, b"").clone();
        refused(&tar.bytes(), &["size"]);
    }
    let tar = Tar::default().raw(&Head { size: Some(u64::MAX / 4), ..head("f", b'0') }, b"").clone();
    refused(&tar.bytes(), &["in the middle of an entry"]);
    for mtime in ["1e9", "1.x", "9223372036854775808", "--1", ""] {
        refused(&Tar::default().pax(&[("mtime", mtime.as_bytes())]).file("f", "").bytes(), &["time"]);
    }
}

#[test]
fn the_size_of_an_extended_header_wins_for_all_that_follows() {
    // Who believed the header's own size would find the second file's header in the first one's data.
    let inner = Tar::default().file("hidden", "").bytes();
    let mut tar = Tar::default();
    tar.pax(&[("size", inner.len().to_string().as_bytes())]);
    tar.raw(&Head { size: Some(0), ..head("outer", b'0') }, &inner).file("after", "");
    let unpacked = taken(&tar.bytes());
    let names: Vec<_> = std::fs::read_dir(unpacked.layer.staged.path()).unwrap().flatten().collect();
    let mut names: Vec<_> = names.iter().map(|name| name.file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["after", "outer"]);
    assert_eq!(std::fs::read(unpacked.path("outer")).unwrap(), inner);
}

#[test]
fn types_that_readers_disagree_about() {
    refused(&Tar::default().add(&head("d/", b'0'), b"").bytes(), &["directory's name"]);
    refused(&Tar::default().add(&head("d/", b'7'), b"").bytes(), &["directory's name"]);
    let old = taken(&Tar::default().add(&head("d/", 0), b"").bytes());
    assert!(old.path("d").is_dir());
    refused(&Tar::default().add(&head("d/", 0), b"data").bytes(), &["data"]);
    for kind in [b'1', b'2', b'3', b'4', b'5', b'6'] {
        refused(&Tar::default().add(&Head { link: "x", ..head("d", kind) }, b"data").bytes(), &["data"]);
    }
    for kind in *b"DMNSVX8\x7f" {
        refused(&Tar::default().add(&head("x", kind), b"").bytes(), &[""]);
    }
}

#[test]
fn maps_of_sparse_files() {
    let with = |records: &[(&str, &str)], data: &[u8]| {
        let records: Vec<_> = records.iter().map(|(key, value)| (*key, value.as_bytes())).collect();
        Tar::default().pax(&records).add(&head("f", b'0'), data).file("after", "").bytes()
    };
    let of = |size: &str, blocks: &str, map: &str, data: &[u8]| {
        let numbers = [("GNU.sparse.size", size), ("GNU.sparse.numblocks", blocks), ("GNU.sparse.map", map)];
        with(&numbers, data)
    };
    let good = taken(&of("9", "2", "1,2,5,3", b"abcde"));
    assert_eq!(std::fs::read(good.path("f")).unwrap(), b"\0ab\0\0cde\0");
    taken(&of("0", "1", "0,0", b""));
    for (size, blocks, map, data) in [
        ("9", "2", "1,2,2,3", &b"abcde"[..]),
        ("9", "2", "5,3,1,2", b"abcde"),
        ("7", "2", "1,2,5,3", b"abcde"),
        ("9", "2", "1,2,5,3", b"abcd"),
        ("9", "2", "1,2,5,3", b"abcdef"),
        ("9", "1", "1,2,5,3", b"abcde"),
        ("9", "2", "1,2,5", b"abcde"),
        ("9", "2", "1,2,5,x", b"abcde"),
        ("9", "2", "", b""),
        ("9", "1", "18446744073709551615,5", b"abcde"),
        ("18446744073709551616", "1", "0,5", b"abcde"),
    ] {
        refused(&of(size, blocks, map, data), &["sparse"]);
    }
    let pairs = "1,0,".repeat(70_000);
    refused(&of("9", "70000", pairs.trim_end_matches(','), b""), &["sparse"]);
    refused(&with(&[("GNU.sparse.numbytes", "5")], b"abcde"), &["sparse"]);
    refused(&with(&[("GNU.sparse.major", "2"), ("GNU.sparse.minor", "0")], b"abcde"), &["unknown version"]);
    refused(&with(&[("GNU.sparse.else", "2")], b"abcde"), &["sparse"]);
    let one = |name: &str, map: &str| {
        let version = [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "10")];
        let mut data = map.as_bytes().to_vec();
        data.resize(data.len().next_multiple_of(512), 0);
        with(&[&version[..], &[("GNU.sparse.name", name)]].concat(), &[data, b"abc".to_vec()].concat())
    };
    let good = taken(&one("real", "1\n2\n3\n"));
    assert_eq!(std::fs::read(good.path("real")).unwrap(), b"\0\0abc\0\0\0\0\0");
    for map in
        ["1\n2\n4\n", "2\n2\n3\n", "99999999999999999999\n", "65537\n", "1\n2\n3\n4\n", "x\n", "", "\n"]
    {
        refused(&one("real", map), &["sparse"]);
    }
    refused(&one("real", &"1".repeat(2000)), &["sparse"]);
    refused(&one("../out", "1\n2\n3\n"), &["out of the layer"]);
    refused(&one("d/", "1\n2\n3\n"), &["directory's name"]);
}

/// The header of one zstd frame with a window of 2 to this power, and one block of zeros.
fn frame(window: u8) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, (window - 10) << 3];
    frame.extend(&(1024_u32 << 3 | 1).to_le_bytes()[..3]);
    frame.extend([0; 1024]);
    frame
}

#[test]
fn windows_of_zstd() {
    taken(&frame(27));
    refused(&frame(28), &["memory"]);
    refused(&frame(31), &["memory"]);
}

#[test]
fn a_few_bytes_do_not_become_endless_directories() {
    // Each entry implies twenty directories, and their paths are kept.
    let mut tar = Tar::default();
    for number in 0..2500 {
        tar.file(&format!("{number:05}{}", &path(4096)[5..]), "");
    }
    let cache = Cache::in_memory();
    let error = cache.unpack(&tar.bytes()).unwrap_err();
    assert!(told(&error).contains("too many directories") && told(&error).contains("134217728"));
    assert_eq!(error.kind(), Kind::ResourceExhausted);
    cache.assert_nothing_staged();
}

#[test]
fn what_is_cut_or_damaged_is_refused_wherever_that_happens() {
    let cache = Cache::in_memory();
    let whole = Tar::default().pax(&[("mtime", b"1.5")]).file("a/b", "text").link("c", b'1', "a/b").bytes();
    let content = whole.len() - 1024;
    for end in (1..content).filter(|end| end % 512 != 0) {
        assert!(cache.unpack(&whole[..end]).is_err(), "cut at {end}");
    }
    let mut header: [u8; 512] = whole[1024..1536].try_into().unwrap();
    for at in (0..512).filter(|at| !(148..156).contains(at)) {
        header[at] ^= 0x10;
        let damaged = [&whole[..1024], &header, &whole[1536..]].concat();
        header[at] ^= 0x10;
        assert!(cache.unpack(&damaged).is_err(), "damaged at {at}");
    }
    assert_eq!(seal(header), header);
    let lone = [&whole[..content], &[0; 512], &whole[..content], &[0; 1024]].concat();
    assert!(told(&cache.unpack(&lone).unwrap_err()).contains("lone block of zeros"));
    // What follows the end belongs to nobody, but to the digest.
    let trailing = [whole.as_slice(), b"trailing"].concat();
    assert_eq!(cache.unpack(&trailing).unwrap().diff_id, Digest::of(&trailing));
    cache.assert_nothing_staged();
}
