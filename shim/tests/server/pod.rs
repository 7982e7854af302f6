//! Setup and Shutdown.

use std::os::fd::AsFd;
use std::time::Duration;

use berth_proto::shim::v1::{IdMap, Setup, Shutdown, message::Body, request::Verb};

use crate::client::Shim;

fn in_namespaces(pid: u32, command: &[&str]) -> String {
    let output = std::process::Command::new("nsenter")
        .args(["-t", &pid.to_string(), "-n", "-u", "-i", "--"])
        .args(command)
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn own() -> Setup {
    Setup { new_network: true, new_ipc: true, new_uts: true, hostname: "web-0".into(), ..Default::default() }
}

#[test]
fn setup_makes_namespaces_with_hostname_sysctls_and_lo() {
    let mut setup = own();
    setup.sysctls =
        [("net.ipv4.ip_forward", "1"), ("net/ipv4/ping_group_range", "0 7"), ("kernel.shm_rmid_forced", "1")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into();
    let host = std::fs::read_to_string("/proc/sys/kernel/shm_rmid_forced").unwrap();
    let (mut shim, mut client) = Shim::set_up(setup);
    assert_eq!(in_namespaces(shim.pid(), &["hostname"]).trim(), "web-0");
    assert_eq!(in_namespaces(shim.pid(), &["cat", "/proc/sys/net/ipv4/ip_forward"]).trim(), "1");
    assert_eq!(in_namespaces(shim.pid(), &["cat", "/proc/sys/net/ipv4/ping_group_range"]).trim(), "0\t7");
    assert_eq!(in_namespaces(shim.pid(), &["cat", "/proc/sys/kernel/shm_rmid_forced"]).trim(), "1");
    assert_eq!(std::fs::read_to_string("/proc/sys/kernel/shm_rmid_forced").unwrap(), host);
    assert!(in_namespaces(shim.pid(), &["cat", "/proc/net/if_inet6"]).contains("lo"), "lo is down");
    let state = client.hello();
    assert_eq!((state.set_up, state.init_pid, state.pod_id.as_str()), (true, 0, "p1"));
    client.done(Verb::Shutdown(Shutdown { force: false }), &[]);
    assert_eq!(shim.exits_within(Duration::from_secs(2)), Some(0));
}

#[test]
fn ready_brings_the_network_namespace_of_the_shim() {
    let shim = Shim::spawn();
    let mut client = shim.connect();
    client.hello();
    let (body, fds) = client.call(Verb::Setup(own()), &[]);
    assert!(matches!(body, Body::Ready(_)), "{body:?}");
    let theirs = rustix::fs::stat(format!("/proc/{}/ns/net", shim.pid())).unwrap();
    let host = rustix::fs::stat("/proc/self/ns/net").unwrap();
    let sent = rustix::fs::fstat(fds[0].as_fd()).unwrap();
    assert_eq!((fds.len(), sent.st_ino), (1, theirs.st_ino));
    assert_ne!(sent.st_ino, host.st_ino);
}

#[test]
fn a_pod_with_a_user_namespace_owns_its_namespaces_and_init() {
    let map = vec![IdMap { container_id: 0, host_id: 200_000, length: 65_536 }];
    let setup = Setup { uid_mappings: map.clone(), gid_mappings: map, shared_pid: true, ..own() };
    let shim = Shim::spawn();
    let mut client = shim.connect();
    client.hello();
    let (body, fds) = client.call(Verb::Setup(setup), &[]);
    let Body::Ready(ready) = body else { panic!("{body:?}") };
    assert_eq!(fds.len(), 2);
    let user = rustix::fs::fstat(fds[1].as_fd()).unwrap().st_ino;
    let of = |name: &str| rustix::fs::stat(format!("/proc/{}/ns/{name}", ready.init_pid)).unwrap().st_ino;
    assert_eq!(of("user"), user);
    assert_eq!(of("net"), rustix::fs::fstat(fds[0].as_fd()).unwrap().st_ino);
    let status = std::fs::read_to_string(format!("/proc/{}/status", ready.init_pid)).unwrap();
    assert!(status.contains("Uid:\t200000\t200000"), "{status}");
    assert_eq!(in_namespaces(shim.pid(), &["hostname"]).trim(), "web-0");
}

#[test]
fn the_init_holds_nothing_reaps_and_ignores_sigterm() {
    let (mut shim, mut client) = Shim::set_up(Setup { shared_pid: true, ..own() });
    let init = client.hello().init_pid;
    let status = std::fs::read_to_string(format!("/proc/{init}/status")).unwrap();
    assert!(status.contains("NSpid:") && status.contains("CapEff:\t0000000000000000"), "{status}");
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while std::fs::read_dir(format!("/proc/{init}/fd")).unwrap().count() > 0 {
        assert!(std::time::Instant::now() < deadline, "the init keeps descriptors");
    }
    assert_eq!(std::fs::read_dir(format!("/proc/{init}/root/")).unwrap().count(), 0);
    let orphan = ["-t", &init.to_string(), "-p", "sh", "-c", "(sleep 0.05 &) ; true"].map(str::to_owned);
    assert!(std::process::Command::new("nsenter").args(orphan).status().unwrap().success());
    std::thread::sleep(Duration::from_millis(300));
    let children = std::fs::read_to_string(format!("/proc/{init}/task/{init}/children")).unwrap();
    assert_eq!(children, "", "an orphan was not reaped");
    let pid = rustix::process::Pid::from_raw(init).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(client.hello().init_pid, init);
    client.done(Verb::Shutdown(Shutdown { force: false }), &[]);
    assert_eq!(shim.exits_within(Duration::from_secs(2)), Some(0));
    assert!(!std::path::Path::new(&format!("/proc/{init}")).exists());
}

#[test]
fn a_bad_sysctl_is_an_error_that_names_it_and_the_host_is_untouched() {
    let shim = Shim::spawn();
    let mut client = shim.connect();
    client.hello();
    let mut setup = own();
    setup.sysctls = [("kernel.core_pattern".to_owned(), "|/x".to_owned())].into();
    let error = client.error(Verb::Setup(setup), &[]);
    assert!(error.message.contains("kernel.core_pattern"), "{error:?}");
    assert!(!std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap().contains("|/x"));
    let again = client.error(Verb::Setup(own()), &[]);
    assert_eq!(again.step, "protocol");
}

#[test]
fn a_shim_without_a_pod_ends_with_its_daemons_connection_and_one_with_a_pod_stays() {
    let mut shim = Shim::spawn();
    drop(shim.connect());
    assert_eq!(shim.exits_within(Duration::from_secs(2)), Some(0));
    let (mut shim, client) = Shim::set_up(own());
    drop(client);
    assert_eq!(shim.exits_within(Duration::from_millis(200)), None);
    assert!(shim.connect().hello().set_up);
}
