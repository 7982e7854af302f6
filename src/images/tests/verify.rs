//! What the disk no longer has as it was written is found, leaves, and comes back with the next pull.

use std::os::unix::fs::FileExt;

use super::archive::{Tar, layout_of};
use super::*;

fn tar(text: &str) -> Tar {
    Tar::default().dir("./", 0o755).file("etc/text", text).file("other", "other").clone()
}

async fn verify(node: &Node, names: &[String]) -> Vec<Verified> {
    let (tell, mut found) = tokio::sync::mpsc::channel(1);
    let (images, names) = (node.images.clone(), names.to_vec());
    let verify = tokio::spawn(async move { images.verify(&names, tell).await });
    let mut all = Vec::new();
    while let Some(one) = found.recv().await {
        all.push(one);
    }
    verify.await.unwrap().unwrap();
    all
}

fn damaged(found: &[Verified]) -> Vec<&Verified> {
    found.iter().filter(|one| one.state != State::Whole).collect()
}

/// Turns a bit of a layer's file, and its time back.
fn flip(node: &Node, layer: &Digest, file: &str) {
    let path = node.layout.layer(layer).join(file);
    let time = std::fs::metadata(&path).unwrap().modified().unwrap();
    let open = std::fs::File::options().read(true).write(true).open(&path).unwrap();
    let mut byte = [0];
    open.read_exact_at(&mut byte, 2).unwrap();
    open.write_all_at(&[byte[0] ^ 4], 2).unwrap();
    open.set_modified(time).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_layer_leaves_with_its_images_and_comes_back() {
    let node = Node::new().await;
    let base = tar("shared");
    let good = node.images.import(layout_of("x.test/good:1", &[&base])).await.unwrap().remove(0);
    let bad = node.images.import(layout_of("x.test/bad:1", &[&base, &tar("mine")])).await.unwrap().remove(0);
    let whole = verify(&node, &[]).await;
    assert_eq!(damaged(&whole), Vec::<&Verified>::new());
    assert_eq!(whole.iter().filter(|one| one.part == Part::Layer).count(), node.images.layer_count());
    flip(&node, &bad.layers[1], "etc/text");
    assert!(damaged(&verify(&node, &["x.test/good:1".into()]).await).is_empty());

    let hold = node.images.hold(&bad.id).unwrap();
    let found = verify(&node, &["x.test/bad:1".into()]).await;
    let found = damaged(&found);
    assert_eq!((found.len(), &found[0].id, found[0].part), (1, &bad.layers[1], Part::Layer));
    assert_eq!(found[0].images, ["x.test/bad:1"]);
    assert!(matches!(&found[0].state, State::Damaged(problem) if problem.contains("not what was unpacked")));
    assert_eq!(node.images.list(), std::slice::from_ref(&good));
    assert!(!node.layout.layer(&bad.layers[1]).exists());
    let quarantined = || std::fs::read_dir(node.layout.quarantine()).unwrap().count();
    node.images.collect().await.unwrap();
    assert_eq!(quarantined(), 1, "who runs on it keeps it");

    let again =
        node.images.import(layout_of("x.test/bad:1", &[&base, &tar("mine")])).await.unwrap().remove(0);
    assert_eq!((&again.id, &again.layers), (&bad.id, &bad.layers));
    assert_eq!(node.root(&again).read("etc/text"), "mine");
    assert!(damaged(&verify(&node, &[]).await).is_empty());
    assert_eq!(quarantined(), 1, "who runs on it keeps it");
    drop(hold);
    for _ in 0..100 {
        if quarantined() == 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(quarantined(), 0);
    node.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_files_and_records_loses_an_image_and_not_what_others_run_on() {
    let node = Node::new().await;
    let image =
        node.images.import(layout_of("x.test/a:1", &[&tar("low"), &tar("high")])).await.unwrap().remove(0);
    // Quarantined, and no record tells.
    node.images.shared.layers.quarantine(&image.layers[1]).unwrap();
    let node = node.restart().await;
    assert!(node.images.list().is_empty());
    let hold = node.images.hold(&image.id).unwrap();
    node.images.collect().await.unwrap();
    assert!(node.layout.layer(&image.layers[0]).exists(), "a container still runs on it");
    assert_eq!(std::fs::read_dir(node.layout.quarantine()).unwrap().count(), 1);
    drop(hold);
    node.images.collect().await.unwrap();
    assert!(!node.layout.layer(&image.layers[0]).exists());
    assert_eq!(std::fs::read_dir(node.layout.quarantine()).unwrap().count(), 0);
    node.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_told_before_it_goes_and_work_under_way_is_none() {
    let node = Node::new().await;
    let image = node.images.import(layout_of("x.test/a:1", &[&tar("a")])).await.unwrap().remove(0);
    assert!(node.images.gc(true).await.unwrap().is_empty());
    let growing = node.images.shared.layers.files().unwrap();
    let half = node.layout.staged("half");
    std::fs::create_dir(&half).unwrap();
    std::fs::write(half.join("data"), vec![1; 10_000]).unwrap();
    std::fs::write(node.layout.blob(&Digest::of(b"nobody's")), "12345").unwrap();
    let layers = &node.images.shared.layers;
    let spool = |blob: &[u8]| layers.spool(&Digest::of(blob), true).unwrap().unwrap();
    let mut arriving = spool(b"arriving");
    for part in [&mut arriving, &mut spool(b"cut short")] {
        assert!(part.add(&[vec![2; 777].into()]).unwrap());
    }
    let told = node.images.gc(true).await.unwrap();
    assert!(half.exists());
    let before = node.images.usage().bytes;
    let mut freed = node.images.gc(false).await.unwrap();
    assert_eq!(told, freed);
    assert_eq!(before - node.images.usage().bytes, 777);
    let spooled = freed.pop().unwrap();
    assert_eq!((spooled.what, spooled.name), (What::Spool, Digest::of(b"cut short").to_string()));
    assert!(freed.iter().all(|one| one.what == What::Unfinished), "{freed:?}");
    assert_eq!(freed.iter().map(|one| one.name == "half").filter(|half| *half).count(), 1, "{freed:?}");
    assert_eq!(freed.len(), 2);
    assert!(freed.iter().map(|one| one.bytes).sum::<u64>() > 10_000);
    assert!(!half.exists() && std::fs::read_dir(node.layout.trash()).unwrap().count() == 0);
    assert_eq!(node.images.list(), [image]);
    arriving.discard();
    drop(growing);
    node.assert_clean();
}
