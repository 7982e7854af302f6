//! Rules: how they are written, which one decides, and whom it lets in. Signatures are tested in drivers/signatures, and
//! all of it with a registry in e2e/tests/policy.rs.

use std::path::Path;

use super::search::Referrer;
use super::*;
use crate::config::Config as Whole;

fn parse(rules: &str) -> Result<Config, String> {
    let parsed = Whole::parse(rules, Path::new("/etc/x.toml"));
    parsed.map(|whole| whole.image.policy).map_err(|error| error.to_string())
}

fn policy(rules: &str) -> Policy {
    Policy::load(&parse(rules).unwrap()).unwrap()
}

fn reference(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

/// A key's file, and the rule for it.
fn key() -> (tempfile::NamedTempFile, String) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), rcgen::KeyPair::generate().unwrap().public_key_pem()).unwrap();
    let keys = format!("keys = [\"{}\"]", file.path().display());
    (file, keys)
}

#[test]
fn the_most_specific_scope_decides_and_the_default_the_rest() {
    let (_file, keys) = key();
    let policy = policy(&format!(
        "[image.policy]\ndefault = \"reject\"\n\
         [[image.policy.rules]]\nscope = \"quay.io/team\"\n{keys}\n\
         [[image.policy.rules]]\nscope = \"quay.io\"\naction = \"accept\"\n\
         [[image.policy.rules]]\nscope = \"quay.io/team/bad\"\naction = \"reject\"\n\
         [[image.policy.rules]]\nscope = \"*.example.com\"\naction = \"accept\"\n"
    ));
    for (image, expected) in [
        ("quay.io/other/app", "accept"),
        ("quay.io/team/app:1", "verify"),
        ("quay.io/team/bad", "the policy for quay.io/team/bad rejects all images"),
        ("a.example.com/x", "accept"),
        ("busybox", "the policy has no rule for it and rejects by default"),
    ] {
        let judged = match policy.judge(&reference(image)) {
            Judgement::Accept => "accept".to_string(),
            Judgement::Verify(_) => "verify".to_string(),
            Judgement::Reject(error) => error.to_string(),
        };
        assert_eq!(judged, expected, "{image}");
    }
    let told = |image: &str| policy.config.explain(&reference(image));
    assert!(
        told("quay.io/team/app")
            .starts_with("the rule for quay.io/team asks for a signature by one of\n   key /")
    );
    assert_eq!(told("busybox"), "no rule concerns the image, and others are rejected");
    assert_eq!(told("a.example.com/x"), "the rule for *.example.com accepts all images");
}

#[test]
fn rules_that_cannot_work_are_refused_with_their_place() {
    let root = "trusted_root = \"/r.json\"";
    let identity = "identities = [{ subject = \"a\", issuer = \"b\" }]";
    for (rule, problem) in [
        ("scope = \"quay.io\"", "verify needs keys or identities"),
        ("scope = \"quay.io\"\nkeys = []", "verify needs keys or identities"),
        ("scope = \"quay.io\"\naction = \"accept\"\nkeys = [\"/k\"]", "are for action = \"verify\""),
        (&format!("scope = \"quay.io\"\n{identity}"), "identities need a trusted_root"),
        ("scope = \"quay.io\"\nkeys = [\"/k\"]\nkeys_in_log = true", "keys_in_log needs a trusted_root"),
        ("scope = \"quay.io\"\nkeys = [\"k\"]", "not an absolute path"),
        (
            &format!("scope = \"quay.io\"\n{root}\nidentities = [{{ subject = \"\", issuer = \"b\" }}]"),
            "needs a subject and an issuer",
        ),
        (
            &format!("scope = \"quay.io\"\n{root}\nidentities = [{{ subject = \"a\" }}]"),
            "missing field `issuer`",
        ),
        ("scope = \"busybox\"\nkeys = [\"/k\"]", "\"busybox\" can not be a scope"),
        ("scope = \"quay.io/team/*\"\nkeys = [\"/k\"]", "write \"quay.io/team\""),
        ("scope = \"quay.io\"\nkey = [\"/k\"]", "unknown field `key`"),
        ("keys = [\"/k\"]", "missing field `scope`"),
        (
            "scope = \"quay.io\"\nkeys = [\"/k\"]\n[[image.policy.rules]]\nscope = \"Quay.io\"\nkeys = [\"/k\"]",
            "two rules are for quay.io",
        ),
    ] {
        let error = parse(&format!("[[image.policy.rules]]\n{rule}\n")).unwrap_err();
        assert!(error.starts_with("/etc/x.toml, line ") && error.contains(problem), "{rule}\n{error}");
    }
    assert!(parse("[image.policy]\ndefault = \"maybe\"").unwrap_err().contains("unknown variant `maybe`"));
}

