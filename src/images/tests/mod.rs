//! Images end to end: archives and a real registry in, overlay roots out.

mod archive;
mod artifact;
mod documents;
mod formats;
mod hostile;
mod merged_view;
mod registry;
mod sharing;
mod verify;

use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use super::*;
use crate::drivers::layers::Config as LayersConfig;
use crate::drivers::registry::Config as RegistryConfig;
use crate::drivers::trash::Trash;
use crate::layout::Layout;

/// A node's images in a directory of their own.
struct Node {
    dir: tempfile::TempDir,
    layout: Layout,
    images: Images,
}

impl Node {
    async fn new() -> Self {
        Self::at(tempfile::tempdir().unwrap()).await
    }

    async fn at(dir: tempfile::TempDir) -> Self {
        let layout = Layout::new(dir.path().join("root"), dir.path().join("state"));
        std::fs::create_dir_all(layout.root()).unwrap();
        let images = open(&layout).await;
        Self { dir, layout, images }
    }

    /// As after kill -9: nothing is closed.
    async fn restart(self) -> Self {
        let Self { dir, images, .. } = self;
        std::mem::forget(images);
        Self::at(dir).await
    }

    fn root(&self, image: &Image) -> Root {
        let unique = crate::ids::ContainerId::generate().to_string();
        let (upper, work) =
            (self.dir.path().join(format!("u{unique}")), self.dir.path().join(format!("w{unique}")));
        std::fs::create_dir(&upper).unwrap();
        std::fs::create_dir(&work).unwrap();
        Root(self.images.shared.layers.root(&image.layers, (&upper, &work), Default::default()).unwrap())
    }

    fn unpacked(&self) -> usize {
        self.images.shared.unpacked.load(std::sync::atomic::Ordering::SeqCst)
    }

    /// Nothing half-done: no staging, and as many layers on disk as are known.
    fn assert_clean(&self) {
        let count = |path: PathBuf| std::fs::read_dir(path).unwrap().count();
        assert_eq!(count(self.layout.staging()), 0, "staging");
        assert_eq!(count(self.layout.layers()), self.images.shared.catalog().layers().count(), "layers");
    }
}

async fn open(layout: &Layout) -> Images {
    let store = Arc::new(Store::open(&layout.store()).unwrap());
    let registry = Registry::new(RegistryConfig::default()).unwrap();
    let layers = Layers::open(layout, &LayersConfig::default(), Trash::new(layout)).unwrap();
    Images::open(layers, store, registry, Config::default()).await.unwrap()
}

/// A mounted root, reached through its descriptor.
struct Root(OwnedFd);

impl Root {
    fn path(&self, inner: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{inner}", self.0.as_raw_fd()))
    }

    fn read(&self, inner: &str) -> String {
        std::fs::read_to_string(self.path(inner)).unwrap_or_else(|error| format!("{inner}: {error}"))
    }
}
