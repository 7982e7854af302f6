//! Which hosts to ask for an image, in which order: registries.conf, if it is configured and knows the image, else
//! containerd's `HOST/hosts.toml`; read at each pull. What does not live here: connecting to them, and the formats of the files.

use std::path::{Path, PathBuf};

use reqwest::header::HeaderMap;
use url::Url;

use super::auth_file::{AuthFile, Login};
use super::error::RegistryError;
use super::hosts_toml::HostsFile;
use super::tls::TlsFiles;
use super::{Config, registries_conf};
use crate::images::reference::Reference;

/// Something that a host may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Capability {
    /// Content by digest.
    Pull,
    /// Which digest a tag has.
    Resolve,
}

impl Capability {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Resolve => "resolve",
        }
    }
}

/// One host to ask.
#[derive(Clone)]
pub(super) struct Host {
    /// Ends with a slash: `https://registry-1.docker.io/v2/`.
    pub(super) base: Url,
    /// Where the image is there: `library/busybox`.
    pub(super) repository: String,
    pub(super) pull: bool,
    pub(super) resolve: bool,
    pub(super) headers: HeaderMap,
    pub(super) tls: TlsFiles,
    /// Whether this is the registry itself, not a mirror.
    pub(super) own: bool,
    /// Plain HTTP will do, if the host knows no TLS.
    pub(super) insecure: bool,
    /// A mirror that is told whose image is meant (`?ns=`), as containerd does.
    pub(super) tells_registry: bool,
    /// Which file named it.
    pub(super) file: Option<PathBuf>,
    /// What the node knows to log in there.
    pub(super) login: Login,
}

impl Host {
    /// A host that may be asked for everything.
    pub(super) fn new(base: Url, repository: &str) -> Self {
        Self {
            base,
            repository: repository.to_string(),
            pull: true,
            resolve: true,
            headers: HeaderMap::new(),
            tls: TlsFiles::default(),
            own: false,
            insecure: false,
            tells_registry: false,
            file: None,
            login: Login::Absent,
        }
    }

    /// Whether it is the very registry that an image's name begins with.
    pub(super) fn is_registry(&self, registry: &str) -> bool {
        let name = self.name();
        name == registry.trim_end_matches(":443")
            || (registry == "docker.io" && name == "registry-1.docker.io")
    }

    /// Host and optional port, for messages and limits.
    pub(super) fn name(&self) -> String {
        authority(&self.base)
    }

    pub(super) fn may(&self, capability: Capability) -> bool {
        match capability {
            Capability::Pull => self.pull,
            Capability::Resolve => self.resolve,
        }
    }
}

/// Host and optional port.
pub(super) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or("");
    url.port().map_or_else(|| host.to_string(), |port| format!("{host}:{port}"))
}

/// This very machine: plain HTTP needs no configuration there, and no proxy is asked.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// The line of a byte, from 1.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

/// The hosts to ask for an image, best first, with what the node knows to log in there. Reads the disk.
pub(super) fn load(config: &Config, reference: &Reference) -> Result<Vec<Host>, RegistryError> {
    let listed = match &config.registries_conf_path {
        Some(path) => registries_conf::load(config, path, reference)?,
        None => None,
    };
    let mut hosts = listed.map_or_else(|| from_hosts_toml(&config.config_path, reference), Ok)?;
    if let Some(path) = &config.auth_file {
        let file = AuthFile::read(path)?;
        for host in &mut hosts {
            host.login = file.find(&host.name(), &host.repository)?;
        }
    }
    Ok(hosts)
}

fn from_hosts_toml(config_path: &Path, reference: &Reference) -> Result<Vec<Host>, RegistryError> {
    let Some(directory) = find(config_path, reference.registry()) else {
        return Ok(default_host(reference, TlsFiles::default()).into_iter().collect());
    };
    let path = directory.join("hosts.toml");
    match std::fs::read_to_string(&path) {
        Ok(text) => HostsFile { path: &path, directory: &directory, reference, text: &text }.parse(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(default_host(reference, docker_certificates(&directory)).into_iter().collect())
        }
        Err(error) => Err(RegistryError::BadFile { path, line: None, reason: error.to_string() }),
    }
}

