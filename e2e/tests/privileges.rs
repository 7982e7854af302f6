//! The golden table: what a container has that asks for nothing special, and what each of its processes has, whichever way
//! it came in. A change of this table is a change of what every workload can do.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use berth_e2e::client::image_spec;
use berth_e2e::images::catalog;
use berth_e2e::logs;
use berth_e2e::runtime::Runtime;
use berth_e2e::world::{World, security};
use berth_proto::cri::v1::security_profile::ProfileType;
use berth_proto::cri::v1::*;

/// What the kubelet asks to be hidden (its default ProcMount).
const MASKED: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// As the kubelet asks for it, with its seccomp default.
fn plain(world: &World, script: &str) -> ContainerConfig {
    let mut spec = world.container("main", script);
    let security = security(&mut spec);
    security.masked_paths = MASKED.iter().map(|path| (*path).to_owned()).collect();
    security.readonly_paths = READONLY.iter().map(|path| (*path).to_owned()).collect();
    security.seccomp = Some(SecurityProfile {
        profile_type: ProfileType::RuntimeDefault as i32,
        localhost_ref: String::new(),
    });
    spec.linux.get_or_insert_default().resources.get_or_insert_default().oom_score_adj = 321;
    spec
}

fn as_user(mut spec: ContainerConfig, uid: i64) -> ContainerConfig {
    security(&mut spec).run_as_user = Some(Int64Value { value: uid });
    spec
}

/// What `cat FILE` shows of itself: as the container's first process, and as an exec in it.
async fn both_ways(world: &World, file: &str, uid: i64) -> Result<[(&'static str, String); 2]> {
    let mut first = as_user(plain(world, ""), uid);
    first.command = vec!["cat".into(), file.into()];
    let config = world.pod("ways");
    let (pod, id) = world.run(&config, &first).await?;
    let status = world.client.wait_exited(&id, Duration::from_secs(20)).await?;
    let as_first = logs::text(&status.log_path)?;
    let mut sleeper = as_user(plain(world, "exec sleep 1000"), uid);
    sleeper.metadata = Some(ContainerMetadata { name: "sleeper".into(), attempt: 0 });
    let id = world.launch(&pod, &sleeper, &config).await?;
    let reply = world.client.exec(&id, &["cat", file], 20).await?;
    ensure!(reply.exit_code == 0, "{}", String::from_utf8_lossy(&reply.stderr));
    let as_exec = String::from_utf8(reply.stdout)?;
    world.client.end_pod(&pod).await?;
    Ok([("first process", as_first), ("exec", as_exec)])
}

/// `Name:\tvalue` lines.
fn fields(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.split_once(':')).map(|(name, value)| (name, value.trim())).collect()
}

