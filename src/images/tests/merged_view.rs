//! The law of the layer cache: layers unpacked one by one and merged by overlay look as if they had been unpacked one
//! after another. The other side is a model in memory.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use proptest::prelude::*;

use super::archive::{Head, Tar, head, layout_of};
use super::*;

#[derive(Clone, Debug, PartialEq)]
struct Thing {
    kind: u8,
    mode: u32,
    uid: u32,
    mtime: i64,
    content: String,
    marked: bool,
}

type Tree = BTreeMap<String, Thing>;

#[derive(Clone, Debug)]
enum Step {
    File(String, u32),
    Dir(String, u32),
    Symlink(String),
    HardLink(String, String),
    Hide(String),
    Opaque(String),
}

fn made_up() -> Thing {
    Thing { kind: b'5', mode: 0o755, uid: 0, mtime: 0, content: String::new(), marked: false }
}

fn described(kind: u8, n: u32, content: String) -> Thing {
    let mode = [0o755, 0o700, 0o1777, 0o2750][n as usize % 4];
    Thing { kind, mode, uid: n % 3, mtime: i64::from(n) + 1000, content, marked: n % 2 == 1 }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn remove_below(tree: &mut Tree, path: &str) {
    let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
    tree.retain(|at, _| at.is_empty() || !at.starts_with(&prefix) || at == path);
}

fn ensure(tree: &mut Tree, path: &str) -> Option<()> {
    match tree.get(path) {
        Some(thing) => (thing.kind == b'5').then_some(()),
        None => {
            ensure(tree, parent(path))?;
            tree.insert(path.to_string(), made_up());
            Some(())
        }
    }
}

fn place(tree: &mut Tree, path: &str, thing: Thing) -> Option<()> {
    ensure(tree, parent(path))?;
    if thing.kind != b'5' {
        remove_below(tree, path);
    }
    tree.insert(path.to_string(), thing);
    Some(())
}

/// One layer on top of a tree. None: the archive is one that is refused, or whose meaning depends on order.
fn apply(tree: &mut Tree, layer: &[Step]) -> Option<()> {
    for step in layer {
        match step {
            Step::Hide(path) => {
                remove_below(tree, path);
                tree.remove(path);
            }
            Step::Opaque(path) => remove_below(tree, path),
            _ => {}
        }
    }
    for step in layer {
        match step {
            Step::Hide(path) => ensure(tree, parent(path))?,
            Step::Opaque(path) => ensure(tree, path)?,
            Step::File(path, n) => place(tree, path, described(b'0', *n, format!("{path} {n}")))?,
            Step::Dir(path, n) => place(tree, path, described(b'5', *n, String::new()))?,
            Step::Symlink(path) => {
                place(tree, path, Thing { kind: b'2', mode: 0, ..made_up() })?;
            }
            Step::HardLink(path, target) => {
                let thing = tree.get(target).filter(|thing| thing.kind == b'0')?.clone();
                place(tree, path, thing)?;
                tree.get(target)?;
            }
        }
    }
    Some(())
}

fn tar(layer: &[Step]) -> Tar {
    let mut tar = Tar::default();
    for step in layer {
        let add = |tar: &mut Tar, path: &str, thing: Thing| {
            let xattr = thing.marked.then_some(("user.mark", &b"m"[..]));
            let (mode, uid, mtime) = (thing.mode, thing.uid, thing.mtime.unsigned_abs());
            tar.add(&Head { mode, uid, mtime, xattr, ..head(path, thing.kind) }, thing.content.as_bytes());
        };
        match step {
            Step::File(path, n) => add(&mut tar, path, described(b'0', *n, format!("{path} {n}"))),
            Step::Dir(path, n) => add(&mut tar, path, described(b'5', *n, String::new())),
            Step::Symlink(path) => {
                tar.add(&Head { link: "nowhere", mtime: 0, ..head(path, b'2') }, b"");
            }
            Step::HardLink(path, target) => {
                tar.link(path, b'1', target);
            }
            Step::Hide(path) => {
                let (parent, name) = path.rsplit_once('/').unwrap_or((".", path));
                tar.file(&format!("{parent}/.wh.{name}"), "");
            }
            Step::Opaque(path) => {
                tar.file(&format!("./{path}/.wh..wh..opq"), "");
            }
        }
    }
    tar
}

fn walk(directory: &Path, path: &str, tree: &mut Tree) {
    let meta = std::fs::symlink_metadata(directory).unwrap();
    let kind = if meta.is_dir() {
        b'5'
    } else if meta.is_symlink() {
        b'2'
    } else {
        b'0'
    };
    let content = if kind == b'0' { std::fs::read_to_string(directory).unwrap() } else { String::new() };
    let marked = rustix::fs::lgetxattr(directory, "user.mark", &mut [0_u8; 8]).is_ok();
    let mode = if kind == b'2' { 0 } else { meta.mode() & 0o7777 };
    tree.insert(
        path.to_string(),
        Thing { kind, mode, uid: meta.uid(), mtime: meta.mtime(), content, marked },
    );
    if kind == b'5' {
        for entry in std::fs::read_dir(directory).unwrap() {
            let name = entry.unwrap().file_name();
            let name = std::str::from_utf8(name.as_bytes()).unwrap();
            let child = if path.is_empty() { name.to_string() } else { format!("{path}/{name}") };
            walk(&directory.join(name), &child, tree);
        }
    }
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4).prop_map(|names| names.join("/"))
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (path(), 0..8_u32).prop_map(|(path, n)| Step::File(path + "/f", n)),
        3 => (path(), 0..8_u32).prop_map(|(path, n)| Step::Dir(path, n)),
        1 => (0..8_u32).prop_map(|n| Step::Dir(String::new(), n)),
        1 => (path(), 0..8_u32).prop_map(|(path, n)| Step::File(path, n)),
        1 => path().prop_map(|path| Step::Symlink(path + "/s")),
        1 => (path(), path()).prop_map(|(path, target)| Step::HardLink(path + "/h", target + "/f")),
        2 => path().prop_map(Step::Hide),
        1 => path().prop_map(|path| Step::Hide(path + "/f")),
        2 => path().prop_map(Step::Opaque),
    ]
}

