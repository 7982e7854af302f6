//! The rows of `berth check` about the files that pulls read.

use super::{Row, row};
use crate::config::Config;
use crate::drivers::registry;
use crate::error::chain;
use crate::images::policy::Policy;

pub(super) fn rows(config: &Config) -> [Row; 2] {
    [files(config), policy(config)]
}

fn files(config: &Config) -> Row {
    const WHAT: &str = "registry files";
    match registry::check(&config.registry) {
        Ok(found) => row(WHAT, found, true, ""),
        Err(error) => row(WHAT, "not good", false, &format!("pulls fail: {}", chain(&error))),
    }
}

fn policy(config: &Config) -> Row {
    const WHAT: &str = "image policy";
    let policy = &config.image.policy;
    match Policy::load(policy) {
        Ok(_) if *policy == Default::default() => row(WHAT, "none", true, ""),
        Ok(_) => row(WHAT, format!("{} rules", policy.rules.len()), true, ""),
        Err(error) => row(WHAT, "not good", false, &format!("the daemon does not start: {}", chain(&error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_without_its_keys_is_told_before_the_daemon_fails_by_it() {
        let rule = "[[image.policy.rules]]\nscope = \"quay.io\"\nkeys = [\"/no/such/key.pub\"]";
        let config = Config::parse(rule, std::path::Path::new("x")).unwrap();
        assert!(rows(&config)[1].cost.contains("cannot read /no/such/key.pub: No such file"));
        assert_eq!(rows(&Config::default())[1].found, "none");
    }

    #[test]
    fn a_mistake_is_told_before_a_pull_meets_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.registry.config_path = dir.path().join("certs.d");
        assert_eq!(rows(&config)[0].found, "0 hosts.toml");
        let auth = dir.path().join("auth.json");
        std::fs::write(&auth, "{}").unwrap();
        config.registry.auth_file = Some(auth);
        for host in ["quay.io", "r.example_5000_", "_default", "not a host"] {
            let directory = config.registry.config_path.join(host);
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(directory.join("hosts.toml"), "").unwrap();
        }
        assert_eq!(rows(&config)[0].found, "auth.json, 3 hosts.toml");
        for host in ["_default", "r.example_5000_"] {
            let path = config.registry.config_path.join(host).join("hosts.toml");
            std::fs::write(&path, "\n[host\n").unwrap();
            let cost = &rows(&config)[0].cost;
            assert!(cost.contains(&format!("{} line 2", path.display())), "{cost}");
            std::fs::write(&path, "").unwrap();
        }
        let conf = dir.path().join("registries.conf");
        config.registry.registries_conf_path = Some(conf.clone());
        assert!(rows(&config)[0].cost.contains("registries.conf: No such file"));
        std::fs::write(&conf, "").unwrap();
        assert_eq!(rows(&config)[0].found, "registries.conf, auth.json, 3 hosts.toml");
    }
}
