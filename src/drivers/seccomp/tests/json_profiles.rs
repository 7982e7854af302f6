//! Profiles as users write them.

use super::*;
use crate::drivers::seccomp::profile::ProfileError;

fn read_json(text: &str) -> Result<Profile, ProfileError> {
    json::parse(text.as_bytes())
}

#[test]
fn profiles_of_the_runtime_spec_and_of_docker_are_read() {
    let oci = r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":13,"architectures":["SCMP_ARCH_NATIVE","SCMP_ARCH_MIPS"],
        "flags":["SECCOMP_FILTER_FLAG_LOG"],"syscalls":[{"names":["read","no_such_call"],"action":"SCMP_ACT_ALLOW"},
        {"names":["chmod","fchmod"],"action":"SCMP_ACT_ERRNO","errnoRet":5},
        {"names":["write"],"action":"SCMP_ACT_TRACE","errnoRet":7,"args":[{"index":2,"value":10,"op":"SCMP_CMP_GT"}]}]}"#;
    let profile = read_json(oci).unwrap();
    assert_eq!(profile.flags, ["SECCOMP_FILTER_FLAG_LOG"]);
    let check = |name, args: &[u64], expected: u32| {
        assert_eq!(verdict(&profile, Set::EMPTY, &call(Arch::NATIVE, name, args)), expected, "{name}");
    };
    check("read", &[], ALLOW);
    check("fchmod", &[], 0x0005_0005);
    check("write", &[0, 0, 11], 0x7ff0_0007);
    check("write", &[0, 0, 10], 0x0005_000d);
    check("getpid", &[], 0x0005_000d);
    check("clone3", &[], ENOSYS);
    let docker = r#"{"defaultAction":"SCMP_ACT_ERRNO","archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":
        ["SCMP_ARCH_X86","SCMP_ARCH_X32"]},{"architecture":"SCMP_ARCH_AARCH64","subArchitectures":["SCMP_ARCH_ARM"]}],
        "syscalls":[{"names":["ptrace"],"action":"SCMP_ACT_ALLOW","args":null,"comment":"","includes":{"minKernel":"4.8"},
        "excludes":{}},{"names":["bpf"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_BPF"]}},
        {"names":["gettid"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"99.1"}},
        {"names":["tkill"],"action":"SCMP_ACT_ALLOW","excludes":{"arches":["amd64","arm64"]}}]}"#;
    let profile = read_json(docker).unwrap();
    assert!(profile.arches.len() >= 2);
    let give = |name, held: Set| verdict(&profile, held, &call(Arch::NATIVE, name, &[]));
    assert_eq!(give("ptrace", Set::EMPTY), ALLOW);
    assert_eq!(give("bpf", caps(&["BPF"])), ALLOW);
    assert_eq!(give("bpf", Set::EMPTY), EPERM);
    assert_eq!(give("gettid", Set::ALL), EPERM);
    assert_eq!(give("tkill", Set::ALL), EPERM);
}

#[test]
fn two_conditions_on_one_argument_mean_either() {
    let profile = read_json(
        r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["socket"],"action":"SCMP_ACT_ALLOW","args":
        [{"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":0,"value":2,"op":"SCMP_CMP_EQ"}]}]}"#,
    );
    let profile = profile.unwrap();
    for (family, expected) in [(1, ALLOW), (2, ALLOW), (3, EPERM)] {
        assert_eq!(verdict(&profile, Set::EMPTY, &call(Arch::NATIVE, "socket", &[family])), expected);
    }
}

#[test]
fn a_profile_that_allows_by_default_still_closes_the_other_ways_in() {
    let profile = read_json(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["bpf"],"action":"SCMP_ACT_ERRNO"}]}"#,
    );
    let profile = profile.unwrap();
    assert_eq!(verdict(&profile, Set::EMPTY, &call(Arch::NATIVE, "bpf", &[])), EPERM);
    assert_eq!(verdict(&profile, Set::EMPTY, &call(Arch::NATIVE, "read", &[])), ALLOW);
    if Arch::NATIVE == Arch::X86_64 {
        assert_eq!(verdict(&profile, Set::EMPTY, &call(Arch::X32, "bpf", &[])), ENOSYS);
        assert_eq!(verdict(&profile, Set::EMPTY, &call(Arch::X86, "bpf", &[])), KILL);
    }
}

