//! Port-forward with the real crictl, over SPDY and over WebSocket.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};
use berth_e2e::bound;
use berth_e2e::crictl::{Crictl, Running};
use berth_e2e::world::World;

const TRANSPORTS: [&str; 2] = ["spdy", "websocket"];
const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn ports_are_forwarded_into_the_pod() -> Result<()> {
    let world = World::start().await?;
    let crictl = Crictl::new(&world.node)?;
    // Answers what it has heard once it has heard all of it: a client may end its side first.
    let server = "exec nc -ll -p 4000 -e sh -c 'cat >/tmp/heard; wc -c </tmp/heard; cat /tmp/heard'";
    let (pod, id) = world.run(&world.pod("ports"), &world.container("server", server)).await?;
    world.client.shell(&id, "until grep -q ':0FA0 .* 0A ' /proc/net/tcp*; do sleep 0.1; done").await?;
    for transport in TRANSPORTS {
        let mut command =
            crictl.command(&["port-forward", "--transport", transport, &pod, "0:4000", "0:4001"]);
        let mut forwarding = Running::start(&mut command)?;
        let line = forwarding.hear_line("127.0.0.1:")?;
        let (_, rest) = line.split_once("127.0.0.1:").context("no address")?;
        let port: u16 = rest.split_whitespace().next().context("no port")?.parse()?;
        for size in [5, 300_000] {
            let said: Vec<u8> = (0..size).map(|n: u32| b'a' + (n % 26) as u8).collect();
            let heard = ask(port, &said).with_context(|| format!("{size} bytes over {transport}"))?;
            let expected = [format!("{size}\n").as_bytes(), &said].concat();
            assert!(heard == expected, "{transport}: {} of {} bytes", heard.len(), expected.len());
        }
    }
    Ok(())
}

/// Says something, ends its own side, and hears the answer.
fn ask(port: u16, said: &[u8]) -> Result<Vec<u8>> {
    let mut connection = TcpStream::connect(("127.0.0.1", port))?;
    connection.set_read_timeout(Some(bound(LONG)))?;
    connection.write_all(said)?;
    connection.shutdown(Shutdown::Write)?;
    let mut heard = Vec::new();
    connection.read_to_end(&mut heard)?;
    Ok(heard)
}

#[tokio::test]
async fn a_closed_port_is_told() -> Result<()> {
    let world = World::start().await?;
    let crictl = Crictl::new(&world.node)?;
    let (pod, _) = world.run(&world.pod("closed"), &world.sleeper("main")).await?;
    let mut forwarding = Running::start(&mut crictl.command(&["port-forward", &pod, "0:4001"]))?;
    let line = forwarding.hear_line("127.0.0.1:")?;
    let (_, rest) = line.split_once("127.0.0.1:").context("no address")?;
    let port: u16 = rest.split_whitespace().next().context("no port")?.parse()?;
    let mut connection = TcpStream::connect(("127.0.0.1", port))?;
    connection.set_read_timeout(Some(bound(LONG)))?;
    assert!(matches!(connection.read(&mut [0; 10]), Ok(0) | Err(_)));
    forwarding.0.kill()?;
    let output = forwarding.end()?;
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("4001"),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