#[test]
fn the_page_for_operators_shows_rules_that_work() {
    let page = include_str!("../../../docs/image-policy.md");
    let example = page.split("```toml").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let config = parse(example).unwrap();
    assert_eq!((config.default, config.rules.len()), (Verdict::Accept, 3));
    for key in ["scope", "action", "keys", "keys_in_log", "identities", "trusted_root", "match_repository"] {
        assert!(page.contains(&format!("| `{key}` |")), "{key}");
    }
}

#[test]
fn a_key_that_is_not_there_is_an_error_at_the_start() {
    let config = parse("[[image.policy.rules]]\nscope = \"quay.io\"\nkeys = [\"/no/such/key.pub\"]").unwrap();
    let error = crate::error::chain(&Policy::load(&config).unwrap_err());
    assert_eq!(error, "cannot read /no/such/key.pub: No such file or directory (os error 2)");
}

#[test]
fn certificates_count_for_the_subjects_and_issuers_that_the_rule_names() {
    let (_file, keys) = key();
    let mut check = Check::load(
        &parse(&format!("[[image.policy.rules]]\nscope = \"quay.io\"\n{keys}")).unwrap().rules[0],
    )
    .unwrap();
    check.rule.identities = vec![
        Identity { subject: "https://ci.test/team/*@refs/tags/*".into(), issuer: "https://oidc.test".into() },
        Identity { subject: "ann@example.com".into(), issuer: "https://accounts.*".into() },
    ];
    let image = reference("quay.io/team/app:1");
    for (subject, issuer, fits) in [
        ("https://ci.test/team/app@refs/tags/1", "https://oidc.test", true),
        ("https://ci.test/team/app@refs/heads/main", "https://oidc.test", false),
        ("https://evil.test/https://ci.test/team/app@refs/tags/1", "https://oidc.test", false),
        ("https://ci.test/team/app@refs/tags/1", "https://oidc.test.evil", false),
        ("https://ci.test/team/app@refs/tags/1", "https://accounts.test", false),
        ("ann@example.com", "https://accounts.test", true),
        ("ann@example.com.evil", "https://accounts.test", false),
    ] {
        let signer = Signer::Certificate { subject: subject.into(), issuer: issuer.into() };
        let judged = check.authorize(&Verified { signer, name: None }, &image);
        assert_eq!(judged.is_ok(), fits, "{subject} {issuer}");
        assert!(judged.is_ok() || judged.unwrap_err().contains(subject));
    }
}

#[test]
fn the_signature_may_have_to_name_the_repository() {
    let (file, keys) = key();
    let rule = format!("[[image.policy.rules]]\nscope = \"docker.io\"\n{keys}\nmatch_repository = true");
    let check = Check::load(&parse(&rule).unwrap().rules[0]).unwrap();
    let image = reference("team/app:1");
    for (name, fits) in [
        (Some("docker.io/team/app"), true),
        (Some("index.docker.io/team/app:other"), true),
        (Some("docker.io/team/app2"), false),
        (Some("quay.io/team/app"), false),
        (Some("not a name"), false),
        (None, false),
    ] {
        let verified = Verified { signer: Signer::Key(file.path().into()), name: name.map(Into::into) };
        assert_eq!(check.authorize(&verified, &image).is_ok(), fits, "{name:?}");
    }
}

#[test]
fn referrers_are_passed_over_that_call_themselves_something_else() {
    let bundle = "application/vnd.dev.sigstore.bundle.v0.3+json";
    let digest = Digest::of(b"");
    for (kind, predicate, is) in [
        (Some(bundle), Some("https://sigstore.dev/cosign/sign/v1"), true),
        (Some(bundle), None, true),
        (Some("application/vnd.oci.empty.v1+json"), None, true),
        (None, None, true),
        (Some(bundle), Some("https://slsa.dev/provenance/v1"), false),
        (Some("application/spdx+json"), None, false),
    ] {
        let annotations =
            predicate.map(|kind| serde_json::json!({ "dev.sigstore.bundle.predicateType": kind }));
        let referrer = serde_json::json!({ "digest": digest, "size": 1, "artifactType": kind, "annotations": annotations });
        let referrer: Referrer = serde_json::from_value(referrer).unwrap();
        assert_eq!(referrer.is_signature(), is, "{kind:?} {predicate:?}");
    }
}
