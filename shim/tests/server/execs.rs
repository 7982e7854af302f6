//! Execs and all that they start: who is killed when, and who is left alone.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use berth_proto::shim::{v1, v1::message::Body, v1::request::Verb};

use crate::client::Client;
use crate::containers::{Node, process, root};

/// A cgroup of version 1 for one container, in the hierarchies that matter here.
struct Cgroup(Vec<PathBuf>);

impl Cgroup {
    fn new() -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let name = format!("berth-execs-{}-{}", std::process::id(), LAST.fetch_add(1, Ordering::Relaxed));
        let directories: Vec<_> =
            ["pids", "freezer"].iter().map(|c| PathBuf::from("/sys/fs/cgroup").join(c).join(&name)).collect();
        directories.iter().for_each(|directory| std::fs::create_dir(directory).unwrap());
        Self(directories)
    }

    fn paths(&self) -> Vec<String> {
        self.0.iter().map(|path| path.to_str().unwrap().to_owned()).collect()
    }

    /// Command lines of those that live in it.
    fn living(&self) -> Vec<String> {
        let pids = std::fs::read_to_string(self.0[0].join("cgroup.procs")).unwrap();
        let line = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut all: Vec<_> = pids.lines().map(line).filter(|line| !line.is_empty()).collect();
        all.sort();
        all.iter().map(|line| line.replace('\0', " ").trim().to_owned()).collect()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for _ in 0..200 {
            self.0.retain(|directory| std::fs::remove_dir(directory).is_err());
            if self.0.is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

const OWN: &[&str] = &["sleep 1000", "sleep 2000"];

/// A container with a sleeping first process and another one beside it.
fn sleeper(namespaces: &str) -> (Node, Cgroup) {
    let mut node = Node::new();
    let cgroup = Cgroup::new();
    let mut request = node.request("a", "setsid sleep 2000 & exec sleep 1000", false);
    let config = PathBuf::from(&request.bundle).join("config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace(r#"{"type":"pid"}"#, namespaces)).unwrap();
    request.cgroups = cgroup.paths();
    node.start_request(request);
    node.wait_for("the container", || cgroup.living() == OWN);
    (node, cgroup)
}

const PRIVATE: &str = r#"{"type":"pid"},{"type":"cgroup"}"#;

fn verb(node: &Node, cgroup: &Cgroup, id: &str, script: &str) -> (Verb, Vec<OwnedFd>) {
    let path = node.shim.path("process.json");
    std::fs::write(&path, process(script, false).to_string()).unwrap();
    let null =
        || OwnedFd::from(std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").unwrap());
    let fds = vec![std::fs::File::open(&path).unwrap().into(), null(), null(), null()];
    let exec = v1::Exec {
        container_id: "a".into(),
        exec_id: id.into(),
        cgroups: cgroup.paths(),
        ..Default::default()
    };
    (Verb::Exec(exec), fds)
}

fn exec(node: &mut Node, client: &mut Client, cgroup: &Cgroup, (id, script): (&str, &str)) {
    let (verb, fds) = verb(node, cgroup, id, script);
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let (body, _) = client.call(verb, &fds);
    assert!(matches!(body, Body::Started(_)), "{body:?}");
}

fn kill(exec_id: &str, signal: i32) -> Verb {
    Verb::Signal(v1::Signal { container_id: "a".into(), exec_id: exec_id.into(), signal })
}

/// Leaves processes in sessions of their own, with and without a living parent.
const SPREAD: &str = "trap '' TERM HUP; setsid sh -c 'sleep 11 & sleep 12 & setsid sleep 13 & wait' & \
                      (setsid sleep 14 &); sleep 15 & sleep 16; sleep 17";

fn spread(node: &mut Node, cgroup: &Cgroup, id: &str) {
    let mut client = std::mem::replace(&mut node.client, node.shim.connect());
    exec(node, &mut client, cgroup, (id, SPREAD));
    node.client = client;
    node.wait_for("its processes", || {
        cgroup.living().iter().filter(|l| l.starts_with("sleep 1")).count() == 7
    });
}

#[test]
fn a_killed_exec_takes_everything_that_it_started_and_nothing_else() {
    let (mut node, cgroup) = sleeper(PRIVATE);
    spread(&mut node, &cgroup, "x");
    node.client.done(kill("x", 9), &[]);
    assert_eq!(node.client.exited("a", "x").exit_code, 137);
    node.wait_for("their end", || cgroup.living() == OWN);
    node.signal("a", "", 9);
    node.client.exited("a", "");
}

#[test]
fn an_exec_that_ends_by_itself_leaves_its_background() {
    let (mut node, cgroup) = sleeper(PRIVATE);
    let mut client = node.shim.connect();
    client.hello();
    exec(&mut node, &mut client, &cgroup, ("x", "sleep 11 & setsid sleep 12 & exit 4"));
    assert_eq!(client.exited("a", "x").exit_code, 4);
    let all = || cgroup.living() == ["sleep 1000", "sleep 11", "sleep 12", "sleep 2000"];
    node.wait_for("its background", all);
    // Nor does the connection matter any more.
    drop(client);
    node.client.done(Verb::ReopenLog(v1::ReopenLog { container_id: "a".into() }), &[]);
    assert!(all());
    node.signal("a", "", 9);
    node.client.exited("a", "");
}

#[test]
fn execs_end_with_the_connection_that_asked_for_them() {
    let (mut node, cgroup) = sleeper(PRIVATE);
    let mut other = node.shim.connect();
    other.hello();
    exec(&mut node, &mut other, &cgroup, ("x", SPREAD));
    exec(&mut node, &mut other, &cgroup, ("y", "setsid sleep 18 & sleep 19"));
    let (verb, fds) = verb(&node, &cgroup, "z", "exec sleep 3000");
    other.send(verb, &fds.iter().map(AsFd::as_fd).collect::<Vec<_>>());
    drop(other);
    for id in ["x", "y", "z"] {
        assert_eq!(node.client.exited("a", id).exit_code, 137);
    }
    node.wait_for("their end", || cgroup.living() == OWN);
    node.signal("a", "", 9);
    node.client.exited("a", "");
}

#[test]
fn an_exec_that_is_hung_up_takes_its_background_with_it() {
    let (mut node, cgroup) = sleeper(PRIVATE);
    let mut client = node.shim.connect();
    client.hello();
    exec(
        &mut node,
        &mut client,
        &cgroup,
        ("x", "setsid sh -c 'trap \"\" HUP; sleep 11; sleep 12' & sleep 13"),
    );
    node.wait_for("its processes", || cgroup.living().iter().any(|line| line == "sleep 11"));
    client.done(kill("x", 1), &[]);
    assert_eq!(client.exited("a", "x").exit_code, 129);
    node.wait_for("their end", || cgroup.living() == OWN);
    node.signal("a", "", 9);
    node.client.exited("a", "");
}

#[test]
fn an_exec_that_is_told_to_end_while_it_is_spawned_ends_when_it_begins() {
    let (mut node, cgroup) = sleeper(PRIVATE);
    let (verb, fds) = verb(&node, &cgroup, "x", "sleep 11 & sleep 12");
    let asked = node.client.send(verb, &fds.iter().map(AsFd::as_fd).collect::<Vec<_>>());
    let told = node.client.send(kill("x", 9), &[]);
    let mut answers = Vec::new();
    let mut ended = None;
    while answers.len() < 2 || ended.is_none() {
        let (message, _) = node.client.receive().unwrap();
        match message.body.unwrap() {
            Body::Exited(exited) => ended = Some(exited.exit_code),
            body => answers.push((message.id, body)),
        }
    }
    assert!(answers.iter().any(|(id, body)| *id == told && matches!(body, Body::Done(_))), "{answers:?}");
    assert!(answers.iter().any(|(id, _)| *id == asked));
    assert_eq!(ended, Some(137));
    node.wait_for("their end", || cgroup.living() == OWN);
    node.signal("a", "", 9);
    node.client.exited("a", "");
}

#[test]
fn a_chain_of_forks_is_caught_by_freezing_the_container() {
    let (mut node, cgroup) = sleeper(PRIVATE);
    let mut client = node.shim.connect();
    client.hello();
    // Each link lives for as long as it takes to make the next one.
    let chain =
        "export link='setsid sh -c \"$link\" & exit'; for i in 1 2 3 4; do sh -c \"$link\"; done; sleep 13";
    exec(&mut node, &mut client, &cgroup, ("x", chain));
    node.wait_for("the chain", || cgroup.living().iter().any(|line| line == "sleep 13"));
    client.done(kill("x", 9), &[]);
    assert_eq!(client.exited("a", "x").exit_code, 137);
    node.wait_for("its end", || cgroup.living() == OWN);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(cgroup.living(), OWN);
    node.signal("a", "", 9);
    node.client.exited("a", "");
}

#[test]
fn without_a_cgroup_namespace_descendants_and_the_session_are_killed() {
    let (mut node, cgroup) = sleeper(r#"{"type":"pid"}"#);
    let mut client = node.shim.connect();
    client.hello();
    let script = "setsid sh -c 'sleep 11 & setsid sleep 12 & wait' & (sleep 13 &); sleep 14";
    exec(&mut node, &mut client, &cgroup, ("x", script));
    node.wait_for("its processes", || {
        cgroup.living().iter().filter(|line| line.starts_with("sleep 1")).count() == 5
    });
    client.done(kill("x", 9), &[]);
    assert_eq!(client.exited("a", "x").exit_code, 137);
    node.wait_for("their end", || cgroup.living() == OWN);
    node.signal("a", "", 9);
    node.client.exited("a", "");
}

#[test]
fn an_exec_sees_the_cgroups_that_the_container_sees() {
    let mut node = Node::new();
    let cgroup = Cgroup::new();
    let mut request = node.request("a", "cat /proc/self/cgroup; exec sleep 1000", false);
    let config = PathBuf::from(&request.bundle).join("config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace(r#"{"type":"pid"}"#, PRIVATE)).unwrap();
    request.cgroups = cgroup.paths();
    match node.client.call(Verb::Start(request), &[root().as_fd()]).0 {
        Body::Started(_) => {}
        other => panic!("{other:?}"),
    }
    let (verb, mut fds) = verb(&node, &cgroup, "x", "cat /proc/self/cgroup");
    let (mut read, write) = std::io::pipe().unwrap();
    fds[2] = write.into();
    node.client.call(verb, &fds.iter().map(AsFd::as_fd).collect::<Vec<_>>());
    drop(fds);
    let mut seen = String::new();
    std::io::Read::read_to_string(&mut read, &mut seen).unwrap();
    node.wait_for("the log", || node.texts("a", "stdout").len() == seen.lines().count());
    assert_eq!(node.texts("a", "stdout").join("\n"), seen.trim_end());
    assert!(seen.contains(":pids:/\n"), "{seen}");
    node.signal("a", "", 9);
    node.client.exited("a", "");
}
