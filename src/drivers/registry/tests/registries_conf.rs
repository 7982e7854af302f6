//! registries.conf: whom it names for which image, and what it refuses.

use std::path::Path;

use super::super::registries_conf::load;
use super::super::{Config, RegistryError};
use crate::ids::Digest;
use crate::images::reference::Reference;

fn config(dir: &Path) -> Config {
    Config { config_path: dir.join("certs.d"), ..Config::default() }
}

fn asked(dir: &Path, image: &str) -> Result<Option<Vec<String>>, RegistryError> {
    let reference = Reference::parse(image).unwrap();
    let hosts = load(&config(dir), &dir.join("registries.conf"), &reference)?;
    Ok(hosts.map(|hosts| hosts.iter().map(|host| format!("{}{}", host.base, host.repository)).collect()))
}

fn write(dir: &Path, name: &str, text: &str) {
    let path = dir.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// The example of the manual page, and its answer.
#[test]
fn mirrors_come_in_order_and_the_location_last_all_with_the_name_behind_the_prefix() {
    let dir = tempfile::tempdir().unwrap();
    write(
        dir.path(),
        "registries.conf",
        r#"
[[registry]]
prefix = "example.com/foo"
location = "internal.example:5000/bar"
[[registry.mirror]]
location = "mirror-0.local/mirror-for-foo"
[[registry.mirror]]
location = "mirror-1.local/mirrors/foo"
insecure = true

[[registry]]
location = "registry.com"
[[registry.mirror]]
location = "mirror.registry.com"

[[registry]]
prefix = "*.wild.example"
[[registry.mirror]]
location = "mirror.local"

[[registry]]
location = "docker.io"
"#,
    );
    let asked = |image: &str| asked(dir.path(), image).unwrap();
    for (image, expected) in [
        (
            "example.com/foo/image:latest",
            &[
                "https://mirror-0.local/v2/mirror-for-foo/image",
                "https://mirror-1.local/v2/mirrors/foo/image",
                "https://internal.example:5000/v2/bar/image",
            ][..],
        ),
        (
            "example.com/foo",
            &[
                "https://mirror-0.local/v2/mirror-for-foo",
                "https://mirror-1.local/v2/mirrors/foo",
                "https://internal.example:5000/v2/bar",
            ],
        ),
        ("registry.com/a", &["https://mirror.registry.com/v2/a", "https://registry.com/v2/a"]),
        ("x.y.wild.example/a/b", &["https://mirror.local/v2/a/b", "https://x.y.wild.example/v2/a/b"]),
        ("busybox", &["https://registry-1.docker.io/v2/library/busybox"]),
    ] {
        assert_eq!(asked(image).unwrap(), expected, "{image}");
    }
    for other in ["example.com/foobar", "example.com/other", "wild.example/a", "registry.com:5000/a"] {
        assert_eq!(asked(other), None, "{other}");
    }
}

#[test]
fn a_mirror_may_be_for_digests_or_for_tags_only() {
    let dir = tempfile::tempdir().unwrap();
    let text = |own: &str, mirror: &str| {
        format!(
            "[[registry]]\nlocation = \"r.example\"\n{own}\n[[registry.mirror]]\nlocation = \"m.example\"\n{mirror}\n"
        )
    };
    let digest = format!("r.example/a@{}", Digest::of(b"x"));
    for (own, mirror, for_tag, for_digest) in [
        ("", "", 2, 2),
        ("", "pull-from-mirror = \"\"", 2, 2),
        ("", "pull-from-mirror = \"digest-only\"", 1, 2),
        ("", "pull-from-mirror = \"tag-only\"", 2, 1),
        ("mirror-by-digest-only = true", "", 1, 2),
    ] {
        write(dir.path(), "registries.conf", &text(own, mirror));
        let count = |image: &str| asked(dir.path(), image).unwrap().unwrap().len();
        assert_eq!((count("r.example/a:1"), count(&digest)), (for_tag, for_digest), "{own} {mirror}");
    }
}

#[test]
fn drop_ins_replace_what_came_before() {
    let dir = tempfile::tempdir().unwrap();
    write(
        dir.path(),
        "registries.conf",
        "[[registry]]\nprefix = \"r.example\"\nlocation = \"one.example\"\n",
    );
    write(
        dir.path(),
        "registries.conf.d/20.conf",
        "[[registry]]\nprefix = \"r.example\"\nlocation = \"three.example\"\n",
    );
    write(dir.path(), "registries.conf.d/10.conf", "[[registry]]\nprefix = \"r.example\"\nblocked = true\n");
    write(dir.path(), "registries.conf.d/30.conf.bak", "nonsense");
    assert_eq!(asked(dir.path(), "r.example/a").unwrap().unwrap(), ["https://three.example/v2/a"]);
    std::fs::remove_file(dir.path().join("registries.conf.d/20.conf")).unwrap();
    let error = asked(dir.path(), "r.example/a").unwrap_err();
    assert!(matches!(&error, RegistryError::Blocked { file, .. } if file.ends_with("10.conf")), "{error}");
}

#[test]
fn a_short_name_is_docker_hubs_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (text, image, meant) in [
        ("", "busybox", None),
        ("unqualified-search-registries = [\"docker.io\", \"quay.io\"]", "busybox", None),
        ("unqualified-search-registries = [\"quay.io\", \"docker.io\"]", "a/b:1", Some("quay.io/a/b")),
        ("unqualified-search-registries = [\"quay.io\"]", "docker.io/busybox", None),
        (
            "[aliases]\nfedora = \"registry.fedoraproject.org/fedora\"",
            "fedora:42",
            Some("registry.fedoraproject.org/fedora"),
        ),
        (
            "unqualified-search-registries = [\"quay.io\"]\n[aliases]\ndebian = \"docker.io/library/debian\"",
            "debian",
            None,
        ),
    ] {
        write(dir.path(), "registries.conf", text);
        match (asked(dir.path(), image), meant) {
            (Ok(None), None) => {}
            (Err(error), Some(meant)) => {
                let text = error.to_string();
                assert!(text.contains(meant) && text.contains("registries.conf"), "{text}");
            }
            (other, _) => panic!("{text} {image}: {other:?}"),
        }
    }
}

