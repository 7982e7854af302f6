//! hosts.toml at work: order, fallback, TLS.

use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::super::{Blob, Config, Credentials, Registry, RegistryError};
use super::server::{Reply, Server};
use super::{MANIFEST, reference, registry};
use crate::ids::Digest;

fn write(dir: &Path, registry: &str, text: &str) {
    std::fs::create_dir_all(dir.join(registry)).unwrap();
    std::fs::write(dir.join(registry).join("hosts.toml"), text).unwrap();
}

#[tokio::test]
async fn a_mirror_is_asked_first_without_the_registrys_credentials_and_passed_over_if_it_fails() {
    let dir = tempfile::tempdir().unwrap();
    let bad = Server::start(|_| Reply::new(401, "").with("www-authenticate", "Basic realm=\"x\"")).await;
    let good = Server::start(|_| Reply::manifest(MANIFEST)).await;
    write(
        dir.path(),
        "example.invalid",
        &format!(
            "[host.\"http://{}\"]\n[host.\"http://{}\"]\nheader = {{ x-team = \"blue\" }}\n",
            bad.address, good.address
        ),
    );
    let hush = Credentials { username: "me".into(), password: "hush".into(), ..Credentials::default() };
    let registry = registry(dir.path());
    registry.manifest(&reference("example.invalid/a/b:1"), &hush).await.unwrap();
    assert_eq!((bad.seen().len(), good.seen().len()), (1, 1));
    let seen = &good.seen()[0];
    assert_eq!(
        (seen.path.as_str(), seen.header("x-team")),
        ("/v2/a/b/manifests/1?ns=example.invalid", "blue")
    );
    assert!(bad.seen().iter().chain(&good.seen()).all(|seen| seen.header("authorization").is_empty()));
    // An edit counts at once.
    write(dir.path(), "example.invalid", &format!("server = \"http://{}\"", good.address));
    registry.manifest(&reference("example.invalid/a/b:1"), &hush).await.unwrap();
    assert_eq!((bad.seen().len(), good.seen().len()), (1, 2));
}

/// Berth runs no program for credentials: that concerns the host that wants them, and no other.
#[tokio::test]
async fn a_mirror_whose_credentials_only_a_program_knows_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let closed = Server::start(|_| Reply::manifest(MANIFEST)).await;
    let good = Server::start(|_| Reply::manifest(MANIFEST)).await;
    let hosts = format!("[host.\"http://{}\"]\n[host.\"http://{}\"]\n", closed.address, good.address);
    write(dir.path(), "example.invalid", &hosts);
    let auth_file = dir.path().join("auth.json");
    std::fs::write(&auth_file, format!(r#"{{"credHelpers":{{"{}":"ecr-login"}}}}"#, closed.address)).unwrap();
    let config = Config { config_path: dir.path().into(), auth_file: Some(auth_file), ..Config::default() };
    let registry = Registry::new(config).unwrap();
    let (image, none) = (reference("example.invalid/a/b:1"), Credentials::default());
    registry.resolve(&image, &none).await.unwrap();
    registry.manifest(&image, &none).await.unwrap();
    let digest = Digest::of(MANIFEST.as_bytes());
    let blob = Blob::new(&image, &digest, MANIFEST.len() as u64, &none);
    assert_eq!(registry.blob_bytes(blob, 1 << 20).await.unwrap(), MANIFEST.as_bytes());
    assert_eq!((closed.seen().len(), good.seen().len()), (0, 3));
}

#[tokio::test]
async fn hosts_without_the_capability_are_not_asked() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(|_| Reply::manifest(MANIFEST)).await;
    write(
        dir.path(),
        "example.invalid",
        &format!("server = \"http://{}\"\ncapabilities = [\"pull\"]", server.address),
    );
    let registry = registry(dir.path());
    let none = Credentials::default();
    let error = registry.manifest(&reference("example.invalid/a/b:1"), &none).await.unwrap_err();
    assert!(matches!(error, RegistryError::NoHost { capability: "resolve", .. }), "{error}");
    let digest = Digest::of(MANIFEST.as_bytes());
    registry.manifest(&reference(&format!("example.invalid/a/b@{digest}")), &none).await.unwrap();
}

