//! Packets that are no requests.

use std::os::fd::{AsFd, AsRawFd};

use berth_proto::shim::v1::{self, request::Verb};
use berth_sys::socket;
use prost::Message as _;

use crate::client::Shim;

fn open_files(shim: &Shim) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", shim.pid())).unwrap().count()
}

#[test]
fn bad_packets_end_their_connection_only_and_leak_no_descriptor() {
    let (shim, mut client) = Shim::set_up(v1::Setup::default());
    let before = open_files(&shim);
    let null = std::fs::File::open("/dev/null").unwrap();
    let too_many = berth_proto::shim::MAX_FDS + 1;
    let many = vec![null.as_fd(); too_many];
    let packets: [(Vec<u8>, usize); 4] = [
        (vec![0xff; 100], 1),
        (vec![0; 65 * 1024], 1),
        (vec![8, 1], too_many),
        (vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f], 0),
    ];
    for (bytes, fds) in packets {
        let mut bad = shim.connect();
        bad.hello();
        socket::send(bad.socket.as_fd(), &bytes, &many[..fds]).unwrap();
        assert!(bad.receive().is_none(), "{} bytes, {fds} fds", bytes.len());
        assert!(client.hello().set_up);
    }
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while open_files(&shim) != before {
        assert!(std::time::Instant::now() < until, "{} files, {before} before", open_files(&shim));
    }
}

#[test]
fn wrong_requests_are_answered_by_a_protocol_error() {
    let (shim, mut client) = Shim::set_up(v1::Setup::default());
    let before = open_files(&shim);
    let null = std::fs::File::open("/dev/null").unwrap();
    let start = || Verb::Start(v1::Start { container_id: "c".into(), ..Default::default() });
    for (verb, fds) in [
        (Verb::Hello(v1::Hello { version: 1 }), 1),
        (start(), 0),
        (start(), 2),
        (Verb::Attach(v1::Attach { container_id: "c".into(), stdout: true, ..Default::default() }), 3),
    ] {
        let error = client.error(verb.clone(), &vec![null.as_fd(); fds]);
        assert_eq!(error.step, "protocol", "{verb:?} with {fds}: {error:?}");
    }
    socket::send(client.socket.as_fd(), &v1::Request { id: 77, verb: None }.encode_to_vec(), &[]).unwrap();
    let (message, _) = client.receive().unwrap();
    assert_eq!(message.id, 77);
    let mut other = shim.connect();
    assert_eq!(other.error(Verb::Delete(v1::Delete::default()), &[]).step, "protocol");
    let signal = v1::Signal { container_id: "c".into(), signal: 15, ..Default::default() };
    let error = client.error(Verb::Signal(signal), &[]);
    assert_eq!((error.step.as_str(), error.errno), ("signal", libc::ESRCH));
    client.done(Verb::Delete(v1::Delete { container_id: "c".into() }), &[]);
    drop(other);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while open_files(&shim) != before {
        assert!(std::time::Instant::now() < until, "{} files, {before} before", open_files(&shim));
    }
}

#[test]
fn a_daemon_that_does_not_read_loses_its_connection_not_the_shim() {
    let (shim, mut client) = Shim::set_up(v1::Setup::default());
    let mut deaf = shim.connect();
    socket::set_nonblocking(&deaf.socket).unwrap();
    assert!(deaf.socket.as_raw_fd() > 2);
    for _ in 0..5000 {
        deaf.send(Verb::Hello(v1::Hello { version: 1 }), &[]);
    }
    assert!(client.hello().set_up);
}
