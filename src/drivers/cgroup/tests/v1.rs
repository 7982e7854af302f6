//! Version 1, on a host that has it.

use std::time::Instant;

use super::*;

fn open() -> Option<Cgroups> {
    let cgroups = Cgroups::open(&Config::default()).unwrap();
    if cgroups.mode() == Mode::V1 {
        return Some(cgroups);
    }
    eprintln!("skipped: this host has no cgroup v1");
    None
}

fn dir(cgroups: &Cgroups, controller: &str, place: &impl Place) -> std::path::PathBuf {
    cgroups.inner.hierarchies.dir(controller, place.place()).unwrap()
}

#[tokio::test]
async fn a_container_gets_its_limits_and_leaves_nothing() {
    let Some(cgroups) = open() else { return };
    let at = parent("limits");
    let _clean = Clean(&cgroups, at.clone());
    let resources = Resources { cpuset_cpus: "0".into(), ..limits(512, 64 << 20) };
    let (pod, container) = make(&cgroups, &at, &resources).await;
    assert_eq!(read(dir(&cgroups, "cpu", &container).join("cpu.shares")), "512");
    assert_eq!(read(dir(&cgroups, "cpu", &container).join("cpu.cfs_quota_us")), "50000");
    assert_eq!(
        read(dir(&cgroups, "memory", &container).join("memory.limit_in_bytes")),
        (64 << 20).to_string()
    );
    assert_eq!(read(dir(&cgroups, "pids", &container).join("pids.max")), "64");
    assert_eq!(read(dir(&cgroups, "cpuset", &container).join("cpuset.cpus")), "0");
    let mut shell = Shell::inside(&container.join_dirs(), "sleep 0.2");
    cgroups.verify(&container, shell.pid()).unwrap();
    assert!(cgroups.processes(&pod).contains(&shell.pid()));
    assert!(cgroups.verify(&container, i32::try_from(std::process::id()).unwrap()).is_err());
    assert_eq!(shell.code(), Some(0));
    let mut shim = Shell::inside(&pod.join_dirs(), "exit 0");
    assert_eq!(shim.code(), Some(0));
    for _ in 0..2 {
        cgroups.remove_container(&container).await.unwrap();
    }
    for _ in 0..2 {
        cgroups.remove_pod(&pod).await.unwrap();
    }
    assert!(
        cgroups.inner.hierarchies.dirs(&at).iter().all(|dir| !dir.exists()),
        "the parent was made for the pod"
    );
}

#[tokio::test]
async fn devices_that_are_not_listed_are_denied() {
    let Some(cgroups) = open() else { return };
    let at = parent("devices");
    let _clean = Clean(&cgroups, at.clone());
    let (pod, container) = make(&cgroups, &at, &Resources::default()).await;
    assert_eq!(Shell::inside(&container.join_dirs(), TRY_DEVICES).code(), Some(0));
    let none = DeviceRules::Only(Vec::new());
    let closed =
        cgroups.create_container(&pod, &ContainerId::generate(), &Resources::default(), &none).await.unwrap();
    assert_eq!(Shell::inside(&closed.join_dirs(), "(: < /dev/null) 2>&- && exit 1; exit 0").code(), Some(0));
    let open = cgroups
        .create_container(&pod, &ContainerId::generate(), &Resources::default(), &DeviceRules::All)
        .await
        .unwrap();
    assert_eq!(Shell::inside(&open.join_dirs(), "head -c1 /dev/random > /dev/null").code(), Some(0));
}

#[tokio::test]
async fn a_refused_limit_leaves_neither_cgroup_nor_half_an_update() {
    let Some(cgroups) = open() else { return };
    let at = parent("refused");
    let _clean = Clean(&cgroups, at.clone());
    let (pod, container) = make(&cgroups, &at, &limits(512, 64 << 20)).await;
    let bad = Resources { cpuset_cpus: "99999".into(), ..limits(1024, 128 << 20) };
    let id = ContainerId::generate();
    let error = cgroups.create_container(&pod, &id, &bad, &some_devices()).await.unwrap_err();
    assert!(
        matches!(&error, CgroupError::Write { resource: "cpuset cpus", value, .. } if value == "99999"),
        "{error}"
    );
    let path = format!("{}/{id}", pod.path());
    assert!(cgroups.inner.hierarchies.dirs(&path).iter().all(|dir| !dir.exists()));
    cgroups.update(&container, &bad).await.unwrap_err();
    assert_eq!(read(dir(&cgroups, "cpu", &container).join("cpu.shares")), "512");
    assert_eq!(
        read(dir(&cgroups, "memory", &container).join("memory.limit_in_bytes")),
        (64 << 20).to_string()
    );
    cgroups.update(&container, &limits(2048, 32 << 20)).await.unwrap().forget();
    assert_eq!(read(dir(&cgroups, "cpu", &container).join("cpu.shares")), "2048");
    assert_eq!(
        read(dir(&cgroups, "memory", &container).join("memory.limit_in_bytes")),
        (32 << 20).to_string()
    );
}

