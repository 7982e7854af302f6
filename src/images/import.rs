//! Images from an archive on disk: an OCI layout, or what `docker save` writes. What does not live here: the way from
//! a manifest to an image, which is that of a pull.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::BufReader;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::error::ImageError;
use super::image::Image;
use super::manifest::{CONFIG_MAX, Descriptor, MANIFEST_MAX};
use super::publish::Names;
use super::pull::Fetched;
use super::reference::Reference;
use super::source::{Origin, Source};
use super::{Images, Shared};
use crate::activity::{self, Verb};
use crate::drivers::layers::tar::{Kind, Reader};
use crate::ids::Digest;

/// Files of one archive.
const FILES_MAX: usize = 100_000;
/// Bytes of a name that anything in an archive refers to; they are kept in memory.
const NAME_MAX: usize = 512;
/// Where readers of OCI layouts look for a whole reference, best first.
const NAMES: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// Where each file of the archive is.
pub(super) struct Index {
    file: Arc<File>,
    files: HashMap<String, (u64, u64)>,
    links: HashMap<String, String>,
}

#[derive(Deserialize)]
struct Layout {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct SavedConfig {
    rootfs: SavedRootfs,
}

#[derive(Deserialize)]
struct SavedRootfs {
    diff_ids: Vec<Digest>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Blob<'a> {
    media_type: &'static str,
    size: u64,
    digest: &'a Digest,
}

/// An image in the archive.
pub(super) struct Found {
    top: Fetched,
    names: Names,
    blobs: Arc<HashMap<Digest, (u64, u64)>>,
}

impl Images {
    /// Every image of the archive that fits this machine. An archive with none is an error.
    pub async fn import(&self, archive: File) -> Result<Vec<Arc<Image>>, ImageError> {
        let shared = Arc::clone(&self.shared);
        let interrupted = || ImageError::Interrupted { image: "of the archive".into() };
        let import = async move {
            let read = tokio::task::spawn_blocking(move || {
                let index = Index::read(archive)?;
                let found = index.images()?;
                Ok((index.file, found))
            });
            let (file, found) = read.await.map_err(|_| interrupted())??;
            shared.import(file, found).await
        };
        let track = activity::track(Verb::ImportImage, "archive".into(), "", import);
        tokio::spawn(track).await.map_err(|_| interrupted())?
    }
}

impl Shared {
    async fn import(
        self: Arc<Self>,
        file: Arc<File>,
        found: Vec<Found>,
    ) -> Result<Vec<Arc<Image>>, ImageError> {
        let mut images = Vec::new();
        let mut foreign = None;
        for Found { top, names, blobs } in found {
            let name = names.tags.first().cloned().unwrap_or_else(|| top.digest.to_string());
            let source = Source {
                image: name.into(),
                origin: Origin::Archive(Arc::clone(&file), blobs),
                progress: Arc::default(),
            };
            match Arc::clone(&self).resolve(source, top, names).await {
                Ok(image) => images.push(image),
                Err(error @ ImageError::NoPlatform { .. }) => foreign = Some(error),
                Err(error) => return Err(error),
            }
        }
        match foreign {
            Some(error) if images.is_empty() => Err(error),
            _ => Ok(images),
        }
    }
}

/// Reads without the file's own position, which others may share.
struct FromStart<'a> {
    file: &'a File,
    offset: u64,
}

impl std::io::Read for FromStart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let len = self.file.read_at(buffer, self.offset)?;
        self.offset += len as u64;
        Ok(len)
    }
}

impl Index {
    pub(super) fn read(archive: File) -> Result<Self, ImageError> {
        let file = Arc::new(archive);
        let mut reader =
            Reader::new(BufReader::with_capacity(256 << 10, FromStart { file: &file, offset: 0 }));
        let mut index = Self { file: Arc::clone(&file), files: HashMap::new(), links: HashMap::new() };
        let failed = |error| ImageError::Archive(Arc::new(error));
        while let Some(entry) = reader.next_entry().map_err(failed)? {
            let Ok(path) = String::from_utf8(entry.path) else {
                continue;
            };
            let path = path.trim_start_matches("./").to_string();
            if path.len() > NAME_MAX || entry.link.len() > NAME_MAX {
                continue;
            }
            if index.files.len() + index.links.len() >= FILES_MAX {
                return Err(ImageError::ArchiveTooLarge(FILES_MAX));
            }
            match entry.kind {
                Kind::File if entry.sparse.is_some() => {}
                Kind::File => drop(index.files.insert(path, (reader.offset(), entry.size))),
                // Old archives name a layer that two images share by a link to the first.
                Kind::Symlink | Kind::HardLink => {
                    let target = String::from_utf8_lossy(&entry.link);
                    let target = target.trim_start_matches("../").trim_start_matches("./").to_string();
                    index.links.insert(path, target);
                }
                _ => {}
            }
        }
        Ok(index)
    }

