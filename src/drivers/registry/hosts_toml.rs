//! The format of hosts.toml, containerd's. What does not live here: where the file is.

use std::path::Path;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

use super::error::RegistryError;
use super::hosts::{Host, base_url, line_of};
use super::tls::TlsFiles;
use crate::images::reference::Reference;

#[derive(Deserialize, Default)]
#[serde(default)]
struct File {
    server: Option<String>,
    #[serde(flatten)]
    own: Entry,
    host: toml::Table,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    capabilities: Option<Vec<String>>,
    ca: Option<OneOrMany<String>>,
    client: Option<OneOrMany<OneOrMany<String>>>,
    skip_verify: bool,
    header: toml::Table,
    override_path: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    fn into_vec(self) -> Vec<T> {
        match self {
            Self::One(value) => vec![value],
            Self::Many(values) => values,
        }
    }
}

/// A file's text, and what is needed to understand it.
pub(super) struct HostsFile<'a> {
    pub(super) path: &'a Path,
    pub(super) directory: &'a Path,
    pub(super) reference: &'a Reference,
    pub(super) text: &'a str,
}

impl HostsFile<'_> {
    /// Its hosts in their order, the server last.
    pub(super) fn parse(&self) -> Result<Vec<Host>, RegistryError> {
        let file: File = toml::from_str(self.text).map_err(|error| self.bad_toml(&error))?;
        let mut hosts = Vec::new();
        for (server, entry) in self.in_order(file.host) {
            let entry: Entry = entry.try_into().map_err(|error| self.bad(&server, &error))?;
            hosts.push(self.host(&server, entry)?);
        }
        let registry = self.reference.registry();
        let upstream = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
        let server = file.server.filter(|server| !server.trim().is_empty());
        hosts.push(self.host(server.as_deref().unwrap_or(upstream), file.own)?);
        let last = hosts.len() - 1;
        // `server = MIRROR` is a mirror, too; only the registry itself is sent its credentials.
        for (index, host) in hosts.iter_mut().enumerate() {
            host.own = host.is_registry(registry) || (host.name() == upstream && index == last);
            host.file = Some(self.path.to_path_buf());
            host.tells_registry = true;
        }
        Ok(hosts)
    }

    /// TOML tables have no order, but mirrors do: by where each header stands in the text.
    fn in_order(&self, table: toml::Table) -> Vec<(String, toml::Value)> {
        let mut hosts: Vec<_> = table.into_iter().collect();
        let place = |server: &str| {
            let headers =
                [format!("[host.\"{server}\"]"), format!("[host.'{server}']"), format!("\"{server}\"")];
            headers.iter().filter_map(|header| self.text.find(header.as_str())).min().unwrap_or(usize::MAX)
        };
        hosts.sort_by_key(|(server, _)| place(server));
        hosts
    }

    fn host(&self, server: &str, entry: Entry) -> Result<Host, RegistryError> {
        let tls = self.tls(server, &entry)?;
        let configured = !tls.is_empty();
        let base =
            base_url(server, entry.override_path, configured).map_err(|reason| self.bad(server, &reason))?;
        let (mut pull, mut resolve) = (entry.capabilities.is_none(), entry.capabilities.is_none());
        for capability in entry.capabilities.iter().flatten() {
            match capability.to_ascii_lowercase().as_str() {
                "pull" => pull = true,
                "resolve" => resolve = true,
                "push" | "referrers" => {}
                other => return Err(self.bad(server, &format!("unknown capability {other:?}"))),
            }
        }
        let headers = self.headers(server, &entry.header)?;
        Ok(Host { pull, resolve, headers, tls, ..Host::new(base, self.reference.repository()) })
    }

    fn tls(&self, server: &str, entry: &Entry) -> Result<TlsFiles, RegistryError> {
        let absolute = |path: &String| self.directory.join(path);
        let mut tls = TlsFiles { skip_verify: entry.skip_verify, ..TlsFiles::default() };
        match &entry.ca {
            Some(OneOrMany::One(path)) => tls.authorities.push(absolute(path)),
            Some(OneOrMany::Many(paths)) => tls.authorities.extend(paths.iter().map(absolute)),
            None => {}
        }
        // A file of both certificate and key, a list of such, or a list of pairs.
        let pairs: Vec<&OneOrMany<String>> = match &entry.client {
            Some(OneOrMany::One(pair)) => vec![pair],
            Some(OneOrMany::Many(pairs)) => pairs.iter().collect(),
            None => Vec::new(),
        };
        for pair in pairs {
            match pair {
                OneOrMany::One(both) => tls.client.push((absolute(both), absolute(both))),
                OneOrMany::Many(files) => match files.as_slice() {
                    [both] => tls.client.push((absolute(both), absolute(both))),
                    [certificate, key] => tls.client.push((absolute(certificate), absolute(key))),
                    _ => return Err(self.bad(server, &"client takes pairs of certificate and key")),
                },
            }
        }
        Ok(tls)
    }

    fn headers(&self, server: &str, table: &toml::Table) -> Result<HeaderMap, RegistryError> {
        let mut headers = HeaderMap::new();
        for (name, value) in table {
            let key = HeaderName::try_from(name.as_str())
                .map_err(|_| self.bad(server, &format!("bad header name {name:?}")))?;
            let values: OneOrMany<String> = value
                .clone()
                .try_into()
                .map_err(|_| self.bad(server, &format!("header {name} takes text")))?;
            for value in values.into_vec() {
                let mut value = HeaderValue::try_from(value)
                    .map_err(|_| self.bad(server, &format!("bad value of header {name}")))?;
                value.set_sensitive(true);
                headers.append(key.clone(), value);
            }
        }
        Ok(headers)
    }

    fn bad_toml(&self, error: &toml::de::Error) -> RegistryError {
        let line = error.span().map(|span| line_of(self.text, span.start));
        RegistryError::BadFile { path: self.path.to_path_buf(), line, reason: error.message().to_string() }
    }

    fn bad(&self, server: &str, reason: &dyn std::fmt::Display) -> RegistryError {
        let line = self.text.find(server).map(|at| line_of(self.text, at));
        let reason = format!("host {server:?}: {}", reason.to_string().trim());
        RegistryError::BadFile { path: self.path.to_path_buf(), line, reason }
    }
}
