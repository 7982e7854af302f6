//! `berth check`: what this node offers, and what each missing thing costs.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::capability::Capability;
use crate::config::Config;
use crate::drivers::host::Host;

/// How much a missing thing matters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Good,
    /// Something is lost, named in the row.
    Less,
    /// Pods can't run.
    Missing,
}

struct Row {
    what: &'static str,
    found: String,
    verdict: Verdict,
    cost: &'static str,
}

fn row(what: &'static str, found: impl Into<String>, good: bool, cost: &'static str) -> Row {
    Row { what, found: found.into(), verdict: if good { Verdict::Good } else { Verdict::Less }, cost }
}

fn needed(what: &'static str, found: impl Into<String>, good: bool, cost: &'static str) -> Row {
    Row { verdict: if good { Verdict::Good } else { Verdict::Missing }, ..row(what, found, good, cost) }
}

/// The table, and whether pods can run at all.
pub(super) fn report(config: &Config) -> (String, bool) {
    let rows = rows(&Host::detect(), config);
    let runs = rows.iter().all(|row| row.verdict != Verdict::Missing);
    (table(&rows), runs)
}

fn rows(host: &Host, config: &Config) -> Vec<Row> {
    let mut rows = kernel(host);
    rows.extend(confinement(host));
    rows.push(network(config));
    rows.push(capabilities(host));
    rows
}

fn kernel(host: &Host) -> Vec<Row> {
    let (major, minor) = host.kernel;
    let at_least = |version| host.kernel >= version;
    let cgroup = if host.cgroup_v2 { "v2" } else { "v1" };
    vec![
        needed("kernel", format!("{major}.{minor}"), at_least((6, 1)), "Berth needs Linux 6.1 or newer"),
        needed("overlay", yes(has_file_system("overlay")), has_file_system("overlay"), "no container has a root: load the module overlay"),
        row("overlay by fsconfig", yes(at_least((6, 5))), at_least((6, 5)), "the lower directories of a root must fit in one page"),
        row("idmapped mounts", yes(at_least((5, 19))), at_least((5, 19)), "no pods with user namespaces"),
        row("cgroup", format!("{cgroup}: {}", controllers(host)), host.cgroup_v2, "v1: no memory QoS, no PSI, containers are killed one process at a time"),
    ]
}

fn confinement(host: &Host) -> Vec<Row> {
    vec![
        row("seccomp", yes(host.seccomp), host.seccomp, "RuntimeDefault and Localhost profiles are refused"),
        row("AppArmor", yes(host.apparmor), host.apparmor, "containers are not confined by AppArmor profiles"),
        row("SELinux", yes(host.selinux), true, ""),
        row("user namespaces", yes(host.user_namespaces), host.user_namespaces, "pods with hostUsers: false are refused"),
    ]
}

fn network(config: &Config) -> Row {
    let dir = &config.cni.conf_dir;
    let is_config = |name: &str| [".conflist", ".conf", ".json"].iter().any(|end| name.ends_with(end));
    let configured = fs::read_dir(dir)
        .map(|entries| entries.flatten().any(|entry| is_config(&entry.file_name().to_string_lossy())))
        .unwrap_or(false);
    let found = if configured {
        format!("CNI configuration in {}", dir.display())
    } else {
        format!("no CNI configuration in {}: the built-in network serves", dir.display())
    };
    row("network", found, true, "")
}

fn capabilities(host: &Host) -> Row {
    let wanted = ["SYS_ADMIN", "NET_ADMIN", "SYS_RESOURCE", "SETUID", "SETGID", "CHOWN", "MKNOD", "KILL", "SYS_CHROOT", "DAC_OVERRIDE", "SETFCAP", "SYS_PTRACE"];
    let missing: Vec<_> = wanted
        .into_iter()
        .filter(|name| Capability::parse(name).is_ok_and(|capability| !host.capabilities.contains(capability)))
        .collect();
    match missing.as_slice() {
        [] => row("capabilities", "all", true, ""),
        ["SYS_RESOURCE"] => row("capabilities", "SYS_RESOURCE is missing", false, "oom_score_adj can't be lowered, some rlimits can't be raised"),
        some => needed("capabilities", format!("missing: {}", some.join(" ")), false, "run Berth as root of the node"),
    }
}

fn controllers(host: &Host) -> String {
    if host.cgroup_v2 {
        return fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default().trim().to_string();
    }
    let table = fs::read_to_string("/proc/cgroups").unwrap_or_default();
    let names = table.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split('\t').next());
    let mounted = names.filter(|name| Path::new("/sys/fs/cgroup").join(name).exists());
    mounted.collect::<Vec<_>>().join(" ")
}

fn has_file_system(name: &str) -> bool {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    known.lines().any(|line| line.split_whitespace().last() == Some(name))
}

fn yes(found: bool) -> &'static str {
    if found { "yes" } else { "no" }
}

fn table(rows: &[Row]) -> String {
    let wide = |of: fn(&Row) -> usize| rows.iter().map(of).max().unwrap_or(0);
    let (what, found) = (wide(|row| row.what.len()), wide(|row| row.found.len()));
    rows.iter().fold(String::new(), |mut text, row| {
        let (mark, cost) = match row.verdict {
            Verdict::Good => ("ok     ", ""),
            Verdict::Less => ("less   ", row.cost),
            Verdict::Missing => ("MISSING", row.cost),
        };
        let line = format!("{mark}  {:what$}  {:found$}  {cost}", row.what, row.found);
        let _ = writeln!(text, "{}", line.trim_end());
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_node_is_told_what_it_lacks() {
        let (text, runs) = (table(&rows(&Host::default(), &Config::default())), false);
        assert!(!runs && text.contains("MISSING  kernel"), "{text}");
        assert!(text.contains("less     seccomp") && text.contains("refused"), "{text}");
    }

    #[test]
    fn this_machine_can_run_pods() {
        let (text, runs) = report(&Config::default());
        assert!(runs, "{text}");
    }
}
