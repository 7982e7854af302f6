//! The built-in network against the real kernel, in a network namespace that stands for the host.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns, unshare};

use crate::drivers::network::{Attachment, BuiltInConfig, CniConfig, Network, PodNetwork};
use crate::drivers::store::Store;
use crate::ids::PodId;
use crate::layout::Layout;
use crate::pods::spec::{PortMapping, Protocol};

/// Runs a test on a thread whose own network namespace stands for the host.
fn on_a_host<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let run = move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        ip("link set lo up");
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
    };
    std::thread::spawn(run).join().unwrap();
}

fn ip(arguments: &str) {
    assert!(Command::new("ip").args(arguments.split(' ')).status().unwrap().success(), "ip {arguments}");
}

fn rules() -> String {
    let output = Command::new("nft").args(["list", "ruleset"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// A network namespace, alive as long as this and the sockets in it are.
fn namespace() -> File {
    let make = || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        ip("link set lo up");
        File::open("/proc/thread-self/ns/net").unwrap()
    };
    std::thread::spawn(make).join().unwrap()
}

fn inside<T: Send>(netns: &File, action: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let run = || {
            setns(netns, CloneFlags::CLONE_NEWNET).unwrap();
            action()
        };
        scope.spawn(run).join().unwrap()
    })
}

async fn open(dir: &tempfile::TempDir, config: BuiltInConfig) -> Network {
    let store = Arc::new(Store::open(&dir.path().join("db")).unwrap());
    let cni = CniConfig { conf_dir: dir.path().join("none"), ..CniConfig::default() };
    Network::open(cni, config, &Layout::new(dir.path(), dir.path()), store).await.unwrap()
}

fn pod(ports: Vec<PortMapping>) -> PodNetwork {
    PodNetwork {
        id: PodId::generate(),
        name: "web".into(),
        namespace: "default".into(),
        uid: "u".into(),
        netns: "/nowhere".into(),
        ports,
        dns: None,
        annotations: BTreeMap::new(),
        cgroup_parent: String::new(),
    }
}

fn port(protocol: Protocol, container_port: u16, host_port: u16) -> PortMapping {
    PortMapping { protocol, container_port, host_port, host_ip: None }
}

/// Serves one byte to each connection, and tells who came.
fn serve(netns: &File, port: u16) -> std::sync::mpsc::Receiver<IpAddr> {
    let (who, seen) = std::sync::mpsc::channel();
    let listener = inside(netns, || TcpListener::bind(("::", port)).unwrap());
    std::thread::spawn(move || {
        while let Ok((mut stream, from)) = listener.accept() {
            if stream.write_all(b"x").is_err() || who.send(from.ip().to_canonical()).is_err() {
                return;
            }
        }
    });
    seen
}

fn reaches(to: impl Into<SocketAddr>) -> bool {
    let stream = TcpStream::connect_timeout(&to.into(), Duration::from_secs(2));
    stream.is_ok_and(|mut stream| {
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        stream.read_exact(&mut [0]).is_ok()
    })
}

async fn attach(network: &Network, pod: &PodNetwork, netns: &File) -> Attachment {
    network.attach(pod, netns.as_fd()).await.unwrap()
}

#[test]
fn pods_reach_each_other_and_the_host_over_both_families() {
    on_a_host(|| async {
        let dir = tempfile::tempdir().unwrap();
        let network = open(&dir, BuiltInConfig::default()).await;
        let (one, two) = (namespace(), namespace());
        let a = attach(&network, &pod(vec![]), &one).await;
        let b = attach(&network, &pod(vec![]), &two).await;
        assert_eq!(a.ips.len(), 2, "{a:?}");
        let _seen = serve(&two, 80);
        let _host = TcpListener::bind("[::]:81").unwrap();
        for ip in &b.ips {
            assert!(inside(&one, || reaches((*ip, 80))), "{ip}");
            assert!(reaches((*ip, 80)), "{ip} from the host");
        }
        for gateway in ["10.209.0.1", "fd62:6572:7468::1"] {
            let to = SocketAddr::new(gateway.parse().unwrap(), 81);
            assert!(
                inside(&one, || TcpStream::connect_timeout(&to, Duration::from_secs(2)).is_ok()),
                "{gateway}"
            );
        }
        let ra = inside(&one, || std::fs::read_to_string("/proc/sys/net/ipv6/conf/eth0/accept_ra").unwrap());
        assert_eq!(ra.trim(), "0");
    });
}

