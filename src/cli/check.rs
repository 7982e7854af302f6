//! `berth check`: what this node offers, and what each missing thing costs. What does not live here: the network
//! (network), the files of registries (registry), metrics and traces (telemetry), and the table (cli/table).

mod network;
mod registry;
mod telemetry;

use std::fs;
use std::path::{Path, PathBuf};

use super::table::table;
use crate::capability::Capability;
use crate::config::Config;
use crate::drivers::cgroup::{Cgroups, Driver};
use crate::drivers::host::Host;
use crate::drivers::shim::program_path;
use crate::drivers::{apparmor, id_map, quota};
use crate::error::chain;

/// Widths of the columns: with the gaps they make 100.
const WIDTHS: [usize; 4] = [7, 18, 31, 38];

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
    cost: String,
}

fn row(what: &'static str, found: impl Into<String>, good: bool, cost: &str) -> Row {
    let verdict = if good { Verdict::Good } else { Verdict::Less };
    Row { what, found: found.into(), verdict, cost: if good { String::new() } else { cost.into() } }
}

fn needed(what: &'static str, found: impl Into<String>, good: bool, cost: &str) -> Row {
    Row { verdict: if good { Verdict::Good } else { Verdict::Missing }, ..row(what, found, good, cost) }
}

/// The table, and whether pods can run at all.
pub(super) fn report(config: &Config) -> (String, bool) {
    let host = Host::detect();
    let mut rows = kernel(&host);
    rows.extend(cgroup(&host, config));
    rows.extend(confinement(&host));
    rows.extend(network::rows(config));
    rows.extend(registry::rows(config));
    rows.push(capabilities(&host));
    rows.push(shim(config));
    rows.extend(writable_limit(config));
    rows.extend(telemetry::rows(config));
    let runs = rows.iter().all(|row| row.verdict != Verdict::Missing);
    (render(rows), runs)
}

fn kernel(host: &Host) -> Vec<Row> {
    let (major, minor) = host.kernel;
    let overlay = has_overlay();
    vec![
        needed("kernel", format!("{major}.{minor}"), host.kernel >= (6, 1), "Berth needs Linux 6.1 or newer"),
        needed("overlay", yes(overlay), overlay, "no container has a root: load the module overlay"),
    ]
}

fn cgroup(host: &Host, config: &Config) -> Vec<Row> {
    let driver = match Cgroups::open(&config.cgroup) {
        Ok(cgroups) if cgroups.driver() == Driver::Systemd => needed("cgroup driver", "systemd", true, ""),
        Ok(_) => needed("cgroup driver", "cgroupfs", true, ""),
        Err(error) => needed("cgroup driver", "no", false, &chain(&error)),
    };
    let found = controllers(host);
    // Version 2 has the last two without controllers of their own.
    let wanted = [
        ("cpu", "CPU shares and limits"),
        ("memory", "memory limits"),
        ("pids", "process limits"),
        ("cpuset", "CPU pinning"),
        ("hugetlb", "huge page limits"),
        ("devices", "device access rules"),
        ("freezer", "pausing"),
    ];
    let wanted = &wanted[..if host.cgroup_v2 { 5 } else { 7 }];
    let lost: Vec<_> = wanted.iter().filter(|(name, _)| !found.iter().any(|found| found == name)).collect();
    let names = lost.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" ");
    let costs = lost.iter().map(|(_, cost)| *cost).collect::<Vec<_>>().join(", ");
    let controllers = if lost.is_empty() { found.join(" ") } else { format!("missing: {names}") };
    vec![
        row(
            "cgroup version",
            if host.cgroup_v2 { "2" } else { "1" },
            host.cgroup_v2,
            "no memory QoS, no pressure metrics, containers are killed one process at a time",
        ),
        driver,
        row("cgroup controllers", controllers, lost.is_empty(), &format!("not in force: {costs}")),
    ]
}

/// Where the images and writable layers will be.
fn root() -> &'static Path {
    let root = Path::new(crate::layout::ROOT);
    root.ancestors().find(|place| place.is_dir()).unwrap_or(Path::new("/"))
}

/// Only where a limit is asked for.
fn writable_limit(config: &Config) -> Option<Row> {
    let limit = config.layers.writable_limit_mib;
    let found = quota::enforced(&quota::state(root()));
    let why = found.as_ref().err().map_or("", String::as_str);
    let cost = format!("writable_limit_mib is not in force: {why}");
    (limit > 0).then(|| row("writable layers", format!("at most {limit} MiB each"), found.is_ok(), &cost))
}

/// As RunPodSandbox will find it out.
fn user_namespaces() -> Row {
    let found = id_map::check(root());
    let cost =
        format!("pods with hostUsers: false are refused: {}", found.as_ref().err().map_or("", |why| why));
    row("user namespaces", yes(found.is_ok()), found.is_ok(), &cost)
}

