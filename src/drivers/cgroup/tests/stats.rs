//! Counters against real kernels: version 1 on a host that has it, version 2 in the virtual machine.

use std::io::Read;

use super::super::stats::Detail;
use super::*;

fn open() -> Option<Cgroups> {
    let cgroups = Cgroups::open(&Config::default()).unwrap();
    if cgroups.mode() == Mode::V1 { Some(cgroups) } else { vm::open(Driver::Cgroupfs) }
}

/// Waits until the script says that it is as far as it is to be.
fn await_line(shell: &mut Shell) {
    shell.0.stdout.as_mut().unwrap().read_exact(&mut [0; 3]).unwrap();
}

#[tokio::test]
async fn processor_time_of_a_busy_process_is_counted_and_so_is_its_throttling() {
    let Some(cgroups) = open() else { return };
    let at = parent("stats-cpu");
    let _clean = Clean(&cgroups, at.clone());
    let quota = Resources { cpu_quota: Some(10_000), cpu_period: Some(100_000), ..Resources::default() };
    let (pod, container) = make(&cgroups, &at, &quota).await;
    let _shell = Shell::inside(&container.join_dirs(), "while :; do :; done");
    let cpu = |detail| cgroups.usage(&container, detail).unwrap().cpu.unwrap();
    let before = cpu(Detail::Stats).usage;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let after = cpu(Detail::Metrics);
    let used = after.usage - before;
    // The quota is a tenth of a processor, and the machine is shared.
    assert!((50_000_000..1_000_000_000).contains(&used), "{used} ns in three seconds");
    let (user, system) = (after.user.unwrap(), after.system.unwrap());
    assert!(user + system > after.usage / 2 && user > 0, "{after:?}");
    let throttling = after.throttling.unwrap();
    assert!(throttling.periods > 0 && throttling.throttled > 0 && throttling.time > 0, "{throttling:?}");
    assert!(cgroups.usage(&pod, Detail::Stats).unwrap().cpu.unwrap().usage >= after.usage);
}

#[tokio::test]
async fn memory_that_a_process_holds_is_counted() {
    let Some(cgroups) = open() else { return };
    let at = parent("stats-memory");
    let _clean = Clean(&cgroups, at.clone());
    let (pod, container) = make(&cgroups, &at, &limits(1024, 256 << 20)).await;
    let script = "x=aaaaaaaa; while [ ${#x} -lt 16000000 ]; do x=$x$x; done; echo ok; sleep 100; :";
    let mut shell = Shell::inside(&container.join_dirs(), script);
    await_line(&mut shell);
    let usage = cgroups.usage(&container, Detail::Metrics).unwrap();
    let memory = usage.memory.unwrap();
    assert!((16_000_000..256 << 20).contains(&memory.rss), "{memory:?}");
    assert!(memory.usage >= memory.rss && memory.working_set() >= memory.rss / 2, "{memory:?}");
    assert!(memory.peak.unwrap() >= memory.usage && memory.faults.all > 1000, "{memory:?}");
    assert_eq!(memory.limit, Some(256 << 20));
    assert_eq!((memory.reservation, memory.oom_kills), (Some(0), Some(0)));
    assert!(memory.kernel.is_some() && memory.limit_hits.is_some(), "{memory:?}");
    // The shell and its sleep.
    assert!((1..=2).contains(&usage.threads.unwrap()), "{:?}", usage.threads);
    assert_eq!(usage.threads_max, Some(64));
    let whole = cgroups.usage(&pod, Detail::Stats).unwrap();
    assert!(whole.memory.unwrap().rss >= 16_000_000);
    assert_eq!(cgroups.memory_limit_above(&container), None);
    assert!((1..=2).contains(&whole.threads.unwrap()), "{:?}", whole.threads);
}

