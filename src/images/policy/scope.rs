//! Which repositories a rule concerns.

use serde::{Deserialize, Serialize};

use crate::images::reference::Reference;

/// A registry, a path in it, or `*.domain`; with everything below.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Scope(String);

impl Scope {
    fn parse(text: &str) -> Result<Self, String> {
        if let Some(shorter) = text.strip_suffix("/*").or_else(|| text.strip_suffix('/')) {
            return Err(format!(
                "{text:?} as a scope: everything below is meant anyway, so write {shorter:?}"
            ));
        }
        let (whole, wild) = match text.strip_prefix("*.") {
            Some(domain) => (format!("x.{domain}"), true),
            None => (text.to_string(), false),
        };
        let bad = || {
            let forms = "a registry, a repository with its registry, or *.DOMAIN; without tag or digest";
            format!("{text:?} can not be a scope, which is {forms}")
        };
        // Below two more components Docker Hub's short names mean nothing else.
        let example = Reference::parse(&format!("{whole}/a/b")).map_err(|_| bad())?;
        let path = example.repository().strip_suffix("a/b").ok_or_else(bad)?.trim_end_matches('/');
        let (host, rest) = whole.split_once('/').unwrap_or((&whole, ""));
        let hub = host.eq_ignore_ascii_case("index.docker.io");
        if (!hub && !host.eq_ignore_ascii_case(example.registry()))
            || rest != path
            || (wild && !path.is_empty())
        {
            return Err(bad());
        }
        Ok(Self(match (wild, path) {
            (true, _) => format!("*{}", &example.registry()[1..]),
            (false, "") => example.registry().to_string(),
            (false, path) => format!("{}/{path}", example.registry()),
        }))
    }

    pub(super) fn covers(&self, reference: &Reference) -> bool {
        if let Some(domain) = self.0.strip_prefix('*') {
            return reference.registry().ends_with(domain);
        }
        let whole = format!("{}/{}", reference.registry(), reference.repository());
        whole.strip_prefix(&self.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Of the scopes that cover an image the greatest decides: any registry before any domain, then the longest.
    pub(super) fn rank(&self) -> (bool, usize) {
        (!self.0.starts_with('*'), self.0.len())
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Scope {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> Self {
        scope.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_covers_itself_and_what_is_below_it() {
        for (scope, image, covers) in [
            ("docker.io", "busybox", true),
            ("docker.io/library", "busybox", true),
            ("index.docker.io/library/busybox", "busybox:1", true),
            ("docker.io/library/busy", "busybox", false),
            ("quay.io/team", "quay.io/team/app:1", true),
            ("quay.io/team", "quay.io/team2/app:1", false),
            ("quay.io/team/app", "quay.io/team/app", true),
            ("Quay.io", "quay.io/a", true),
            ("quay.io", "quay.io:5000/a", false),
            ("localhost:5000/a", "localhost:5000/a/b", true),
            ("[::1]:5000", "[::1]:5000/a", true),
            ("*.example.com", "a.example.com/x", true),
            ("*.example.com", "a.b.example.com/x", true),
            ("*.example.com", "example.com/x", false),
            ("*.example.com", "badexample.com/x", false),
            ("*.example.com:5000", "a.example.com:5000/x", true),
        ] {
            let reference = Reference::parse(image).unwrap();
            assert_eq!(Scope::parse(scope).unwrap().covers(&reference), covers, "{scope} {image}");
        }
        let rank = |text| Scope::parse(text).unwrap().rank();
        assert!(rank("quay.io/team/app") > rank("quay.io/team") && rank("a.io") > rank("*.example.com"));
    }

    #[test]
    fn what_can_cover_nothing_is_refused() {
        for bad in [
            "",
            "busybox",
            "team/app",
            "quay.io/team/*",
            "quay.io/team/",
            "quay.io/team/app:1",
            "quay.io/app@sha256:00",
            "quay.io/Team",
            "*",
            "*.",
            "*.example.com/app",
            "*/app",
            "https://quay.io",
        ] {
            assert!(Scope::parse(bad).is_err(), "{bad}");
        }
        assert!(Scope::parse("quay.io/team/*").unwrap_err().contains("write \"quay.io/team\""));
    }
}
