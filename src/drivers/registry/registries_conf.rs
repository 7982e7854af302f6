//! containers-registries.conf(5), version 2, and the drop-ins beside it: what CRI-O reads. Read at each pull.
//! What does not live here: connecting, and hosts.toml, which counts where no entry here is about an image.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::Config;
use super::error::RegistryError;
use super::hosts::{self, Host, base_url, line_of};
use crate::images::reference::Reference;

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "kebab-case")]
struct File {
    unqualified_search_registries: Option<Vec<String>>,
    credential_helpers: Vec<String>,
    aliases: BTreeMap<String, String>,
    registry: Vec<Spanned<Entry>>,
    /// Version 1.
    registries: Option<toml::Table>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "kebab-case")]
struct Entry {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror_by_digest_only: bool,
    mirror: Vec<Mirror>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "kebab-case")]
struct Mirror {
    location: String,
    insecure: bool,
    pull_from_mirror: References,
}

/// Which references a mirror is asked for.
#[derive(Deserialize, Default, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum References {
    #[default]
    #[serde(alias = "")]
    All,
    DigestOnly,
    TagOnly,
}

impl References {
    fn fit(self, reference: &Reference) -> bool {
        match self {
            Self::All => true,
            Self::DigestOnly => reference.digest().is_some(),
            Self::TagOnly => reference.digest().is_none(),
        }
    }
}

/// An entry, and where it stands.
struct Rule {
    entry: Entry,
    file: PathBuf,
    line: usize,
}

/// All files: a later one replaces entries of the same prefix, aliases, and the search list.
#[derive(Default)]
struct Registries {
    search: Option<(String, PathBuf)>,
    aliases: BTreeMap<String, (String, PathBuf)>,
    rules: BTreeMap<String, Rule>,
}

/// The hosts to ask for an image, best first; none if no entry is about it. Reads the disk.
pub(super) fn load(
    config: &Config,
    path: &Path,
    reference: &Reference,
) -> Result<Option<Vec<Host>>, RegistryError> {
    let registries = Registries::read(path)?;
    registries.admit(reference)?;
    let Some((rule, rest)) = registries.find(reference) else {
        return Ok(None);
    };
    rule.hosts(config, reference, rest).map(Some)
}

/// Whether the file and its drop-ins can be understood. Reads the disk.
pub(super) fn check(path: &Path) -> Result<(), RegistryError> {
    Registries::read(path).map(drop)
}

impl Registries {
    fn read(path: &Path) -> Result<Self, RegistryError> {
        let mut all = Self::default();
        all.add(path)?;
        let mut drop_ins = path.as_os_str().to_owned();
        drop_ins.push(".d");
        let entries = std::fs::read_dir(drop_ins).into_iter().flatten().flatten();
        let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
        paths.sort();
        for path in paths {
            all.add(&path)?;
        }
        Ok(all)
    }

    fn add(&mut self, path: &Path) -> Result<(), RegistryError> {
        let text = std::fs::read_to_string(path).map_err(|error| bad(path, None, error.to_string()))?;
        let file: File = toml::from_str(&text).map_err(|error| {
            bad(path, error.span().map(|span| line_of(&text, span.start)), error.message().to_string())
        })?;
        if file.registries.is_some() {
            let reason = "this is version 1 of the format, which Berth does not read: write [[registry]]";
            return Err(bad(path, None, reason.to_string()));
        }
        if let Some(program) = file.credential_helpers.iter().find(|name| *name != "containers-auth.json") {
            let reason = format!(
                "credential-helpers names the program {program}, and Berth runs none for credentials"
            );
            return Err(bad(path, None, reason));
        }
        if let Some(search) = file.unqualified_search_registries {
            self.search = search.into_iter().next().map(|first| (first, path.to_path_buf()));
        }
        for (name, target) in file.aliases {
            self.aliases.insert(name, (target, path.to_path_buf()));
        }
        for entry in file.registry {
            let line = line_of(&text, entry.span().start);
            let (prefix, rule) = Rule::new(entry.into_inner(), path, line)?;
            self.rules.insert(prefix, rule);
        }
        Ok(())
    }

    /// A short name is docker.io's, as for the kubelet's other runtimes by default. Where these files mean another
    /// image by it, nobody must be given docker.io's.
    fn admit(&self, reference: &Reference) -> Result<(), RegistryError> {
        let Some(name) = reference.short() else {
            return Ok(());
        };
        let refuse = |meant: String, file: &Path| {
            let (name, file) = (name.to_string(), file.to_path_buf());
            Err(RegistryError::ShortName { name, file, meant })
        };
        match (self.aliases.get(name), &self.search) {
            (Some((target, file)), _) if !target.is_empty() => match Reference::parse(target) {
                Ok(meant)
                    if meant.registry() == reference.registry()
                        && meant.repository() == reference.repository() =>
                {
                    Ok(())
                }
                _ => refuse(target.clone(), file),
            },
            (_, Some((first, file))) if first != "docker.io" => refuse(format!("{first}/{name}"), file),
            _ => Ok(()),
        }
    }

