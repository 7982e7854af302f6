//! The certificate of the streaming server, read again when its files change. What does not live here: connections.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// One of the two files alone.
    #[error("tls_cert_file and tls_key_file belong together: only one of them is set")]
    Half,
    /// A file can't be read, or is no PEM of what it should be.
    #[error("cannot use {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// A certificate without an end.
    #[error("{0} holds no certificate")]
    Empty(PathBuf),
    /// They do not fit together.
    #[error("cannot serve with the certificate {certificate}")]
    Rustls {
        /// The certificate's file.
        certificate: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
}

type Changed = [Option<SystemTime>; 2];

/// A certificate and its key.
#[derive(Debug)]
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    made: Mutex<(Changed, Arc<ServerConfig>)>,
}

impl Tls {
    /// None where no file is named. Reads the files.
    pub fn open(certificate: Option<PathBuf>, key: Option<PathBuf>) -> Result<Option<Self>, TlsError> {
        let (certificate, key) = match (certificate, key) {
            (None, None) => return Ok(None),
            (Some(certificate), Some(key)) => (certificate, key),
            _ => return Err(TlsError::Half),
        };
        let changed = changed(&certificate, &key);
        let config = read(&certificate, &key)?;
        Ok(Some(Self { certificate, key, made: Mutex::new((changed, config)) }))
    }

    /// As the files are now; where they can't be used any more, as they were.
    pub fn config(&self) -> Arc<ServerConfig> {
        let now = changed(&self.certificate, &self.key);
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if made.0 != now {
            match read(&self.certificate, &self.key) {
                Ok(config) => made.1 = config,
                Err(error) => {
                    let error = crate::error::chain(&error);
                    tracing::warn!(
                        error,
                        "the new certificate of the streaming server is of no use: the old one stays"
                    );
                }
            }
            made.0 = now;
        }
        made.1.clone()
    }
}

fn changed(certificate: &Path, key: &Path) -> Changed {
    [certificate, key].map(|path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok())
}

fn read(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let file = |path: &Path| {
        let path = path.to_path_buf();
        move |source| TlsError::File { path, source }
    };
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect).map_err(file(certificate))?;
    if chain.is_empty() {
        return Err(TlsError::Empty(certificate.to_path_buf()));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(file(key))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, secret));
    let mut config =
        config.map_err(|source| TlsError::Rustls { certificate: certificate.to_path_buf(), source })?;
    // Upgrades are of HTTP/1.1.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_pair(dir: &Path) -> (Option<PathBuf>, Option<PathBuf>) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let (certificate, key) = (dir.join("cert.pem"), dir.join("key.pem"));
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        (Some(certificate), Some(key))
    }

    #[test]
    fn a_new_certificate_is_served_and_a_broken_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = write_pair(dir.path());
        let tls = Tls::open(certificate.clone(), key).unwrap().unwrap();
        let first = tls.config();
        assert!(Arc::ptr_eq(&first, &tls.config()));
        let later = SystemTime::now() + std::time::Duration::from_secs(10);
        let touch = |path: &Path, time| {
            std::fs::File::options().append(true).open(path).unwrap().set_modified(time).unwrap();
        };
        write_pair(dir.path());
        touch(&certificate.clone().unwrap(), later);
        let second = tls.config();
        assert!(!Arc::ptr_eq(&first, &second));
        std::fs::write(certificate.unwrap(), "nothing").unwrap();
        assert!(Arc::ptr_eq(&second, &tls.config()));
    }

    #[test]
    fn files_that_cannot_serve_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = write_pair(dir.path());
        assert!(matches!(Tls::open(None, None), Ok(None)));
        assert!(matches!(Tls::open(certificate.clone(), None), Err(TlsError::Half)));
        let empty = dir.path().join("empty.pem");
        std::fs::write(&empty, "").unwrap();
        assert!(matches!(Tls::open(Some(empty), key), Err(TlsError::Empty(_))));
        let error = Tls::open(certificate, Some("/no/such/key.pem".into())).unwrap_err();
        assert!(error.to_string().contains("/no/such/key.pem"), "{error}");
    }
}
