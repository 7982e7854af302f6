//! One layer: entries in order, written as a tar, compressed, with both digests. The same entries always make the
//! same bytes.

use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result};
use sha2::Digest as _;

use super::{Blob, Format, Source};

/// How a layer's tar is packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Plain tar.
    None,
    /// gzip, level 6.
    #[default]
    Gzip,
    /// zstd, level 3.
    Zstd,
}

impl Compression {
    pub(super) fn media_type(self, format: Format) -> &'static str {
        match (format, self) {
            (Format::Oci, Self::None) => "application/vnd.oci.image.layer.v1.tar",
            (Format::Oci, Self::Gzip) => "application/vnd.oci.image.layer.v1.tar+gzip",
            (Format::Oci, Self::Zstd) => "application/vnd.oci.image.layer.v1.tar+zstd",
            (Format::Docker, Self::None) => "application/vnd.docker.image.rootfs.diff.tar",
            (Format::Docker, Self::Gzip) => "application/vnd.docker.image.rootfs.diff.tar.gzip",
            (Format::Docker, Self::Zstd) => "application/vnd.docker.image.rootfs.diff.tar.zstd",
        }
    }
}

/// What is at a path.
#[derive(Clone, Debug)]
pub enum Node {
    /// A directory.
    Dir,
    /// A file with this content.
    File(Vec<u8>),
    /// A symbolic link to this target.
    Symlink(String),
    /// A hard link to an earlier path.
    Hardlink(String),
    /// A character device: major, minor.
    Char(u32, u32),
    /// A named pipe.
    Fifo,
}

/// One entry of the tar.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Relative, without a leading slash.
    pub path: String,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Content.
    pub node: Node,
}

/// A layer to be built.
#[derive(Clone, Debug, Default)]
pub struct Layer {
    /// In the tar's order.
    pub entries: Vec<Entry>,
    /// How the tar is packed.
    pub compression: Compression,
    /// Under which name the packed layer is in the cache, if it is one that many need.
    kept: Option<String>,
}

/// A layer that is built.
#[derive(Clone, Debug)]
pub struct Compressed {
    /// Its blob; the media type is set when the manifest is made.
    pub blob: Blob,
    /// `sha256:HEX` of the plain tar.
    pub diff_id: String,
    /// How it is packed.
    pub compression: Compression,
}

impl Layer {
    /// Adds an entry owned by root.
    #[must_use]
    pub fn add(mut self, path: &str, mode: u32, node: Node) -> Self {
        self.push(Entry { path: path.into(), mode, uid: 0, gid: 0, node });
        self
    }

    /// Adds an entry.
    pub fn push(&mut self, entry: Entry) {
        self.kept = None;
        self.entries.push(entry);
    }

    /// Adds a directory of mode 0755.
    #[must_use]
    pub fn dir(self, path: &str) -> Self {
        self.add(path, 0o755, Node::Dir)
    }

    /// Adds a file.
    #[must_use]
    pub fn file(self, path: &str, mode: u32, content: impl Into<Vec<u8>>) -> Self {
        self.add(path, mode, Node::File(content.into()))
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.add(path, 0o777, Node::Symlink(target.into()))
    }

    /// Adds a hard link to a path that is in the layer already.
    #[must_use]
    pub fn hardlink(self, path: &str, target: &str) -> Self {
        self.add(path, 0o755, Node::Hardlink(target.into()))
    }

    /// Deletes what the layers below have at a path.
    #[must_use]
    pub fn whiteout(self, path: &str) -> Self {
        let marker = match path.rsplit_once('/') {
            Some((dir, name)) => format!("{dir}/.wh.{name}"),
            None => format!(".wh.{path}"),
        };
        self.file(&marker, 0o644, "")
    }

    /// Hides what the layers below have in a directory.
    #[must_use]
    pub fn opaque(self, dir: &str) -> Self {
        self.file(&format!("{dir}/.wh..wh..opq"), 0o644, "")
    }

    /// Chooses how the tar is packed.
    #[must_use]
    pub fn packed(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Says that the layer is always the same, so that it is packed only once. The last word: what is added later takes it back.
    #[must_use]
    pub(super) fn kept(mut self, name: &str) -> Self {
        self.kept = Some(name.to_owned());
        self
    }

    /// Packs the layer into memory, or takes it from the cache.
    pub fn compress(&self) -> Result<Compressed> {
        match &self.kept {
            Some(name) => super::keep::compressed(name, self),
            None => self.pack(),
        }
    }

    pub(super) fn pack(&self) -> Result<Compressed> {
        let mut writer = LayerWriter::new(Vec::new(), self.compression)?;
        for entry in &self.entries {
            writer.append(entry).with_context(|| format!("layer entry {}", entry.path))?;
        }
        let (bytes, digest, size, diff_id) = writer.finish()?;
        let blob = Blob { digest, size, media_type: String::new(), source: Source::Bytes(bytes) };
        Ok(Compressed { blob, diff_id, compression: self.compression })
    }
}

/// Writes a layer whose entries do not fit in memory together.
pub struct LayerWriter<W: Write> {
    tar: tar::Builder<Hashing<Packer<Hashing<W>>>>,
    compression: Compression,
}

impl<W: Write> LayerWriter<W> {
    /// Packs into `out`.
    pub fn new(out: W, compression: Compression) -> Result<Self> {
        let packer = Packer::new(Hashing::new(out), compression)?;
        Ok(Self { tar: tar::Builder::new(Hashing::new(packer)), compression })
    }

