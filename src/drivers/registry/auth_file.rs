//! containers-auth.json(5), which is also Docker's config.json: credentials of the node, for pulls that bring none.
//! Read at each pull. What does not live here: how a registry wants to hear them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::credentials::{Secret, decode, hub};
use super::error::RegistryError;

#[derive(Deserialize, Default)]
#[serde(default)]
struct Document {
    auths: BTreeMap<String, Entry>,
    #[serde(rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    #[serde(rename = "credsStore")]
    store: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    #[serde(rename = "identitytoken")]
    identity_token: String,
    #[serde(rename = "registrytoken")]
    registry_token: String,
}

/// What the file has for one repository of one host.
#[derive(Clone, Default)]
pub(super) enum Login {
    /// Nothing.
    #[default]
    Absent,
    /// A secret, under this key.
    Stored { secret: Secret, key: String, file: PathBuf },
    /// A program that would know.
    Program { program: String, file: PathBuf },
}

/// The file, read.
pub(super) struct AuthFile {
    path: PathBuf,
    document: Document,
}

impl AuthFile {
    /// Errors never show what is in the file.
    pub(super) fn read(path: &Path) -> Result<Self, RegistryError> {
        let bad = |line, reason| RegistryError::BadFile { path: path.to_path_buf(), line, reason };
        let text = std::fs::read_to_string(path).map_err(|error| bad(None, error.to_string()))?;
        let document = serde_json::from_str(&text).map_err(|error| {
            let reason = format!("column {}: this is no auth.json", error.column());
            bad(Some(error.line()), reason)
        })?;
        Ok(Self { path: path.to_path_buf(), document })
    }

    /// The most specific entry: `HOST/a/b`, `HOST/a`, `HOST`.
    pub(super) fn find(&self, host: &str, repository: &str) -> Result<Login, RegistryError> {
        let host = hub(host);
        let file = || self.path.clone();
        let helper = self.document.helpers.iter().find(|(key, _)| normal(key) == host);
        if let Some((_, program)) = helper {
            return Ok(Login::Program { program: format!("docker-credential-{program}"), file: file() });
        }
        let mut name = format!("{host}/{repository}");
        loop {
            // Of two spellings of one key, the one without a scheme.
            let mut entries: Vec<_> =
                self.document.auths.iter().filter(|(key, _)| normal(key) == name).collect();
            entries.sort_by_key(|(key, _)| key.contains("://"));
            if let Some((key, entry)) = entries.first() {
                return self.login(key, entry);
            }
            match name.rfind('/') {
                Some(slash) => name.truncate(slash),
                None => return Ok(Login::Absent),
            }
        }
    }

    fn login(&self, key: &str, entry: &Entry) -> Result<Login, RegistryError> {
        let some = |text: &String| (!text.is_empty()).then(|| text.clone());
        let basic = match (entry.username.as_str(), entry.auth.as_str()) {
            ("", "") => None,
            ("", auth) => Some(decode(auth).map_err(|reason| self.bad(key, reason))?),
            (username, _) => Some((username.to_string(), entry.password.clone())),
        };
        let identity_token = some(&entry.identity_token);
        // With an identity token the user's name is a placeholder, and there is no password.
        let basic = basic.filter(|_| identity_token.is_none());
        let secret = Secret { basic, identity_token, registry_token: some(&entry.registry_token) };
        let file = self.path.clone();
        // Docker leaves an empty entry where the store has the secret.
        Ok(match (secret.is_empty(), self.document.store.as_str()) {
            (true, "") => Login::Absent,
            (true, store) => Login::Program { program: format!("docker-credential-{store}"), file },
            (false, _) => Login::Stored { secret, key: key.to_string(), file },
        })
    }

    fn bad(&self, key: &str, reason: &str) -> RegistryError {
        let reason = format!("{key:?}: {reason}");
        RegistryError::BadFile { path: self.path.clone(), line: None, reason }
    }
}

/// A key as `HOST` or `HOST/path`. `docker login` writes whole URLs, in which a path means nothing.
fn normal(key: &str) -> String {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let name = bare.unwrap_or(key).trim_end_matches('/');
    let (host, path) = name.split_once('/').unwrap_or((name, ""));
    match path {
        "" | "v1" | "v2" => hub(host),
        _ if bare.is_some() => hub(host),
        path => format!("{}/{path}", hub(host)),
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    fn file(text: &str) -> Result<AuthFile, RegistryError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.json");
        std::fs::write(&path, text).unwrap();
        AuthFile::read(&path)
    }

    fn entry(user: &str) -> serde_json::Value {
        serde_json::json!({ "auth": STANDARD.encode(format!("{user}:hush")) })
    }

    fn user(file: &AuthFile, host: &str, repository: &str) -> String {
        match file.find(host, repository).unwrap() {
            Login::Stored { secret, .. } => secret.basic.map_or("token".into(), |(user, _)| user),
            Login::Absent => "none".into(),
            Login::Program { program, .. } => program,
        }
    }

    #[test]
    fn the_most_specific_entry_counts_and_no_other_host_s() {
        let text = serde_json::json!({
            "auths": {
                "quay.io": entry("host"), "quay.io/team": entry("team"), "quay.io/team/app": entry("app"),
                "https://index.docker.io/v1/": entry("hub"), "r.example:5000": entry("port"),
                "http://legacy.example/some/path": entry("legacy"),
                "refresh.example": { "auth": STANDARD.encode("0000:"), "identitytoken": "hush" },
                "plain.example": { "username": "plain", "password": "hush" },
                "empty.example": {},
            },
        });
        let file = file(&text.to_string()).unwrap();
        for (host, repository, expected) in [
            ("quay.io", "team/app", "app"),
            ("quay.io", "team/app2", "team"),
            ("quay.io", "team/app/more", "app"),
            ("quay.io", "teams", "host"),
            ("QUAY.io:443", "x", "host"),
            ("registry-1.docker.io", "library/busybox", "hub"),
            ("r.example:5000", "a", "port"),
            ("r.example", "a", "none"),
            ("legacy.example", "a", "legacy"),
            ("refresh.example", "a", "token"),
            ("plain.example", "a", "plain"),
            ("empty.example", "a", "none"),
            ("evil-quay.io", "team/app", "none"),
        ] {
            assert_eq!(user(&file, host, repository), expected, "{host}/{repository}");
        }
    }

    #[test]
    fn programs_are_named_and_not_run() {
        let text = r#"{"auths":{"stored.example":{}},"credHelpers":{"ecr.example":"ecr-login"},"credsStore":"pass"}"#;
        let file = file(text).unwrap();
        assert_eq!(user(&file, "ecr.example", "a"), "docker-credential-ecr-login");
        assert_eq!(user(&file, "stored.example", "a"), "docker-credential-pass");
        assert_eq!(user(&file, "public.example", "a"), "none");
    }

    #[test]
    fn mistakes_are_named_without_what_is_in_the_file() {
        for text in
            ["{\n\"auths\": {\"a\": {\"auth\": 7}}}", "{\n\"auths\": \"hush-hush\"}", "{\n", "hush-hush"]
        {
            let error = file(text).err().expect(text).to_string();
            assert!(error.contains("auth.json line ") && !error.contains("hush"), "{error}");
        }
        let file = file(r#"{"auths":{"q.example":{"auth":"hush!"}}}"#).unwrap();
        let error = file.find("q.example", "a").err().unwrap().to_string();
        assert!(
            error.contains("q.example") && error.contains("base64") && !error.contains("hush"),
            "{error}"
        );
    }
}