/// A private authority, and a server's configuration signed by it.
fn private_tls(demand_client: bool) -> (CertifiedIssuer<'static, KeyPair>, rustls::ServerConfig) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["127.0.0.1".to_string()]).unwrap().signed_by(&key, &authority).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let builder =
        rustls::ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = match demand_client {
        false => builder.unwrap().with_no_client_auth(),
        true => builder.unwrap().with_client_cert_verifier(
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .unwrap(),
        ),
    };
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    (authority, builder.with_single_cert(vec![certificate.der().clone()], key).unwrap())
}

#[tokio::test]
async fn a_private_authority_is_trusted_only_where_hosts_toml_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, config) = private_tls(false);
    let server = Server::start_tls(config, |_| Reply::manifest(MANIFEST)).await;
    let (registry, none) = (registry(dir.path()), Credentials::default());
    let image = reference("example.invalid/a/b:1");
    write(dir.path(), "example.invalid", &format!("server = \"https://{}\"\n", server.address));
    let error = registry.manifest(&image, &none).await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        matches!(error, RegistryError::Unavailable { .. }) && cause.contains("certificate"),
        "{error}: {cause}"
    );
    write(
        dir.path(),
        "example.invalid",
        &format!("server = \"https://{}\"\nskip_verify = true\n", server.address),
    );
    registry.manifest(&image, &none).await.unwrap();
    write(
        dir.path(),
        "example.invalid",
        &format!("server = \"https://{}\"\nca = \"ca.pem\"\n", server.address),
    );
    let error = registry.manifest(&image, &none).await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("ca.pem"), "{cause}");
    std::fs::write(dir.path().join("example.invalid/ca.pem"), authority.pem()).unwrap();
    registry.manifest(&image, &none).await.unwrap();
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_its_host_and_https_never_leads_to_http() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, config) = private_tls(true);
    let server = Server::start_tls(config, |seen| match seen.path.contains("down") {
        true => Reply::to("http://127.0.0.1:1/plain?token=secret"),
        false => Reply::manifest(MANIFEST),
    })
    .await;
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["client".to_string()]).unwrap().signed_by(&key, &authority).unwrap();
    let text = format!("server = \"https://{}\"\nca = \"ca.pem\"\n", server.address);
    write(dir.path(), "example.invalid", &text);
    let at = |name: &str| dir.path().join("example.invalid").join(name);
    std::fs::write(at("ca.pem"), authority.pem()).unwrap();
    std::fs::write(at("c.pem"), certificate.pem()).unwrap();
    std::fs::write(at("k.pem"), key.serialize_pem()).unwrap();
    let (registry, none) = (registry(dir.path()), Credentials::default());
    assert!(registry.manifest(&reference("example.invalid/a/b:1"), &none).await.is_err());
    write(dir.path(), "example.invalid", &format!("{text}client = [[\"c.pem\", \"k.pem\"]]\n"));
    registry.manifest(&reference("example.invalid/a/b:1"), &none).await.unwrap();
    let error = registry.manifest(&reference("example.invalid/a/b:down"), &none).await.unwrap_err();
    assert!(matches!(error, RegistryError::UnsafeRedirect { .. }), "{error}");
    assert!(!error.to_string().contains("secret"));
}

#[tokio::test]
async fn certificates_are_found_as_docker_and_cri_o_lay_them_out() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, config) = private_tls(true);
    let server = Server::start_tls(config, |_| Reply::manifest(MANIFEST)).await;
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["client".to_string()]).unwrap().signed_by(&key, &authority).unwrap();
    let (registry, none) = (registry(dir.path()), Credentials::default());
    let image = reference(&format!("{}/a/b:1", server.address));
    let at = |name: &str| dir.path().join(&server.address).join(name);
    std::fs::create_dir_all(at("")).unwrap();
    std::fs::write(at("ca.crt"), authority.pem()).unwrap();
    assert!(registry.manifest(&image, &none).await.is_err());
    std::fs::write(at("client.cert"), certificate.pem()).unwrap();
    std::fs::write(at("client.key"), key.serialize_pem()).unwrap();
    registry.manifest(&image, &none).await.unwrap();
}
