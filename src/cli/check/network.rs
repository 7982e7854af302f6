//! What the node offers for the network of pods.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Row, needed, row, yes};
use crate::config::Config;
use crate::drivers::network::{CniConfig, probe_nftables};
use crate::error::chain;

const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

pub(super) fn rows(config: &Config) -> Vec<Row> {
    let configured = first_config(&config.cni.conf_dir);
    let mut rows = match &configured {
        Some(file) => {
            vec![row("network", format!("CNI: {}", file.display()), true, ""), plugins(file, &config.cni)]
        }
        None => {
            let found = format!("built-in (no CNI configuration in {})", config.cni.conf_dir.display());
            vec![row("network", found, true, ""), nftables()]
        }
    };
    rows.push(forwarding(configured.is_some()));
    let ipv6 =
        fs::read_to_string("/proc/sys/net/ipv6/conf/all/disable_ipv6").is_ok_and(|text| text.trim() == "0");
    rows.push(row("IPv6", yes(ipv6), ipv6, "pods have IPv4 addresses only"));
    rows
}

/// The first file by name, as CNI has it.
fn first_config(dir: &Path) -> Option<PathBuf> {
    let is_config = |path: &PathBuf| {
        path.extension()
            .is_some_and(|extension| ["conflist", "conf", "json"].iter().any(|known| extension == *known))
    };
    fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path()).filter(is_config).min()
}

fn plugins(file: &Path, config: &CniConfig) -> Row {
    let cost = "no pod gets a network until this is repaired";
    let parsed = fs::read(file).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    let Some(parsed) = parsed else {
        return needed("CNI plugins", "the configuration is not JSON", false, cost);
    };
    let list = parsed["plugins"].as_array().cloned().unwrap_or_else(|| vec![parsed]);
    let kinds: Vec<&str> = list.iter().filter_map(|plugin| plugin["type"].as_str()).collect();
    let is_there = |kind: &&str| config.bin_dirs.iter().any(|dir| dir.join(kind).is_file());
    let missing: Vec<&str> = kinds.iter().copied().filter(|kind| !is_there(kind)).collect();
    if missing.is_empty() && !kinds.is_empty() {
        return needed("CNI plugins", kinds.join(" "), true, "");
    }
    let dirs: Vec<_> = config.bin_dirs.iter().map(|dir| dir.display().to_string()).collect();
    let cost = format!("{cost}: install them in {}", dirs.join(" or "));
    needed("CNI plugins", format!("missing: {}", missing.join(" ")), false, &cost)
}

fn nftables() -> Row {
    match probe_nftables() {
        Ok(()) => needed("nftables", "yes", true, ""),
        Err(error) => {
            let cost =
                format!("the built-in network cannot serve: load the module nf_tables ({})", chain(&error));
            needed("nftables", "no", false, &cost)
        }
    }
}

fn forwarding(by_plugins: bool) -> Row {
    let on = fs::read_to_string(FORWARD).is_ok_and(|text| text.trim() == "1");
    let writable = rustix::fs::access(FORWARD, rustix::fs::Access::WRITE_OK).is_ok();
    match (on, by_plugins) {
        (true, _) => row("ip_forward", "on", true, ""),
        (false, true) => {
            row("ip_forward", "off", false, "unless the plugins turn it on, pods reach their own node only")
        }
        (false, false) if writable => row("ip_forward", "off; the first pod turns it on", true, ""),
        (false, false) => needed(
            "ip_forward",
            "off, and read-only",
            false,
            "the built-in network cannot serve: set net.ipv4.ip_forward=1",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_that_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("10-x.conflist");
        fs::write(dir.path().join("bridge"), "").unwrap();
        let config = CniConfig {
            conf_dir: dir.path().into(),
            bin_dirs: vec![dir.path().into()],
            ..CniConfig::default()
        };
        fs::write(&file, r#"{"name":"x","plugins":[{"type":"bridge"},{"type":"portmap"}]}"#).unwrap();
        assert_eq!(first_config(dir.path()), Some(file.clone()));
        assert_eq!(plugins(&file, &config).found, "missing: portmap");
        fs::write(&file, r#"{"name":"x","type":"bridge"}"#).unwrap();
        assert_eq!(plugins(&file, &config).found, "bridge");
        fs::write(&file, "{").unwrap();
        assert!(plugins(&file, &config).found.contains("not JSON"));
    }
}
