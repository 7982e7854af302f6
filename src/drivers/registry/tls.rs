//! HTTP clients, one for each set of certificates, kept while the files stay the same.
//! TLS trusts the system's authorities and those of hosts.toml. What does not live here: which files a host names.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::error::Outage;

/// What a connection to a host needs of the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct TlsFiles {
    /// PEM files of further authorities.
    pub(super) authorities: Vec<PathBuf>,
    /// PEM files of certificate and key, which may be one file.
    pub(super) client: Vec<(PathBuf, PathBuf)>,
    /// Trust anyone: only by the operator's word.
    pub(super) skip_verify: bool,
}

impl TlsFiles {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// For hosts that this host redirects to: whom we trust stays, who we are does not, nor does blind trust.
    pub(super) fn for_strangers(&self) -> Self {
        Self { authorities: self.authorities.clone(), client: Vec::new(), skip_verify: false }
    }
}

#[derive(PartialEq, Eq, Hash)]
struct Key {
    files: TlsFiles,
    direct: bool,
    changed: Vec<Option<SystemTime>>,
}

/// The clients made so far.
pub(super) struct Clients {
    connect_timeout: Duration,
    made: Mutex<HashMap<Key, reqwest::Client>>,
}

/// Edits of these count for the next pull, too.
const SYSTEM_FILES: [&str; 3] = ["/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs"];
/// Far more than a node has; only ever reached by files that change all the time.
const MAX_CLIENTS: usize = 64;

impl Clients {
    pub(super) fn new(connect_timeout: Duration) -> Self {
        Self { connect_timeout, made: Mutex::default() }
    }

    /// The client for some certificates; `direct` asks no proxy. Reads the disk.
    pub(super) fn get(&self, files: &TlsFiles, direct: bool) -> Result<reqwest::Client, Outage> {
        let paths = files.client.iter().flat_map(|(certificate, key)| [certificate, key]);
        let changed = paths
            .chain(&files.authorities)
            .map(PathBuf::as_path)
            .chain(SYSTEM_FILES.iter().map(Path::new))
            .map(|path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok())
            .collect();
        let key = Key { files: files.clone(), direct, changed };
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = made.get(&key) {
            return Ok(client.clone());
        }
        let client = self.make(files, direct)?;
        if made.len() >= MAX_CLIENTS {
            made.clear();
        }
        made.insert(key, client.clone());
        Ok(client)
    }

    fn make(&self, files: &TlsFiles, direct: bool) -> Result<reqwest::Client, Outage> {
        let builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls_config(files)?)
            // A connection for each layer: several streams in one connection share one congestion window.
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .user_agent(concat!("berth/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(self.connect_timeout)
            .tcp_keepalive(Duration::from_secs(30))
            .pool_idle_timeout(Duration::from_secs(30));
        let builder = if direct { builder.no_proxy() } else { builder };
        builder.build().map_err(super::error::connection)
    }
}

/// Whether the files are what they should be. Reads the disk.
pub(super) fn check(files: &TlsFiles) -> Result<(), Outage> {
    tls_config(files).map(drop)
}

fn tls_config(files: &TlsFiles) -> Result<ClientConfig, Outage> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| Outage::Connection(error.to_string()))?;
    let builder = match files.skip_verify {
        true => builder.dangerous().with_custom_certificate_verifier(Arc::new(TrustAnyone(provider))),
        false => builder.with_root_certificates(roots(&files.authorities)?),
    };
    let mut config = match files.client.first() {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates(certificate)?;
            let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| bad_file(key, &error))?;
            builder.with_client_auth_cert(chain, secret).map_err(|error| bad_file(certificate, &error))?
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn roots(authorities: &[PathBuf]) -> Result<RootCertStore, Outage> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(system.certs);
    for path in authorities {
        for certificate in certificates(path)? {
            roots.add(certificate).map_err(|error| bad_file(path, &error))?;
        }
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Outage> {
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| bad_file(path, &error))?.collect();
    match found {
        Ok(found) if found.is_empty() => Err(bad_file(path, &"holds no certificate")),
        Ok(found) => Ok(found),
        Err(error) => Err(bad_file(path, &error)),
    }
}

fn bad_file(path: &Path, reason: &dyn std::fmt::Display) -> Outage {
    Outage::Certificates { path: path.to_path_buf(), reason: reason.to_string() }
}

/// `skip_verify = true`.
#[derive(Debug)]
struct TrustAnyone(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustAnyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