/// How many registries have a hosts.toml, if all of these can be understood. Reads the disk.
pub(super) fn check(config_path: &Path) -> Result<usize, RegistryError> {
    let mut count = 0;
    for entry in std::fs::read_dir(config_path).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let registry = match name.strip_suffix('_').and_then(|name| name.rsplit_once('_')) {
            Some((host, port)) => format!("{host}:{port}"),
            // It stands for any.
            None if name == "_default" => "registry.example".to_string(),
            None => name,
        };
        let Ok(reference) = Reference::parse(&format!("{registry}/check/check")) else { continue };
        if entry.path().join("hosts.toml").is_file() {
            from_hosts_toml(config_path, &reference)?;
            count += 1;
        }
    }
    Ok(count)
}

/// Certificates for a host, laid out as Docker has them.
pub(super) fn certificates(config_path: &Path, host: &str) -> TlsFiles {
    find(config_path, host).map(|directory| docker_certificates(&directory)).unwrap_or_default()
}

/// The first of `host_port_`, `host:port`, `_default` that exists. The registry is a valid host: no path in it climbs.
fn find(config_path: &Path, registry: &str) -> Option<PathBuf> {
    let escaped = match registry.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => format!("{host}_{port}_"),
        _ => registry.to_string(),
    };
    [escaped.as_str(), registry, "_default"]
        .iter()
        .map(|name| config_path.join(name))
        .find(|path| path.is_dir())
}

fn default_host(reference: &Reference, tls: TlsFiles) -> Option<Host> {
    let registry = reference.registry();
    let server = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
    let base = base_url(server, false, !tls.is_empty()).ok()?;
    Some(Host { tls, own: true, ..Host::new(base, reference.repository()) })
}

/// Docker's way: `*.crt` are authorities, `NAME.cert` with `NAME.key` are ours.
fn docker_certificates(directory: &Path) -> TlsFiles {
    let mut tls = TlsFiles::default();
    let mut paths: Vec<_> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    paths.sort();
    for path in paths {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => tls.authorities.push(path),
            Some("cert") => {
                let key = path.with_extension("key");
                tls.client.push((path, key));
            }
            _ => {}
        }
    }
    tls
}

