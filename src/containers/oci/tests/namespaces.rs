//! The host's namespaces, and user namespaces.

use super::*;

#[test]
fn the_hosts_namespaces_are_not_made_anew() {
    let mut case = case();
    case.pod.namespaces.host_ipc = true;
    case.container.security.pid = PidMode::Node;
    let spec = case.json();
    assert_eq!(at(&spec, "/dev/shm")["source"], "/dev/shm");
    assert_eq!(spec["linux"]["namespaces"], json!([{"type": "mount"}, {"type": "cgroup"}]));
}

#[test]
fn a_pod_with_a_user_namespace_says_which_ids_are_its_own() {
    let mut case = case();
    assert_eq!(case.json()["linux"]["uidMappings"], Value::Null);
    let all = vec![IdMapping { host_id: 65536, container_id: 0, length: 65536 }];
    case.pod.namespaces.user = Some(UserNamespace { uids: all.clone(), gids: all.clone() });
    case.container.mounts = vec![Mount { uid_mappings: all.clone(), gid_mappings: all, ..mount("/h", "/v") }];
    let spec = case.json();
    let mapped = json!([{"hostID": 65536, "containerID": 0, "size": 65536}]);
    for place in [&spec["linux"], at(&spec, "/v")] {
        assert_eq!((&place["uidMappings"], &place["gidMappings"]), (&mapped, &mapped));
    }
    case.pod.namespaces.host_network = true;
    assert_eq!(at(&case.json(), "/sys")["type"], "bind");
}

#[test]
fn a_user_namespace_changes_what_its_root_may_mount() {
    let mut case = case();
    let ids = |length| vec![IdMapping { host_id: 65536, container_id: 0, length }];
    let pts = |case: &Case| at(&case.json(), "/dev/pts")["options"].to_string();
    case.pod.namespaces.user = Some(UserNamespace { uids: ids(65536), gids: ids(65536) });
    case.container.security.privileged = true;
    assert!(pts(&case).contains("gid=5"));
    let kinds = case.json()["linux"]["namespaces"].to_string();
    assert!(kinds.contains("cgroup"), "the cgroups of another namespace can't be mounted: {kinds}");
    case.pod.namespaces.user = Some(UserNamespace { uids: ids(5), gids: ids(5) });
    assert!(!pts(&case).contains("gid=5"), "the group does not exist inside");
}
