//! Harness of the end-to-end tests: a node to test (`node`), the CRI client (`client`), a registry (`registry`) and
//! images for it (`images`). What is expected of Berth lives in `tests/`, not here.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;

pub mod cache;
pub mod census;
pub mod cgroup;
pub mod client;
pub mod collector;
pub mod crictl;
pub mod disk;
pub mod faulty;
pub mod images;
pub mod installer;
pub mod logs;
pub mod metrics;
pub mod network;
pub mod node;
pub mod process;
pub mod registry;
pub mod remote;
pub mod runtime;
pub mod sigstore;
pub mod systemd;
pub mod tree;
pub mod watch;
pub mod world;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// The repository's root.
pub fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Where tools, packages and generated images are kept between runs (`BERTH_E2E_CACHE`, else `.cache`).
pub fn cache() -> PathBuf {
    std::env::var_os("BERTH_E2E_CACHE").map_or_else(|| repository().join(".cache"), PathBuf::from)
}

/// A bound in time: what a node on real hardware keeps, times `BERTH_E2E_SLOWER` on a machine that is emulated.
pub fn bound(duration: Duration) -> Duration {
    duration * slower()
}

/// Looks until it is well; what is wrong with it after `within` (see [`bound`]) is the error.
pub async fn eventually<T>(within: Duration, mut look: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let end = Instant::now() + bound(within);
    loop {
        match look().await {
            Err(_) if Instant::now() < end => tokio::time::sleep(LOOK).await,
            seen => return seen,
        }
    }
}

/// An amount of work, of bytes for example: all of it on real hardware, a part on a machine that is emulated.
pub fn amount(all: usize) -> usize {
    all / slower() as usize
}

fn slower() -> u32 {
    std::env::var("BERTH_E2E_SLOWER").ok().and_then(|times| times.parse().ok()).unwrap_or(1).max(1)
}
