//! Version 2 as far as it needs no controllers: on hybrid hosts it is mounted at /sys/fs/cgroup/unified.

use super::*;

fn open() -> Option<Cgroups> {
    let root = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
        .into_iter()
        .find(|d| Path::new(d).join("cgroup.procs").exists());
    let Some(root) = root else {
        eprintln!("skipped: this host has no cgroup v2");
        return None;
    };
    Some(Cgroups::with(Hierarchies::V2(root.into()), Driver::Cgroupfs, &Config::default()).unwrap())
}

#[tokio::test]
async fn a_container_has_one_directory_and_leaves_nothing() {
    let Some(cgroups) = open() else { return };
    let at = parent("v2");
    let _clean = Clean(&cgroups, at.clone());
    let (pod, container) = make(&cgroups, &at, &Resources::default()).await;
    assert_eq!((pod.join_dirs().len(), container.join_dirs().len()), (1, 1));
    assert!(pod.v2() && container.v2());
    let mut shell = Shell::inside(&container.join_dirs(), "sleep 0.2");
    cgroups.verify(&container, shell.pid()).unwrap();
    assert_eq!(cgroups.processes(&container).len(), cgroups.processes(&pod).len());
    assert_eq!(shell.code(), Some(0));
    cgroups.remove_pod(&pod).await.unwrap();
    cgroups.remove_container(&container).await.unwrap();
    assert!(cgroups.inner.hierarchies.dirs(&at).iter().all(|dir| !dir.exists()));
}

#[tokio::test]
async fn the_filter_denies_devices_that_are_not_listed() {
    let Some(cgroups) = open() else { return };
    let at = parent("v2devices");
    let _clean = Clean(&cgroups, at.clone());
    let (pod, container) = make(&cgroups, &at, &Resources::default()).await;
    assert_eq!(Shell::inside(&container.join_dirs(), TRY_DEVICES).code(), Some(0));
    let none = DeviceRules::Only(Vec::new());
    let id = ContainerId::generate();
    for _ in 0..2 {
        let closed = cgroups.create_container(&pod, &id, &Resources::default(), &none).await.unwrap();
        assert_eq!(
            Shell::inside(&closed.join_dirs(), "(: < /dev/null) 2>&- && exit 1; exit 0").code(),
            Some(0)
        );
    }
    let open = cgroups
        .create_container(&pod, &ContainerId::generate(), &Resources::default(), &DeviceRules::All)
        .await
        .unwrap();
    assert_eq!(Shell::inside(&open.join_dirs(), "head -c1 /dev/random > /dev/null").code(), Some(0));
}

#[tokio::test]
async fn a_pod_is_killed_with_all_that_is_below_it() {
    let Some(cgroups) = open() else { return };
    let at = parent("v2kill");
    let _clean = Clean(&cgroups, at.clone());
    let (pod, container) = make(&cgroups, &at, &Resources::default()).await;
    let dir = container.join_dirs().remove(0);
    std::fs::create_dir(format!("{dir}/inner")).unwrap();
    let inner = Shell::inside(&[format!("{dir}/inner")], "sleep 100");
    let mut shim = Shell::inside(&pod.join_dirs(), "sleep 100");
    std::fs::write(format!("{dir}/cgroup.freeze"), "1").unwrap();
    cgroups.kill(&pod).await.unwrap();
    assert_eq!(shim.code(), None);
    drop(inner);
    ends(&cgroups, &pod).await;
    cgroups.remove_pod(&pod).await.unwrap();
}
