//! User, groups, capabilities, limits, seccomp: as the kernel shows them in /proc/self/status.

use serde_json::{Value, json};

use crate::Test;
use crate::fixture::{Case, field, process};

pub const TESTS: &[Test] = &[
    ("capabilities_of_root_and_others_are_exactly_those_of_the_spec", capabilities),
    ("ambient_capabilities_are_given_only_where_asked_for", ambient),
    ("user_and_groups_are_set_and_the_runtime_s_groups_are_dropped", groups),
    ("a_user_may_open_its_standard_streams_anew", own_streams),
    ("no_new_privileges_is_set_only_where_asked_for", no_new_privileges),
    ("a_seccomp_filter_is_in_force_with_and_without_no_new_privileges", seccomp),
    ("an_empty_or_cut_seccomp_filter_stops_the_start", bad_seccomp),
    ("limits_and_oom_score_are_as_asked_for", limits),
    ("the_environment_is_exactly_that_of_the_spec", environment),
    ("bad_identities_are_refused_by_name", refused),
];

const STATUS: &[&str] = &["/bin/cat", "/proc/self/status"];

/// The status of a first process and of an exec with the same identity.
fn statuses(change: impl Fn(&mut Value)) -> [String; 2] {
    let mut case = Case::new(STATUS);
    change(&mut case.spec["process"]);
    let first = case.run().stdout;
    let (_case, running) = Case::sleeping();
    let mut process = process(STATUS);
    change(&mut process);
    let execed = running.exec(&process, &[]).unwrap().finish().stdout;
    running.kill();
    [first, execed]
}

fn sets(status: &str) -> [String; 5] {
    ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|name| field(status, name))
}

fn capabilities() {
    const NONE: &str = "0000000000000000";
    // chown, dac_override, kill, setgid, setuid
    const ASKED: &str = "00000000000000e3";
    for status in statuses(|_| ()) {
        assert_eq!(sets(&status), [NONE, ASKED, ASKED, ASKED, NONE]);
    }
    for status in statuses(|process| process["user"] = json!({"uid": 1000, "gid": 1000})) {
        assert_eq!(sets(&status), [NONE, NONE, NONE, ASKED, NONE]);
    }
    for status in statuses(|process| process["capabilities"] = json!({})) {
        assert_eq!(sets(&status), [NONE; 5]);
    }
}

fn ambient() {
    for status in statuses(|process| {
        process["user"] = json!({"uid": 1000, "gid": 1000});
        let chown = json!(["CAP_CHOWN"]);
        process["capabilities"]["inheritable"] = chown.clone();
        process["capabilities"]["ambient"] = chown;
    }) {
        let chown = "0000000000000001";
        assert_eq!(sets(&status), [chown, chown, chown, "00000000000000e3", chown]);
    }
}

fn groups() {
    for status in statuses(|process| {
        process["user"] = json!({"uid": 1001, "gid": 1002, "additionalGids": [5, 1002, 70000]});
    }) {
        assert_eq!(field(&status, "Uid"), "1001\t1001\t1001\t1001");
        assert_eq!(field(&status, "Gid"), "1002\t1002\t1002\t1002");
        assert_eq!(field(&status, "Groups"), "5 1002 70000");
    }
    for status in statuses(|_| ()) {
        assert_eq!(field(&status, "Groups"), "");
    }
}

fn own_streams() {
    let mut case = Case::sh("echo again > /dev/stdout; echo bad > /dev/stderr; cat /dev/stdin");
    case.spec["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    let output = case.run();
    assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (0, "again\n", "bad\n"));
}

fn no_new_privileges() {
    for wanted in [true, false] {
        for status in statuses(|process| process["noNewPrivileges"] = json!(wanted)) {
            assert_eq!(field(&status, "NoNewPrivs"), if wanted { "1" } else { "0" });
        }
    }
}

/// uname gives EPERM, everything else is allowed.
fn no_uname() -> Vec<u8> {
    let instructions: [(u16, u8, u8, u32); 4] = [
        (0x20, 0, 0, 0),
        (0x15, 0, 1, u32::try_from(nix::libc::SYS_uname).unwrap()),
        (0x06, 0, 0, 0x0005_0001),
        (0x06, 0, 0, 0x7fff_0000),
    ];
    let bytes = |(code, jt, jf, k): (u16, u8, u8, u32)| {
        [&code.to_ne_bytes()[..], &[jt, jf], &k.to_ne_bytes()].concat()
    };
    instructions.into_iter().flat_map(bytes).collect()
}

fn seccomp() {
    for no_new_privileges in [true, false] {
        for uid in [0, 1000] {
            let mut case = Case::sh("grep ^Seccomp: /proc/self/status; uname");
            case.seccomp = Some(no_uname());
            case.spec["process"]["noNewPrivileges"] = json!(no_new_privileges);
            case.spec["process"]["user"] = json!({"uid": uid, "gid": uid});
            let output = case.run();
            // A uname that is not allowed has nothing to tell.
            assert_eq!(output.stdout, "Seccomp:\t2\n\n", "{output:?}");
        }
    }
    assert_eq!(Case::sh("grep ^Seccomp: /proc/self/status; uname").run().stdout, "Seccomp:\t0\nLinux\n");
}

fn bad_seccomp() {
    for bytes in [Vec::new(), no_uname()[..20].to_vec()] {
        let mut case = Case::sh("true");
        case.seccomp = Some(bytes);
        assert_eq!(case.error().step, "read the seccomp filter");
    }
}

fn limits() {
    let mut case = Case::sh("ulimit -n; ulimit -Hn; ulimit -c; cat /proc/self/oom_score_adj");
    case.spec["process"]["rlimits"] = json!([
        {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
    ]);
    case.spec["process"]["oomScoreAdj"] = json!(900);
    assert_eq!(case.run().stdout, "100\n200\n0\n900\n");
    case.spec["process"]["rlimits"] = json!([{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}]);
    assert!(case.error().message.contains("RLIMIT_CPU"));
}

fn environment() {
    let mut case = Case::new(&["/bin/env"]);
    case.spec["process"]["env"] = json!(["B=2", "A=\u{e4} \n x", "PATH=/bin", "EMPTY="]);
    assert_eq!(case.run().stdout, "B=2\nA=\u{e4} \n x\nPATH=/bin\nEMPTY=\n");
}

fn refused() {
    let error = |change: &dyn Fn(&mut Value)| {
        let mut case = Case::sh("true");
        change(&mut case.spec["process"]);
        case.error().message
    };
    let unknown = error(&|process| process["capabilities"]["bounding"] = json!(["CAP_FLY"]));
    assert!(unknown.contains("\"CAP_FLY\""), "{unknown}");
    let unknown =
        error(&|process| process["rlimits"] = json!([{"type": "RLIMIT_LIFE", "soft": 1, "hard": 1}]));
    assert!(unknown.contains("RLIMIT_LIFE"), "{unknown}");
    let nul = error(&|process| process["env"] = json!(["A=\u{0}"]));
    assert!(nul.contains("NUL"), "{nul}");
    assert!(error(&|process| process["args"] = json!([])).contains("no arguments"));
    assert!(error(&|process| process["cwd"] = json!("relative")).contains("not absolute"));
}