    fn find(&self, path: &str) -> Result<(u64, u64), ImageError> {
        let target = self.links.get(path).map_or(path, String::as_str);
        self.files.get(target).copied().ok_or_else(|| ImageError::ArchiveLacks(path.into()))
    }

    fn small(&self, path: &str, limit: u64) -> Result<Vec<u8>, ImageError> {
        let (offset, len) = self.find(path)?;
        if len > limit {
            return Err(ImageError::ArchiveLacks(path.into()));
        }
        let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
        let read = self.file.read_exact_at(&mut bytes, offset);
        read.map_err(|error| ImageError::ReadArchive(Arc::new(error)))?;
        Ok(bytes)
    }

    fn parse<T: serde::de::DeserializeOwned>(&self, path: &str, bytes: &[u8]) -> Result<T, ImageError> {
        serde_json::from_slice(bytes).map_err(|error| {
            tracing::debug!(path, %error, "a file of the archive does not parse");
            ImageError::ArchiveLacks(path.into())
        })
    }

    pub(super) fn images(&self) -> Result<Vec<Found>, ImageError> {
        if self.files.contains_key("index.json") {
            return self.layout();
        }
        let saved: Vec<Saved> = self.parse("manifest.json", &self.small("manifest.json", MANIFEST_MAX)?)?;
        saved.iter().map(|saved| self.saved(saved)).collect()
    }

    fn layout(&self) -> Result<Vec<Found>, ImageError> {
        let layout: Layout = self.parse("index.json", &self.small("index.json", MANIFEST_MAX)?)?;
        let digest = |path: &str| {
            let digits = path.strip_prefix("blobs/sha256/")?;
            Digest::parse(&format!("sha256:{digits}")).ok()
        };
        let blobs =
            self.files.iter().filter_map(|(path, at)| digest(path).map(|digest| (digest, *at))).collect();
        let blobs: Arc<HashMap<Digest, (u64, u64)>> = Arc::new(blobs);
        let mut found = Vec::with_capacity(layout.manifests.len());
        for one in layout.manifests {
            let path = format!("blobs/sha256/{}", one.digest.digits());
            let bytes = self.small(&path, MANIFEST_MAX)?;
            let actual = Digest::of(&bytes);
            if actual != one.digest {
                return Err(ImageError::DigestMismatch { image: path, expected: one.digest, actual });
            }
            let annotations = one.annotations.unwrap_or_default();
            let name = NAMES.iter().find_map(|key| annotations.get(*key));
            let names = names(name.into_iter(), &one.digest);
            let top = Fetched { digest: one.digest, media_type: one.media_type, bytes };
            found.push(Found { top, names, blobs: Arc::clone(&blobs) });
        }
        Ok(found)
    }

    /// Such an archive has no manifest: it gets one, with the plain layers as its blobs.
    fn saved(&self, saved: &Saved) -> Result<Found, ImageError> {
        let bytes = self.small(&saved.config, CONFIG_MAX)?;
        let config: SavedConfig = self.parse(&saved.config, &bytes)?;
        let id = Digest::of(&bytes);
        let mut blobs = HashMap::from([(id.clone(), self.find(&saved.config)?)]);
        let mut layers = Vec::with_capacity(saved.layers.len());
        for (path, diff_id) in saved.layers.iter().zip(&config.rootfs.diff_ids) {
            let at = self.find(path)?;
            blobs.insert(diff_id.clone(), at);
            let media_type = "application/vnd.docker.image.rootfs.diff.tar";
            layers.push(Blob { media_type, size: at.1, digest: diff_id });
        }
        let media_type = "application/vnd.docker.distribution.manifest.v2+json";
        let config = Blob {
            media_type: "application/vnd.docker.container.image.v1+json",
            size: bytes.len() as u64,
            digest: &id,
        };
        let manifest =
            json!({ "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers });
        let bytes = manifest.to_string().into_bytes();
        let digest = Digest::of(&bytes);
        let names = names(saved.repo_tags.iter().flatten(), &digest);
        let top = Fetched { digest, media_type: media_type.to_string(), bytes };
        Ok(Found { top, names, blobs: Arc::new(blobs) })
    }
}

/// A bare tag, as some layouts have, names nothing: the image can be found by its id.
fn names<'a>(texts: impl Iterator<Item = &'a String>, digest: &Digest) -> Names {
    let whole = texts.filter(|text| text.contains(['/', ':']));
    let references: Vec<_> = whole.filter_map(|text| Reference::parse(text).ok()).collect();
    let tags: BTreeSet<_> = references.iter().filter_map(Reference::tagged).collect();
    let digests = references.iter().map(|reference| reference.digested(digest)).collect();
    Names { tags, digests }
}