/// A machine beside the host, with an address of each family.
fn outside() -> File {
    let netns = namespace();
    ip("link add up0 type veth peer name up1");
    let fd = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&netns));
    ip(&format!("link set up1 netns {fd}"));
    for (side, number) in [("up0", 1), ("up1", 2)] {
        let set = || {
            ip(&format!("addr add 192.0.2.{number}/24 dev {side}"));
            ip(&format!("addr add 2001:db8::{number}/64 dev {side} nodad"));
            ip(&format!("link set {side} up"));
        };
        if number == 1 { set() } else { inside(&netns, set) }
    }
    netns
}

#[test]
fn the_world_sees_the_host_and_host_ports_lead_into_the_pod() {
    on_a_host(|| async {
        let dir = tempfile::tempdir().unwrap();
        let network = open(&dir, BuiltInConfig::default()).await;
        let (netns, other, world) = (namespace(), namespace(), outside());
        let ports =
            vec![port(Protocol::Tcp, 80, 8080), port(Protocol::Udp, 53, 5353), port(Protocol::Sctp, 9, 999)];
        let web = pod(ports);
        let attachment = attach(&network, &web, &netns).await;
        attach(&network, &pod(vec![]), &other).await;
        let text = rules();
        // nft knows names where /etc/protocols is.
        for (name, number) in [("sctp", 132), ("udp", 17)] {
            let written = [format!("{name} . "), format!("{number} . ")];
            assert!(written.iter().any(|one| text.contains(one)), "{name}: {text}");
        }
        let _pod = serve(&netns, 80);
        let visitors = serve(&world, 90);
        for (target, host) in [("192.0.2.2", "192.0.2.1"), ("2001:db8::2", "2001:db8::1")] {
            let target: IpAddr = target.parse().unwrap();
            let host: IpAddr = host.parse().unwrap();
            assert!(inside(&netns, || reaches((target, 90))), "masquerade to {target}");
            assert_eq!(visitors.recv_timeout(Duration::from_secs(2)).unwrap(), host);
            assert!(reaches((host, 8080)), "host port from the host by {host}");
            assert!(inside(&world, || reaches((host, 8080))), "host port from outside by {host}");
            assert!(inside(&netns, || reaches((host, 8080))), "host port from the pod itself by {host}");
            assert!(inside(&other, || reaches((host, 8080))), "host port from another pod by {host}");
        }
        assert!(reaches(([127, 0, 0, 1], 8080)), "host port by 127.0.0.1");
        assert!(!inside(&world, || reaches(([192, 0, 2, 1], 8081))));
        let error =
            network.attach(&pod(vec![port(Protocol::Tcp, 1, 8080)]), namespace().as_fd()).await.unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("8080/TCP") && cause.contains("default/web"), "{cause}");
        network.detach(&web, Some(&attachment)).await.unwrap();
        network.detach(&web, Some(&attachment)).await.unwrap();
        assert!(!reaches(([127, 0, 0, 1], 8080)));
        assert!(!rules().contains("8080"), "{}", rules());
        network.close().await.unwrap();
        assert!(rules().contains("berth-berth0"), "the other pod still needs the rules");
        network.reconcile(&HashSet::new()).await.unwrap();
        network.close().await.unwrap();
        assert_eq!(rules(), "");
    });
}