#[test]
fn certificates_are_the_hosts_own_and_insecure_trusts_anyone() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "certs.d/m.example:5000/ca.crt", "");
    write(
        dir.path(),
        "registries.conf",
        "[[registry]]\nlocation = \"r.example\"\ninsecure = true\n[[registry.mirror]]\nlocation = \"m.example:5000\"\n",
    );
    let reference = Reference::parse("r.example/a").unwrap();
    let hosts = load(&config(dir.path()), &dir.path().join("registries.conf"), &reference);
    let hosts = hosts.unwrap().unwrap();
    assert_eq!(hosts[0].tls.authorities, [dir.path().join("certs.d/m.example:5000/ca.crt")]);
    assert!(!hosts[0].insecure && !hosts[0].tls.skip_verify && !hosts[0].own);
    assert!(hosts[1].insecure && hosts[1].tls.skip_verify && hosts[1].own);
}

#[test]
fn mistakes_are_named_with_file_and_line() {
    let dir = tempfile::tempdir().unwrap();
    let error = asked(dir.path(), "r.example/a").unwrap_err().to_string();
    assert!(error.contains("registries.conf") && error.contains("No such file"), "{error}");
    for (text, line, word) in [
        ("\n[[registry\n", Some(2), ""),
        ("\n[[registry]]\ninsecure = 1\n", Some(3), "boolean"),
        ("\n[[registry]]\n", Some(2), "prefix"),
        ("[[registry]]\nprefix = \"a.*.example\"\n", Some(1), "*.example.com"),
        ("[[registry]]\nprefix = \"*.example/a\"\n", Some(1), "domain"),
        ("[[registry]]\nprefix = \"r.example/a:1\"\n", Some(1), "tag"),
        ("[[registry]]\nlocation = \"https://r.example\"\nprefix = \"r.example\"", Some(1), "scheme"),
        (
            "[[registry]]\nlocation = \"r.example\"\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = \"x\"\npull-from-mirror = \"tag-only\"\n",
            Some(1),
            "contradict",
        ),
        ("[registries.search]\nregistries = [\"a\"]\n", None, "version 1"),
        ("credential-helpers = [\"ecr-login\"]\n", None, "ecr-login"),
    ] {
        write(dir.path(), "registries.conf", text);
        match asked(dir.path(), "r.example/a").expect_err(text) {
            RegistryError::BadFile { line: found, reason, path } => {
                assert!(path.ends_with("registries.conf"));
                assert!(found == line && reason.contains(word), "{text}: {found:?} {reason}");
            }
            other => panic!("{text}: {other}"),
        }
    }
}
