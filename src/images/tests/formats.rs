//! Layers as other tools pack them: whatever is behind the compression, a layer is its tar.

use std::io::Write;

use super::archive::{Blob, Tar, gzip, layout};
use super::*;

fn blob(bytes: Vec<u8>, plain: &[u8]) -> Blob {
    Blob { digest: Digest::of(&bytes), size: bytes.len() as u64, diff_id: Digest::of(plain), bytes }
}

/// Each entry's part of a tar, and the end of the archive.
fn parts(files: &[(&str, &str)]) -> (Vec<Vec<u8>>, Vec<u8>) {
    let part = |(path, text): &(&str, &str)| {
        let whole = Tar::default().file(path, text).bytes();
        whole[..whole.len() - 1024].to_vec()
    };
    (files.iter().map(part).collect(), vec![0; 1024])
}

/// eStargz: a gzip member for each file, one for the table of contents, which is a file of the tar, and an empty one
/// whose extra field says where that begins.
fn estargz(files: &[(&str, &str)]) -> Blob {
    let toc = r#"{"version":1,"entries":[]}"#;
    let (mut members, end) = parts(files);
    let (index, _) = parts(&[("stargz.index.json", toc)]);
    members.push([index.concat(), end].concat());
    let mut bytes = Vec::new();
    let mut toc_at = 0;
    for member in &members {
        toc_at = bytes.len();
        bytes.extend(gzip(member));
    }
    let mut extra = vec![b'S', b'G', 22, 0];
    extra.extend(format!("{toc_at:016x}STARGZ").bytes());
    let footer = flate2::GzBuilder::new().extra(extra).write(Vec::new(), flate2::Compression::none());
    bytes.extend(footer.finish().unwrap());
    blob(bytes, &members.concat())
}

/// zstd:chunked: a frame for each file, and frames that decoders skip: the manifest and the footer.
fn zstd_chunked(files: &[(&str, &str)]) -> Blob {
    let (mut frames, end) = parts(files);
    frames.push(end);
    let mut bytes: Vec<u8> =
        frames.iter().flat_map(|frame| zstd::encode_all(frame.as_slice(), 3).unwrap()).collect();
    let manifest = zstd::encode_all(&br#"{"version":1,"entries":[]}"#[..], 3).unwrap();
    let mut skipped = |content: &[u8]| {
        bytes.write_all(&0x184d_2a50_u32.to_le_bytes()).unwrap();
        bytes.write_all(&u32::try_from(content.len()).unwrap().to_le_bytes()).unwrap();
        bytes.write_all(content).unwrap();
    };
    skipped(&manifest);
    skipped(&[[0; 56].as_slice(), b"GNUlInUx"].concat());
    blob(bytes, &frames.concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_made_for_lazy_pulling_are_ordinary_layers() {
    let node = Node::new().await;
    let files = [("etc/os", "base"), ("bin/app", "program"), ("empty", "")];
    for (name, layer) in [("stargz", estargz(&files)), ("chunked", zstd_chunked(&files))] {
        let top = Blob::of(Tar::default().file("top", name));
        let image =
            node.images.import(layout(&format!("x.test/{name}:1"), &[layer, top])).await.unwrap().remove(0);
        let root = node.root(&image);
        for (path, text) in files.into_iter().chain([("top", name)]) {
            assert_eq!(root.read(path), text, "{name}");
        }
        // What is in the tar is in the layer.
        assert_eq!(root.path("stargz.index.json").exists(), name == "stargz");
    }
    node.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_of_nothing_are_layers() {
    let node = Node::new().await;
    let base = Blob::of(Tar::default().file("app", "x"));
    let nothing = blob(Vec::new(), b"");
    let packed_nothing = blob(gzip(b""), b"");
    let end_only = Blob::of(&Tar::default());
    for (name, layers) in [
        ("middle", vec![nothing.clone(), base.clone(), packed_nothing, end_only.clone()]),
        ("top", vec![base, nothing.clone()]),
    ] {
        let image = node.images.import(layout(&format!("x.test/{name}:1"), &layers)).await.unwrap().remove(0);
        assert_eq!(node.root(&image).read("app"), "x", "{name}");
    }
    for (name, layer) in [("nothing", nothing), ("end", end_only)] {
        let image =
            node.images.import(layout(&format!("x.test/{name}:1"), &[layer])).await.unwrap().remove(0);
        assert_eq!(std::fs::read_dir(node.root(&image).path("")).unwrap().count(), 0, "{name}");
    }
    node.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_without_layers_is_an_empty_root() {
    let node = Node::new().await;
    let image = node.images.import(layout("x.test/none:1", &[])).await.unwrap().remove(0);
    let root = node.root(&image);
    assert_eq!(std::fs::read_dir(root.path("")).unwrap().count(), 0);
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(root.path("")).unwrap().permissions().mode() & 0o7777, 0o755);
    std::fs::write(root.path("new"), "x").unwrap();
    assert_eq!(root.read("new"), "x");
    node.images.remove("x.test/none:1").await.unwrap();
    assert_eq!(node.images.usage(), Usage::default());
}

/// A blob is what its own image says, however another one calls its content.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_two_images_name_is_each_ones_own_diff_id() {
    let honest = Blob::of(Tar::default().file("app", "x"));
    let liar = Blob { diff_id: Digest::of(b"something else"), ..honest.clone() };
    let good = || layout("x.test/good:1", std::slice::from_ref(&honest));
    let bad = || layout("x.test/bad:1", std::slice::from_ref(&liar));
    for good_first in [true, false] {
        let node = Node::new().await;
        let (good, bad) = match good_first {
            true => {
                let good = node.images.import(good()).await;
                (good, node.images.import(bad()).await)
            }
            false => {
                let bad = node.images.import(bad()).await;
                (node.images.import(good()).await, bad)
            }
        };
        assert!(matches!(bad, Err(ImageError::DiffIdMismatch { .. })), "{bad:?}");
        assert_eq!(node.root(&good.unwrap().remove(0)).read("app"), "x");
        node.assert_clean();
    }
    let node = Node::new().await;
    let (good, bad) = tokio::join!(node.images.import(good()), node.images.import(bad()));
    assert!(good.is_ok() && bad.is_err());
    assert_eq!(node.images.list().len(), 1);
    node.assert_clean();
}
