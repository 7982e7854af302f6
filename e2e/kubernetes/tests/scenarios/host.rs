//! Pods that share what is the node's, or among their containers.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Result;
use berth_e2e_kubernetes::images::{HTTPD, PAUSE};
use berth_e2e_kubernetes::isolation::NODE;
use berth_e2e_kubernetes::machine::ADDRESS;
use berth_e2e_kubernetes::pods::{alone, shell, sleeper, with};
use berth_e2e_kubernetes::scenario::scenario;
use serde_json::json;

const NAMESPACES: [&str; 5] = ["ipc", "mnt", "net", "pid", "uts"];

/// Those of `NAMESPACES` that are also this program's, which runs on the node.
fn shared(said: &str) -> Result<Vec<&'static str>> {
    let mut shared = Vec::new();
    for (name, theirs) in NAMESPACES.into_iter().zip(said.lines()) {
        if std::fs::read_link(format!("/proc/self/ns/{name}"))?.to_string_lossy() == theirs {
            shared.push(name);
        }
    }
    Ok(shared)
}

#[test]
fn a_pod_shares_of_the_nodes_namespaces_what_it_asks_for() -> Result<()> {
    scenario("host-namespaces", |s| {
        let script = "for n in ipc mnt net pid uts; do readlink /proc/self/ns/$n; done";
        for (name, more, expected) in [
            ("none", json!({}), &[] as &[&str]),
            ("network", json!({ "hostNetwork": true }), &["net", "uts"]),
            ("pid", json!({ "hostPID": true }), &["pid"]),
            ("ipc", json!({ "hostIPC": true }), &["ipc"]),
            (
                "all",
                json!({ "hostNetwork": true, "hostPID": true, "hostIPC": true }),
                &["ipc", "net", "pid", "uts"],
            ),
        ] {
            let said = s.said(name, with(alone(shell(script)), more))?;
            assert_eq!(said.lines().count(), NAMESPACES.len(), "{name}: {said}");
            assert_eq!(shared(&said)?, expected, "{name}");
        }
        Ok(())
    })
}

#[test]
fn a_pod_in_the_nodes_network_has_its_address_and_name() -> Result<()> {
    scenario("host-network", |s| {
        s.start("inside", with(alone(sleeper()), json!({ "hostNetwork": true })))?;
        assert_eq!(s.field("pod/inside", "{.status.podIP}")?, ADDRESS);
        assert_eq!(s.shell("inside", "hostname")?, NODE);
        let addresses = s.shell("inside", "ip -o address show dev node0")?;
        assert!(addresses.contains(ADDRESS), "{addresses}");
        let hosts = s.shell("inside", "cat /etc/hosts")?;
        assert!(hosts.contains("localhost"), "{hosts}");
        Ok(())
    })
}

#[test]
fn a_pod_with_the_nodes_processes_sees_them() -> Result<()> {
    scenario("host-pid", |s| {
        s.start("looker", with(alone(sleeper()), json!({ "hostPID": true })))?;
        let kubelet = s.pid("kubelet")?;
        let name = s.shell("looker", &format!("cat /proc/{kubelet}/comm"))?;
        assert_eq!(name, "kubelet");
        Ok(())
    })
}

fn get(address: &str) -> Result<String> {
    let address: SocketAddr = address.parse()?;
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn a_host_port_is_reached_at_the_nodes_addresses_while_the_pod_lives() -> Result<()> {
    scenario("host-port", |s| {
        let web = json!({
            "name": "main",
            "image": HTTPD,
            "ports": [
                { "containerPort": 80, "hostPort": 18080 },
                { "containerPort": 80, "hostPort": 18081, "hostIP": "127.0.0.1", "name": "local" },
            ],
        });
        s.start("web", alone(web))?;
        let served = |answer: &String| answer.contains("<html><body>httpd</body></html>");
        let open = |port: u16| [format!("{ADDRESS}:{port}"), format!("127.0.0.1:{port}")];
        for address in open(18080) {
            s.until(|| get(&address), served)?;
        }
        s.until(|| get("127.0.0.1:18081"), served)?;
        assert!(get(&format!("{ADDRESS}:18081")).is_err(), "a port of one address serves another");
        s.start("client", alone(sleeper()))?;
        let script = format!("wget -q -O - http://{ADDRESS}:18080/");
        assert_eq!(s.shell("client", &script)?, "<html><body>httpd</body></html>");
        s.kubectl(&["delete", "pod", "web"])?;
        for address in open(18080) {
            s.until(|| Ok(get(&address).is_err()), |closed| *closed)?;
        }
        Ok(())
    })
}

#[test]
fn containers_of_a_pod_see_each_others_processes_if_so_asked() -> Result<()> {
    scenario("share-pid", |s| {
        let other = json!({ "name": "other", "image": PAUSE });
        let spec = |share: bool| json!({ "containers": [sleeper(), other], "shareProcessNamespace": share });
        s.start("shared", spec(true))?;
        let script = "for p in /proc/[0-9]*; do readlink $p/exe; done 2>/dev/null; cat /proc/1/comm";
        let seen = s.shell("shared", script)?;
        assert!(seen.contains("/pause"), "{seen}");
        assert!(!seen.ends_with("\nsh"), "a container is process 1 of the pod: {seen}");
        // What one leaves behind, the pod's process 1 reaps.
        s.shell(
            "shared",
            "sh -c 'sleep 0.1 & exec true'; sleep 0.5; ! grep -l '^State:.Z' /proc/[0-9]*/status",
        )?;
        s.start("apart", spec(false))?;
        let seen = s.shell("apart", script)?;
        assert!(!seen.contains("/pause") && seen.ends_with("\nsh"), "{seen}");
        Ok(())
    })
}
