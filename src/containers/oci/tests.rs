//! Specs of typical containers, compared as JSON: what the shim reads.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::containers::spec::*;
use crate::pods::spec::*;

mod capabilities;
mod mounts;
mod namespaces;
mod process;

struct Case {
    container: ContainerSpec,
    pod: PodSpec,
    image: ImageConfig,
    user: User,
    host: Host,
    files: PodFiles,
    devices: Vec<HostDevice>,
    anonymous: Vec<AnonymousVolume>,
    apparmor: Option<&'static str>,
    selinux: Option<Labels>,
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

fn container() -> ContainerSpec {
    ContainerSpec {
        metadata: ContainerMetadata { name: "main".into(), attempt: 0 },
        image: "sha256:abc".into(),
        user_specified_image: "busybox:1.36".into(),
        command: vec![],
        args: vec![],
        working_dir: String::new(),
        envs: vec![],
        mounts: vec![],
        devices: vec![],
        labels: BTreeMap::new(),
        annotations: BTreeMap::from([("org.systemd.property.X".into(), "'y'".into())]),
        log_path: None,
        stdin: false,
        stdin_once: false,
        tty: false,
        resources: Resources::default(),
        security: Security {
            masked_paths: texts(&["/proc/kcore", "/sys/firmware"]),
            readonly_paths: texts(&["/proc/sys"]),
            ..Security::default()
        },
        stop_signal: None,
    }
}

fn pod() -> PodSpec {
    PodSpec {
        metadata: PodMetadata { name: "p".into(), namespace: "n".into(), uid: "u".into(), attempt: 0 },
        hostname: "web-0".into(),
        log_directory: String::new(),
        dns: None,
        ports: vec![],
        labels: BTreeMap::new(),
        annotations: BTreeMap::from([("run.oci.handler".into(), "x".into())]),
        cgroup_parent: String::new(),
        sysctls: BTreeMap::new(),
        namespaces: PodNamespaces::default(),
        privileged: false,
        seccomp: Seccomp::default(),
        selinux: None,
        runtime_handler: String::new(),
        overhead: None,
        resources: None,
    }
}

fn case() -> Case {
    Case {
        container: container(),
        pod: pod(),
        image: ImageConfig { cmd: texts(&["sh"]), ..ImageConfig::default() },
        user: User { uid: 0, gid: 0, groups: vec![0, 10], home: Some("/root".into()) },
        host: Host { hostname: "node".into(), capabilities: capability::Set::ALL, ..Host::default() },
        files: PodFiles {
            resolv_conf: "/p/resolv".into(),
            hosts: "/p/hosts".into(),
            hostname: "/p/name".into(),
        },
        devices: vec![],
        anonymous: vec![],
        apparmor: None,
        selinux: None,
    }
}

impl Case {
    fn spec(&self) -> Result<oci::Spec, SpecError> {
        spec(&Inputs {
            container: &self.container,
            pod: &self.pod,
            image: &self.image,
            user: &self.user,
            host: &self.host,
            files: &self.files,
            cgroup_path: "/kubepods/pod1/c1",
            apparmor: self.apparmor,
            selinux: self.selinux.as_ref(),
            devices: &self.devices,
            anonymous: &self.anonymous,
        })
    }

    fn json(&self) -> Value {
        serde_json::to_value(self.spec().unwrap()).unwrap()
    }

    fn error(&self) -> String {
        self.spec().unwrap_err().to_string()
    }
}

fn mount(host: &str, container: &str) -> Mount {
    Mount {
        container_path: container.into(),
        image: None,
        host_path: host.into(),
        readonly: false,
        recursive_read_only: false,
        selinux_relabel: false,
        propagation: Propagation::Private,
        uid_mappings: vec![],
        gid_mappings: vec![],
        options: vec![],
    }
}

fn destinations(spec: &Value) -> Vec<&str> {
    spec["mounts"].as_array().unwrap().iter().map(|mount| mount["destination"].as_str().unwrap()).collect()
}

fn at<'a>(spec: &'a Value, destination: &str) -> &'a Value {
    let mut mounts = spec["mounts"].as_array().unwrap().iter();
    mounts.find(|mount| mount["destination"] == destination).unwrap_or_else(|| panic!("no {destination}"))
}

fn set(spec: &Value, name: &str) -> Vec<String> {
    let set = spec["process"]["capabilities"][name].as_array().unwrap();
    let mut names: Vec<_> = set.iter().map(|name| name.as_str().unwrap().to_string()).collect();
    names.sort();
    names
}

