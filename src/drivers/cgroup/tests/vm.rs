//! Version 2 with controllers, and systemd: in the virtual machine of e2e/vm/run.

use super::*;

/// The driver, where the virtual machine has what the test is about.
pub(super) fn open(driver: Driver) -> Option<Cgroups> {
    if std::env::var_os("BERTH_TEST_VM").is_none() {
        eprintln!("skipped: needs cgroup v2 with controllers; run by e2e/vm/run");
        return None;
    }
    let cgroups = Cgroups::open(&Config::default()).unwrap();
    if cgroups.driver() != driver {
        eprintln!("skipped: this machine's driver is {:?}", cgroups.driver());
        return None;
    }
    assert_eq!(cgroups.mode(), Mode::V2);
    Some(cgroups)
}

fn file(container: &ContainerCgroup, name: &str) -> String {
    read(Path::new(&container.join_dirs()[0]).join(name))
}

#[tokio::test]
async fn limits_are_in_force_on_version_2() {
    let Some(cgroups) = open(Driver::Cgroupfs) else {
        return;
    };
    let at = parent("limits");
    let _clean = Clean(&cgroups, at.clone());
    let unified =
        [("memory.high".to_string(), "33554432".to_string()), ("memory.oom.group".into(), "1".into())];
    let resources = Resources {
        cpuset_cpus: "0".into(),
        memory_swap_limit: Some(64 << 20),
        unified: unified.into(),
        ..limits(1024, 64 << 20)
    };
    let (pod, container) = make(&cgroups, &at, &resources).await;
    let expected = [
        ("cpu.weight", "100"),
        ("cpu.max", "50000 100000"),
        ("memory.max", "67108864"),
        ("memory.high", "33554432"),
        ("memory.oom.group", "1"),
        ("pids.max", "64"),
        ("cpuset.cpus", "0"),
    ];
    for (name, value) in expected {
        assert_eq!(file(&container, name), value, "{name}");
    }
    let mut shell = Shell::inside(&container.join_dirs(), TRY_DEVICES);
    assert_eq!(shell.code(), Some(0));
    let mut shim = Shell::inside(&pod.join_dirs(), "exit 0");
    assert_eq!(shim.code(), Some(0));
    cgroups.remove_container(&container).await.unwrap();
    cgroups.remove_pod(&pod).await.unwrap();
}

#[tokio::test]
async fn an_update_is_whole_or_nothing_on_version_2() {
    let Some(cgroups) = open(Driver::Cgroupfs) else {
        return;
    };
    let at = parent("update");
    let _clean = Clean(&cgroups, at.clone());
    let (_, container) = make(&cgroups, &at, &limits(1024, 64 << 20)).await;
    let unified = |name: &str, value: &str| [(name.to_string(), value.to_string())].into();
    let bad = [
        Resources { unified: unified("memory.nothing", "1"), ..limits(2048, 128 << 20) },
        Resources { unified: unified("memory.high", "many"), ..limits(2048, 128 << 20) },
        Resources { cpuset_cpus: "9999".into(), ..limits(2048, 128 << 20) },
        Resources { cpuset_mems: "77".into(), ..limits(2048, 128 << 20) },
    ];
    for resources in bad {
        cgroups.update(&container, &resources).await.unwrap_err();
        assert_eq!(file(&container, "memory.max"), "67108864");
        assert_eq!(file(&container, "cpu.weight"), "100");
    }
    let quota = Resources { cpu_quota: Some(-1), ..Resources::default() };
    cgroups.update(&container, &quota).await.unwrap().forget();
    assert_eq!(file(&container, "cpu.max"), "max 100000");
    let script = "x=aaaaaaaa; while [ ${#x} -lt 4000000 ]; do x=$x$x; done; echo ok; sleep 100; :";
    let mut shell = Shell::inside(&container.join_dirs(), script);
    std::io::Read::read_exact(shell.0.stdout.as_mut().unwrap(), &mut [0; 3]).unwrap();
    let error =
        cgroups.update(&container, &Resources { memory_limit: Some(1 << 20), ..Resources::default() }).await;
    assert!(matches!(error, Err(CgroupError::Write { .. })), "{error:?}");
    assert_eq!(file(&container, "memory.max"), "67108864");
    assert!(shell.0.try_wait().unwrap().is_none(), "an impossible limit must not kill the container");
}

