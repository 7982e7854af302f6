//! Containers: start, log, exit, exec, attach.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use berth_proto::shim::{ExitRecord, v1, v1::message::Body, v1::request::Verb};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use serde_json::{Value, json};

use crate::client::{Client, Shim};

/// A detached root with busybox in it.
pub fn root() -> OwnedFd {
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    rustix::mount::fsconfig_create(context.as_fd()).unwrap();
    let root =
        rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
            .unwrap();
    let path = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&root)));
    for name in ["bin", "proc", "dev", "etc"] {
        std::fs::create_dir(path.join(name)).unwrap();
    }
    std::fs::copy("/bin/busybox", path.join("bin/busybox")).unwrap();
    for applet in ["sh", "sleep", "cat", "echo", "stty", "yes", "head", "setsid", "seq"] {
        std::os::unix::fs::symlink("busybox", path.join("bin").join(applet)).unwrap();
    }
    root
}

pub fn process(script: &str, terminal: bool) -> Value {
    json!({"terminal": terminal, "user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["/bin/sh", "-c", script],
           "env": ["PATH=/bin"]})
}

pub struct Node {
    pub shim: Shim,
    pub client: Client,
}

impl Node {
    pub fn new() -> Self {
        let setup = v1::Setup { new_ipc: true, shared_pid: true, ..Default::default() };
        let (shim, client) = Shim::set_up(setup);
        Self { shim, client }
    }

    pub fn log(&self, id: &str) -> String {
        std::fs::read_to_string(self.shim.path(&format!("{id}.log"))).unwrap()
    }

    /// The log's texts of one stream; a record that is being written does not count.
    pub fn texts(&self, id: &str, stream: &str) -> Vec<String> {
        let log = self.log(id);
        let whole = log.rfind('\n').map_or("", |end| &log[..=end]);
        let lines = whole.lines().map(|line| line.splitn(4, ' ').collect::<Vec<_>>());
        lines.filter(|fields| fields[1] == stream).map(|fields| fields[3].to_owned()).collect()
    }

    pub fn request(&self, id: &str, script: &str, terminal: bool) -> v1::Start {
        let bundle = self.shim.path(&format!("{id}.bundle"));
        std::fs::create_dir_all(&bundle).unwrap();
        let spec = json!({
            "ociVersion": "1.2.0", "process": process(script, terminal), "root": {"path": "rootfs"},
            "mounts": [
                {"type": "proc", "source": "proc", "destination": "/proc", "options": ["nosuid"]},
                {"type": "tmpfs", "source": "tmpfs", "destination": "/dev", "options": ["mode=755"]},
                {"type": "shm", "source": "pod", "destination": "/dev/shm", "options": []},
                {"type": "devpts", "source": "devpts", "destination": "/dev/pts",
                 "options": ["newinstance", "ptmxmode=0666", "mode=0620"]}],
            "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}]},
        });
        std::fs::write(bundle.join("config.json"), spec.to_string()).unwrap();
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        v1::Start {
            container_id: id.into(),
            bundle: text(bundle),
            log_path: text(self.shim.path(&format!("{id}.log"))),
            exit_path: text(self.shim.path(&format!("{id}.exit"))),
            terminal,
            ..Default::default()
        }
    }

    pub fn start(&mut self, id: &str, script: &str) -> i32 {
        let request = self.request(id, script, false);
        self.start_request(request)
    }

    pub fn start_request(&mut self, request: v1::Start) -> i32 {
        match self.client.call(Verb::Start(request), &[root().as_fd()]).0 {
            Body::Started(started) => started.pid,
            other => panic!("{other:?}: {}", self.shim.stderr()),
        }
    }

    pub fn signal(&mut self, id: &str, exec: &str, signal: i32) {
        let request = v1::Signal { container_id: id.into(), exec_id: exec.into(), signal };
        self.client.done(Verb::Signal(request), &[]);
    }