fn check(
    node: &Node,
    runtime: &tokio::runtime::Runtime,
    layers: &[Vec<Step>],
) -> Result<bool, TestCaseError> {
    let mut model = Tree::from([(String::new(), made_up())]);
    for layer in layers {
        if apply(&mut model, layer).is_none() {
            return Ok(false);
        }
    }
    let tars: Vec<Tar> = layers.iter().map(|layer| tar(layer)).collect();
    let tars: Vec<&Tar> = tars.iter().collect();
    let image = runtime.block_on(node.images.import(layout_of("x.test/a:1", &tars)));
    let image = image.map_err(|error| {
        TestCaseError::fail(format!(
            "{error}: {:?}",
            std::error::Error::source(&error).map(ToString::to_string)
        ))
    })?;
    let root = node.root(&image[0]);
    let mut view = Tree::new();
    walk(&root.path("."), "", &mut view);
    prop_assert_eq!(&model, &view);
    Ok(true)
}

#[test]
fn the_merged_view_is_that_of_a_sequential_unpack() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let node = runtime.block_on(Node::new());
    let layers = prop::collection::vec(prop::collection::vec(step(), 0..7), 1..5);
    let config =
        ProptestConfig { cases: 150, failure_persistence: None, max_shrink_iters: 300, ..Default::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let compared = std::cell::Cell::new(0);
    runner
        .run(&layers, |layers| {
            if check(&node, &runtime, &layers)? {
                compared.set(compared.get() + 1);
            }
            Ok(())
        })
        .unwrap();
    assert!(compared.get() >= 50, "only {} images were comparable", compared.get());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hard_link_into_a_lower_layer_is_resolved_with_the_parents_in_view() {
    let node = Node::new().await;
    let lower = Tar::default().file("bin/busybox", "box").clone();
    let upper = Tar::default().link("bin/sh", b'1', "bin/busybox").file("etc/new", "n").clone();
    let image = node.images.import(layout_of("x.test/a:1", &[&lower, &upper])).await.unwrap().remove(0);
    let root = node.root(&image);
    assert_eq!((root.read("bin/sh"), root.read("etc/new")), ("box".into(), "n".into()));
    let inode = |path| std::fs::metadata(root.path(path)).unwrap().ino();
    assert_eq!(inode("bin/sh"), inode("bin/busybox"));
    // Again: both forms are known now.
    let again = node.images.import(layout_of("x.test/a:2", &[&lower, &upper])).await.unwrap().remove(0);
    assert_eq!((again.id == image.id, node.unpacked()), (false, 2));
    node.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn files_below_a_link_of_a_lower_layer_go_where_the_link_leads() {
    let node = Node::new().await;
    let lower =
        Tar::default().dir("usr/bin", 0o755).link("bin", b'2', "usr/bin").file("usr/bin/a", "a").clone();
    let upper = Tar::default().file("bin/b", "b").file("bin/.wh.a", "").clone();
    let alone = Tar::default().dir("bin", 0o700).clone();
    let image = node.images.import(layout_of("x.test/a:1", &[&lower, &upper])).await.unwrap().remove(0);
    let root = node.root(&image);
    assert_eq!((root.read("usr/bin/b"), root.read("bin/b")), ("b".into(), "b".into()));
    assert!(!root.path("usr/bin/a").exists());
    // The same layer elsewhere stands by itself.
    let image = node.images.import(layout_of("x.test/a:2", &[&alone, &upper])).await.unwrap().remove(0);
    let root = node.root(&image);
    assert_eq!(
        (root.read("bin/b"), std::fs::metadata(root.path("bin")).unwrap().mode() & 0o777),
        ("b".into(), 0o700)
    );
}