#[test]
fn a_rule_without_an_error_number_answers_eperm_whatever_the_default_is() {
    let profile = read_json(
        r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":13,"syscalls":[
        {"names":["chmod"],"action":"SCMP_ACT_ERRNO"},{"names":["chown"],"action":"SCMP_ACT_TRACE"},
        {"names":["link"],"action":"SCMP_ACT_ERRNO","errno":"ENOSYS"},
        {"names":["sync"],"action":"SCMP_ACT_ERRNO","errnoRet":5,"errno":"EIO"}]}"#,
    );
    let profile = profile.unwrap();
    let give = |name| verdict(&profile, Set::EMPTY, &call(Arch::X86_64, name, &[]));
    assert_eq!([give("chmod"), give("link"), give("sync")], [EPERM, ENOSYS, 0x0005_0005]);
    assert_eq!([give("chown"), give("read")], [0x7ff0_0001, 0x0005_000d]);
    let crio = r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"defaultErrno":"ENOSYS"}"#;
    assert_eq!(read_json(crio).unwrap().default, Action::Errno(38));
}

#[test]
fn every_action_and_every_comparison_does_what_its_name_says() {
    for (name, expected) in [
        ("SCMP_ACT_KILL", 0),
        ("SCMP_ACT_KILL_THREAD", 0),
        ("SCMP_ACT_KILL_PROCESS", KILL),
        ("SCMP_ACT_TRAP", 0x0003_0000),
        ("SCMP_ACT_ERRNO", EPERM),
        ("SCMP_ACT_TRACE", 0x7ff0_0001),
        ("SCMP_ACT_LOG", 0x7ffc_0000),
        ("SCMP_ACT_ALLOW", ALLOW),
    ] {
        let text = format!(
            r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{{"name":"sync","action":"{name}"}}]}}"#
        );
        let given = verdict(&read_json(&text).unwrap(), Set::EMPTY, &call(Arch::NATIVE, "sync", &[]));
        assert_eq!(given, expected, "{name}");
    }
    let five = 0x5_0000_0005;
    for (name, holds) in [
        ("NE", [five - 1, five + 1, 5]),
        ("LT", [five - 1, 0, 0x4_ffff_ffff]),
        ("LE", [five, five - 1, 0xffff_ffff]),
        ("EQ", [five; 3]),
        ("GE", [five, five + 1, 0x6_0000_0000]),
        ("GT", [five + 1, u64::MAX, 0x5_ffff_ffff]),
    ] {
        let text = format!(
            r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{{"names":["lseek"],"action":"SCMP_ACT_ERRNO",
            "args":[{{"index":1,"value":{five},"op":"SCMP_CMP_{name}"}}]}}]}}"#
        );
        let profile = read_json(&text).unwrap();
        for (value, expected) in holds.map(|value| (value, EPERM)).into_iter().chain([(
            match name {
                "NE" => five,
                "LT" | "LE" => five + 1,
                _ => five - 1,
            },
            ALLOW,
        )]) {
            let given = verdict(&profile, Set::EMPTY, &call(Arch::NATIVE, "lseek", &[0, value]));
            assert_eq!(given, expected, "{name} {value:x}");
        }
    }
}

