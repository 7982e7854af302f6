//! Artifacts end to end: an archive in, a directory of files out.

use std::fs::File;
use std::io::{Seek, Write};

use super::archive::{Tar, head};
use super::*;

/// An OCI layout with one artifact, and the digest of its manifest.
fn archive(files: &[(&str, &[u8])]) -> (File, Digest) {
    let blob = |(title, content): &(&str, &[u8])| {
        serde_json::json!({
            "mediaType": "application/octet-stream", "digest": Digest::of(content), "size": content.len(),
            "annotations": { "org.opencontainers.image.title": title },
        })
    };
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "text/x",
        "config": { "mediaType": "application/vnd.oci.empty.v1+json", "digest": Digest::of(b"{}"), "size": 2 },
        "layers": files.iter().map(blob).collect::<Vec<_>>(),
    });
    let manifest = manifest.to_string().into_bytes();
    let digest = Digest::of(&manifest);
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": manifest.len(),
        "annotations": { "org.opencontainers.image.ref.name": "x/model:1" },
    }]});
    let mut tar = Tar::default();
    tar.add(&head("index.json", b'0'), index.to_string().as_bytes());
    tar.add(&head(&format!("blobs/sha256/{}", digest.digits()), b'0'), &manifest);
    for (_, content) in files {
        tar.add(&head(&format!("blobs/sha256/{}", Digest::of(content).digits()), b'0'), content);
    }
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&tar.bytes()).unwrap();
    file.rewind().unwrap();
    (file, digest)
}

fn volume(node: &Node, image: &Image) -> Root {
    Root(
        node.images
            .shared
            .layers
            .volume(&image.layers, None, crate::drivers::layers::View::default())
            .unwrap(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_is_a_directory_of_files_over_a_restart_until_it_is_removed() {
    let node = Node::new().await;
    let (file, digest) = archive(&[("one", b"first"), ("two", b""), ("three", &[7; 300_000])]);
    let image = node.images.import(file).await.unwrap().remove(0);
    assert_eq!((&image.id, &image.manifest, image.artifact.as_deref()), (&digest, &digest, Some("text/x")));
    assert!(image.size > 300_000 && node.images.usage().bytes >= image.size, "{image:?}");
    let node = node.restart().await;
    assert_eq!(node.images.find("x/model:1").as_deref(), Some(&*image));
    assert_eq!(node.images.find(image.id.as_str()).as_deref(), Some(&*image));
    let root = volume(&node, &image);
    assert_eq!(
        (root.read("one"), root.read("two"), root.read("three").len()),
        ("first".into(), "".into(), 300_000)
    );
    node.assert_clean();

    // Held, as by a container: the files stay although the image is gone.
    let hold = node.images.hold(&image.id).unwrap();
    node.images.remove("x/model:1").await.unwrap();
    assert!(node.images.find(image.id.as_str()).is_none());
    assert_eq!(volume(&node, &image).read("one"), "first");
    // And come back whole with the next pull.
    let (file, _) = archive(&[("one", b"first"), ("two", b""), ("three", &[7; 300_000])]);
    assert_eq!(node.images.import(file).await.unwrap()[0].id, digest);
    drop(hold);
    node.images.remove(digest.as_str()).await.unwrap();
    assert_eq!(node.images.shared.catalog().layers().count(), 0);
    node.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_with_a_bad_file_leaves_nothing() {
    let node = Node::new().await;
    for files in [&[("a/b", &b"x"[..])][..], &[("..", b"x")], &[("same", b"x"), ("same", b"y")]] {
        let error = node.images.import(archive(files).0).await.unwrap_err();
        assert!(matches!(error, ImageError::BadManifest { .. }), "{error}");
    }
    let full = archive(&[("one", b"first"), ("two", b"second")]).0;
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut &full, &mut bytes).unwrap();
    let at = bytes.windows(6).position(|window| window == b"second").unwrap();
    bytes[at] = b'S';
    let mut damaged = tempfile::tempfile().unwrap();
    damaged.write_all(&bytes).unwrap();
    damaged.rewind().unwrap();
    let error = node.images.import(damaged).await.unwrap_err();
    assert!(matches!(error, ImageError::DigestMismatch { .. }), "{error}");
    assert!(node.images.list().is_empty());
    node.assert_clean();
}
