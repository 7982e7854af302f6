//! A container runs and sees what it should.

use serde_json::json;

use crate::Test;
use crate::fixture::{Case, field};

pub const TESTS: &[Test] = &[
    ("the_workload_runs_and_its_output_and_exit_code_arrive", output_and_exit_code),
    ("descriptors_are_exactly_the_standard_streams", descriptors),
    ("a_new_pid_namespace_has_the_workload_as_pid_1", pid_one),
    ("the_host_pid_namespace_is_kept_when_asked_for", host_pid),
    ("a_container_joins_the_pid_namespace_of_another_process", joined_pid),
    ("the_one_hierarchy_of_cgroup_v2_is_mounted", cgroup_v2),
    ("a_root_of_128_layers_is_mounted", many_layers),
    ("signals_and_keyring_are_fresh", signals),
    ("a_missing_working_directory_is_made", working_directory),
    ("a_terminal_is_the_controlling_terminal_and_the_console", terminal),
    ("cgroups_of_v1_are_joined_and_the_namespace_is_rooted_there", cgroups),
];

fn output_and_exit_code() {
    let output = Case::sh("echo out; echo err >&2; cat; exit 7").run();
    assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (7, "out\n", "err\n"));
}

fn descriptors() {
    let output = Case::new(&["/bin/ls", "/proc/self/fd"]).run();
    // 3 is the directory that ls reads.
    assert_eq!(output.stdout.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"], "{output:?}");
}

fn pid_one() {
    assert_eq!(Case::sh("echo $$; ls -d /proc/[0-9]* | wc -l").run().stdout, "1\n2\n".replace('2', "3"));
}

fn host_pid() {
    let mut case = Case::sh("echo $$; exec sleep 1000");
    case.pid = crate::container::PidNamespace::Host;
    let running = case.start().unwrap();
    let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap();
    assert_eq!(of(&running.pid.to_string()), of("self"));
    running.kill();
}

fn joined_pid() {
    let (_case, first) = Case::sleeping();
    let target: &'static std::os::fd::OwnedFd = Box::leak(Box::new(first.pidfd()));
    let mut case = Case::sh("cat /proc/1/cmdline; test $$ -gt 1 && echo not first");
    case.pid = crate::container::PidNamespace::Join(std::os::fd::AsFd::as_fd(target));
    assert_eq!(case.run().stdout.replace('\0', " "), "sleep 1000 not first\n");
    first.kill();
}

fn cgroup_v2() {
    let mut case = Case::sh("grep ' /sys/fs/cgroup ' /proc/mounts; touch /sys/fs/cgroup/x");
    case.cgroup_v2 = true;
    let output = case.run();
    assert!(output.stdout.starts_with("cgroup /sys/fs/cgroup cgroup2 ro,nosuid,nodev,noexec"), "{output:?}");
    assert!(output.stderr.contains("Read-only"), "{output:?}");
}

fn many_layers() {
    let mut case = Case::sh("ls / | grep -c layer");
    case.layers = 128;
    assert_eq!(case.run().stdout, "127\n");
}

fn signals() {
    let output = Case::new(&["/bin/cat", "/proc/self/status"]).run().stdout;
    assert_eq!(field(&output, "SigIgn"), "0000000000000000");
    assert_eq!(field(&output, "SigBlk"), "0000000000000000");
    let piped = Case::sh("yes | head -1; echo done").run();
    assert_eq!((piped.stdout.as_str(), piped.stderr.as_str()), ("y\ndone\n", ""));
}

fn working_directory() {
    let mut case = Case::sh("pwd; umask; stat -c %a .");
    case.spec["process"]["cwd"] = json!("/some/deep/place");
    case.spec["process"]["user"]["umask"] = json!(0o027);
    assert_eq!(case.run().stdout, "/some/deep/place\n0027\n755\n");
}

fn terminal() {
    let mut case =
        Case::sh("tty; stty size; echo hi > /dev/console; echo there > /dev/tty; ls -l /dev/console; exit 3");
    case.spec["process"]["terminal"] = json!(true);
    case.spec["process"]["consoleSize"] = json!({"height": 40, "width": 100});
    let running = case.start().unwrap();
    let master = running.terminal.as_ref().unwrap();
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    // The end of a terminal is the error EIO.
    while let Ok(length) = rustix::io::read(master, &mut buffer) {
        text.extend_from_slice(&buffer[..length]);
    }
    let text = String::from_utf8(text).unwrap();
    assert!(text.starts_with("/dev/pts/0\r\n40 100\r\nhi\r\nthere\r\nc"), "{text}");
    assert_eq!(running.finish().code, 3);
}

fn cgroups() {
    let name = format!("berth-container-{}", std::process::id());
    let directories: Vec<String> = ["pids", "memory", "unified"]
        .iter()
        .map(|controller| format!("/sys/fs/cgroup/{controller}/{name}"))
        .collect();
    directories.iter().for_each(|directory| std::fs::create_dir(directory).unwrap());
    let mut case = Case::sh(
        "cat /proc/self/cgroup; cat /sys/fs/cgroup/pids/tasks; touch /sys/fs/cgroup/pids/x; read line",
    );
    case.cgroups = directories.clone();
    let running = case.start().unwrap();
    let outside = std::fs::read_to_string(format!("/proc/{}/cgroup", running.pid)).unwrap();
    let execed = running.exec(
        &crate::fixture::process(&["/bin/cat", "/proc/self/cgroup", "/sys/fs/cgroup/pids/tasks"]),
        &directories,
    );
    let execed = execed.unwrap().finish().stdout;
    let output = running.finish();
    for directory in &directories {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while std::fs::remove_dir(directory).is_err() && std::time::Instant::now() < end {}
        assert!(!std::path::Path::new(directory).exists(), "{directory}");
    }
    for controller in ["pids:", "memory:", "0::"] {
        let line = outside.lines().find(|line| line.contains(controller)).unwrap();
        assert!(line.ends_with(&format!("/{name}")), "{line}");
    }
    for text in [&output.stdout, &execed] {
        assert!(text.lines().any(|line| line.ends_with("pids:/")), "{text}");
        assert!(text.lines().any(|line| line == "1"), "{text}");
    }
    assert!(output.stderr.contains("Read-only file system"), "{output:?}");
}
