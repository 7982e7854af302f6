//! Berth's own image: the two static programs, and nothing else. What does not live here: how images are built (berth_e2e::images).

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;

use anyhow::{Context, Result};
use berth_e2e::images::{Image, Layer, publish};

/// The same programs always make the same bytes.
pub(super) fn write(berth: &Path, shim: &Path, tar: &Path, name: &str) -> Result<()> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("read {}", path.display()));
    let layer = Layer::default()
        .dir("etc")
        .dir("usr")
        .dir("usr/bin")
        .file("usr/bin/berth", 0o755, read(berth)?)
        .file("usr/bin/berth-shim", 0o755, read(shim)?)
        // Where the pod sees its host.
        .dir("host");
    let mut image = Image::of(layer);
    image.architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64".into(),
        "aarch64" => "arm64".into(),
        other => other.into(),
    };
    image.run.entrypoint = vec!["/usr/bin/berth".into()];
    image.run.env = vec!["PATH=/usr/bin".into()];
    for (key, value) in [
        ("title", "berth"),
        ("description", "A Kubernetes container runtime"),
        ("version", env!("CARGO_PKG_VERSION")),
        ("licenses", env!("CARGO_PKG_LICENSE")),
    ] {
        image = image.label(&format!("org.opencontainers.image.{key}"), value);
    }
    if let Some(directory) = tar.parent() {
        fs::create_dir_all(directory)?;
    }
    let built = image.build()?;
    let out = BufWriter::new(File::create(tar).with_context(|| format!("make {}", tar.display()))?);
    publish::oci_archive(&built, name, out)?;
    println!("{}: {name}, {}", tar.display(), built.digest());
    Ok(())
}
