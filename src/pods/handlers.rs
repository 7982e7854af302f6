//! `[pods]` of the configuration: the runtime handlers, by which RuntimeClasses name a runtime. What does not live here: the
//! features that Status tells of each.
//!
//! There is one runtime, Berth itself, and `""` names it. Its other names are those of the programs that it stands for: a
//! RuntimeClass that asks for runc or crun on the node's old runtime asks for ordinary containers, and its pods shall start
//! here too. A name like kata or gvisor asks for another kind of isolation, so it is no name of ours unless the operator says so.

use serde::{Deserialize, Deserializer, Serialize};

use super::Cause;

/// Longest label of DNS, which a handler has to be.
const LABEL: usize = 63;

/// `[pods]` of the configuration.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Names of Berth beside `""`.
    #[serde(deserialize_with = "labels")]
    pub handlers: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self { handlers: ["berth", "crun", "runc"].map(String::from).into() }
    }
}

impl Config {
    /// Every name of a handler that pods can have, the default one first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once("").chain(self.handlers.iter().map(String::as_str))
    }

    /// Fails if there is no such handler.
    pub(super) fn find(&self, handler: &str) -> Result<(), Cause> {
        if self.names().any(|name| name == handler) {
            return Ok(());
        }
        let known: Vec<_> = self.names().map(|name| format!("{name:?}")).collect();
        Err(Cause::NoHandler { handler: handler.into(), known: known.join(", ") })
    }
}

fn labels<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    let mut seen = std::collections::HashSet::new();
    for name in &names {
        if !is_label(name) {
            let why = "can not be a RuntimeClass's handler: those are lower-case letters, digits and '-' between them";
            return Err(serde::de::Error::custom(format!("{name:?} {why}")));
        }
        if !seen.insert(name) {
            return Err(serde::de::Error::custom(format!("{name:?} is there twice")));
        }
    }
    Ok(names)
}

/// RFC 1123, as the API server wants a handler.
fn is_label(name: &str) -> bool {
    let ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.starts_with(ends)
        && name.ends_with(ends)
        && name.len() <= LABEL
        && name.chars().all(|c| ends(c) || c == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_that_nobody_has_is_refused_with_those_that_there_are() {
        let config = Config::default();
        for name in ["", "berth", "runc", "crun"] {
            assert!(config.find(name).is_ok(), "{name:?}");
        }
        let error = config.find("kata").unwrap_err().to_string();
        assert_eq!(
            error,
            "there is no runtime handler \"kata\" on this node: only \"\", \"berth\", \"crun\", \"runc\" (`handlers` \
             of [pods] in Berth's configuration)"
        );
        let none = Config { handlers: Vec::new() };
        assert!(none.find("").is_ok() && none.find("runc").is_err());
    }

    #[test]
    fn labels_are_what_the_api_server_takes() {
        assert!(is_label("a") && is_label("a-b1") && is_label(&"x".repeat(LABEL)));
        for bad in ["", "-a", "a-", "A", "a.b", "a b", &"x".repeat(LABEL + 1)] {
            assert!(!is_label(bad), "{bad:?}");
        }
    }
}