#[tokio::test]
async fn capabilities_signals_groups_and_seccomp_of_every_process() -> Result<()> {
    let world = World::start().await?;
    let none = "0000000000000000";
    let all = "00000000a80425fb";
    let same = [
        ("CapInh", none),
        ("CapAmb", none),
        ("CapBnd", all),
        ("NoNewPrivs", "0"),
        ("Seccomp", "2"),
        ("Seccomp_filters", "1"),
        ("SigBlk", none),
        ("SigIgn", none),
        ("SigCgt", none),
        ("SigPnd", none),
        ("Umask", "0022"),
        ("Threads", "1"),
    ];
    let root =
        [("CapPrm", all), ("CapEff", all), ("Uid", "0\t0\t0\t0"), ("Gid", "0\t0\t0\t0"), ("Groups", "0")];
    let user = [
        ("CapPrm", none),
        ("CapEff", none),
        ("Uid", "1000\t1000\t1000\t1000"),
        ("Gid", "1000\t1000\t1000\t1000"),
        ("Groups", "1000 50000"),
    ];
    for (uid, own) in [(0, root), (1000, user)] {
        for (way, text) in both_ways(&world, "/proc/self/status", uid).await? {
            let seen = fields(&text);
            for (name, expected) in same.iter().chain(&own) {
                let value = seen.get(name).with_context(|| format!("{way}: no {name} in {text}"))?;
                assert_eq!(value, expected, "{name} of the {way} as {uid}");
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn limits_are_those_the_daemon_began_with_and_the_oom_score_is_the_requests() -> Result<()> {
    let world = World::start().await?;
    for (way, text) in both_ways(&world, "/proc/self/oom_score_adj", 0).await? {
        assert_eq!(text.trim(), "321", "{way}");
    }
    if world.node.runtime() == Runtime::Containerd {
        println!("not run: the limits of containerd's containers are not its own");
        return Ok(());
    }
    // The daemon has this process's limits, and lifts one of them for itself alone.
    let expected = std::fs::read_to_string("/proc/self/limits")?;
    for (way, text) in both_ways(&world, "/proc/self/limits", 0).await? {
        assert_eq!(text, expected, "{way}");
    }
    Ok(())
}

#[tokio::test]
async fn descriptors_session_directory_and_environment_of_every_process() -> Result<()> {
    let world = World::start().await?;
    let (_, id) = world.run(&world.pod("fds"), &plain(&world, "exec sleep 1000")).await?;
    let streams = ["0 -> /dev/null", "1 -> pipe", "2 -> pipe"];
    // The directory that `ls` lists is closed again when it looks.
    for (way, process) in [("exec", "self"), ("first process", "1")] {
        let reply = world.client.exec(&id, &["ls", "-l", &format!("/proc/{process}/fd")], 20).await?;
        let listing = String::from_utf8(reply.stdout)?;
        let links: Vec<_> = listing.lines().filter(|line| line.contains(" -> ")).collect();
        assert_eq!(links.len(), 3, "{way}: {listing}");
        assert!(links.iter().zip(streams).all(|(link, stream)| link.contains(stream)), "{way}: {listing}");
    }
    for (way, text) in both_ways(&world, "/proc/self/stat", 0).await? {
        let words: Vec<_> = text.split(' ').collect();
        // pid, group, session, terminal (proc_pid_stat(5)).
        assert!(words[0] == words[4] && words[4] == words[5] && words[6] == "0", "{way}: {text}");
    }
    for (way, text) in both_ways(&world, "/proc/self/environ", 0).await? {
        let mut seen: Vec<_> = text.trim_end_matches(['\0', '\n']).split('\0').collect();
        seen.sort_unstable();
        let expected = [
            "HOME=/root",
            "HOSTNAME=ways",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        ];
        assert_eq!(seen, expected, "{way}");
    }
    assert_eq!(world.client.shell(&id, "pwd; readlink /proc/1/cwd").await?, "/\n/\n");
    Ok(())
}

#[tokio::test]
async fn devices() -> Result<()> {
    let world = World::start().await?;
    let (_, id) = world.run(&world.pod("devices"), &plain(&world, "exec sleep 1000")).await?;
    let list = "find /dev -mindepth 1 | sort | while read f; do \
                if [ -L $f ]; then echo $f $(readlink $f); else stat -c '%n %A %u:%g %t:%T' $f; fi; done";
    let expected = [
        "/dev/fd /proc/self/fd",
        "/dev/full crw-rw-rw- 0:0 1:7",
        "/dev/mqueue drwxrwxrwt 0:0 0:0",
        "/dev/null crw-rw-rw- 0:0 1:3",
        "/dev/ptmx pts/ptmx",
        "/dev/pts drwxr-xr-x 0:0 0:0",
        "/dev/pts/ptmx crw-rw-rw- 0:0 5:2",
        "/dev/random crw-rw-rw- 0:0 1:8",
        "/dev/shm drwxrwxrwt 0:0 0:0",
        "/dev/stderr /proc/self/fd/2",
        "/dev/stdin /proc/self/fd/0",
        "/dev/stdout /proc/self/fd/1",
        "/dev/tty crw-rw-rw- 0:0 5:0",
        "/dev/urandom crw-rw-rw- 0:0 1:9",
        "/dev/zero crw-rw-rw- 0:0 1:5",
    ];
    assert_eq!(world.client.shell(&id, list).await?.lines().collect::<Vec<_>>(), expected);
    // A device that exists may still not be opened: the node's memory, a disk, and the kernel's log.
    let make = "cd /tmp; for d in 'mem 1 1' 'disk 8 0' 'loop 7 0' 'kmsg 1 11'; do set -- $d; \
                mknod $1 $([ $1 = disk -o $1 = loop ] && echo b || echo c) $2 $3 && \
                (head -c 1 $1 2>&1 >/dev/null || true) | sed 's/.*: //'; done";
    let refused = "Operation not permitted\n".repeat(4);
    assert_eq!(world.client.shell(&id, make).await?, refused);
    Ok(())
}

#[tokio::test]
async fn hidden_and_readonly_paths_and_all_mounts() -> Result<()> {
    let world = World::start().await?;
    let (_, id) = world.run(&world.pod("paths"), &plain(&world, "exec sleep 1000")).await?;
    for path in MASKED.iter().filter(|path| Path::new(path).exists()) {
        let look = format!(
            "if [ -d {path} ]; then ls -A {path} | wc -l; touch {path}/x 2>&1 | sed 's/.*: //'; else cat {path} 2>/dev/null | wc -c; fi"
        );
        let seen = world.client.shell(&id, &look).await?;
        let expected = if Path::new(path).is_dir() { "0\nRead-only file system\n" } else { "0\n" };
        // Where AppArmor confines the container too, it says no first.
        let seen = seen.replace("Permission denied", "Read-only file system");
        assert_eq!(seen, expected, "{path}");
    }
    for path in READONLY.iter().filter(|path| Path::new(path).exists()) {
        let write = format!("chmod 700 {path} 2>&1 | sed 's/.*: //'");
        assert_eq!(world.client.shell(&id, &write).await?, "Read-only file system\n", "{path}");
    }
    let list = "awk '{i = 7; while ($i != \"-\") i++; print $5, $6, $(i + 1)}' /proc/self/mountinfo";
    let seen = world.client.shell(&id, list).await?;
    let hidden =
        |path: &str| MASKED.contains(&path) || READONLY.contains(&path) || path.starts_with("/sys/fs/cgroup");
    let mut others: Vec<_> =
        seen.lines().filter(|line| !hidden(line.split(' ').next().unwrap_or_default())).collect();
    others.sort_unstable();
    let expected = [
        "/ rw,relatime overlay",
        "/dev rw,nosuid tmpfs",
        "/dev/mqueue rw,nosuid,nodev,noexec,relatime mqueue",
        "/dev/pts rw,nosuid,noexec,relatime devpts",
        "/dev/shm rw,nosuid,nodev,noexec,relatime tmpfs",
        "/proc rw,nosuid,nodev,noexec,relatime proc",
        "/sys ro,nosuid,nodev,noexec,relatime sysfs",
    ];
    let files = |line: &&&str| {
        ["/etc/hosts ", "/etc/hostname ", "/etc/resolv.conf "].iter().any(|f| line.starts_with(f))
    };
    assert_eq!(others.iter().filter(files).count(), 3, "{seen}");
    let kinds: Vec<_> = others.iter().filter(|line| !files(line)).copied().collect();
    assert_eq!(kinds, expected);
    Ok(())
}

/// Name, number in 64 bits, number in 32 bits (0: none), arguments; what the kernel says to a container that is not
/// filtered (`*`: it depends on the node), and what the filter makes of it.
type Row = (&'static str, u64, u64, &'static [u64], &'static str, &'static str);

/// Points nowhere.
const BAD: u64 = 1;
const NOWHERE: u64 = 0xffff_ffff;

const CALLS: &[Row] = &[
    ("getpid", 39, 20, &[], "ok", "ok"),
    ("chroot", 161, 61, &[BAD], "EFAULT", "EFAULT"),
    ("mknod", 133, 14, &[BAD], "EFAULT", "EFAULT"),
    ("ptrace", 101, 26, &[99_999, 0], "ESRCH", "ESRCH"),
    ("seccomp", 317, 354, &[99], "EINVAL", "EINVAL"),
    ("socket, internet", 41, 359, &[2, 1], "ok", "ok"),
    ("socket, kernel's cryptography", 41, 359, &[38, 5], "*", "EPERM"),
    ("socket, hypervisor", 41, 359, &[40, 1], "*", "EPERM"),
    ("socketcall, a new socket", 0, 102, &[1, BAD], "EFAULT", "EPERM"),
    ("socketcall, bind", 0, 102, &[2, BAD], "EFAULT", "EFAULT"),
    ("personality, asked for", 135, 136, &[NOWHERE], "ok", "ok"),
    ("personality, no randomisation", 135, 136, &[0x4_0000], "ok", "EPERM"),
    ("clone, user namespace", 56, 120, &[0x1000_0200], "EINVAL", "EPERM"),
    ("clone3", 435, 435, &[BAD, 0], "EINVAL", "ENOSYS"),
    ("unshare", 272, 310, &[1], "EINVAL", "EPERM"),
    ("setns", 308, 346, &[NOWHERE], "EBADF", "EPERM"),
    ("mount", 165, 21, &[BAD, BAD, BAD], "EFAULT", "EPERM"),
    ("umount2", 166, 52, &[BAD], "EFAULT", "EPERM"),
    ("pivot_root", 155, 217, &[BAD, BAD], "EPERM", "EPERM"),
    ("open_tree", 428, 428, &[0, BAD], "*", "EPERM"),
    ("fsopen", 430, 430, &[BAD], "EPERM", "EPERM"),
    ("keyctl", 250, 288, &[9999], "EOPNOTSUPP", "EPERM"),
    ("request_key", 249, 287, &[BAD, BAD, BAD], "EFAULT", "EPERM"),
    ("bpf", 321, 357, &[9999], "*", "EPERM"),
    ("perf_event_open", 298, 336, &[BAD], "*", "EPERM"),
    ("userfaultfd", 323, 374, &[0x4000_0000], "*", "EPERM"),
    ("io_uring_setup", 425, 425, &[0, BAD], "*", "EPERM"),
    ("kexec_load", 246, 283, &[], "*", "EPERM"),
    ("init_module", 175, 128, &[BAD], "*", "EPERM"),
    ("reboot", 169, 88, &[], "EPERM", "EPERM"),
    ("swapon", 167, 87, &[BAD], "EPERM", "EPERM"),
    ("acct", 163, 51, &[BAD], "EPERM", "EPERM"),
    ("settimeofday", 164, 79, &[BAD], "EFAULT", "EPERM"),
    ("syslog", 103, 103, &[3, BAD, 1], "*", "EPERM"),
    ("open_by_handle_at", 304, 342, &[NOWHERE, BAD], "*", "EPERM"),
    ("iopl", 172, 110, &[3], "*", "EPERM"),
    ("get_mempolicy", 239, 275, &[], "*", "EPERM"),
    ("of a kernel to come", 2000, 2000, &[], "ENOSYS", "ENOSYS"),
    ("of x32", 0x4000_0027, 0, &[], "*", "ENOSYS"),
];

#[tokio::test]
async fn verdicts_on_system_calls_in_64_and_in_32_bits() -> Result<()> {
    let world = World::start().await?;
    let name = world.registry.publish("probe", "latest", &catalog::with_program("probe")?)?;
    world.client.pull(&name).await?;
    let mut filtered = plain(&world, "exec sleep 1000");
    filtered.image = Some(image_spec(&name));
    let mut bare = filtered.clone();
    bare.metadata = Some(ContainerMetadata { name: "bare".into(), attempt: 0 });
    security(&mut bare).seccomp =
        Some(SecurityProfile { profile_type: ProfileType::Unconfined as i32, localhost_ref: String::new() });
    let config = world.pod("calls");
    let (pod, filtered) = world.run(&config, &filtered).await?;
    let bare = world.launch(&pod, &bare, &config).await?;
    let word = |abi: u64, number: u64, row: &Row| {
        let arguments: String = row.3.iter().map(|value| format!(":{value}")).collect();
        format!("{abi}:{number}{arguments}")
    };
    let wide = CALLS.iter().filter(|row| row.1 > 0).map(|row| (64, word(64, row.1, row), row));
    let narrow = CALLS.iter().filter(|row| row.2 > 0).map(|row| (32, word(32, row.2, row), row));
    let all: Vec<_> = wide.chain(narrow).collect();
    let command: Vec<&str> =
        std::iter::once("/bin/probe").chain(all.iter().map(|(_, word, _)| &**word)).collect();
    let mut wrong = Vec::new();
    for (id, filter) in [(&bare, false), (&filtered, true)] {
        let reply = world.client.exec(id, &command, 30).await?;
        let seen = String::from_utf8(reply.stdout)?;
        ensure!(reply.exit_code == 0 && seen.lines().count() == all.len(), "{}: {seen}", reply.exit_code);
        for ((abi, _, row), verdict) in all.iter().zip(seen.lines()) {
            let expected = if filter { row.5 } else { row.4 };
            if expected != "*" && expected != verdict {
                wrong.push(format!("{} in {abi} bits, filtered {filter}: {verdict}, not {expected}", row.0));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
