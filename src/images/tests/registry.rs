//! Pulls from Debian's docker-registry, images pushed by skopeo.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::archive::{Blob, Tar, layout};
use super::*;
use crate::drivers::registry::Credentials;
use crate::images::reference::Reference;

struct Server {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Server {
    /// None, with a word why, where the program is not installed.
    fn start() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: \"127.0.0.1:{port}\"}}\n",
            dir.path().join("data").display()
        );
        std::fs::write(dir.path().join("config.yml"), config).unwrap();
        let started = Command::new("docker-registry")
            .arg("serve")
            .arg(dir.path().join("config.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = started else {
            println!("not run: docker-registry is not installed");
            return None;
        };
        for _ in 0..200 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        Some(Self { child, port, dir })
    }

    fn push(&self, name: &str, archive: &Path) {
        let to = format!("docker://127.0.0.1:{}/{name}", self.port);
        let status = Command::new("skopeo")
            .args(["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"])
            .arg(format!("oci-archive:{}", archive.display()))
            .arg(to)
            .status();
        assert!(status.unwrap().success());
    }

    fn archive(&self, layers: &[Blob]) -> std::path::PathBuf {
        let path = self.dir.path().join(format!("{}.tar", crate::ids::ContainerId::generate()));
        let mut from = layout("x:1", layers);
        std::io::copy(&mut from, &mut std::fs::File::create(&path).unwrap()).unwrap();
        path
    }

    fn reference(&self, name: &str) -> Reference {
        Reference::parse(&format!("127.0.0.1:{}/{name}", self.port)).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pulled_once_however_many_ask_and_gzip_and_zstd_are_the_same() {
    let Some(server) = Server::start() else { return };
    let base = Tar::default().dir("./", 0o755).file("etc/os", "base").clone();
    let top = Tar::default().file("app", "top").clone();
    server.push("a/app:gzip", &server.archive(&[Blob::of(&base), Blob::of(&top)]));
    server.push("a/app:zstd", &server.archive(&[Blob::zstd(&base), Blob::zstd(&top)]));
    let node = Node::new().await;
    let gzip = server.reference("a/app:gzip");
    let none = Credentials::default();
    let pulls = (0..20).map(|_| node.images.pull(&gzip, &none));
    let images = futures_util::future::join_all(pulls).await;
    let image = images.into_iter().map(Result::unwrap).next_back().unwrap();
    assert_eq!((node.unpacked(), node.images.list().len()), (2, 1));
    assert_eq!(
        (node.root(&image).read("app"), image.config.cmd.clone()),
        ("top".into(), vec!["/bin/sh".into()])
    );
    let zstd = node.images.pull(&server.reference("a/app:zstd"), &none).await.unwrap();
    assert_eq!((zstd.id == image.id, node.unpacked(), zstd.tags.len(), zstd.digests.len()), (true, 2, 2, 2));
    let fresh = Node::new().await;
    let zstd = fresh.images.pull(&server.reference("a/app:zstd"), &none).await.unwrap();
    assert_eq!(fresh.root(&zstd).read("etc/os"), "base");
    let by_digest = zstd.digests.first().unwrap().rsplit_once('/').unwrap().1.to_string();
    let again = fresh.images.pull(&server.reference(&format!("a/{by_digest}")), &none).await.unwrap();
    assert_eq!(again.id, zstd.id);
    let error = fresh.images.pull(&server.reference("a/app:none"), &none).await.unwrap_err();
    assert!(matches!(error, ImageError::Registry { .. }), "{error}");
    fresh.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_goes_on_when_its_caller_goes_away() {
    let Some(server) = Server::start() else { return };
    let tar = Tar::default().file("app", &"x".repeat(3_000_000)).clone();
    server.push("a/app:1", &server.archive(&[Blob::of(&tar)]));
    let node = Node::new().await;
    let reference = server.reference("a/app:1");
    let none = Credentials::default();
    let pull = node.images.pull(&reference, &none);
    assert!(tokio::time::timeout(Duration::from_millis(1), pull).await.is_err());
    for _ in 0..200 {
        if !node.images.list().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert_eq!(node.images.list().len(), 1);
}

/// Run with `--ignored --nocapture` on a release build; `BERTH_BENCH_MIB` sets the size of the plain layers.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, not a check"]
async fn throughput_of_a_pull_from_a_registry_on_this_machine() {
    let Some(server) = Server::start() else { return };
    let mib: usize = std::env::var("BERTH_BENCH_MIB").ok().and_then(|text| text.parse().ok()).unwrap_or(300);
    let path = server.dir.path().join("big.tar");
    let mut file = std::fs::File::create(&path).unwrap();
    // About as compressible as programs are.
    let mut state = 1_u64;
    let block: Vec<u8> = (0..1 << 20)
        .map(|at: u32| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(u64::from(at));
            if at % 64 < 28 { (state >> 33) as u8 } else { b"the same words again "[at as usize % 21] }
        })
        .collect();
    let mut tar = Tar::default();
    for n in 0..mib {
        let head = super::archive::head("x", b'0');
        let name = format!("d{}/f{n}", n % 50);
        tar.add(&super::archive::Head { path: &name, ..head }, &block);
    }
    let mut layout = layout("x:1", &[Blob::of(&tar)]);
    std::io::copy(&mut layout, &mut file).unwrap();
    file.flush().unwrap();
    server.push("a/big:1", &path);
    let node = Node::new().await;
    let started = std::time::Instant::now();
    let image = node.images.pull(&server.reference("a/big:1"), &Credentials::default()).await.unwrap();
    println!("{mib} MiB plain, {} MiB on disk, one layer: {:?}", image.size >> 20, started.elapsed());
}
