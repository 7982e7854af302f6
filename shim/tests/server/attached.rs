//! Attached clients: quick, slow, stuck and gone.

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use berth_proto::shim::{v1, v1::request::Verb};

use crate::containers::Node;

/// A container with a stdin.
fn start(script: &str, once: bool) -> Node {
    let mut node = Node::new();
    let mut request = node.request("a", script, false);
    (request.stdin, request.stdin_once) = (true, once);
    node.start_request(request);
    node
}

fn watch(node: &mut Node) -> PipeReader {
    let (read, write) = std::io::pipe().unwrap();
    let attach = v1::Attach { container_id: "a".into(), stdout: true, ..Default::default() };
    node.client.done(Verb::Attach(attach), &[write.as_fd()]);
    read
}

fn typing(node: &mut Node) -> PipeWriter {
    let (read, write) = std::io::pipe().unwrap();
    let attach = v1::Attach { container_id: "a".into(), stdin: true, ..Default::default() };
    node.client.done(Verb::Attach(attach), &[read.as_fd()]);
    write
}

fn in_background(mut pipe: PipeReader) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

fn end(node: &mut Node) {
    node.signal("a", "", 9);
    node.client.exited("a", "");
}

#[test]
fn a_client_types_and_sees_all_and_stdin_ends_with_it() {
    let mut node = start("cat; echo over", true);
    let (out, mut keys) = (in_background(watch(&mut node)), typing(&mut node));
    let big = [vec![b'z'; 300_000], vec![b'\n']].concat();
    keys.write_all(&big).unwrap();
    drop(keys);
    assert_eq!(node.client.exited("a", "").exit_code, 0);
    assert_eq!(out.join().unwrap(), [&big[..], b"over\n"].concat());
    let log = node.texts("a", "stdout");
    assert_eq!(log.iter().map(String::len).sum::<usize>(), 300_004);
}

#[test]
fn a_slow_client_and_a_quick_one_get_every_byte() {
    let mut node = start("read go; seq 200000", false);
    let quick = in_background(watch(&mut node));
    let mut slow = watch(&mut node);
    typing(&mut node).write_all(b"go\n").unwrap();
    let mut seen = Vec::new();
    let mut piece = [0; 30_000];
    loop {
        match slow.read(&mut piece).unwrap() {
            0 => break,
            count => seen.extend_from_slice(&piece[..count]),
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let whole: String = (1..=200_000).map(|number| format!("{number}\n")).collect();
    assert!(seen == whole.as_bytes(), "{} of {} bytes", seen.len(), whole.len());
    assert!(quick.join().unwrap() == whole.as_bytes());
    assert_eq!(node.client.exited("a", "").exit_code, 0);
    assert_eq!(node.texts("a", "stdout").len(), 200_000);
}

#[test]
fn what_a_slow_client_has_not_taken_when_the_container_ends_is_still_its() {
    let mut node = start("read go; head -c 100000 /proc/self/exe; exit 3", false);
    let slow = watch(&mut node);
    typing(&mut node).write_all(b"go\n").unwrap();
    assert_eq!(node.client.exited("a", "").exit_code, 3);
    let bytes = in_background(slow).join().unwrap();
    assert!(bytes == std::fs::read("/bin/busybox").unwrap()[..100_000], "{}", bytes.len());
}

#[test]
fn a_client_that_vanishes_while_it_is_behind_holds_nothing_up() {
    let mut node = start("while read n; do seq $n; done; echo over", true);
    let mut keys = typing(&mut node);
    let stuck: Vec<_> = (0..5).map(|_| watch(&mut node)).collect();
    keys.write_all(b"100000\n").unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(node.texts("a", "stdout").len() < 100_000, "nobody has read the rest");
    drop(stuck);
    drop(keys);
    assert_eq!(node.client.exited("a", "").exit_code, 0);
    assert_eq!(node.texts("a", "stdout").len(), 100_001);
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", node.shim.pid())).unwrap().count();
    assert!(descriptors < 20, "{descriptors}");
}

#[test]
fn a_client_that_does_not_read_is_dropped_and_the_container_goes_on() {
    let mut node = start("read go; seq 100000; echo over; exec sleep 1000", false);
    let mut stuck = watch(&mut node);
    typing(&mut node).write_all(b"go\n").unwrap();
    let began = Instant::now();
    while node.texts("a", "stdout").last().is_none_or(|line| line != "over") {
        assert!(began.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(began.elapsed() > Duration::from_secs(5), "{:?}", began.elapsed());
    // What it has in its pipe is its own, and then comes the end.
    let mut seen = Vec::new();
    stuck.read_to_end(&mut seen).unwrap();
    assert!(seen.len() >= 65_536);
    let cpu = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", node.shim.pid())).unwrap();
        stat.split(' ').skip(13).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>()
    };
    assert!(cpu() < 300, "the shim was busy while it waited: {} ticks", cpu());
    end(&mut node);
}

#[test]
fn the_clients_of_one_container_are_not_without_number() {
    let mut node = start("exec sleep 1000", false);
    let (read, _write) = std::io::pipe().unwrap();
    let attach = || Verb::Attach(v1::Attach { container_id: "a".into(), stdin: true, ..Default::default() });
    for _ in 0..256 {
        node.client.done(attach(), &[read.as_fd()]);
    }
    let error = node.client.error(attach(), &[read.as_fd()]);
    assert_eq!(error.errno, libc::EMFILE, "{error:?}");
    end(&mut node);
}
