//! `[image.policy]` of the configuration: which images may be had, and who must have signed them. What does not live here:
//! whether a signature is good (drivers/signatures).

mod admit;
mod error;
mod scope;
mod search;
#[cfg(test)]
mod tests;
mod withhold;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use self::error::PolicyError;
use self::scope::Scope;
use super::glob;
use super::reference::Reference;
use crate::drivers::signatures::{Files, Signer, Trust, TrustError, Verified};
use crate::ids::Digest;

/// `[image.policy]` of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// For images that no rule concerns.
    pub default: Verdict,
    /// The one with the most specific scope decides.
    #[serde(deserialize_with = "rules")]
    pub rules: Vec<Rule>,
}

impl Config {
    /// Keys and trusted roots that rules name.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.rules.iter().flat_map(|rule| rule.keys.iter().chain(&rule.trusted_root)).map(PathBuf::as_path)
    }
}

/// Without looking at an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It may be had.
    #[default]
    Accept,
    /// It may not.
    Reject,
}

/// What is asked of the images of a scope.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "Written")]
pub struct Rule {
    /// Where it holds.
    pub scope: Scope,
    /// What it does.
    pub action: Action,
    /// PEM files of public keys.
    pub keys: Vec<PathBuf>,
    /// Whether signatures by key must be in the transparency log, too.
    pub keys_in_log: bool,
    /// Whose certificates count.
    pub identities: Vec<Identity>,
    /// sigstore's trusted_root.json.
    pub trusted_root: Option<PathBuf>,
    /// Whether the signature must name the repository that the image is pulled from.
    pub match_repository: bool,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Let every image in.
    Accept,
    /// None.
    Reject,
    /// Those with a good signature.
    #[default]
    Verify,
}

/// Who may have signed by certificate; each `*` stands for any text.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// An e-mail address, or a workload's URI.
    pub subject: String,
    /// The URL of the OpenID provider that identified the subject.
    pub issuer: String,
}

/// A rule as it stands in the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    scope: Scope,
    #[serde(default)]
    action: Action,
    #[serde(default, deserialize_with = "crate::config::absolute_list")]
    keys: Vec<PathBuf>,
    #[serde(default)]
    keys_in_log: bool,
    #[serde(default)]
    identities: Vec<Identity>,
    #[serde(default, deserialize_with = "crate::config::absolute_or_none")]
    trusted_root: Option<PathBuf>,
    #[serde(default)]
    match_repository: bool,
}

impl TryFrom<Written> for Rule {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written { scope, action, keys, keys_in_log, identities, trusted_root, match_repository } =
            written;
        let signers = !keys.is_empty() || !identities.is_empty();
        let problem = match action {
            Action::Verify if !signers => Some("verify needs keys or identities"),
            Action::Accept | Action::Reject if signers => {
                Some("keys and identities are for action = \"verify\"")
            }
            _ if !identities.is_empty() && trusted_root.is_none() => Some("identities need a trusted_root"),
            _ if keys_in_log && trusted_root.is_none() => Some("keys_in_log needs a trusted_root"),
            _ if identities.iter().any(|one| one.subject.is_empty() || one.issuer.is_empty()) => {
                Some("an identity needs a subject and an issuer")
            }
            _ => None,
        };
        match problem {
            Some(problem) => Err(format!("the rule for {scope}: {problem}")),
            None => Ok(Self { scope, action, keys, keys_in_log, identities, trusted_root, match_repository }),
        }
    }
}

fn rules<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Rule>, D::Error> {
    let rules = Vec::<Rule>::deserialize(deserializer)?;
    for (at, rule) in rules.iter().enumerate() {
        if rules[..at].iter().any(|other| other.scope == rule.scope) {
            return Err(serde::de::Error::custom(format_args!("two rules are for {}", rule.scope)));
        }
    }
    Ok(rules)
}

impl Config {
    /// Which rule decides on an image.
    fn decides(&self, reference: &Reference) -> Option<usize> {
        let covering = self.rules.iter().enumerate().filter(|(_, rule)| rule.scope.covers(reference));
        covering.max_by_key(|(_, rule)| rule.scope.rank()).map(|(at, _)| at)
    }

