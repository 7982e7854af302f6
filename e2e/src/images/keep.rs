//! Layers of the catalogue, packed once into the cache: packing them anew for each image and each test process takes
//! longer than many a test, above all where the machine is emulated.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result};

use super::layer::{Compressed, Layer};
use super::{Blob, Source, debian, program};

/// What decides the bytes of the catalogue's layers, beside the packages and programs.
const SOURCES: [&str; 3] = [include_str!("catalog.rs"), include_str!("debian.rs"), include_str!("layer.rs")];

/// The packed layer from the cache; packed and put there if it is not.
pub(super) fn compressed(name: &str, layer: &Layer) -> Result<Compressed> {
    let directory = directory()?;
    let path = directory.join(format!("{name}-{:?}", layer.compression).to_lowercase());
    let record = path.with_extension("json");
    if let Ok(text) = fs::read(&record) {
        let (digest, diff_id): (String, String) = serde_json::from_slice(&text)?;
        // In memory: tests damage the files of their registries, and those must not be the cache's.
        let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let (size, source) = (bytes.len() as u64, Source::Bytes(bytes));
        let blob = Blob { digest, size, media_type: String::new(), source };
        return Ok(Compressed { blob, diff_id, compression: layer.compression });
    }
    let packed = layer.pack()?;
    if let Source::Bytes(bytes) = &packed.blob.source {
        write(&path, bytes)?;
        // Last: it says that the other is whole.
        write(&record, &serde_json::to_vec(&(&packed.blob.digest, &packed.diff_id))?)?;
    }
    Ok(packed)
}

fn directory() -> Result<&'static Path> {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    if let Some(directory) = DIRECTORY.get() {
        return Ok(directory);
    }
    // The names of these two hold the keys of what is in them.
    let inputs = format!("{} {}", debian::root()?.display(), program::path("")?.display());
    let key = super::sha256((SOURCES.concat() + &inputs).as_bytes());
    let key: String = key.chars().skip("sha256:".len()).take(12).collect();
    let directory = crate::cache().join("images").join(format!("layers-{key}"));
    fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
    Ok(DIRECTORY.get_or_init(|| directory))
}

/// By rename: other processes read and write the same at the same time.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new("/")))?;
    fs::write(file.path(), bytes)?;
    file.persist(path).with_context(|| format!("write {}", path.display()))?;
    Ok(())
}
