//! Whom a pull would ask, for what, and with whose word, and whether the files that say so are good: for a person who
//! wonders. Asks nobody.

use std::path::PathBuf;

use hyper_util::client::proxy::matcher::Matcher;

use super::auth_file::{AuthFile, Login};
use super::error::RegistryError;
use super::hosts::{self, Host, is_loopback};
use super::{Config, registries_conf, tls};
use crate::images::reference::Reference;

/// One host, in the order in which hosts are asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Of the repository there, as the distribution API has it.
    pub url: String,
    /// The file that names the host; none: the image's own name.
    pub file: Option<PathBuf>,
    /// May say which digest a tag has.
    pub resolve: bool,
    /// May give content by digest.
    pub pull: bool,
    /// How the connection is secured, and by which files; what is wrong with them.
    pub tls: Vec<String>,
    /// The proxy of this process's environment, without its password.
    pub proxy: Option<String>,
    /// Where credentials come from, the first that has some; never the credentials.
    pub credentials: Vec<String>,
}

/// The hosts that a pull of `reference` would ask. Reads the files that a pull reads, and this process's environment.
pub fn explain(config: &Config, reference: &Reference) -> Result<Vec<Asked>, RegistryError> {
    let proxies = Matcher::from_env();
    let hosts = hosts::load(config, reference)?;
    Ok(hosts.iter().map(|host| asked(host, reference, &proxies)).collect())
}

/// Reads every file that some pull would read: which there are, or what is wrong with the first that is not good.
pub fn check(config: &Config) -> Result<String, RegistryError> {
    let mut found = Vec::new();
    if let Some(path) = &config.registries_conf_path {
        registries_conf::check(path)?;
        found.push("registries.conf".to_string());
    }
    if let Some(path) = &config.auth_file {
        AuthFile::read(path)?;
        found.push("auth.json".to_string());
    }
    found.push(format!("{} hosts.toml", hosts::check(&config.config_path)?));
    Ok(found.join(", "))
}

fn asked(host: &Host, reference: &Reference, proxies: &Matcher) -> Asked {
    Asked {
        url: format!("{}{}", host.base, host.repository),
        file: host.file.clone(),
        resolve: host.resolve,
        pull: host.pull,
        tls: security(host),
        proxy: proxy(host, proxies),
        credentials: credentials(host, reference),
    }
}

fn security(host: &Host) -> Vec<String> {
    let mut lines = Vec::new();
    match (host.base.scheme(), host.insecure, host.tls.skip_verify) {
        ("http", ..) => lines.push("none: plain HTTP".to_string()),
        (_, true, _) => lines.push("of anyone, or plain HTTP if the host knows none (insecure)".to_string()),
        (_, _, true) => lines.push("of anyone: certificates are not verified".to_string()),
        _ => lines.push("verified by the system's authorities".to_string()),
    }
    lines.extend(host.tls.authorities.iter().map(|path| format!("authority {}", path.display())));
    for (certificate, key) in &host.tls.client {
        lines.push(format!("our certificate {}, key {}", certificate.display(), key.display()));
    }
    lines.extend(tls::check(&host.tls).err().map(|outage| outage.to_string()));
    lines
}

fn proxy(host: &Host, proxies: &Matcher) -> Option<String> {
    if is_loopback(&host.base) {
        return None;
    }
    let found = proxies.intercept(&host.base.as_str().parse().ok()?)?;
    let mut url = url::Url::parse(&found.uri().to_string()).ok()?;
    let _ = url.set_username("");
    let _ = url.set_password(None);
    Some(url.to_string())
}

fn credentials(host: &Host, reference: &Reference) -> Vec<String> {
    let pulls = match host.own {
        true => format!("of the pull (imagePullSecrets, credential provider) for {}", reference.registry()),
        false => format!("of the pull, only if they name {} as their server", host.name()),
    };
    let node = match &host.login {
        Login::Absent => None,
        Login::Stored { key, file, .. } => Some(format!("of {}, entry {key:?}", file.display())),
        Login::Program { program, file } => {
            Some(format!("of the program {program}, says {}, which Berth does not run", file.display()))
        }
    };
    [pulls].into_iter().chain(node).collect()
}