#[tokio::test]
async fn a_kill_at_the_memory_limit_is_counted() {
    let Some(cgroups) = open() else { return };
    let at = parent("oom");
    let _clean = Clean(&cgroups, at.clone());
    let (_, container) =
        make(&cgroups, &at, &Resources { memory_limit: Some(16 << 20), ..Resources::default() }).await;
    assert_eq!(cgroups.oom_kills(&container).unwrap(), 0);
    let mut shell = Shell::inside(&container.join_dirs(), "x=a; while :; do x=$x$x$x$x; done");
    assert_ne!(shell.code(), Some(0));
    assert!(cgroups.oom_kills(&container).unwrap() >= 1);
    cgroups.remove_container(&container).await.unwrap();
    assert_eq!(cgroups.oom_kills(&container).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[tokio::test]
async fn a_limit_below_the_usage_is_refused_with_its_file() {
    let Some(cgroups) = open() else { return };
    let at = parent("below");
    let _clean = Clean(&cgroups, at.clone());
    let (_, container) = make(&cgroups, &at, &limits(512, 256 << 20)).await;
    let script = "x=aaaaaaaa; i=0; while [ $i -lt 11 ]; do x=$x$x$x; i=$((i+1)); [ ${#x} -gt 3000000 ] && break; done; echo ok; sleep 20; :";
    let mut shell = Shell::inside(&container.join_dirs(), script);
    std::io::Read::read_exact(shell.0.stdout.as_mut().unwrap(), &mut [0; 3]).unwrap();
    let error = cgroups.update(&container, &limits(1024, 4096)).await.unwrap_err();
    assert!(matches!(&error, CgroupError::Write { resource: "memory limit", .. }), "{error}");
    assert_eq!(read(dir(&cgroups, "cpu", &container).join("cpu.shares")), "512");
    assert_eq!(
        read(dir(&cgroups, "memory", &container).join("memory.limit_in_bytes")),
        (256 << 20).to_string()
    );
}

#[tokio::test]
async fn a_fork_bomb_is_killed_whole() {
    let Some(cgroups) = open() else { return };
    let at = parent("bomb");
    let _clean = Clean(&cgroups, at.clone());
    let (pod, container) =
        make(&cgroups, &at, &Resources { pids_limit: Some(100), ..Resources::default() }).await;
    let mut shell = Shell::inside(&container.join_dirs(), FORK);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(cgroups.processes(&container).len() > 10);
    let start = Instant::now();
    cgroups.kill(&container).await.unwrap();
    shell.0.wait().unwrap();
    ends(&cgroups, &container).await;
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    cgroups.remove_container(&container).await.unwrap();
    cgroups.kill(&container).await.unwrap();
    cgroups.remove_pod(&pod).await.unwrap();
}

#[tokio::test]
async fn a_process_that_stays_is_named() {
    let Some(cgroups) = open() else { return };
    let at = parent("stays");
    let _clean = Clean(&cgroups, at.clone());
    let (_, container) = make(&cgroups, &at, &Resources::default()).await;
    let shell = Shell::inside(&container.join_dirs(), "sleep 100");
    let error = cgroups.remove_container(&container).await.unwrap_err();
    assert!(
        matches!(&error, CgroupError::Leftover { processes, .. } if processes.contains(&shell.pid())),
        "{error}"
    );
    let error = cgroups.wait_empty(&container, Duration::from_millis(10)).await.unwrap_err();
    assert!(
        matches!(&error, CgroupError::Unkillable { processes, .. } if processes.iter().any(|p| p.0 == shell.pid()))
    );
    cgroups.kill(&container).await.unwrap();
}