#[test]
fn a_host_port_on_one_address_leaves_the_others_alone() {
    on_a_host(|| async {
        let dir = tempfile::tempdir().unwrap();
        let network = open(&dir, BuiltInConfig::default()).await;
        let (netns, world) = (namespace(), outside());
        ip("addr add 192.0.2.9/24 dev up0");
        let mut mapping = port(Protocol::Tcp, 80, 8080);
        mapping.host_ip = Some("192.0.2.9".parse().unwrap());
        attach(&network, &pod(vec![mapping]), &netns).await;
        let _pod = serve(&netns, 80);
        assert!(inside(&world, || reaches(([192, 0, 2, 9], 8080))));
        assert!(!inside(&world, || reaches(([192, 0, 2, 1], 8080))));
    });
}

#[test]
fn udp_follows_the_host_port_to_the_next_pod() {
    on_a_host(|| async {
        let dir = tempfile::tempdir().unwrap();
        let network = open(&dir, BuiltInConfig::default()).await;
        let world = outside();
        let client = inside(&world, || UdpSocket::bind("0.0.0.0:4000").unwrap());
        for _ in 0..2 {
            let netns = namespace();
            let dns = pod(vec![port(Protocol::Udp, 53, 5353)]);
            attach(&network, &dns, &netns).await;
            let server = inside(&netns, || UdpSocket::bind("0.0.0.0:53").unwrap());
            server.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            client.send_to(b"q", "192.0.2.1:5353").unwrap();
            assert!(server.recv_from(&mut [0]).is_ok());
            network.detach(&dns, None).await.unwrap();
        }
    });
}

#[test]
fn a_crash_leaves_nothing_that_the_next_start_does_not_give_back() {
    on_a_host(|| async {
        let dir = tempfile::tempdir().unwrap();
        let config = || BuiltInConfig {
            subnets: vec!["10.7.0.0/29".to_string().try_into().unwrap()],
            ..BuiltInConfig::default()
        };
        let network = open(&dir, config()).await;
        let (one, two) = (namespace(), namespace());
        let (dead, alive) =
            (pod(vec![port(Protocol::Tcp, 80, 8080)]), pod(vec![port(Protocol::Tcp, 81, 8181)]));
        attach(&network, &dead, &one).await;
        let kept = attach(&network, &alive, &two).await;
        std::mem::forget(network);
        let network = open(&dir, config()).await;
        network.reconcile(&HashSet::from([alive.id.clone()])).await.unwrap();
        let text = rules();
        assert!(text.contains("8181") && !text.contains("8080"), "{text}");
        let _pod = serve(&two, 81);
        assert!(reaches(([127, 0, 0, 1], 8181)));
        assert!(
            inside(&one, || !std::path::Path::new("/proc/sys/net/ipv4/conf/eth0").exists()),
            "the dead pod's veth"
        );
        let next = attach(&network, &pod(vec![port(Protocol::Tcp, 80, 8080)]), &one).await;
        assert!(!kept.ips.contains(&next.ips[0]));
    });
}

#[test]
fn an_address_comes_again_only_when_its_veth_is_gone() {
    on_a_host(|| async {
        let dir = tempfile::tempdir().unwrap();
        let subnets = vec!["10.7.0.0/30".to_string().try_into().unwrap()];
        let network = open(&dir, BuiltInConfig { subnets, ..BuiltInConfig::default() }).await;
        let (first, netns) = (pod(vec![]), namespace());
        let attachment = attach(&network, &first, &netns).await;
        network.detach(&first, Some(&attachment)).await.unwrap();
        let (second, other) = (pod(vec![]), namespace());
        assert!(network.attach(&second, other.as_fd()).await.is_err());
        drop(netns);
        let start = Instant::now();
        let again = loop {
            match network.attach(&second, other.as_fd()).await {
                Ok(attachment) => break attachment,
                Err(error) => assert!(start.elapsed() < Duration::from_secs(10), "{error:?}"),
            }
        };
        assert_eq!(again.ips, attachment.ips);
    });
}