#[tokio::test]
async fn kills_and_hits_at_the_memory_limit_are_counted() {
    let Some(cgroups) = open() else { return };
    let at = parent("stats-oom");
    let _clean = Clean(&cgroups, at.clone());
    let (_, container) =
        make(&cgroups, &at, &Resources { memory_limit: Some(16 << 20), ..Resources::default() }).await;
    let mut shell = Shell::inside(&container.join_dirs(), "x=a; while :; do x=$x$x$x$x; done");
    assert_ne!(shell.code(), Some(0));
    let memory = cgroups.usage(&container, Detail::Metrics).unwrap().memory.unwrap();
    assert!(memory.oom_kills.unwrap() >= 1 && memory.limit_hits.unwrap() >= 1, "{memory:?}");
}

#[tokio::test]
async fn the_counters_are_those_that_the_node_is_said_to_have() {
    let Some(cgroups) = open() else { return };
    let at = parent("stats-sources");
    let _clean = Clean(&cgroups, at.clone());
    let (_, container) = make(&cgroups, &at, &Resources::default()).await;
    let (sources, usage) = (cgroups.sources(), cgroups.usage(&container, Detail::Metrics).unwrap());
    assert_eq!(usage.cpu.as_ref().unwrap().pressure.is_some(), sources.pressure);
    let memory = usage.memory.as_ref().unwrap();
    assert_eq!(memory.pressure.is_some(), sources.pressure);
    assert_eq!(usage.io_pressure.is_some(), sources.pressure);
    assert_eq!(!usage.huge_pages.is_empty(), sources.huge_pages);
    assert_eq!(memory.limit, None);
    if cgroups.mode() == Mode::V2 {
        assert!(sources.pressure && sources.huge_pages, "{sources:?}");
    }
    let swap = usage.swap.unwrap_or_default();
    assert_eq!((swap.usage, swap.limit), (0, None));
}

#[tokio::test]
async fn what_goes_to_a_device_is_counted() {
    let Some(cgroups) = open() else { return };
    let at = parent("stats-io");
    let _clean = Clean(&cgroups, at.clone());
    let (_, container) = make(&cgroups, &at, &Resources::default()).await;
    let file = format!("/var/tmp/berth-stats-{}", std::process::id());
    let script = format!("exec dd if=/dev/zero of={file} bs=1M count=4 oflag=direct 2>/dev/null");
    let written = Shell::inside(&container.join_dirs(), &script).code();
    let _ = std::fs::remove_file(&file);
    if written != Some(0) {
        eprintln!("skipped: the file system of /var/tmp takes no direct writes");
        return;
    }
    let devices = cgroups.usage(&container, Detail::Metrics).unwrap().devices;
    if devices.is_empty() && cgroups.mode() == Mode::V1 {
        eprintln!(
            "skipped: this kernel counts for version 1 only where a device is throttled or scheduled by bfq"
        );
        return;
    }
    let most = devices.iter().max_by_key(|device| device.write_bytes).unwrap();
    assert!(most.write_bytes >= 4 << 20 && most.writes >= 1, "{devices:?}");
    assert!(most.name.starts_with("/dev/"), "{devices:?}");
    assert!(
        cgroups.usage(&container, Detail::Stats).unwrap().devices.is_empty(),
        "stats do not ask for them"
    );
}

#[tokio::test]
async fn a_cgroup_that_is_gone_has_no_counters() {
    let Some(cgroups) = open() else { return };
    let at = parent("stats-gone");
    let _clean = Clean(&cgroups, at.clone());
    let (pod, container) = make(&cgroups, &at, &Resources::default()).await;
    assert!(cgroups.usage(&container, Detail::Stats).is_some());
    cgroups.remove_container(&container).await.unwrap();
    assert_eq!(cgroups.usage(&container, Detail::Metrics), None);
    cgroups.remove_pod(&pod).await.unwrap();
    assert_eq!(cgroups.usage(&pod, Detail::Stats), None);
    assert_eq!(cgroups.memory_limit_above(&pod), None);
}
