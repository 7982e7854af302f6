//! What a caller knows to prove who it is. What does not live here: how a registry wants to hear it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

use super::error::RegistryError;
use crate::ids::{Digest, Hasher};

/// CRI's AuthConfig; an empty field is absent. Debug shows no secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// With `password`, for basic authentication and token servers.
    pub username: String,
    /// See `username`.
    pub password: String,
    /// base64 of `username:password`; counts if `username` is empty.
    pub auth: String,
    /// Which registry these are for; others do not get to see them. Empty: the one that the reference names.
    pub server_address: String,
    /// An OAuth2 refresh token for the registry's token server.
    pub identity_token: String,
    /// A bearer token, sent to the registry as it is.
    pub registry_token: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |text: &str| if text.is_empty() { "none" } else { "redacted" };
        f.debug_struct("Credentials")
            .field("username", &show(&self.username))
            .field("password", &show(&self.password))
            .field("auth", &show(&self.auth))
            .field("server_address", &self.server_address)
            .field("identity_token", &show(&self.identity_token))
            .field("registry_token", &show(&self.registry_token))
            .finish()
    }
}

/// What one host gets to see. Held only while a request runs.
#[derive(Clone, Default)]
pub(super) struct Secret {
    pub(super) basic: Option<(String, String)>,
    pub(super) identity_token: Option<String>,
    pub(super) registry_token: Option<String>,
}

impl Credentials {
    /// Whether nothing is given.
    pub fn is_empty(&self) -> bool {
        [&self.username, &self.password, &self.auth, &self.identity_token, &self.registry_token]
            .iter()
            .all(|field| field.is_empty())
    }

    /// The part for one host; `own` says that the host is the reference's registry, not a mirror of it.
    pub(super) fn secret(&self, registry: &str, host: &str, own: bool) -> Result<Secret, RegistryError> {
        let meant = match self.server_address.trim() {
            "" => own,
            address => is_server(address, host) || (own && is_server(address, registry)),
        };
        if self.is_empty() || !meant {
            return Ok(Secret::default());
        }
        let some = |text: &String| (!text.is_empty()).then(|| text.clone());
        let basic = match (self.username.as_str(), self.auth.as_str()) {
            ("", "") => None,
            ("", auth) => Some(decode(auth).map_err(|reason| {
                let registry = registry.to_string();
                RegistryError::BadCredentials { registry, reason }
            })?),
            (username, _) => Some((username.to_string(), self.password.clone())),
        };
        Ok(Secret {
            basic,
            identity_token: some(&self.identity_token),
            registry_token: some(&self.registry_token),
        })
    }
}

impl Secret {
    pub(super) fn is_empty(&self) -> bool {
        self.basic.is_none() && self.identity_token.is_none() && self.registry_token.is_none()
    }

    /// Tells two secrets apart without keeping either.
    pub(super) fn fingerprint(&self) -> Digest {
        let mut hash = Hasher::new();
        let (username, password) = self.basic.as_ref().map_or(("", ""), |(name, word)| (name, word));
        let fields = [
            username,
            password,
            self.identity_token.as_deref().unwrap_or(""),
            self.registry_token.as_deref().unwrap_or(""),
        ];
        for field in fields {
            hash.update(&(field.len() as u64).to_le_bytes());
            hash.update(field.as_bytes());
        }
        hash.finish()
    }

    /// A server may echo what it was sent.
    pub(super) fn redact(&self, text: String) -> String {
        let encoded = self.basic.as_ref().map(|(name, word)| STANDARD.encode(format!("{name}:{word}")));
        let password = self.basic.as_ref().map(|(_, password)| password);
        [encoded.as_ref(), password, self.identity_token.as_ref(), self.registry_token.as_ref()]
            .into_iter()
            .flatten()
            .filter(|secret| !secret.is_empty())
            .fold(text, |text, secret| text.replace(secret.as_str(), "[redacted]"))
    }
}

/// Name and password of what clients keep as `auth`; the reason if it is none.
pub(super) fn decode(auth: &str) -> Result<(String, String), &'static str> {
    let text = auth.trim();
    let bytes =
        STANDARD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text)).map_err(|_| "auth is not base64")?;
    let text = String::from_utf8(bytes).map_err(|_| "auth is not UTF-8")?;
    match text.split_once(':') {
        Some((username, password)) => Ok((username.to_string(), password.trim_end_matches('\0').to_string())),
        None => Err("auth is not base64 of username:password"),
    }
}

/// Users write `https://index.docker.io/v1/` as well as `docker.io`.
fn is_server(address: &str, host: &str) -> bool {
    let bare =
        address.strip_prefix("https://").or_else(|| address.strip_prefix("http://")).unwrap_or(address);
    let bare = bare.split('/').next().unwrap_or(bare);
    hub(bare) == hub(host)
}

/// One name for the hosts of Docker Hub, and for the two spellings of https's own port.
pub(super) fn hub(host: &str) -> String {
    match host.to_ascii_lowercase().as_str() {
        "index.docker.io" | "registry-1.docker.io" | "docker.io" => "docker.io".to_string(),
        host => host.strip_suffix(":443").unwrap_or(host).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(server: &str) -> Credentials {
        Credentials {
            auth: STANDARD.encode("me:a:b"),
            server_address: server.into(),
            ..Credentials::default()
        }
    }

    #[test]
    fn credentials_are_only_for_the_server_they_name() {
        for (server, host, own, seen) in [
            ("", "quay.io", true, true),
            ("", "mirror.example", false, false),
            ("quay.io", "quay.io", true, true),
            ("https://quay.io/v2/", "quay.io", true, true),
            ("quay.io.evil.example", "quay.io", true, false),
            ("mirror.example", "mirror.example", false, true),
            ("https://index.docker.io/v1/", "registry-1.docker.io", true, true),
            ("quay.io:8443", "quay.io", true, false),
        ] {
            let secret = named(server).secret(host, host, own).unwrap();
            assert_eq!(!secret.is_empty(), seen, "{server} {host}");
        }
        let secret = named("").secret("q", "q", true).unwrap();
        assert_eq!(secret.basic, Some(("me".into(), "a:b".into())));
    }

    #[test]
    fn no_secret_is_shown() {
        let all = Credentials {
            username: "hush1".into(),
            password: "hush2".into(),
            auth: "hush3".into(),
            server_address: "quay.io".into(),
            identity_token: "hush4".into(),
            registry_token: "hush5".into(),
        };
        assert!(!format!("{all:?}").contains("hush"));
        let bad = Credentials { auth: "hush!".into(), ..Credentials::default() };
        let error = bad.secret("q", "q", true).err().unwrap();
        assert!(!format!("{error} {error:?}").contains("hush"));
    }
}
