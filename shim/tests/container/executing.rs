//! A further process joins a running container; programs that cannot be executed are named with the cause.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::Test;
use crate::fixture::{Case, field, process};

pub const TESTS: &[Test] = &[
    ("exec_joins_all_namespaces_of_the_container", all_namespaces),
    ("exec_gives_output_and_exit_code", output),
    ("exec_has_exactly_the_standard_streams", descriptors),
    ("exec_has_a_terminal_of_the_container", terminal),
    ("exec_does_not_follow_a_working_directory_out_of_the_root", directory),
    ("a_missing_program_is_named_with_path", missing),
    ("programs_that_cannot_be_executed_are_told_with_their_cause", not_executable),
    ("an_exec_of_a_missing_program_is_told_too", missing_exec),
    ("an_exec_has_the_oom_score_of_the_container_where_none_is_asked_for", oom_score),
    ("an_exec_in_a_container_that_has_ended_is_told", ended),
    ("a_process_killed_before_it_executes_is_a_failure", killed_early),
];

fn all_namespaces() {
    let (_case, running) = Case::sleeping();
    let process = process(&["/bin/sleep", "1000"]);
    let execed = running.exec(&process, &[]).unwrap();
    let of = |namespace: &str, pid: nix::unistd::Pid| {
        fs::read_link(format!("/proc/{pid}/ns/{namespace}")).unwrap()
    };
    for namespace in ["mnt", "pid", "net", "uts", "ipc", "user"] {
        assert_eq!(of(namespace, running.pid), of(namespace, execed.pid), "{namespace}");
    }
    // Of its own, with the same root: what tells its processes from the container's others.
    let cgroups = [running.pid, execed.pid, nix::unistd::getpid()].map(|pid| of("cgroup", pid));
    assert!(cgroups[0] != cgroups[1] && cgroups[1] != cgroups[2]);
    let root =
        |pid: nix::unistd::Pid| field(&fs::read_to_string(format!("/proc/{pid}/status")).unwrap(), "PPid");
    assert_eq!(root(execed.pid), std::process::id().to_string(), "the shim is the parent");
    execed.kill();
    running.kill();
}

fn output() {
    let (_case, running) = Case::sleeping();
    let output = running.exec_sh("echo out; echo err >&2; cat; exit 9");
    assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (9, "out\n", "err\n"));
    running.kill();
}

fn descriptors() {
    let (_case, running) = Case::sleeping();
    let output = running.exec(&process(&["/bin/ls", "/proc/self/fd"]), &[]).unwrap().finish();
    assert_eq!(output.stdout.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"], "{output:?}");
    running.kill();
}

fn terminal() {
    let (_case, running) = Case::sleeping();
    let mut process = process(&["/bin/sh", "-c", "tty; read line; echo got $line"]);
    process["terminal"] = json!(true);
    let execed = running.exec(&process, &[]).unwrap();
    let master = execed.terminal.as_ref().unwrap();
    rustix::io::write(master, b"abc\n").unwrap();
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(length) = rustix::io::read(master, &mut buffer) {
        text.extend_from_slice(&buffer[..length]);
    }
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("/dev/pts/0") && text.contains("got abc"), "{text}");
    assert_eq!(execed.finish().code, 0);
    running.kill();
}

fn directory() {
    let (_case, running) = Case::sleeping();
    for number in 0..20 {
        let mut process = process(&["/bin/sh", "-c", "pwd"]);
        process["cwd"] = json!(format!("/proc/self/fd/{number}"));
        assert!(running.exec(&process, &[]).is_err(), "{number}");
    }
    let mut process = process(&["/bin/sh", "-c", "pwd"]);
    process["cwd"] = json!("/proc/self/cwd");
    assert!(running.exec(&process, &[]).is_err());
    running.kill();
}

fn missing() {
    let error = Case::new(&["foo"]).error();
    assert_eq!(error.message, "exec \"foo\": executable file not found in $PATH");
    assert_eq!((error.step.as_str(), error.errno), ("execute", nix::libc::ENOENT));
    assert_eq!(Case::new(&["/foo"]).error().message, "exec \"/foo\": no such file or directory");
}

fn not_executable() {
    let write = |case: &Case, text: &str, mode: u32| {
        let path = case.image().join("bin/thing");
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let rows = [
        ("#!/bin/sh\n", 0o644, "permission denied"),
        ("garbage that is no program", 0o755, "exec format error"),
        ("#!/no/interpreter\n", 0o755, "no such file or directory (its interpreter is missing)"),
    ];
    for (text, mode, why) in rows {
        for name in ["thing", "/bin/thing"] {
            let case = Case::new(&[name]);
            write(&case, text, mode);
            assert_eq!(case.error().message, format!("exec {name:?}: {why}"));
        }
    }
    assert_eq!(Case::new(&["/etc"]).error().message, "exec \"/etc\": permission denied");
}

fn missing_exec() {
    let (_case, running) = Case::sleeping();
    let error = running.exec(&process(&["foo"]), &[]).err().unwrap();
    assert_eq!(error.message, "exec \"foo\": executable file not found in $PATH");
    running.kill();
}

fn killed_early() {
    let mut case = Case::sh("true");
    // A filter that kills at every call.
    case.seccomp = Some(vec![0x06, 0, 0, 0, 0, 0, 0, 0x80]);
    case.spec["process"]["noNewPrivileges"] = json!(false);
    let error = case.error();
    assert!(error.message.contains("killed before it could execute"), "{error:?}");
}

fn oom_score() {
    let mut case = Case::sh("exec sleep 1000");
    case.spec["process"]["oomScoreAdj"] = json!(321);
    let running = case.start().unwrap();
    assert_eq!(running.exec_sh("cat /proc/self/oom_score_adj").stdout, "321\n");
    running.kill();
}

fn ended() {
    let (_case, running) = Case::sleeping();
    let (pid, target) = (running.pid, running.pidfd());
    running.kill();
    let (stdio, running) = crate::fixture::streams(false);
    let request = crate::container::Exec {
        process: crate::fixture::memory_file(process(&["/bin/true"]).to_string().as_bytes()),
        target: std::os::fd::AsFd::as_fd(&target),
        seccomp: None,
        seccomp_flags: &[],
        cgroups: &[],
        stdio,
    };
    let error = crate::fixture::follow(crate::container::exec(request).unwrap(), running).err().unwrap();
    assert_eq!(error.message, "the container is not running", "{pid}");
}
