//! Containers of a pod with a user namespace.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::chown;

use nix::sched::{CloneFlags, unshare};
use serde_json::json;

use crate::Test;
use crate::container::Pod;
use crate::fixture::{Case, field, process};

pub const TESTS: &[Test] = &[
    ("root_of_a_user_namespace_is_nobody_on_the_host", mapped_root),
    ("an_id_mapped_volume_keeps_its_owners_on_the_host", id_mapped),
];

const FIRST: u32 = 100_000;

/// A user namespace that maps 65536 IDs, and a network namespace that it owns, held by a process that waits.
struct Namespaces {
    user: OwnedFd,
    keeper: nix::unistd::Pid,
}

fn namespaces() -> Namespaces {
    let (ready, told) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let berth_sys::clone::Side::Parent(keeper) = berth_sys::clone::fork().unwrap() else {
        unshare(CloneFlags::CLONE_NEWUSER).unwrap();
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS).unwrap();
        rustix::io::write(&told, b"1").unwrap();
        loop {
            nix::unistd::pause();
        }
    };
    drop(told);
    rustix::io::read(&ready, &mut [0; 1]).unwrap();
    for map in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{keeper}/{map}"), format!("0 {FIRST} 65536\n")).unwrap();
    }
    let user = File::open(format!("/proc/{keeper}/ns/user")).unwrap().into();
    Namespaces { user, keeper }
}

/// Runs `test` as the shim of such a pod would: with the pod's namespaces entered; in a child, which cannot leave them.
fn in_pod(test: impl FnOnce(Pod)) {
    let Namespaces { user, keeper } = namespaces();
    let berth_sys::clone::Side::Parent(child) = berth_sys::clone::fork().unwrap() else {
        for namespace in ["net", "ipc", "uts"] {
            let file = File::open(format!("/proc/{keeper}/ns/{namespace}")).unwrap();
            nix::sched::setns(file, CloneFlags::empty()).unwrap();
        }
        let test = std::panic::AssertUnwindSafe(|| test(Pod { shm: None, user_ns: Some(user), init: None }));
        let failed = std::panic::catch_unwind(test).is_err();
        berth_sys::process::exit_now(i32::from(failed));
    };
    let code = crate::fixture::reap(child);
    nix::sys::signal::kill(keeper, nix::sys::signal::Signal::SIGKILL).unwrap();
    crate::fixture::reap(keeper);
    assert_eq!(code, 0);
}

fn case(script: &str, pod: Pod) -> Case {
    let mut case = Case::sh(script);
    case.pod = pod;
    let mappings = json!([{"containerID": 0, "hostID": FIRST, "size": 65536}]);
    case.spec["linux"]["uidMappings"] = mappings.clone();
    case.spec["linux"]["gidMappings"] = mappings;
    own(&case.image());
    case
}

fn own(path: &std::path::Path) {
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        std::os::unix::fs::lchown(entry.path(), Some(FIRST), Some(FIRST)).unwrap();
        if entry.file_type().unwrap().is_dir() {
            own(&entry.path());
        }
    }
    chown(path, Some(FIRST), Some(FIRST)).unwrap();
}

fn mapped_root() {
    in_pod(|pod| {
        let mut case = case(
            "id -u; echo x > /dev/null; stat -c %t:%T /dev/zero; echo up > /dev/stderr; exec sleep 1000",
            pod,
        );
        case.spec["process"]["oomScoreAdj"] = json!(500);
        let running = case.start().unwrap();
        let status = fs::read_to_string(format!("/proc/{}/status", running.pid)).unwrap();
        assert_eq!(field(&status, "Uid"), "100000\t100000\t100000\t100000");
        let mut up = [0; 3];
        rustix::io::read(running.stderr.as_ref().unwrap(), &mut up).unwrap();
        assert_eq!(&up, b"up\n");
        let mut execed = process(&[
            "/bin/sh",
            "-c",
            "id -u; id -g > /dev/stdout; cat /proc/self/uid_map; cat /proc/self/oom_score_adj",
        ]);
        execed["oomScoreAdj"] = json!(400);
        let output = running.exec(&execed, &[]).unwrap().finish();
        assert_eq!(
            output.stdout.split_whitespace().collect::<Vec<_>>(),
            ["0", "0", "0", "100000", "65536", "400"],
            "{output:?}"
        );
        for namespace in ["mnt", "pid", "cgroup", "user"] {
            let of = |pid: String| fs::read_link(format!("/proc/{pid}/ns/{namespace}")).unwrap();
            assert_ne!(of(running.pid.to_string()), of("self".to_owned()));
        }
        nix::sys::signal::kill(running.pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        let output = running.finish();
        assert_eq!(output.stdout, "0\n1:5\n", "{output:?}");
    });
}

fn id_mapped() {
    in_pod(|pod| {
        let mut case = case("stat -c %u:%g /v/file; echo x > /v/new; chown 5:5 /v/new", pod);
        let volume = case.volume("volume");
        fs::write(volume.join("file"), "").unwrap();
        let mappings = json!([{"containerID": 0, "hostID": FIRST, "size": 65536}]);
        case.mount(json!({
            "type": "bind", "source": volume, "destination": "/v", "options": ["rbind"],
            "uidMappings": mappings, "gidMappings": mappings,
        }));
        let output = case.run();
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("0:0\n", ""));
        let new = fs::metadata(volume.join("new")).unwrap();
        use std::os::unix::fs::MetadataExt;
        assert_eq!((new.uid(), new.gid()), (5, 5));
    });
}