    /// The entry with the longest prefix of the image's name, and the name behind it.
    fn find<'a>(&'a self, reference: &'a Reference) -> Option<(&'a Rule, String)> {
        let fits = |(prefix, rule): (&String, &'a Rule)| {
            Some((prefix.len(), rule, behind(prefix, reference.registry(), reference.repository())?))
        };
        let longest = self.rules.iter().filter_map(fits).max_by_key(|(len, ..)| *len);
        longest.map(|(_, rule, rest)| (rule, rest))
    }
}

/// What follows a prefix in an image's name, with its slash; none if the name does not begin with it.
fn behind(prefix: &str, registry: &str, repository: &str) -> Option<String> {
    if let Some(domain) = prefix.strip_prefix('*') {
        return registry.ends_with(domain).then(|| format!("/{repository}"));
    }
    let name = format!("{registry}/{repository}");
    let rest = name.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with('/')).then(|| rest.to_string())
}

impl Rule {
    /// With its prefix.
    fn new(entry: Entry, path: &Path, line: usize) -> Result<(String, Self), RegistryError> {
        let prefix = match entry.prefix.as_str() {
            "" => entry.location.clone(),
            prefix => prefix.to_string(),
        };
        let prefix = prefix.trim_end_matches('/').to_string();
        let rule = Self { entry, file: path.to_path_buf(), line };
        let wild = prefix.starts_with("*.");
        let reason = match prefix.rsplit('/').next() {
            _ if prefix.is_empty() => "a registry needs a prefix or a location",
            _ if wild && prefix.contains(['/', ':']) => "a prefix with *. is a domain and nothing else",
            _ if prefix.trim_start_matches("*.").contains('*') => {
                "a prefix has * only in front, as *.example.com"
            }
            Some(last) if prefix.contains('@') || (prefix.contains('/') && last.contains(':')) => {
                "a prefix with a tag or a digest is nothing that Berth knows"
            }
            _ if rule.entry.mirror_by_digest_only
                && rule.entry.mirror.iter().any(|mirror| mirror.pull_from_mirror != References::All) =>
            {
                "pull-from-mirror and mirror-by-digest-only contradict each other"
            }
            _ => return Ok((prefix, rule)),
        };
        Err(rule.bad(reason.to_string()))
    }

    fn hosts(
        &self,
        config: &Config,
        reference: &Reference,
        rest: String,
    ) -> Result<Vec<Host>, RegistryError> {
        let Entry { location, prefix, .. } = &self.entry;
        if self.entry.blocked {
            return Err(RegistryError::Blocked { object: reference.to_string(), file: self.file.clone() });
        }
        let by_digest = References::DigestOnly.fit(reference) || !self.entry.mirror_by_digest_only;
        let mirrors = self.entry.mirror.iter().filter(|mirror| mirror.pull_from_mirror.fit(reference));
        let mut places: Vec<(String, bool)> = match by_digest {
            true => mirrors.map(|mirror| (format!("{}{rest}", mirror.location), mirror.insecure)).collect(),
            false => Vec::new(),
        };
        let own = match (location.as_str(), prefix.as_str()) {
            ("", wild) if wild.starts_with("*.") => reference.registry(),
            ("", prefix) => prefix,
            (location, _) => location,
        };
        places.push((format!("{}{rest}", own.trim_end_matches('/')), self.entry.insecure));
        places.into_iter().map(|(name, insecure)| self.host(config, reference, (&name, insecure))).collect()
    }

    /// The host that has a repository under `HOST/REPOSITORY`.
    fn host(
        &self,
        config: &Config,
        reference: &Reference,
        (name, insecure): (&str, bool),
    ) -> Result<Host, RegistryError> {
        let refused = |reason: String| self.bad(format!("location {name:?}: {reason}"));
        if name.contains("://") {
            return Err(refused("takes no scheme".to_string()));
        }
        let (host, repository) = name.split_once('/').ok_or_else(|| refused("names no host".to_string()))?;
        let server = if host == "docker.io" { "registry-1.docker.io" } else { host };
        let tls = hosts::certificates(&config.config_path, host);
        let base = base_url(server, false, !tls.is_empty()).map_err(refused)?;
        let mut host = Host::new(base, repository.trim_start_matches('/'));
        host.own = host.is_registry(reference.registry());
        host.insecure = insecure && host.base.scheme() == "https";
        host.tls = tls;
        host.tls.skip_verify |= insecure;
        host.file = Some(self.file.clone());
        Ok(host)
    }

    fn bad(&self, reason: String) -> RegistryError {
        bad(&self.file, Some(self.line), reason)
    }
}

fn bad(path: &Path, line: Option<usize>, reason: String) -> RegistryError {
    RegistryError::BadFile { path: path.to_path_buf(), line, reason }
}
