//! Layers are shared, kept across restarts, and removed when nobody uses them.

use super::archive::{Blob, Tar, layout, layout_of};
use super::*;

fn base() -> Tar {
    Tar::default().dir("./", 0o755).dir("tmp/", 0o1777).file("etc/os", "base").clone()
}

fn top(text: &str) -> Tar {
    Tar::default().file("app", text).file("tmp/x", text).clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn images_that_share_layers_unpack_each_once() {
    let node = Node::new().await;
    let base = base();
    let tops: Vec<_> = (0..4).map(|n| top(&n.to_string())).collect();
    let archives = tops.iter().enumerate().map(|(n, top)| layout_of(&format!("x.test/a:{n}"), &[&base, top]));
    let pulls =
        archives.flat_map(|file| [file.try_clone().unwrap(), file]).map(|file| node.images.import(file));
    for images in futures_util::future::join_all(pulls).await {
        assert_eq!(images.unwrap().len(), 1);
    }
    assert_eq!(node.images.list().len(), 4);
    assert_eq!(node.unpacked(), 5);
    node.assert_clean();
    let image = node.images.find("x.test/a:3").unwrap();
    let root = node.root(&image);
    assert_eq!((root.read("app"), root.read("etc/os")), ("3".into(), "base".into()));
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(root.path("tmp")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o1777, "an implied directory keeps the mode of the layer below");
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_found_by_id_prefix_tag_and_digest() {
    let node = Node::new().await;
    let image = node.images.import(layout_of("x.test/a:1", &[&base()])).await.unwrap().remove(0);
    let digest = image.digests.first().unwrap();
    for name in [image.id.as_str(), image.id.digits(), &image.id.digits()[..12], "x.test/a:1", digest] {
        assert_eq!(node.images.find(name).unwrap().id, image.id, "{name}");
    }
    for name in ["", "x.test/a", "x.test/a:2", &image.id.digits()[..11], "sha256:", "sha256:zz", "../x"] {
        assert!(node.images.find(name).is_none(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_images_and_clears_what_was_unfinished() {
    let node = Node::new().await;
    let image = node.images.import(layout_of("x.test/a:1", &[&base(), &top("1")])).await.unwrap().remove(0);
    let usage = node.images.usage();
    assert!(usage.bytes >= image.size && usage.inodes > 5, "{usage:?} {}", image.size);
    let leftovers =
        [node.layout.staged("half"), node.layout.layer(&Digest::of(b"unknown")), node.layout.trashed("x")];
    for path in &leftovers {
        std::fs::create_dir_all(path.join("deep/er")).unwrap();
    }
    let node = node.restart().await;
    assert_eq!(node.images.list(), std::slice::from_ref(&image));
    assert_eq!(node.images.usage(), usage);
    assert!(!leftovers[0].exists() && !leftovers[1].exists());
    node.assert_clean();
    assert_eq!(node.root(&image).read("app"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_layer_takes_only_its_images_with_it() {
    let node = Node::new().await;
    let good = node.images.import(layout_of("x.test/good:1", &[&base()])).await.unwrap().remove(0);
    let bad = node.images.import(layout_of("x.test/bad:1", &[&base(), &top("1")])).await.unwrap().remove(0);
    std::fs::remove_dir_all(node.layout.layer(&bad.layers[1])).unwrap();
    let node = node.restart().await;
    assert_eq!(node.images.list(), [good]);
    node.images.import(layout_of("x.test/bad:1", &[&base(), &top("1")])).await.unwrap();
    assert_eq!(node.root(&node.images.find("x.test/bad:1").unwrap()).read("app"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_image_took_of_the_disk_is_free_when_its_removal_returns() {
    let node = Node::new().await;
    let many = (0..500).fold(Tar::default(), |mut tar, n| tar.file(&format!("file{n}"), "text").clone());
    node.images.import(layout_of("x.test/a:1", &[&base(), &many])).await.unwrap();
    node.images.remove("x.test/a:1").await.unwrap();
    assert_eq!(std::fs::read_dir(node.layout.trash()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_image_is_gone_at_once_and_its_held_layers_stay() {
    let node = Node::new().await;
    let one = node.images.import(layout_of("x.test/a:1", &[&base(), &top("1")])).await.unwrap().remove(0);
    let two = node.images.import(layout_of("x.test/a:2", &[&base(), &top("2")])).await.unwrap().remove(0);
    let hold = node.images.hold(&one.id).unwrap();
    node.images.remove("x.test/a:1").await.unwrap();
    node.images.remove("x.test/a:1").await.unwrap();
    assert_eq!(node.images.list(), std::slice::from_ref(&two));
    assert_eq!(node.root(&one).read("app"), "1");
    // A new daemon learns from its containers what is in use, before it collects.
    std::mem::forget(hold);
    let node = node.restart().await;
    let hold = node.images.hold(&one.id).unwrap();
    node.images.collect().await.unwrap();
    assert_eq!(node.images.list(), std::slice::from_ref(&two));
    assert_eq!(node.root(&one).read("app"), "1");
    drop(hold);
    for _ in 0..100 {
        if !node.layout.layer(&one.layers[1]).exists() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(!node.layout.layer(&one.layers[1]).exists());
    assert_eq!(node.root(&two).read("app"), "2");
    assert!(node.images.hold(&one.id).is_none());
    node.images.remove(two.id.as_str()).await.unwrap();
    assert_eq!(node.images.usage(), Usage::default());
    node.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_moves_to_the_image_pulled_last() {
    let node = Node::new().await;
    let old = node.images.import(layout_of("x.test/a:1", &[&top("old")])).await.unwrap().remove(0);
    let new = node.images.import(layout_of("x.test/a:1", &[&top("new")])).await.unwrap().remove(0);
    assert_eq!(node.images.find("x.test/a:1").unwrap().id, new.id);
    let old = node.images.find(old.id.as_str()).unwrap();
    assert!(old.tags.is_empty() && !old.digests.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_about_itself_is_refused_by_name_and_leaves_nothing() {
    let node = Node::new().await;
    let good = Blob::of(&base());
    let other = Blob::of(&top("x"));
    let wrong_bytes = Blob { bytes: other.bytes.clone(), size: other.size, ..good.clone() };
    let wrong_size = Blob { size: good.size + 1, ..good.clone() };
    let wrong_diff_id = Blob { diff_id: other.diff_id.clone(), ..good.clone() };
    let cut = good.bytes[..good.bytes.len() / 2].to_vec();
    let cut =
        Blob { digest: Digest::of(&cut), size: cut.len() as u64, bytes: cut, diff_id: good.diff_id.clone() };
    for (bad, expected) in [
        (&wrong_bytes, good.digest.as_str()),
        (&wrong_size, "bytes, not"),
        (&wrong_diff_id, other.diff_id.as_str()),
        (&cut, cut.digest.as_str()),
    ] {
        let error = node.images.import(layout("x.test/bad:1", std::slice::from_ref(bad))).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(node.images.list().is_empty());
        assert_eq!(node.images.usage(), Usage::default());
        node.assert_clean();
    }
    node.images.import(layout("x.test/good:1", &[good])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_may_stand_twice_in_an_image() {
    let node = Node::new().await;
    let (empty, hides) = (Tar::default(), Tar::default().file(".wh.app", "").clone());
    let layers = [&base(), &empty, &top("1"), &hides, &empty, &top("1")];
    let image = node.images.import(layout_of("x.test/a:1", &layers)).await.unwrap().remove(0);
    assert_eq!((node.root(&image).read("app"), node.unpacked()), ("1".into(), 4));
}