#[test]
fn a_failed_attach_leaves_nothing_and_another_daemons_bridge_is_refused() {
    on_a_host(|| async {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let network = open(&dir, BuiltInConfig::default()).await;
        let no_netns = File::open("/dev/null").unwrap();
        let web = pod(vec![port(Protocol::Tcp, 80, 8080)]);
        assert!(network.attach(&web, no_netns.as_fd()).await.is_err());
        assert!(!rules().contains("8080"));
        let netns = namespace();
        attach(&network, &web, &netns).await;
        let rival = open(&other, BuiltInConfig::default()).await;
        let error = rival.attach(&pod(vec![]), namespace().as_fd()).await.unwrap_err();
        assert!(format!("{error:?}").contains("Foreign"), "{error:?}");
        let bridge = "berth1".to_string();
        let rival = open(&other, BuiltInConfig { bridge: bridge.clone(), ..BuiltInConfig::default() }).await;
        let error = rival.attach(&pod(vec![]), namespace().as_fd()).await.unwrap_err();
        assert!(format!("{error:?}").contains("Overlap"), "{error:?}");
        let subnets = vec!["10.8.0.0/24".to_string().try_into().unwrap()];
        let rival = open(&other, BuiltInConfig { bridge, subnets, ..BuiltInConfig::default() }).await;
        attach(&rival, &pod(vec![port(Protocol::Tcp, 80, 80)]), &namespace()).await;
    });
}

#[test]
fn a_removed_bridge_is_made_again() {
    on_a_host(|| async {
        let dir = tempfile::tempdir().unwrap();
        let network = open(&dir, BuiltInConfig::default()).await;
        attach(&network, &pod(vec![]), &namespace()).await;
        ip("link del berth0");
        assert!(Command::new("nft").args(["flush", "ruleset"]).status().unwrap().success());
        let netns = namespace();
        attach(&network, &pod(vec![port(Protocol::Tcp, 80, 8080)]), &netns).await;
        let _pod = serve(&netns, 80);
        assert!(reaches(([127, 0, 0, 1], 8080)));
    });
}

#[test]
fn the_pod_cidr_of_the_kubelet_survives_a_restart() {
    on_a_host(|| async {
        let dir = tempfile::tempdir().unwrap();
        open(&dir, BuiltInConfig::default()).await.set_pod_cidr("10.50.0.0/24, fd50::/64").await.unwrap();
        let network = open(&dir, BuiltInConfig::default()).await;
        let attachment = attach(&network, &pod(vec![]), &namespace()).await;
        assert_eq!(attachment.ips, ["10.50.0.2".parse::<IpAddr>().unwrap(), "fd50::2".parse().unwrap()]);
        assert!(network.set_pod_cidr("nonsense").await.is_err());
    });
}

/// Not a check: `cargo test -- --ignored --nocapture measure`.
#[test]
#[ignore = "a measurement"]
fn measure() {
    on_a_host(|| async {
        let dir = tempfile::tempdir().unwrap();
        let network = open(&dir, BuiltInConfig::default()).await;
        attach(&network, &pod(vec![]), &namespace()).await;
        let (mut up, mut down) = (vec![], vec![]);
        for number in 0..100 {
            let (netns, web) = (namespace(), pod(vec![port(Protocol::Tcp, 80, 8000 + number)]));
            let start = Instant::now();
            let attachment = attach(&network, &web, &netns).await;
            up.push(start.elapsed());
            let start = Instant::now();
            network.detach(&web, Some(&attachment)).await.unwrap();
            down.push(start.elapsed());
            drop(netns);
            std::thread::sleep(Duration::from_millis(20));
        }
        up.sort();
        down.sort();
        println!("attach p50 {:?} p90 {:?}; detach p50 {:?} p90 {:?}", up[50], up[90], down[50], down[90]);
    });
}
