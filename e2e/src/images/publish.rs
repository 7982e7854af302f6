//! Puts built images where runtimes find them: into the storage of a registry (the files that docker-registry keeps,
//! so no login and no check stands between a test and a broken image), and into archives for `image import`.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;

use super::{Blob, Built, Source};

/// The storage directory of a docker-registry.
#[derive(Clone, Debug)]
pub struct Storage {
    root: PathBuf,
}

impl Storage {
    /// `directory` is the registry's `rootdirectory`.
    pub fn new(directory: &Path) -> Self {
        Self { root: directory.join("docker/registry/v2") }
    }

    /// Stores a whole image and points a tag at it.
    pub fn publish(&self, repository: &str, tag: &str, image: &Built) -> Result<()> {
        self.publish_untagged(repository, image)?;
        self.tag(repository, tag, &image.manifest)
    }

    /// Stores a whole image, to be named by digest or by an index.
    pub fn publish_untagged(&self, repository: &str, image: &Built) -> Result<()> {
        for blob in &image.blobs {
            self.put_blob(repository, blob)?;
        }
        self.put_manifest(repository, &image.manifest)
    }

    /// Stores a manifest or index; its content needs not be true.
    pub fn put_manifest(&self, repository: &str, manifest: &Blob) -> Result<()> {
        self.write_content(manifest)?;
        self.link(repository, "_manifests/revisions", &manifest.digest)
    }

    /// Points a tag at a manifest or index that is stored.
    pub fn tag(&self, repository: &str, tag: &str, manifest: &Blob) -> Result<()> {
        self.put_manifest(repository, manifest)?;
        let tags = format!("_manifests/tags/{tag}");
        self.link(repository, &format!("{tags}/index"), &manifest.digest)?;
        let current = self.root.join("repositories").join(repository).join(&tags).join("current");
        write(&current.join("link"), manifest.digest.as_bytes())
    }

    /// Stores a blob under the digest that it claims, whether or not that is true.
    pub fn put_blob(&self, repository: &str, blob: &Blob) -> Result<()> {
        self.write_content(blob)?;
        self.link(repository, "_layers", &blob.digest)
    }

    /// Where a blob's content is, for tests that remove or damage it.
    pub fn blob_path(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        self.root.join("blobs/sha256").join(&hex[..2]).join(hex).join("data")
    }

    fn write_content(&self, blob: &Blob) -> Result<()> {
        let path = self.blob_path(&blob.digest);
        match &blob.source {
            _ if path.exists() => Ok(()),
            Source::Bytes(bytes) => write(&path, bytes),
            Source::File(file) => {
                make_parent(&path)?;
                fs::hard_link(file, &path).or_else(|_| fs::copy(file, &path).map(drop))?;
                Ok(())
            }
        }
    }

    fn link(&self, repository: &str, kind: &str, digest: &str) -> Result<()> {
        let hex = digest.trim_start_matches("sha256:");
        let directory = self.root.join("repositories").join(repository).join(kind).join("sha256").join(hex);
        write(&directory.join("link"), digest.as_bytes())
    }
}

/// Writes by rename: a registry that serves at the same time never reads half a file.
fn write(path: &Path, content: &[u8]) -> Result<()> {
    make_parent(path)?;
    let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new("/")))?;
    file.write_all(content)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(mode)?;
    file.persist(path).with_context(|| format!("write {}", path.display()))?;
    Ok(())
}

fn make_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))
}

/// Writes an OCI layout as a tar, the image named by `reference`.
pub fn oci_archive(image: &Built, reference: &str, out: impl Write) -> Result<()> {
    let mut tar = tar::Builder::new(out);
    let mut descriptor = image.manifest.descriptor();
    descriptor["annotations"] = json!({
        "org.opencontainers.image.ref.name": reference.rsplit_once(':').map_or(reference, |(_, tag)| tag),
        "io.containerd.image.name": reference,
    });
    let index = json!({ "schemaVersion": 2, "manifests": [descriptor] });
    add(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    add(&mut tar, "index.json", &serde_json::to_vec(&index)?)?;
    for blob in image.blobs.iter().chain([&image.manifest]) {
        let mut content = Vec::new();
        io::copy(&mut blob.source.open()?, &mut content)?;
        add(&mut tar, &format!("blobs/{}", blob.digest.replace(':', "/")), &content)?;
    }
    tar.finish()?;
    Ok(())
}

/// Writes what `docker save` writes: manifest.json, the config, and each layer's tar. Layers must be unpacked
/// (`Compression::None`).
pub fn docker_archive(image: &Built, reference: &str, out: impl Write) -> Result<()> {
    let mut tar = tar::Builder::new(out);
    let Some((config, layers)) = image.blobs.split_last() else { anyhow::bail!("an image without a config") };
    let hex = |blob: &Blob| blob.digest.trim_start_matches("sha256:").to_owned();
    let names: Vec<_> = layers.iter().map(|layer| format!("{}/layer.tar", hex(layer))).collect();
    for (layer, name) in layers.iter().zip(&names) {
        let mut content = Vec::new();
        io::copy(&mut layer.source.open()?, &mut content)?;
        add(&mut tar, name, &content)?;
    }
    let config_name = format!("{}.json", hex(config));
    let mut content = Vec::new();
    io::copy(&mut config.source.open()?, &mut content)?;
    add(&mut tar, &config_name, &content)?;
    let manifest = json!([{ "Config": config_name, "RepoTags": [reference], "Layers": names }]);
    add(&mut tar, "manifest.json", &serde_json::to_vec(&manifest)?)?;
    tar.finish()?;
    Ok(())
}

fn add(tar: &mut tar::Builder<impl Write>, name: &str, content: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, name, content).with_context(|| format!("archive entry {name}"))?;
    Ok(())
}