    pub fn wait_for(&self, what: &str, mut ready: impl FnMut() -> bool) {
        let until = Instant::now() + Duration::from_secs(30);
        while !ready() {
            assert!(Instant::now() < until, "{what}: {}", self.shim.stderr());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn containers_of_a_pod_share_memory_on_old_kernels_too() {
    let mut node = Node::new();
    node.start("writer", "echo shared > /dev/shm/word");
    node.client.exited("writer", "");
    node.start("reader", "cat /dev/shm/word");
    node.client.exited("reader", "");
    node.wait_for("the word", || node.texts("reader", "stdout") == ["shared"]);
}

#[test]
fn output_is_logged_and_the_exit_is_recorded_before_it_is_told() {
    let mut node = Node::new();
    let pid = node.start("a", "echo out; echo err >&2; printf last; exit 7");
    let exited = node.client.exited("a", "");
    assert_eq!((exited.pid, exited.exit_code), (pid, 7));
    let record = ExitRecord::parse(&std::fs::read_to_string(node.shim.path("a.exit")).unwrap()).unwrap();
    assert_eq!((record.exit_code, record.finished_at), (7, exited.finished_at));
    assert_eq!(node.texts("a", "stderr"), ["err"]);
    node.wait_for("the last line", || node.texts("a", "stdout") == ["out", "last"]);
    let mut other = node.shim.connect();
    let state = other.hello();
    assert_eq!(state.containers[0].exited.as_ref().unwrap().exit_code, 7);
    node.client.done(Verb::Delete(v1::Delete { container_id: "a".into() }), &[]);
    assert!(node.client.hello().containers.is_empty());
}

#[test]
fn processes_start_with_clean_signals() {
    let mut node = Node::new();
    // The shell ignores SIGQUIT for itself; a program it runs shows what it was given.
    node.start("a", "cat /proc/self/status | while read k v; do case $k in Sig[BI]*) echo $k$v;; esac; done; yes | head -1");
    assert_eq!(node.client.exited("a", "").exit_code, 0);
    node.wait_for("the log", || node.texts("a", "stdout").len() == 3);
    assert_eq!(node.texts("a", "stdout"), ["SigBlk:0000000000000000", "SigIgn:0000000000000000", "y"]);
}

#[test]
fn a_signal_ends_a_container_with_128_and_its_number_and_a_busy_one_is_not_deleted() {
    let mut node = Node::new();
    node.start("a", "exec sleep 100");
    let delete = || Verb::Delete(v1::Delete { container_id: "a".into() });
    assert_eq!(node.client.error(delete(), &[]).errno, libc::EBUSY);
    let shutdown = Verb::Shutdown(v1::Shutdown { force: false });
    assert_eq!(node.client.error(shutdown, &[]).errno, libc::EBUSY);
    let again = node.request("a", "true", false);
    assert_eq!(node.client.error(Verb::Start(again), &[root().as_fd()]).errno, libc::EEXIST);
    node.signal("a", "", 9);
    assert_eq!(node.client.exited("a", "").exit_code, 137);
    node.client.done(delete(), &[]);
}

#[test]
fn a_start_that_fails_leaves_nothing_and_the_id_is_free() {
    let mut node = Node::new();
    let mut request = node.request("a", "true", false);
    request.log_path = "/dev/null".into();
    assert_eq!(node.client.error(Verb::Start(request), &[root().as_fd()]).step, "open log");
    let request = node.request("a", "true", false);
    let config = PathBuf::from(&request.bundle).join("config.json");
    let text = std::fs::read_to_string(&config).unwrap().replace("/bin/sh", "/bin/nosuch");
    std::fs::write(&config, text).unwrap();
    let error = node.client.error(Verb::Start(request), &[root().as_fd()]);
    assert_eq!(error.errno, libc::ENOENT, "{error:?}");
    assert!(node.client.hello().containers.is_empty());
    node.start("a", "true");
    assert_eq!(node.client.exited("a", "").exit_code, 0);
}

#[test]
fn a_rotated_log_goes_on_in_the_new_file_without_loss() {
    let mut node = Node::new();
    node.start("a", "i=0; while [ $i -lt 3000 ]; do echo $i; i=$((i+1)); done; exec sleep 100");
    let reopen = || Verb::ReopenLog(v1::ReopenLog { container_id: "a".into() });
    for turn in 0..20 {
        std::fs::rename(node.shim.path("a.log"), node.shim.path(&format!("a.log.{turn}"))).unwrap();
        node.client.done(reopen(), &[]);
        assert!(node.shim.path("a.log").exists());
    }
    let all = |node: &Node| {
        let mut text = String::new();
        for turn in 0..20 {
            text += &std::fs::read_to_string(node.shim.path(&format!("a.log.{turn}"))).unwrap();
        }
        text + &node.log("a")
    };
    node.wait_for("all lines", || all(&node).lines().count() == 3000);
    let numbers: Vec<_> =
        all(&node).lines().map(|l| l.rsplit(' ').next().unwrap().parse::<u32>().unwrap()).collect();
    assert!(numbers.iter().copied().eq(0..3000));
    node.signal("a", "", 9);
    node.client.exited("a", "");
    std::fs::remove_file(node.shim.path("a.log")).unwrap();
    node.client.error(reopen(), &[]);
    assert!(!node.shim.path("a.log").exists());
}

#[test]
fn rotations_as_fast_as_they_go_lose_and_tear_no_line() {
    const TURNS: usize = 3000;
    let mut node = Node::new();
    let script = "trap 'run=' TERM; run=1; i=0; while [ $run ]; do i=$((i+1)); echo $i; done; echo end $i";
    node.start("a", script);
    let began = Instant::now();
    let old = |node: &Node, turn: usize| node.shim.path(&format!("a.log.{turn}"));
    for turn in 0..TURNS {
        std::fs::rename(node.shim.path("a.log"), old(&node, turn)).unwrap();
        node.client.done(Verb::ReopenLog(v1::ReopenLog { container_id: "a".into() }), &[]);
    }
    println!("{:.0} rotations a second", TURNS as f64 / began.elapsed().as_secs_f64());
    node.signal("a", "", 15);
    assert_eq!(node.client.exited("a", "").exit_code, 0);
    let files = (0..TURNS).map(|turn| std::fs::read_to_string(old(&node, turn)).unwrap());
    let files: Vec<_> = files.chain([node.log("a")]).collect();
    assert!(files.iter().all(|file| file.is_empty() || file.ends_with('\n')), "a torn record");
    let texts: Vec<_> = files.iter().flat_map(|file| file.lines()).map(|line| &line[40..]).collect();
    let (end, numbers) = texts.split_last().unwrap();
    assert!(numbers.iter().enumerate().all(|(at, text)| text.parse() == Ok(at + 1)), "lost or doubled");
    assert_eq!(*end, format!("end {}", numbers.len()));
}

#[test]
fn an_exec_has_its_own_streams_and_its_end_is_told() {
    let mut node = Node::new();
    node.start("a", "exec sleep 100");
    let path = node.shim.path("process.json");
    std::fs::write(&path, process("cat; exit 3", false).to_string()).unwrap();
    let (in_read, mut in_write) = std::io::pipe().unwrap();
    let (mut out_read, out_write) = std::io::pipe().unwrap();
    let json = std::fs::File::open(&path).unwrap();
    let exec = v1::Exec { container_id: "a".into(), exec_id: "x".into(), ..Default::default() };
    let fds = [json.as_fd(), in_read.as_fd(), out_write.as_fd(), out_write.as_fd()];
    let (body, _) = node.client.call(Verb::Exec(exec), &fds);
    assert!(matches!(body, Body::Started(_)), "{body:?}");
    drop((in_read, out_write));
    in_write.write_all(b"hello").unwrap();
    drop(in_write);
    let mut text = String::new();
    out_read.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    assert_eq!(node.client.exited("a", "x").exit_code, 3);
}

#[test]
fn a_terminal_is_logged_and_resized() {
    let mut node = Node::new();
    let mut request = node.request("a", "read line; stty size; echo got $line", true);
    request.stdin = true;
    node.start_request(request);
    let resize = v1::Resize { container_id: "a".into(), width: 123, height: 45, ..Default::default() };
    node.client.done(Verb::Resize(resize), &[]);
    let (in_read, mut in_write) = std::io::pipe().unwrap();
    let attach = v1::Attach { container_id: "a".into(), stdin: true, ..Default::default() };
    node.client.done(Verb::Attach(attach), &[in_read.as_fd()]);
    in_write.write_all(b"word\n").unwrap();
    assert_eq!(node.client.exited("a", "").exit_code, 0);
    assert_eq!(node.texts("a", "stdout"), ["word", "45 123", "got word"]);
}

#[test]
fn what_outlives_its_container_is_still_logged_and_does_not_delay_the_exit() {
    let mut node = Node::new();
    let script = "(until [ -e /dev/shm/go ]; do sleep 0.05; done; echo late) & echo early";
    let mut request = node.request("a", script, false);
    request.pid = v1::PidMode::Pod.into();
    node.start_request(request);
    node.client.exited("a", "");
    node.start("b", "echo > /dev/shm/go");
    node.wait_for("the late line", || node.texts("a", "stdout") == ["early", "late"]);
}

#[test]
fn a_forced_shutdown_kills_everything_first() {
    let mut node = Node::new();
    let pid = node.start("a", "trap '' TERM; while :; do sleep 1; done");
    node.client.done(Verb::Shutdown(v1::Shutdown { force: true }), &[]);
    assert_eq!(node.shim.exits_within(Duration::from_secs(2)), Some(0));
    assert!(!PathBuf::from(format!("/proc/{pid}")).exists());
    let record = std::fs::read_to_string(node.shim.path("a.exit")).unwrap();
    assert_eq!(ExitRecord::parse(&record).unwrap().exit_code, 137);
}