#[test]
fn a_plain_container_is_confined() {
    let spec = case().json();
    assert_eq!(spec["root"], json!({"path": "rootfs", "readonly": false}));
    let process = &spec["process"];
    assert_eq!(process["args"], json!(["sh"]));
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(process["env"], json!([path, "HOSTNAME=web-0", "HOME=/root"]));
    assert_eq!(process["user"], json!({"uid": 0, "gid": 0, "additionalGids": [0, 10]}));
    assert_eq!((&process["cwd"], &process["terminal"]), (&json!("/"), &json!(false)));
    assert_eq!(process["noNewPrivileges"], json!(false));
    for absent in ["rlimits", "apparmorProfile", "selinuxLabel", "oomScoreAdj"] {
        assert_eq!(process[absent], Value::Null, "{absent}");
    }
    let linux = &spec["linux"];
    assert_eq!(linux["maskedPaths"], json!(["/proc/kcore", "/sys/firmware"]));
    assert_eq!(linux["readonlyPaths"], json!(["/proc/sys"]));
    assert_eq!(linux["cgroupsPath"], "/kubepods/pod1/c1");
    assert_eq!(linux["namespaces"], json!([{"type": "mount"}, {"type": "pid"}, {"type": "cgroup"}]));
    assert_eq!(linux["resources"]["devices"][0], json!({"allow": false, "type": "a", "access": "rwm"}));
    let own = [
        "/proc",
        "/dev",
        "/dev/pts",
        "/dev/mqueue",
        "/sys",
        "/sys/fs/cgroup",
        "/dev/shm",
        "/etc/hosts",
        "/etc/hostname",
        "/etc/resolv.conf",
    ];
    assert_eq!(destinations(&spec), own);
    assert_eq!(at(&spec, "/dev/shm")["type"], "shm");
    assert!(at(&spec, "/sys")["options"].as_array().unwrap().contains(&json!("ro")));
    assert!(at(&spec, "/sys/fs/cgroup")["options"].as_array().unwrap().contains(&json!("ro")));
    assert_eq!(at(&spec, "/etc/hosts")["options"], json!(["rbind", "rprivate", "rw"]));
}

#[test]
fn annotations_and_labels_never_get_in() {
    let spec = case().json().to_string();
    assert!(
        !spec.contains("systemd") && !spec.contains("run.oci") && !spec.contains("annotations"),
        "{spec}"
    );
}

#[test]
fn a_privileged_container_has_what_the_node_has_and_nothing_hidden() {
    let mut case = case();
    case.container.security.privileged = true;
    case.container.security.capabilities.drop = vec!["ALL".into()];
    case.host.capabilities.remove(capability::Capability::parse("SYS_RESOURCE").unwrap());
    let spec = case.json();
    assert_eq!(set(&spec, "bounding").len(), 40);
    assert_eq!(spec["linux"]["maskedPaths"], json!([]));
    assert_eq!(spec["linux"]["readonlyPaths"], json!([]));
    assert_eq!(spec["process"]["apparmorProfile"], Value::Null);
    assert_eq!(spec["linux"]["resources"]["devices"], json!([{"allow": true, "type": "a", "access": "rwm"}]));
    assert_eq!(spec["linux"]["namespaces"], json!([{"type": "mount"}, {"type": "pid"}]));
    for place in ["/sys", "/sys/fs/cgroup"] {
        assert!(at(&spec, place)["options"].as_array().unwrap().contains(&json!("rw")));
    }
}

#[test]
fn the_process_runs_under_its_apparmor_profile() {
    let mut case = case();
    case.apparmor = Some("mine");
    assert_eq!(case.json()["process"]["apparmorProfile"], "mine");
}

#[test]
fn labels_are_those_of_the_process_and_of_its_files() {
    let mut case = case();
    assert_eq!(case.json()["linux"]["mountLabel"], Value::Null);
    case.selinux = Some(Labels { process: "u:r:p_t:s0".into(), files: "u:r:f_t:s0".into() });
    assert_eq!(case.json()["process"]["selinuxLabel"], "u:r:p_t:s0");
    assert_eq!(case.json()["linux"]["mountLabel"], "u:r:f_t:s0");
}

#[test]
fn limits_and_devices_are_listed() {
    let mut case = case();
    case.container.resources = Resources {
        cpu_shares: Some(512),
        cpu_quota: Some(-1),
        memory_limit: Some(1 << 20),
        oom_score_adj: Some(-997),
        pids_limit: Some(100),
        ..Resources::default()
    };
    let fuse = HostDevice {
        path: "/dev/fuse".into(),
        kind: crate::drivers::host::DeviceKind::Char,
        major: 10,
        minor: 229,
        mode: 0o666,
        uid: 0,
        gid: 0,
        access: "rw".into(),
    };
    case.devices = vec![fuse];
    let spec = case.json();
    let resources = &spec["linux"]["resources"];
    assert_eq!(resources["cpu"], json!({"shares": 512, "quota": -1}));
    assert_eq!(resources["memory"], json!({"limit": 1 << 20}));
    assert_eq!(resources["pids"], json!({"limit": 100}));
    let last = resources["devices"].as_array().unwrap().last().unwrap();
    assert_eq!(last, &json!({"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"}));
    assert_eq!(spec["linux"]["devices"][0]["path"], "/dev/fuse");
    assert_eq!(spec["process"]["oomScoreAdj"], -997);
    for (path, access) in [("/dev/../x", "rw"), ("dev", "rw"), ("/dev/a", ""), ("/dev/a", "rwx")] {
        (case.devices[0].path, case.devices[0].access) = (path.into(), access.into());
        assert!(matches!(case.spec(), Err(SpecError::Device { .. })), "{path} {access}");
    }
}

#[test]
fn masked_paths_must_be_absolute() {
    for path in ["", "relative", "/a\0"] {
        let mut case = case();
        case.container.security.masked_paths = vec![path.into()];
        assert!(matches!(case.spec(), Err(SpecError::Path { .. })), "{path:?}");
    }
}
