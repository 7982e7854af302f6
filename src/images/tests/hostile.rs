//! Archives that no honest program writes, or made to overwhelm the daemon (attacks.md 1E), by the way of an import. What
//! does not live here: the thousands that try to get out of a layer (drivers/layers/tests).

use super::archive::{Head, Tar, head, layout_of};
use super::*;

async fn refused(node: &Node, tar: &Tar) -> String {
    let error = node.images.import(layout_of("x.test/bad:1", &[tar])).await.unwrap_err();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    node.assert_clean();
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_no_honest_archive_has_are_refused() {
    let node = Node::new().await;
    let long_name = "n".repeat(256);
    let long_path = "d/".repeat(2100) + "f";
    let deep = "d/".repeat(600) + "f";
    let mut cases: Vec<(Tar, &str)> = Vec::new();
    let mut case = |tar: &mut Tar, text| cases.push((tar.clone(), text));
    case(Tar::default().file("a/../../x", ""), "out of the layer");
    case(Tar::default().file(&long_name, ""), "255");
    case(Tar::default().file(&long_path, ""), "4096");
    case(Tar::default().file(&deep, ""), "512");
    case(Tar::default().file("a/.wh.", ""), "whiteout of nothing");
    case(Tar::default().file(".wh...", ""), "whiteout of nothing");
    case(Tar::default().file(".wh.a/b", ""), "whiteout for a parent");
    case(Tar::default().file("f", "").file("f/x", ""), "no directory");
    case(Tar::default().link("a", b'1', "nowhere"), "none of the layers");
    case(Tar::default().dir("d", 0o755).link("a", b'1', "d"), "directory as the target");
    case(Tar::default().link("a", b'1', ".wh.x"), "whiteout as the target");
    case(Tar::default().link("a", b'2', "b").link("b", b'2', "a").file("a/x", ""), "symbolic links");
    case(Tar::default().add(&head("s", b'S'), b""), "sparse");
    case(Tar::default().add(&head("d", b'5'), b"data"), "data");
    case(Tar::default().add(&head("?", b'Q'), b""), "unknown type");
    case(Tar::default().add(&head("pax", b'x'), b"nonsense").file("a", ""), "malformed");
    case(Tar::default().add(&head("pax", b'x'), b"18 path=other/name\n"), "malformed");
    case(Tar::default().add(&head("pax", b'g'), b"14 path=hello\n").file("a", ""), "global header");
    for (tar, expected) in cases {
        let text = refused(&node, &tar).await;
        assert!(text.contains(expected), "{expected:?} is not in {text:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_is_stopped_and_named() {
    let node = Node::new().await;
    let mut plain = zstd::Encoder::new(Vec::new(), 1).unwrap();
    let mut tar = Tar::default();
    tar.file("bomb", "");
    let mut header = tar.bytes()[..512].to_vec();
    header[124..136].copy_from_slice(b"77777777777\0");
    header[148..156].copy_from_slice(b"        ");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    std::io::Write::write_all(&mut plain, &header).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..1100 {
        std::io::Write::write_all(&mut plain, &zeros).unwrap();
    }
    let bytes = plain.finish().unwrap();
    let digest = Digest::of(&bytes);
    let blob = super::archive::Blob { size: bytes.len() as u64, diff_id: digest.clone(), digest, bytes };
    let error = node
        .images
        .import(super::archive::layout("x.test/bomb:1", std::slice::from_ref(&blob)))
        .await
        .unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        error.to_string().contains(blob.digest.as_str()) && source.contains("unpacks to more"),
        "{error}: {source}"
    );
    node.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_survive_and_marks_for_overlay_do_not() {
    let node = Node::new().await;
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut tar = Tar::default();
    let with = |path, kind, xattr| Head {
        mode: 0o4755,
        uid: 7,
        mtime: 1_000_000_000,
        xattr: Some(xattr),
        ..head(path, kind)
    };
    tar.add(&with("ping", b'0', ("security.capability", &capability)), b"x");
    tar.add(&with("dir", b'5', ("trusted.overlay.opaque", b"y")), b"");
    tar.add(&with("link", b'2', ("user.x", b"y")), b"");
    let mut lower = Tar::default();
    lower.file("dir/seen", "seen");
    // A link needs a target.
    let mut linked = Tar::default();
    linked.add(&with("ping", b'0', ("security.capability", &capability)), b"x");
    linked.add(&with("dir", b'5', ("trusted.overlay.opaque", b"y")), b"");
    linked.add(&Head { link: "ping", ..with("link", b'2', ("user.x", b"y")) }, b"");
    linked.add(&with("null", b'3', ("user.x", b"y")), b"");
    linked.add(&with("pipe", b'6', ("user.x", b"y")), b"");
    let image = node.images.import(layout_of("x.test/a:1", &[&lower, &linked])).await.unwrap().remove(0);
    let root = node.root(&image);
    assert_eq!(root.read("dir/seen"), "seen");
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::symlink_metadata(root.path("ping")).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid(), meta.mtime()), (0o4755, 7, 7, 1_000_000_000));
    let link = std::fs::symlink_metadata(root.path("link")).unwrap();
    assert_eq!((link.uid(), link.mtime()), (7, 1_000_000_000));
    let mut value = [0_u8; 64];
    let len = rustix::fs::getxattr(root.path("ping"), "security.capability", &mut value).unwrap();
    assert_eq!(value[..len], capability);
    assert!(std::fs::symlink_metadata(root.path("null")).is_err(), "device 0/0 is overlay's whiteout");
}
