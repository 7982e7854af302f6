//! Kubernetes' test image: the program that e2e/tools/build makes of Kubernetes' module, on busybox.

use anyhow::{Context, Result};

use super::layer::Layer;
use super::{Image, catalog};
use crate::runtime::tool;

/// `/agnhost COMMAND`, waiting unless told otherwise.
pub fn image() -> Result<Image> {
    let program = tool("kubernetes", "agnhost")?;
    // The directory's name holds the key of what is in it.
    let group = program.parent().and_then(|group| group.file_name()).context("agnhost has no directory")?;
    let read = |name: &str| {
        let path = program.with_file_name(name);
        std::fs::read(&path).with_context(|| format!("read {}", path.display()))
    };
    let layer = Layer::default()
        .file("agnhost", 0o755, read("agnhost")?)
        .file("localhost.crt", 0o644, read("localhost.crt")?)
        .file("localhost.key", 0o644, read("localhost.key")?)
        .symlink("agnhost-2", "agnhost")
        .dir("uploads")
        .kept(&format!("agnhost-{}", group.display()));
    let mut image = catalog::busybox()?.layer(layer).cmd(&["pause"]);
    image.run.entrypoint = vec!["/agnhost".into()];
    Ok(image)
}
