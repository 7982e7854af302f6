//! The images of the pull bench. Their files are part words (which compress well) and part noise (which does not), in
//! sizes as a distribution's packages have them. Generated once into the cache; always the same bytes.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;

use anyhow::{Context, Result};

use super::layer::{Compressed, Compression, Entry, LayerWriter, Node};
use super::{Blob, Built, Image, Source};

/// What an image is made of.
struct Shape {
    /// In the cache; with a new number when the bytes change.
    name: &'static str,
    layers: u64,
    /// A layer ends with the file that reaches one of these two.
    files: u64,
    bytes: u64,
    /// Sizes of files, as powers of two: each as likely as the next, up to the double of the largest.
    powers: std::ops::Range<u64>,
}

/// 1.86 GB unpacked, about a third of that packed; files of 1 KiB to 16 MiB.
const LARGE: Shape = Shape { name: "big-v2", layers: 5, files: u64::MAX, bytes: 372_000_000, powers: 10..24 };
/// As many layers as an image may have, a few small files in each: what a layer costs by itself.
const MANY_LAYERS: Shape =
    Shape { name: "many-layers-v1", layers: 128, files: 40, bytes: u64::MAX, powers: 8..13 };
/// What a file costs by itself.
const MANY_FILES: Shape =
    Shape { name: "many-files-v1", layers: 1, files: 200_000, bytes: u64::MAX, powers: 8..11 };

/// Five large layers.
pub fn large(compression: Compression) -> Result<Built> {
    image(&LARGE, compression)
}

/// 128 small layers.
pub fn many_layers() -> Result<Built> {
    image(&MANY_LAYERS, Compression::Gzip)
}

/// 200,000 small files in one layer.
pub fn many_files() -> Result<Built> {
    image(&MANY_FILES, Compression::Gzip)
}

/// Generated when the cache does not have it (the large one takes a minute or two).
fn image(shape: &Shape, compression: Compression) -> Result<Built> {
    let name = format!("{}-{compression:?}", shape.name).to_lowercase();
    let directory = crate::cache().join("images").join(name);
    let record = directory.join("layers.json");
    if !record.exists() {
        generate(shape, &directory, compression)
            .with_context(|| format!("generate {}", directory.display()))?;
    }
    let names: Vec<(String, u64, String)> = serde_json::from_slice(&fs::read(&record)?)?;
    let layers = names
        .into_iter()
        .enumerate()
        .map(|(number, (digest, size, diff_id))| Compressed {
            blob: Blob {
                digest,
                size,
                media_type: String::new(),
                source: Source::File(directory.join(format!("layer-{number}"))),
            },
            diff_id,
            compression,
        })
        .collect();
    Image::default().cmd(&["/none"]).assemble(layers)
}

fn generate(shape: &Shape, directory: &Path, compression: Compression) -> Result<()> {
    fs::create_dir_all(directory)?;
    let workers: Vec<_> = (0..shape.layers)
        .map(|number| {
            let path = directory.join(format!("layer-{number}"));
            (number, path)
        })
        .collect();
    let mut layers = Vec::new();
    // Two at a time: the machines of this bench have two cores.
    for pair in workers.chunks(2) {
        let done: Vec<Result<Compressed>> = std::thread::scope(|scope| {
            let threads: Vec<_> = pair
                .iter()
                .map(|(number, path)| scope.spawn(|| write_layer(shape, *number, path, compression)))
                .collect();
            threads
                .into_iter()
                .map(|thread| {
                    thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a layer's thread panicked")))
                })
                .collect()
        });
        for layer in done {
            let layer = layer?;
            layers.push((layer.blob.digest, layer.blob.size, layer.diff_id));
        }
    }
    fs::write(directory.join("layers.json"), serde_json::to_vec(&layers)?)?;
    Ok(())
}

fn write_layer(shape: &Shape, number: u64, path: &Path, compression: Compression) -> Result<Compressed> {
    let mut writer = LayerWriter::new(BufWriter::new(File::create(path)?), compression)?;
    let mut noise = Noise(0x9E37_79B9_7F4A_7C15 ^ (number + 1));
    let root = |path: String, mode, node| Entry { path, mode, uid: 0, gid: 0, node };
    writer.append(&root(format!("layer{number}"), 0o755, Node::Dir))?;
    let (mut written, mut count) = (0, 0_u64);
    while written < shape.bytes && count < shape.files {
        if count.is_multiple_of(64) {
            writer.append(&root(format!("layer{number}/dir{}", count / 64), 0o755, Node::Dir))?;
        }
        let size = noise.file_size(&shape.powers);
        let content = noise.content(size);
        writer.append(&root(
            format!("layer{number}/dir{}/file{count}", count / 64),
            0o644,
            Node::File(content),
        ))?;
        written += size as u64;
        count += 1;
    }
    writer.finish_file(path)
}

/// xorshift64: fast, and the same everywhere.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Mostly small files, few large ones: each power of two is as likely as the next.
    fn file_size(&mut self, powers: &std::ops::Range<u64>) -> usize {
        let power = powers.start + self.next() % (powers.end - powers.start);
        let base = 1_usize << power;
        base + (self.next() as usize % base)
    }

    fn content(&mut self, size: usize) -> Vec<u8> {
        let mut content = Vec::with_capacity(size + 4096);
        while content.len() < size {
            // Runs of 256 B to 4 KiB, an eighth of them noise.
            let run = 256 << (self.next() % 5);
            let end = content.len() + run;
            if self.next().is_multiple_of(8) {
                while content.len() < end {
                    content.extend_from_slice(&self.next().to_le_bytes());
                }
            } else {
                while content.len() < end {
                    let word = self.next();
                    // Low numbers are more frequent, as words are.
                    let draws = [word, word >> 12, word >> 24, word >> 36, word >> 48];
                    let rank = draws.into_iter().map(|draw| draw & 0xFFF).min().unwrap_or(0) / 32;
                    content.extend_from_slice(format!("w{:x} ", rank * 2_654_435_761 % 65_521).as_bytes());
                }
            }
        }
        content.truncate(size);
        content
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn the_content_packs_to_about_a_third() {
        let content = Noise(1).content(4 << 20);
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
        encoder.write_all(&content).unwrap();
        let share = encoder.finish().unwrap().len() * 100 / content.len();
        assert!((32..40).contains(&share), "{share} %");
    }
}