/// `server` as a URL to put paths behind; without a scheme it is https, or http on this machine.
pub(super) fn base_url(server: &str, override_path: bool, tls_configured: bool) -> Result<Url, String> {
    let server = server.trim();
    let url = match server.contains("://") {
        true => Url::parse(server),
        false => Url::parse(&format!("https://{server}")).and_then(|url| {
            let plain = is_loopback(&url) && !tls_configured;
            if plain { Url::parse(&format!("http://{server}")) } else { Ok(url) }
        }),
    };
    let mut url = url.map_err(|error| error.to_string())?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err("is no http or https URL".to_string());
    }
    if !url.username().is_empty()
        || url.password().is_some()
        || url.query().is_some()
        || url.fragment().is_some()
    {
        return Err("takes no user, query or fragment".to_string());
    }
    let path = url.path().trim_end_matches('/').to_string();
    let versioned = override_path || path.ends_with("/v2");
    url.set_path(&if versioned { format!("{path}/") } else { format!("{path}/v2/") });
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, host: &str, text: &str) {
        std::fs::create_dir_all(dir.join(host)).unwrap();
        std::fs::write(dir.join(host).join("hosts.toml"), text).unwrap();
    }

    fn load(dir: &Path, registry: &str) -> Result<Vec<Host>, RegistryError> {
        let config = Config { config_path: dir.to_path_buf(), ..Config::default() };
        super::load(&config, &Reference::parse(&format!("{registry}/a/b")).unwrap())
    }

    fn bases(dir: &Path, registry: &str) -> Vec<String> {
        load(dir, registry).unwrap().iter().map(|host| host.base.to_string()).collect()
    }

    #[test]
    fn without_configuration_only_loopback_is_plain_http() {
        let dir = tempfile::tempdir().unwrap();
        for (registry, base) in [
            ("docker.io", "https://registry-1.docker.io/v2/"),
            ("quay.io", "https://quay.io/v2/"),
            ("quay.io:8443", "https://quay.io:8443/v2/"),
            ("localhost:5000", "http://localhost:5000/v2/"),
            ("127.8.0.1:5000", "http://127.8.0.1:5000/v2/"),
            ("[::1]:5000", "http://[::1]:5000/v2/"),
            ("localhost.example", "https://localhost.example/v2/"),
        ] {
            assert_eq!(bases(dir.path(), registry), [base]);
        }
    }

    #[test]
    fn mirrors_come_in_the_order_of_the_file_and_the_server_last() {
        let dir = tempfile::tempdir().unwrap();
        write(
            dir.path(),
            "docker.io",
            r#"
server = "https://up.example"
[host."https://z.example"]
  capabilities = ["pull"]
[host."http://a.example:5000/proxy"]
  override_path = true
  [host."http://a.example:5000/proxy".header]
    x-one = "1"
    x-two = ["2", "3"]
[host."https://m.example/v2"]
  ca = "ca.pem"
  client = [["c.pem", "k.pem"]]
  skip_verify = true
"#,
        );
        let hosts = load(dir.path(), "docker.io").unwrap();
        let urls: Vec<_> = hosts.iter().map(|host| host.base.as_str()).collect();
        let expected = [
            "https://z.example/v2/",
            "http://a.example:5000/proxy/",
            "https://m.example/v2/",
            "https://up.example/v2/",
        ];
        assert_eq!(urls, expected);
        assert!(hosts[0].may(Capability::Pull) && !hosts[0].may(Capability::Resolve));
        assert!(hosts[1].may(Capability::Resolve));
        assert_eq!(hosts[1].headers.len(), 3);
        assert_eq!(hosts[2].tls.authorities, [dir.path().join("docker.io/ca.pem")]);
        assert!(hosts[2].tls.skip_verify && !hosts[3].tls.skip_verify);
        assert!(hosts.iter().all(|host| !host.own), "credentials are for the registry itself");
    }

    #[test]
    fn the_own_directory_goes_before_the_default_one() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "_default", "[host.\"https://mirror.example\"]\n");
        assert_eq!(bases(dir.path(), "quay.io:1"), ["https://mirror.example/v2/", "https://quay.io:1/v2/"]);
        write(dir.path(), "quay.io:1", "server = \"http://plain.example\"\n");
        assert_eq!(bases(dir.path(), "quay.io:1"), ["http://plain.example/v2/"]);
        write(dir.path(), "quay.io_1_", "");
        assert_eq!(bases(dir.path(), "quay.io:1"), ["https://quay.io:1/v2/"]);
        assert!(load(dir.path(), "quay.io:1").unwrap()[0].own);
    }

    #[test]
    fn mistakes_are_named_with_file_and_line() {
        let dir = tempfile::tempdir().unwrap();
        for (text, line) in [
            ("server = \"x\"\nca = 7\n", None),
            ("\n\n[host\n", Some(3)),
            ("\n[host.\"ftp://x\"]\n", Some(2)),
            ("[host.\"https://u:p@x\"]\n", Some(1)),
            ("[host.\"https://x\"]\ncapabilities = [\"fly\"]\n", Some(1)),
            ("[host.\"https://x\"]\nclient = [[\"a\",\"b\",\"c\"]]\n", Some(1)),
        ] {
            write(dir.path(), "quay.io", text);
            match load(dir.path(), "quay.io").err().expect(text) {
                RegistryError::BadFile { path, line: found, .. } => {
                    assert!(path.ends_with("quay.io/hosts.toml"));
                    assert!(line.is_none() || found == line, "{text}: {found:?}");
                }
                other => panic!("{text}: {other}"),
            }
        }
    }
}
