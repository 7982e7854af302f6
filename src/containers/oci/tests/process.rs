//! Command, environment, directory, and processes executed later.

use super::*;

#[test]
fn commands_replace_entrypoint_and_cmd_as_kubernetes_says() {
    let args = |command: &[&str], args: &[&str]| {
        let mut case = case();
        case.image.entrypoint = vec!["ep".into(), "e1".into()];
        case.image.cmd = vec!["c1".into()];
        case.container.command = command.iter().map(ToString::to_string).collect();
        case.container.args = args.iter().map(ToString::to_string).collect();
        case.json()["process"]["args"].clone()
    };
    assert_eq!(args(&[], &[]), json!(["ep", "e1", "c1"]));
    assert_eq!(args(&["x"], &[]), json!(["x"]));
    assert_eq!(args(&[], &["a"]), json!(["ep", "e1", "a"]));
    assert_eq!(args(&["x"], &["a"]), json!(["x", "a"]));
    let mut case = case();
    case.image.cmd.clear();
    assert_eq!(case.error(), "no command specified: neither the container nor image busybox:1.36 names one");
    case.container.command = vec!["a\0b".into()];
    assert!(matches!(case.spec(), Err(SpecError::Argument { index: 0 })));
    case.container.command = vec!["x".repeat(1 << 20); 7];
    assert!(matches!(case.spec(), Err(SpecError::TooLarge { .. })));
}

#[test]
fn later_variables_replace_earlier_ones() {
    let mut case = case();
    case.container.tty = true;
    case.pod.hostname.clear();
    case.user.home = None;
    case.image.env = ["PATH=/a", "PATH=/b", "NAME", "=x", "A=1=2", "E="].map(String::from).to_vec();
    case.container.envs = vec![("A".into(), b"3".to_vec()), ("L".into(), "\n\u{e9}".into())];
    let env = case.json()["process"]["env"].clone();
    assert_eq!(env, json!(["PATH=/b", "HOSTNAME=node", "TERM=xterm", "A=3", "E=", "L=\n\u{e9}", "HOME=/"]));
    case.container.envs = vec![("HOME".into(), b"/h".to_vec()), ("TERM".into(), b"vt100".to_vec())];
    let env = case.json()["process"]["env"].to_string();
    assert!(env.contains("HOME=/h") && !env.contains("HOME=/\"") && env.contains("TERM=vt100"), "{env}");
}

#[test]
fn variables_that_cannot_be_set_are_refused_by_name() {
    let bad: [(&str, Vec<u8>, &str); 6] = [
        ("X", vec![0xff], "the value of environment variable X is not UTF-8"),
        ("X", vec![b'a', 0], "the value of environment variable X contains a NUL byte"),
        ("X", vec![b'a'; 128 << 10], "the value of environment variable X is longer than"),
        ("A=B", vec![], "environment variable name \"A=B\""),
        ("", vec![], "environment variable name \"\""),
        ("A\0", vec![], "environment variable name"),
    ];
    for (name, value, text) in bad {
        let mut case = case();
        case.container.envs = vec![(name.into(), value)];
        assert!(case.error().starts_with(text), "{}", case.error());
    }
}

#[test]
fn the_working_directory_is_the_requests_then_the_images() {
    let cwd = |request: &str, image: &str| {
        let mut case = case();
        case.container.working_dir = request.into();
        case.image.working_dir = image.into();
        case.spec().map(|spec| spec.process().clone().unwrap().cwd().to_string_lossy().into_owned())
    };
    assert_eq!(cwd("", "").unwrap(), "/");
    assert_eq!(cwd("/r", "/i").unwrap(), "/r");
    assert_eq!(cwd("", "/i").unwrap(), "/i");
    assert_eq!(cwd("", "app").unwrap(), "/app");
    assert!(cwd("relative", "/i").is_err() && cwd("/a\0b", "").is_err());
    assert!(cwd(&format!("/{}", "a/".repeat(2047)), "").is_ok());
    assert!(matches!(cwd("", &"/a".repeat(2048)), Err(SpecError::LongWorkingDir { length: 4096 })));
}

#[test]
fn an_exec_is_the_container_with_another_command() {
    let mut case = case();
    case.user.uid = 1000;
    case.container.security.no_new_privs = true;
    let init = case.spec().unwrap().process().clone().unwrap();
    let exec = exec_process(&init, &["ls".into()], true).unwrap();
    let (mut before, mut after) =
        (serde_json::to_value(&init).unwrap(), serde_json::to_value(&exec).unwrap());
    assert_eq!(after["args"], json!(["ls"]));
    assert_eq!(after["terminal"], true);
    assert!(after["env"].as_array().unwrap().contains(&json!("TERM=xterm")));
    for changed in ["args", "terminal", "env"] {
        before[changed].take();
        after[changed].take();
    }
    // Sets have no order in the crate's type.
    for name in ["bounding", "effective", "permitted"] {
        assert_eq!(before["capabilities"][name].take().as_array().unwrap().len(), 14);
        assert_eq!(after["capabilities"][name].take().as_array().unwrap().len(), 14);
    }
    assert_eq!(before, after);
    assert!(exec_process(&init, &[], false).is_err());
    assert!(exec_process(&init, &["a\0".into()], false).is_err());
}