fn memory_volumes() -> Row {
    let found = id_map::check_memory().is_ok();
    let cost = "kernels before 6.3: pods with hostUsers: false can't have Secrets or other volumes in memory";
    row("mapped tmpfs", yes(found), found, cost)
}

fn apparmor() -> Row {
    let parser = apparmor::parser();
    let (found, good, cost) = match (apparmor::is_on(), &parser) {
        (false, _) => ("no", false, "containers are not confined by AppArmor profiles"),
        (true, Ok(_)) => ("yes", true, ""),
        (true, Err(_)) => {
            ("no apparmor_parser", false, "the profile RuntimeDefault confines nothing: install apparmor")
        }
    };
    row("AppArmor", found, good, cost)
}

fn confinement(host: &Host) -> Vec<Row> {
    vec![
        row(
            "seccomp",
            yes(host.seccomp),
            host.seccomp,
            "the profiles RuntimeDefault and Localhost are refused",
        ),
        apparmor(),
        row("SELinux", yes(host.selinux), true, ""),
        user_namespaces(),
        memory_volumes(),
    ]
}

fn capabilities(host: &Host) -> Row {
    let wanted = [
        "SYS_ADMIN",
        "NET_ADMIN",
        "SYS_RESOURCE",
        "SETUID",
        "SETGID",
        "CHOWN",
        "MKNOD",
        "KILL",
        "SYS_CHROOT",
        "DAC_OVERRIDE",
        "SETFCAP",
        "SYS_PTRACE",
    ];
    let missing: Vec<_> = wanted
        .into_iter()
        .filter(|name| {
            Capability::parse(name).is_ok_and(|capability| !host.capabilities.contains(capability))
        })
        .collect();
    match missing.as_slice() {
        [] => needed("capabilities", "all", true, ""),
        ["SYS_RESOURCE"] => row(
            "capabilities",
            "missing: SYS_RESOURCE",
            false,
            "oom_score_adj can't be lowered, and limits (ulimit) can't be raised above the daemon's own",
        ),
        some => needed(
            "capabilities",
            format!("missing: {}", some.join(" ")),
            false,
            "run Berth as root of the node",
        ),
    }
}

fn shim(config: &Config) -> Row {
    let path = program_path(config.shim.path.clone()).unwrap_or_else(|_| PathBuf::from("berth-shim"));
    let cost = format!("no pod can start: {} is not there; install it, or set [shim] path", path.display());
    let there = path.is_file();
    needed("shim", if there { path.display().to_string() } else { "no".into() }, there, &cost)
}

fn controllers(host: &Host) -> Vec<String> {
    let words = |text: String| text.split_whitespace().map(String::from).collect();
    if host.cgroup_v2 {
        return words(fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default());
    }
    let table = fs::read_to_string("/proc/cgroups").unwrap_or_default();
    let names =
        table.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split('\t').next());
    names.filter(|name| Path::new("/sys/fs/cgroup").join(name).exists()).map(String::from).collect()
}

/// Asking for it loads the module, as the first container would.
fn has_overlay() -> bool {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let listed = known.lines().any(|line| line.split_whitespace().last() == Some("overlay"));
    listed || rustix::mount::fsopen("overlay", rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC).is_ok()
}

fn yes(found: bool) -> &'static str {
    if found { "yes" } else { "no" }
}

fn render(rows: Vec<Row>) -> String {
    let head = ["", "WHAT", "FOUND", "COST"].map(String::from).to_vec();
    let body = rows.into_iter().map(|row| {
        let mark = match row.verdict {
            Verdict::Good => "ok",
            Verdict::Less => "less",
            Verdict::Missing => "MISSING",
        };
        vec![mark.to_string(), row.what.to_string(), row.found, row.cost]
    });
    table(&std::iter::once(head).chain(body).collect::<Vec<_>>(), &WIDTHS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_node_is_told_what_it_lacks() {
        let host = Host::default();
        let rows: Vec<Row> =
            kernel(&host).into_iter().chain(confinement(&host)).chain([capabilities(&host)]).collect();
        let text = render(rows);
        assert!(text.contains("MISSING  kernel") && text.contains("MISSING  capabilities"), "{text}");
        assert!(text.contains("less     seccomp") && text.contains("refused"), "{text}");
    }

    #[test]
    fn a_limit_that_is_not_in_force_says_why() {
        let mut config = Config::default();
        assert!(writable_limit(&config).is_none());
        config.layers.writable_limit_mib = 100;
        let row = writable_limit(&config).unwrap();
        let good = row.verdict == Verdict::Good;
        assert_ne!(good, row.cost.contains("writable_limit_mib is not in force: "), "{}", row.cost);
    }

    #[test]
    fn the_table_of_this_machine_fits_in_100_columns() {
        let config = Config {
            shim: crate::drivers::shim::Config { path: Some("/bin/true".into()) },
            ..Config::default()
        };
        let (text, runs) = report(&config);
        assert!(runs, "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }
}