    /// Writes one entry.
    pub fn append(&mut self, entry: &Entry) -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_mode(entry.mode);
        header.set_uid(entry.uid);
        header.set_gid(entry.gid);
        header.set_mtime(1_767_225_600);
        header.set_size(0);
        let path = Path::new(&entry.path);
        match &entry.node {
            Node::File(content) => {
                header.set_entry_type(tar::EntryType::Regular);
                header.set_size(content.len() as u64);
                self.tar.append_data(&mut header, path, &content[..])?;
            }
            Node::Symlink(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                self.tar.append_link(&mut header, path, target)?;
            }
            Node::Hardlink(target) => {
                header.set_entry_type(tar::EntryType::Link);
                self.tar.append_link(&mut header, path, target)?;
            }
            Node::Dir | Node::Fifo => {
                let kind = if matches!(entry.node, Node::Dir) {
                    tar::EntryType::Directory
                } else {
                    tar::EntryType::Fifo
                };
                header.set_entry_type(kind);
                self.tar.append_data(&mut header, path, io::empty())?;
            }
            Node::Char(major, minor) => {
                header.set_entry_type(tar::EntryType::Char);
                header.set_device_major(*major)?;
                header.set_device_minor(*minor)?;
                self.tar.append_data(&mut header, path, io::empty())?;
            }
        }
        Ok(())
    }

    /// Ends the tar: the output, its digest and size, and the digest of the plain tar.
    pub fn finish(self) -> Result<(W, String, u64, String)> {
        let (packer, diff_id, _) = self.tar.into_inner()?.finish();
        let (out, digest, size) = packer.finish()?.finish();
        Ok((out, digest, size, diff_id))
    }

    /// As [`Self::finish`], for an output that is the file at `path`.
    pub fn finish_file(self, path: &Path) -> Result<Compressed> {
        let compression = self.compression;
        let (mut out, digest, size, diff_id) = self.finish()?;
        out.flush()?;
        let source = Source::File(path.to_path_buf());
        Ok(Compressed {
            blob: Blob { digest, size, media_type: String::new(), source },
            diff_id,
            compression,
        })
    }
}

enum Packer<W: Write> {
    None(W),
    Gzip(flate2::write::GzEncoder<W>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> Packer<W> {
    fn new(out: W, compression: Compression) -> Result<Self> {
        Ok(match compression {
            Compression::None => Self::None(out),
            Compression::Gzip => Self::Gzip(flate2::write::GzEncoder::new(out, flate2::Compression::new(6))),
            Compression::Zstd => Self::Zstd(zstd::stream::write::Encoder::new(out, 3)?),
        })
    }

    fn finish(self) -> Result<W> {
        Ok(match self {
            Self::None(out) => out,
            Self::Gzip(encoder) => encoder.finish()?,
            Self::Zstd(encoder) => encoder.finish()?,
        })
    }
}

impl<W: Write> Write for Packer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::None(out) => out.write(bytes),
            Self::Gzip(encoder) => encoder.write(bytes),
            Self::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::None(out) => out.flush(),
            Self::Gzip(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        }
    }
}

struct Hashing<W> {
    out: W,
    sum: sha2::Sha256,
    size: u64,
}

impl<W> Hashing<W> {
    fn new(out: W) -> Self {
        Self { out, sum: sha2::Sha256::new(), size: 0 }
    }

    fn finish(self) -> (W, String, u64) {
        let digest = super::name_digest(&self.sum.finalize());
        (self.out, digest, self.size)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.sum.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_entries_make_the_same_layer() {
        let layer =
            || Layer::default().dir("etc").file("etc/motd", 0o644, "hello").symlink("motd", "etc/motd");
        let (one, two) = (layer().compress().unwrap(), layer().compress().unwrap());
        assert_eq!((&one.blob.digest, &one.diff_id), (&two.blob.digest, &two.diff_id));
        let plain = layer().packed(Compression::None).compress().unwrap();
        assert_eq!(plain.blob.digest, one.diff_id, "a plain tar's digest is its diff_id");
        let zstd = layer().packed(Compression::Zstd).compress().unwrap();
        assert_eq!(zstd.diff_id, one.diff_id);
    }
}
