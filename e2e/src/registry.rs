//! A docker-registry on a free loopback port with a storage directory of its own; it ends with its guard.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::images::Image;
use crate::images::publish::Storage;

/// The one user of a registry that wants a login.
pub const USER: &str = "ann";
/// That user's password.
pub const PASSWORD: &str = "s3cret";
/// base64 of both, as clients keep them.
pub const AUTH: &str = "YW5uOnMzY3JldA==";
/// What clients of today accept.
const MANIFESTS: [&str; 4] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
const HTPASSWD: &str = "ann:$2y$05$3GCh9EIzb7496VypFF4q.uKMDCesHMRh1H3drTt6xPLcxuUPbwjlC\n";

/// What a registry asks of its clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Basic auth with [`USER`] and [`PASSWORD`].
    pub login: bool,
    /// HTTPS with a certificate that is signed by nobody but itself; see [`Registry::certificate`].
    pub tls: bool,
}

/// A running registry.
pub struct Registry {
    // Dropped before the directory that it writes to.
    server: Server,
    directory: TempDir,
    address: SocketAddr,
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Registry {
    /// Anonymous, plain HTTP.
    pub fn start() -> Result<Self> {
        Self::start_with(Options::default())
    }

    /// Starts the program and waits until it answers.
    pub fn start_with(options: Options) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("berth-e2e-registry-").tempdir()?;
        let root = directory.path();
        if options.tls {
            make_certificate(root)?;
        }
        if options.login {
            std::fs::write(root.join("htpasswd"), HTPASSWD)?;
        }
        // A port that is free now may be taken when the registry binds it: then another is tried.
        for _ in 0..5 {
            let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
            std::fs::write(root.join("config.yml"), configuration(root, address, options))?;
            let server = serve(root)?;
            if let Some(server) = wait_until_it_answers(server, address)? {
                return Ok(Self { server, directory, address });
            }
        }
        bail!("docker-registry does not start: {}", std::fs::read_to_string(root.join("log"))?.trim())
    }

    /// `127.0.0.1:PORT`: the host of its images' names.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.server.0.id()
    }

    /// The name of an image in this registry, from `repository:tag` or `repository@digest`.
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// Where its blobs are.
    pub fn storage(&self) -> Storage {
        Storage::new(&self.directory.path().join("data"))
    }

    /// The media type under which the registry itself serves a manifest (plain HTTP only).
    pub fn media_type(&self, repository: &str, tag: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let accept = MANIFESTS.join(", ");
        write!(stream, "HEAD /v2/{repository}/manifests/{tag} HTTP/1.0\r\nAccept: {accept}\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let field = answer.lines().find_map(|line| line.strip_prefix("Content-Type: "));
        Ok(field.with_context(|| format!("no Content-Type: {answer}"))?.trim().to_owned())
    }

    /// The certificate that clients must trust, PEM; there only with [`Options::tls`].
    pub fn certificate(&self) -> PathBuf {
        self.directory.path().join("cert.pem")
    }

    /// Builds an image, stores it as `repository:tag`, and gives its full name.
    pub fn publish(&self, repository: &str, tag: &str, image: &Image) -> Result<String> {
        self.storage().publish(repository, tag, &image.build()?)?;
        Ok(self.reference(&format!("{repository}:{tag}")))
    }
}

fn serve(root: &Path) -> Result<Server> {
    let log = std::fs::File::create(root.join("log"))?;
    let process = Command::new("docker-registry")
        .arg("serve")
        .arg(root.join("config.yml"))
        .env("OTEL_TRACES_EXPORTER", "none")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("run docker-registry (package docker-registry; see e2e/setup)")?;
    Ok(Server(process))
}

/// `None` if it ended instead.
fn wait_until_it_answers(mut server: Server, address: SocketAddr) -> Result<Option<Server>> {
    let end = Instant::now() + crate::bound(Duration::from_secs(20));
    while Instant::now() < end {
        if server.0.try_wait()?.is_some() {
            return Ok(None);
        }
        if answers(address) {
            return Ok(Some(server));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("docker-registry at {address} does not answer")
}

/// A line of HTTP comes back; over TLS that is the complaint about plain text.
fn answers(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET /v2/ HTTP/1.0\r\n\r\n")?;
        Ok(stream.read(&mut [0; 16])? > 0)
    };
    ask().unwrap_or(false)
}

fn configuration(root: &Path, address: SocketAddr, options: Options) -> String {
    let root = root.display();
    let mut text = format!(
        "version: 0.1\nlog: {{ level: warn, accesslog: {{ disabled: true }} }}\n\
         storage: {{ filesystem: {{ rootdirectory: {root}/data }}, delete: {{ enabled: true }} }}\n\
         http:\n  addr: {address}\n  headers: {{ X-Content-Type-Options: [nosniff] }}\n"
    );
    if options.tls {
        text += &format!("  tls: {{ certificate: {root}/cert.pem, key: {root}/key.pem }}\n");
    }
    if options.login {
        text += &format!("auth: {{ htpasswd: {{ realm: berth, path: {root}/htpasswd }} }}\n");
    }
    text
}

fn make_certificate(root: &Path) -> Result<()> {
    let output = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=berth-e2e", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"])
        // Not an authority: rustls refuses one as a server.
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(root.join("key.pem"))
        .arg("-out")
        .arg(root.join("cert.pem"))
        .output()
        .context("run openssl")?;
    if !output.status.success() {
        bail!("openssl: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
