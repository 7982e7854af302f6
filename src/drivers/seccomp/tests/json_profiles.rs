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