    /// What a pull of an image would have to show, for a user. No file is read.
    pub fn explain(&self, reference: &Reference) -> String {
        let Some(rule) = self.decides(reference).map(|at| &self.rules[at]) else {
            return match self.default {
                Verdict::Accept => "no rule concerns the image, and others are accepted".into(),
                Verdict::Reject => "no rule concerns the image, and others are rejected".into(),
            };
        };
        let mut text = match rule.action {
            Action::Accept => format!("the rule for {} accepts all images", rule.scope),
            Action::Reject => format!("the rule for {} rejects all images", rule.scope),
            Action::Verify => format!("the rule for {} asks for a signature by one of", rule.scope),
        };
        let log = if rule.keys_in_log { ", in the transparency log" } else { "" };
        rule.keys.iter().for_each(|key| text += &format!("\n   key {}{log}", key.display()));
        rule.identities.iter().for_each(|one| text += &format!("\n   {} of {}", one.subject, one.issuer));
        text
    }
}

/// The policy in force: the rules with the files that they name.
#[derive(Debug)]
pub struct Policy {
    config: Config,
    /// One for each rule.
    checks: Vec<Arc<Check>>,
}

/// A rule and whom it trusts.
#[derive(Debug)]
struct Check {
    rule: Rule,
    trust: Trust,
    /// Another one means that what was admitted by it has to be looked at again.
    fingerprint: Digest,
}

/// What the policy says about an image by its name.
enum Judgement<'a> {
    Accept,
    Reject(PolicyError),
    Verify(&'a Arc<Check>),
}

impl Policy {
    /// Reads keys and trusted roots.
    pub fn load(config: &Config) -> Result<Self, TrustError> {
        let checks = config.rules.iter().map(|rule| Check::load(rule).map(Arc::new));
        Ok(Self { checks: checks.collect::<Result<_, _>>()?, config: config.clone() })
    }

    fn judge(&self, reference: &Reference) -> Judgement<'_> {
        let Some(check) = self.config.decides(reference).map(|at| &self.checks[at]) else {
            return self.otherwise();
        };
        match check.rule.action {
            Action::Accept => Judgement::Accept,
            Action::Reject => Judgement::Reject(PolicyError::Rejected(check.rule.scope.to_string())),
            Action::Verify => Judgement::Verify(check),
        }
    }

    fn otherwise(&self) -> Judgement<'_> {
        match self.config.default {
            Verdict::Accept => Judgement::Accept,
            Verdict::Reject => Judgement::Reject(PolicyError::Unlisted),
        }
    }
}

impl Check {
    fn load(rule: &Rule) -> Result<Self, TrustError> {
        let trust = Trust::load(&Files {
            keys: &rule.keys,
            keys_in_log: rule.keys_in_log,
            trusted_root: rule.trusted_root.as_deref(),
        })?;
        if let Some(unchecked) = trust.unchecked() {
            tracing::warn!(scope = %rule.scope, "the trusted root of this rule can't tell {unchecked}");
        }
        let fingerprint = Digest::of(format!("{rule:?} {}", trust.fingerprint()).as_bytes());
        Ok(Self { rule: rule.clone(), trust, fingerprint })
    }

    /// Whether a good signature is one that the rule asks for; else why not.
    fn authorize(&self, verified: &Verified, reference: &Reference) -> Result<(), String> {
        if let Signer::Certificate { subject, issuer } = &verified.signer {
            let fits = |one: &Identity| glob::fits(&one.subject, subject) && glob::fits(&one.issuer, issuer);
            if !self.rule.identities.iter().any(fits) {
                return Err(format!("is by {subject:?} of {issuer:?}, whom no identity of the rule fits"));
            }
        }
        if !self.rule.match_repository {
            return Ok(());
        }
        let Some(name) = &verified.name else {
            return Err("names no repository, and the rule asks for one (match_repository)".into());
        };
        match Reference::parse(name).is_ok_and(|named| named.is_of_repository_of(reference)) {
            true => Ok(()),
            false => Err(format!("is of the image as {name:?}")),
        }
    }
}
