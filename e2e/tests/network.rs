//! The pod's network: addresses, names, host ports. Every test runs with the built-in network, some with CNI too.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::client::image_spec;
use berth_e2e::images::{catalog, program};
use berth_e2e::node::Options;
use berth_e2e::runtime::{Runtime, tool};
use berth_e2e::world::World;
use berth_e2e::{bound, eventually};
use berth_proto::cri::v1::*;

const SERVER: &str = "mkdir /www; echo hello from $(hostname) > /www/index.html; exec httpd -f -p 80 -h /www";

/// The body of `GET /`, tried until something answers.
fn get(host: &str, port: u16) -> Result<String> {
    let end = Instant::now() + bound(Duration::from_secs(5));
    loop {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect((host, port))?;
            stream.set_read_timeout(Some(bound(Duration::from_secs(3))))?;
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        };
        match ask() {
            Ok(text) => {
                return Ok(text.rsplit("\r\n\r\n").next().unwrap_or_default().trim().to_owned());
            }
            Err(error) if Instant::now() > end => return Err(error).context(format!("GET {host}:{port}")),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

async fn a_pod_serves(world: &World) -> Result<()> {
    let before = world.settled_census().await?;
    let port = free_port()?;
    let mut config = world.pod("server");
    config.port_mappings = vec![PortMapping {
        protocol: Protocol::Tcp as i32,
        container_port: 80,
        host_port: i32::from(port),
        host_ip: String::new(),
    }];
    let (pod, _) = world.run(&config, &world.container("main", SERVER)).await?;
    let ip = world.client.pod_status(&pod).await?.network.unwrap_or_default().ip;
    assert_eq!(get(&ip, 80)?, "hello from server", "from the host by the pod's address");
    assert_eq!(get("127.0.0.1", port)?, "hello from server", "by the host port on loopback");

    let (_, client) = world.run(&world.pod("client"), &world.sleeper("main")).await?;
    let seen = world.client.shell(&client, &format!("wget -qO- http://{ip}/")).await?;
    assert_eq!(seen.trim(), "hello from server", "from another pod");
    world.client.end_all_pods().await?;
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "the host port is open without its pod");
    world.expect_nothing_left(&before).await
}

#[tokio::test]
async fn a_pod_serves_on_its_address_and_on_host_ports() -> Result<()> {
    a_pod_serves(&World::start().await?).await
}

#[tokio::test]
async fn the_same_with_cni_plugins() -> Result<()> {
    let world = World::start_with(Options { cni: true, ..Options::default() }).await?;
    if world.node.runtime() == Runtime::Containerd || tool("cni", "bridge").is_err() {
        println!("not run: needs Berth and `e2e/tools/build cni`");
        return Ok(());
    }
    a_pod_serves(&world).await
}

#[tokio::test]
async fn every_pod_has_an_address_of_its_own_and_frees_it() -> Result<()> {
    let world = World::start().await?;
    let mut addresses = std::collections::BTreeSet::new();
    for number in 0..10 {
        let pod = world.client.run_pod(&world.pod(&format!("pod-{number}"))).await?;
        addresses.insert(world.client.pod_status(&pod).await?.network.unwrap_or_default().ip);
    }
    assert_eq!(addresses.len(), 10, "{addresses:?}");
    world.client.end_all_pods().await?;
    Ok(())
}

#[tokio::test]
async fn more_pods_come_and_go_than_the_subnet_has_addresses() -> Result<()> {
    let world = World::start().await?;
    if world.node.runtime() == Runtime::Containerd {
        println!("not run: minutes with containerd");
        return Ok(());
    }
    for number in 0..300 {
        let pod = world.client.run_pod(&world.pod("again")).await.with_context(|| format!("pod {number}"))?;
        world.client.end_pod(&pod).await?;
    }
    Ok(())
}

#[tokio::test]
async fn the_built_in_network_speaks_ipv6_too() -> Result<()> {
    let world = World::start().await?;
    if world.node.runtime() == Runtime::Containerd {
        println!("not run: the conflist of the tests has IPv4 alone");
        return Ok(());
    }
    let (pod, _) = world.run(&world.pod("six"), &world.container("main", SERVER)).await?;
    let network = world.client.pod_status(&pod).await?.network.unwrap_or_default();
    let six = network.additional_ips.first().map(|ip| ip.ip.clone()).unwrap_or_default();
    assert!(six.contains(':'), "{network:?}");
    assert_eq!(get(&six, 80)?, "hello from six");
    Ok(())
}

#[tokio::test]
async fn names_are_set_in_every_container() -> Result<()> {
    let world = World::start().await?;
    let mut config = world.pod("named");
    config.dns_config = Some(DnsConfig {
        servers: vec!["10.10.10.10".into(), "10.10.10.11".into()],
        searches: vec!["a.example".into(), "b.example".into()],
        options: vec!["ndots:8".into()],
    });
    let (_, id) = world.run(&config, &world.sleeper("main")).await?;
    let resolv = world.client.shell(&id, "cat /etc/resolv.conf").await?;
    for line in
        ["nameserver 10.10.10.10", "nameserver 10.10.10.11", "search a.example b.example", "options ndots:8"]
    {
        assert!(resolv.lines().any(|other| other.trim() == line), "{line:?} is not in {resolv:?}");
    }
    assert_eq!(world.client.shell(&id, "hostname; cat /etc/hostname").await?, "named\nnamed\n");
    assert!(world.client.shell(&id, "cat /etc/hosts").await?.contains("localhost"));
    Ok(())
}

#[tokio::test]
async fn containers_of_a_pod_share_loopback_and_pods_do_not() -> Result<()> {
    let world = World::start().await?;
    let config = world.pod("shared");
    let (pod, _) = world.run(&config, &world.container("server", SERVER)).await?;
    let client = world.launch(&pod, &world.sleeper("client"), &config).await?;
    let script =
        "for i in 1 2 3 4 5 6 7 8 9; do wget -qO- http://127.0.0.1/ && exit; sleep 0.2; done; exit 1";
    assert_eq!(world.client.shell(&client, script).await?.trim(), "hello from shared");
    let (_, other) = world.run(&world.pod("other"), &world.sleeper("main")).await?;
    assert!(world.client.shell(&other, "wget -qO- http://127.0.0.1/").await.is_err());
    Ok(())
}

#[tokio::test]
async fn a_low_port_needs_no_privilege() -> Result<()> {
    let world = World::start().await?;
    let mut spec = world.container("main", "exec httpd -f -p 80 -h /etc");
    let security = spec.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.run_as_user = Some(Int64Value { value: 1000 });
    security.capabilities = Some(Capability { drop_capabilities: vec!["ALL".into()], ..Default::default() });
    let (_, id) = world.run(&world.pod("low"), &spec).await?;
    tokio::time::sleep(bound(Duration::from_millis(500))).await;
    assert_eq!(world.client.status(&id).await?.state(), ContainerState::ContainerRunning);
    Ok(())
}

#[tokio::test]
async fn an_sctp_port_of_the_host_reaches_the_pod() -> Result<()> {
    let sctp = program::path("sctp")?;
    let ask = |address: &str, port: u16| -> Result<(bool, String)> {
        let asked = Command::new(&sctp).args(["ask", address, &port.to_string(), "hello"]).output()?;
        let text = [asked.stdout, asked.stderr].concat();
        Ok((asked.status.success(), String::from_utf8_lossy(&text).trim().to_owned()))
    };
    let port = free_port()?;
    let (_, answer) = ask("127.0.0.1", port)?;
    if answer.contains("Protocol not supported") {
        println!("not run: the kernel has no SCTP; run by `make e2e-vm`");
        return Ok(());
    }
    assert!(answer.contains("refused"), "before there is a pod: {answer}");

    let world = World::start().await?;
    let image = world.registry.publish("sctp", "latest", &catalog::with_program("sctp")?)?;
    world.client.pull(&image).await?;
    let mut config = world.pod("sctp");
    config.port_mappings = vec![PortMapping {
        protocol: Protocol::Sctp as i32,
        container_port: 7777,
        host_port: i32::from(port),
        host_ip: String::new(),
    }];
    let mut spec = world.container("main", "exec sctp serve 7777");
    spec.image = Some(image_spec(&image));
    let (_, _) = world.run(&config, &spec).await?;
    let host = format!("{}.1", world.node.network().prefix());
    for address in ["127.0.0.1", &host] {
        let answered = eventually(Duration::from_secs(5), async || {
            let (answered, said) = ask(address, port)?;
            ensure!(answered, "{address}: {said}");
            Ok(said)
        });
        assert_eq!(answered.await?, "hello", "{address}");
    }
    world.client.end_all_pods().await?;
    assert!(!ask("127.0.0.1", port)?.0, "the host port is open without its pod");
    Ok(())
}