#[tokio::test]
async fn a_kill_at_the_memory_limit_is_counted_on_version_2() {
    let Some(cgroups) = open(Driver::Cgroupfs) else {
        return;
    };
    let at = parent("oom");
    let _clean = Clean(&cgroups, at.clone());
    let (_, container) =
        make(&cgroups, &at, &Resources { memory_limit: Some(16 << 20), ..Resources::default() }).await;
    assert_eq!(cgroups.oom_kills(&container).unwrap(), 0);
    let mut shell = Shell::inside(&container.join_dirs(), "x=a; while :; do x=$x$x$x$x; done");
    assert_ne!(shell.code(), Some(0));
    assert!(cgroups.oom_kills(&container).unwrap() >= 1);
}

#[tokio::test]
async fn a_fork_bomb_is_killed_whole_on_version_2() {
    let Some(cgroups) = open(Driver::Cgroupfs) else {
        return;
    };
    let at = parent("bomb");
    let _clean = Clean(&cgroups, at.clone());
    let (pod, container) = make(&cgroups, &at, &limits(1024, 256 << 20)).await;
    let mut shell = Shell::inside(&container.join_dirs(), FORK);
    tokio::time::sleep(Duration::from_secs(1)).await;
    cgroups.kill(&container).await.unwrap();
    shell.0.wait().unwrap();
    ends(&cgroups, &container).await;
    cgroups.remove_pod(&pod).await.unwrap();
}

#[tokio::test]
async fn systemd_makes_one_scope_for_a_pod_and_forgets_it() {
    let Some(cgroups) = open(Driver::Systemd) else {
        return;
    };
    let mut shim = Shell(Command::new("/bin/sleep").arg("1000").spawn().unwrap());
    let id = PodId::generate();
    let refused = cgroups.create_pod("/not/a/slice", &id, Some(shim.pid())).await;
    assert!(matches!(refused, Err(CgroupError::Parent { .. })), "{refused:?}");
    let slice = format!("berthtest{}-pods.slice", std::process::id());
    let mut pod = None;
    for _ in 0..2 {
        pod = Some(cgroups.create_pod(&slice, &id, Some(shim.pid())).await.unwrap());
    }
    let pod = pod.unwrap();
    let name = slice.strip_suffix("-pods.slice").unwrap();
    assert_eq!(pod.path(), format!("/{name}.slice/{slice}/berth-{id}.scope"));
    assert_eq!(cgroups.processes(&pod), [shim.pid()]);
    assert_eq!(read(format!("{}/cgroup.procs", pod.join_dirs()[0])), shim.pid().to_string());
    let resources = limits(1024, 64 << 20);
    let container =
        cgroups.create_container(&pod, &ContainerId::generate(), &resources, &some_devices()).await.unwrap();
    assert_eq!(file(&container, "memory.max"), "67108864");
    assert_eq!(file(&container, "pids.max"), "64");
    let mut child = Shell::inside(&container.join_dirs(), "sleep 100");
    cgroups.verify(&container, child.pid()).unwrap();
    let reload = Command::new("/usr/bin/systemctl").arg("daemon-reload").status().unwrap();
    assert!(reload.success());
    assert_eq!(file(&container, "memory.max"), "67108864");
    cgroups.kill(&container).await.unwrap();
    assert_eq!(child.code(), None);
    cgroups.remove_container(&container).await.unwrap();
    let busy = cgroups.remove_pod(&pod).await;
    assert!(matches!(busy, Err(CgroupError::Leftover { .. })), "{busy:?}");
    cgroups.kill(&pod).await.unwrap();
    assert_eq!(shim.code(), None);
    for _ in 0..2 {
        cgroups.remove_pod(&pod).await.unwrap();
    }
    assert!(!below(Path::new("/sys/fs/cgroup"), pod.path()).exists());
    let unit = format!("berth-{id}.scope");
    let shown = Command::new("/usr/bin/systemctl").args(["show", "-P", "LoadState", &unit]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&shown.stdout).trim(), "not-found");
}

#[tokio::test]
async fn a_scope_whose_shim_is_gone_can_be_removed() {
    let Some(cgroups) = open(Driver::Systemd) else {
        return;
    };
    let mut shim = Shell(Command::new("/bin/sleep").arg("1000").spawn().unwrap());
    let pod = cgroups.create_pod("", &PodId::generate(), Some(shim.pid())).await.unwrap();
    assert!(pod.path().starts_with("/berth.slice/berth-"));
    shim.0.kill().unwrap();
    shim.code();
    tokio::time::sleep(Duration::from_millis(500)).await;
    cgroups.remove_pod(&pod).await.unwrap();
    let gone = cgroups.create_pod("", &PodId::generate(), Some(shim.pid())).await;
    assert!(matches!(gone, Err(CgroupError::Systemd(_))), "{gone:?}");
}
