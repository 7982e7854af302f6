//! containers-registries.conf(5), which CRI-O reads: mirrors and plain HTTP, which Berth takes from hosts.toml files.

use toml::{Table, Value};

use super::Report;
use super::setting::{Setting, flatten};

/// Whether this is one.
pub(super) fn is(table: &Table) -> bool {
    ["registry", "unqualified-search-registries", "short-name-mode"]
        .iter()
        .any(|key| table.contains_key(*key))
}

/// Each registry becomes the text of a file; what that can't say is lost.
pub(super) fn take(table: &Table, report: &mut Report) {
    for registry in table.get("registry").and_then(Value::as_array).into_iter().flatten() {
        match registry.as_table() {
            Some(registry) => one(registry, report),
            None => report.lost.push((registry.to_string(), "a registry is a table".into())),
        }
    }
    let others = table.iter().filter(|(key, _)| *key != "registry");
    let others: Table = others.map(|(key, value)| (key.clone(), value.clone())).collect();
    for setting in flatten(&others) {
        other(&setting, report);
    }
}

fn other(setting: &Setting, report: &mut Report) {
    let only_docker = setting.value == Value::Array(vec![Value::String("docker.io".into())]);
    let why = "an image without a registry is docker.io's, as the kubelet has it";
    match setting.written[0].as_str() {
        "unqualified-search-registries" if only_docker || setting.is_unset() => {}
        "unqualified-search-registries" => report.lost.push((setting.to_string(), why.into())),
        "short-name-mode" => report.moot.push((setting.to_string(), why.into())),
        "aliases" => report.lost.push((setting.to_string(), "name images whole".into())),
        "credential-helpers" => {
            let why = "use imagePullSecrets or the kubelet's credential providers";
            report.lost.push((setting.to_string(), why.into()));
        }
        _ => report.lost.push((setting.to_string(), "berth does not know this setting".into())),
    }
}

fn text<'a>(table: &'a Table, key: &str) -> &'a str {
    table.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn is_on(table: &Table, key: &str) -> bool {
    table.get(key).and_then(Value::as_bool).unwrap_or(false)
}

/// A location is HOST or HOST/PATH.
fn url(table: &Table, location: &str) -> (String, bool) {
    let insecure = is_on(table, "insecure");
    let scheme = if insecure { "http" } else { "https" };
    match location.split_once('/') {
        // containerd's format, too, wants the API's own prefix before a path.
        Some((host, path)) => (format!("{scheme}://{host}/v2/{path}"), true),
        None => (format!("{scheme}://{location}"), false),
    }
}

fn one(registry: &Table, report: &mut Report) {
    let (prefix, location) = (text(registry, "prefix"), text(registry, "location"));
    let prefix = if prefix.is_empty() { location } else { prefix };
    let lost = |report: &mut Report, key: &str, why: &str| {
        report.lost.push((format!("registry {prefix}: {key}"), why.to_string()));
    };
    if prefix.contains('/') || prefix.contains('*') {
        return lost(
            report,
            "prefix",
            "hosts.toml files are for whole registries; set registries_conf_path instead",
        );
    }
    if is_on(registry, "blocked") {
        return lost(report, "blocked", "hosts.toml files forbid nothing; set registries_conf_path instead");
    }
    let mut lines = vec![String::new(), format!("{prefix}/hosts.toml, below config_path of [registry]:")];
    let (server, _) = url(registry, if location.is_empty() { prefix } else { location });
    lines.push(format!("  server = \"{server}\""));
    for mirror in registry.get("mirror").and_then(Value::as_array).into_iter().flatten() {
        let Some(mirror) = mirror.as_table() else { continue };
        let (url, has_path) = url(mirror, text(mirror, "location"));
        lines.push(format!("  [host.\"{url}\"]"));
        let capabilities = match text(mirror, "pull-from-mirror") {
            "digest-only" => "\"pull\"",
            _ => "\"pull\", \"resolve\"",
        };
        lines.push(format!("    capabilities = [{capabilities}]"));
        if has_path {
            lines.push("    override_path = true".into());
        }
        if text(mirror, "pull-from-mirror") == "tag-only" {
            lost(
                report,
                "pull-from-mirror = \"tag-only\"",
                "the mirror is asked for digests, too; set registries_conf_path instead",
            );
        }
    }
    report.beside.extend(lines);
}
