//! Debian's docker-registry (package docker-registry) with basic authorization (htpasswd of package apache2-utils).

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::super::{Blob, Credentials, OCI_MANIFEST, Registry, RegistryError};
use super::{reference, registry};
use crate::ids::Digest;
use crate::images::reference::Reference;

struct Real {
    child: Child,
    address: String,
    _dir: tempfile::TempDir,
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Real {
    /// None, said aloud, where the programs are missing.
    async fn start() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let password = Command::new("htpasswd").args(["-Bbn", "me", "pass:word"]).output();
        let (Ok(password), true) = (password, Path::new("/usr/bin/docker-registry").exists()) else {
            eprintln!("not run: docker-registry and htpasswd (apache2-utils) are not installed");
            return None;
        };
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        std::fs::write(dir.path().join("htpasswd"), password.stdout).unwrap();
        let root = dir.path().display();
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {root}/data\n\
             http:\n  addr: {address}\nauth:\n  htpasswd:\n    realm: test\n    path: {root}/htpasswd\n"
        );
        std::fs::write(dir.path().join("config.yml"), config).unwrap();
        let child = Command::new("/usr/bin/docker-registry")
            .arg("serve")
            .arg(dir.path().join("config.yml"))
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let real = Self { child, address, _dir: dir };
        for _ in 0..200 {
            if tokio::net::TcpStream::connect(&real.address).await.is_ok() {
                return Some(real);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("docker-registry does not listen on {}", real.address);
    }

    fn client() -> reqwest::Client {
        super::super::tls::Clients::new(Duration::from_secs(5)).get(&Default::default(), true).unwrap()
    }

    async fn put(&self, path: &str, media_type: &str, body: Vec<u8>) {
        let url = if path.starts_with("http") {
            path.to_string()
        } else {
            format!("http://{}{path}", self.address)
        };
        let request = Self::client().put(url).basic_auth("me", Some("pass:word"));
        let response = request.header("content-type", media_type).body(body).send().await.unwrap();
        assert_eq!(response.status(), 201);
    }

    async fn push_blob(&self, bytes: &[u8]) -> Digest {
        let url = format!("http://{}/v2/team/app/blobs/uploads/", self.address);
        let response = Self::client().post(url).basic_auth("me", Some("pass:word")).send().await.unwrap();
        let location = response.headers()["location"].to_str().unwrap().to_string();
        let digest = Digest::of(bytes);
        self.put(&format!("{location}&digest={digest}"), "application/octet-stream", bytes.to_vec()).await;
        digest
    }
}

#[tokio::test]
async fn a_real_registry_gives_manifest_and_blobs_to_who_may_have_them() {
    let Some(real) = Real::start().await else { return };
    let layer: Vec<u8> = (0..3_000_000_u32).map(|n| (n / 3) as u8).collect();
    let (config_digest, layer_digest) = (real.push_blob(b"{}").await, real.push_blob(&layer).await);
    let document = format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config_digest}","size":2}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{layer_digest}","size":3000000}}]}}"#
    );
    real.put("/v2/team/app/manifests/v1", OCI_MANIFEST, document.clone().into_bytes()).await;

    let registry = registry(Path::new("/nonexistent"));
    let image = reference(&format!("{}/team/app:v1", real.address));
    let me = Credentials { username: "me".into(), password: "pass:word".into(), ..Credentials::default() };
    let manifest = registry.manifest(&image, &me).await.unwrap();
    assert_eq!(
        (manifest.media_type.as_str(), manifest.bytes.as_slice()),
        (OCI_MANIFEST, document.as_bytes())
    );
    assert_eq!(registry.resolve(&image, &me).await.unwrap(), Some(manifest.digest.clone()));
    let size = Some(document.len() as u64);
    let again = registry.manifest_by_digest(&image, &manifest.digest, size, &me).await.unwrap();
    assert_eq!(again, manifest);
    let config = Blob::new(&image, &config_digest, 2, &me);
    assert_eq!(registry.blob_bytes(config, 100).await.unwrap(), b"{}");
    let wanted = Blob::new(&image, &layer_digest, 3_000_000, &me);
    for offset in [0, 1, 1_234_567, 2_999_999] {
        let mut stream = registry.blob(wanted.clone(), offset).await.unwrap();
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.next().await {
            bytes.extend_from_slice(&chunk.unwrap());
        }
        assert!(bytes == layer[usize::try_from(offset).unwrap()..], "from {offset}");
    }
    refuses_the_wrong_and_the_missing(&real, &registry, &image, &me).await;
}

async fn refuses_the_wrong_and_the_missing(
    real: &Real,
    registry: &Registry,
    image: &Reference,
    me: &Credentials,
) {
    let wrong = Credentials { password: "wrong".into(), ..me.clone() };
    for credentials in [Credentials::default(), wrong] {
        let error = registry.manifest(image, &credentials).await.unwrap_err();
        assert!(matches!(error, RegistryError::Unauthorized(_)), "{error}");
    }
    let missing = reference(&format!("{}/team/app:v2", real.address));
    let error = registry.manifest(&missing, me).await.unwrap_err();
    assert!(
        matches!(error, RegistryError::NotFound(_)) && error.to_string().contains("MANIFEST_UNKNOWN"),
        "{error}"
    );
    let none = Blob::new(image, &Digest::of(b"none"), 4, me);
    let error = registry.blob_bytes(none, 100).await.unwrap_err();
    assert!(matches!(error, RegistryError::NotFound(_)), "{error}");
}