#[test]
fn the_calls_of_i386_that_stand_for_many_get_the_verdicts_of_those() {
    let of = |default: &str, rules: &str| {
        let arches = r#""architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86"]"#;
        read_json(&format!(r#"{{"defaultAction":"SCMP_ACT_{default}",{arches},"syscalls":[{rules}]}}"#))
            .unwrap()
    };
    let give =
        |profile: &Profile, whole, which| verdict(profile, Set::EMPTY, &call(Arch::X86, whole, &[which]));
    // Refused by name: socketcall is no way around.
    let denied = of("ALLOW", r#"{"names":["socket","shmget"],"action":"SCMP_ACT_ERRNO"}"#);
    assert_eq!([1, 2].map(|which| give(&denied, "socketcall", which)), [EPERM, ALLOW]);
    assert_eq!([23, 0x1_0017, 21].map(|which| give(&denied, "ipc", which)), [EPERM, EPERM, ALLOW]);
    // Refused by an argument that can't be seen: refused.
    let by_family = r#"{"names":["socket"],"action":"SCMP_ACT_ERRNO","args":[{"index":0,"value":38,"op":"SCMP_CMP_EQ"}]}"#;
    assert_eq!([1, 3].map(|which| give(&of("ALLOW", by_family), "socketcall", which)), [EPERM, ALLOW]);
    // Allowed by such an argument, and socketcall as such allowed, too: refused.
    let granted = r#"{"names":["socket"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":40,"op":"SCMP_CMP_NE"}]},
        {"names":["socketcall","connect"],"action":"SCMP_ACT_ALLOW"}"#;
    assert_eq!(
        [1, 2, 3].map(|which| give(&of("ERRNO", granted), "socketcall", which)),
        [EPERM, ALLOW, ALLOW]
    );
    // Allowed by name: socketcall works where the profile does not mention it.
    let allowed = of("ERRNO", r#"{"names":["socket","semop","read"],"action":"SCMP_ACT_ALLOW"}"#);
    assert_eq!([1, 2].map(|which| give(&allowed, "socketcall", which)), [ALLOW, EPERM]);
    assert_eq!([1, 2].map(|which| give(&allowed, "ipc", which)), [ALLOW, EPERM]);
    // Refused as such: refused.
    let closed = r#"{"names":["socketcall"],"action":"SCMP_ACT_ERRNO"},{"names":["socket"],"action":"SCMP_ACT_ALLOW"}"#;
    assert_eq!(give(&of("ALLOW", closed), "socketcall", 1), EPERM);
}

#[test]
fn what_is_not_understood_is_refused() {
    let rule = |rule: &str| format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{rule}]}}"#);
    let bad = [
        String::new(),
        "null".into(),
        "{}".into(),
        r#"{"defaultAction":"ALLOW"}"#.into(),
        r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#.into(),
        r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":4096}"#.into(),
        r#"{"defaultAction":"SCMP_ACT_ERRNO","listenerPath":"/x"}"#.into(),
        r#"{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_VAX"]}"#.into(),
        r#"{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_S390X"]}"#.into(),
        r#"{"defaultAction":"SCMP_ACT_ERRNO","flags":["SECCOMP_FILTER_FLAG_NEW_LISTENER"]}"#.into(),
        r#"{"defaultAction":"SCMP_ACT_ERRNO","sycalls":[]}"#.into(),
        r#"{"defaultAction":"SCMP_ACT_ALLOW","defaultErrnoRet":1}"#.into(),
        r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrno":"ENOTHING"}"#.into(),
        r#"{"defaultAction":"SCMP_ACT_ERRNO","flags":["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}"#.into(),
        rule(r#"{"names":["read"],"action":"SCMP_ACT_KILL","errnoRet":1}"#),
        rule(r#"{"names":["read"],"action":"SCMP_ACT_ERRNO","errnoRet":1,"errno":"ENOSYS"}"#),
        rule(r#"{"names":[],"action":"SCMP_ACT_ALLOW"}"#),
        rule(r#"{"names":["a b"],"action":"SCMP_ACT_ALLOW"}"#),
        rule(r#"{"names":["read"],"action":"SCMP_ACT_NOTIFY"}"#),
        rule(r#"{"names":["read"]}"#),
        rule(
            r#"{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}"#,
        ),
        rule(r#"{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":0,"op":"=="}]}"#),
        rule(
            r#"{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":-1,"op":"SCMP_CMP_EQ"}]}"#,
        ),
        rule(r#"{"names":["read"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_GOD"]}}"#),
        rule(r#"{"names":["read"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"six"}}"#),
    ];
    for text in bad {
        assert!(read_json(&text).is_err(), "{text}");
    }
}
