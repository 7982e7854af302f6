//! Exec and attach with the real crictl, over SPDY and over WebSocket.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use berth_e2e::client::expect_refusal;
use berth_e2e::crictl::{Crictl, Running};
use berth_e2e::node::Options;
use berth_e2e::process::memory;
use berth_e2e::runtime::Runtime;
use berth_e2e::world::World;
use berth_e2e::{amount, bound, eventually};
use berth_proto::cri::v1::{AttachRequest, ContainerConfig, ExecRequest, PortForwardRequest};
use tonic::Code;

const TRANSPORTS: [&str; 2] = ["spdy", "websocket"];
const LONG: Duration = Duration::from_secs(60);

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn output_errors_and_exit_codes_come_back() -> Result<()> {
    let world = World::start().await?;
    let (_, id) = world.run(&world.pod("exec"), &world.sleeper("main")).await?;
    let crictl = Crictl::new(&world.node)?;
    for transport in TRANSPORTS {
        let exec = |script| crictl.output(&["exec", "--transport", transport, &id, "sh", "-c", script]);
        let output = exec("printf out; printf err >&2")?;
        assert_eq!((text(&output.stdout), text(&output.stderr)), ("out".into(), "err".into()), "{transport}");
        assert!(output.status.success());
        let output = exec("printf out; exit 42")?;
        assert_eq!(text(&output.stdout), "out", "{transport}");
        assert!(!output.status.success() && text(&output.stderr).contains("exit code 42"), "{output:?}");
        let output = exec("kill -9 $$")?;
        assert!(text(&output.stderr).contains("exit code 137"), "{output:?}");
    }
    Ok(())
}

#[tokio::test]
async fn much_goes_in_and_comes_out_whole() -> Result<()> {
    let world = World::start().await?;
    let (_, id) = world.run(&world.pod("much"), &world.sleeper("main")).await?;
    let crictl = Crictl::new(&world.node)?;
    let much: Vec<u8> = (0..8_000_000_u32).map(|n| (n / 7) as u8).collect();
    for transport in TRANSPORTS {
        let mut command =
            crictl.command(&["exec", "-i", "--transport", transport, &id, "sh", "-c", "cat; echo end >&2"]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut stdin = child.stdin.take().context("no stdin")?;
        let writing = {
            let much = much.clone();
            std::thread::spawn(move || stdin.write_all(&much))
        };
        let output = child.wait_with_output()?;
        writing.join().expect("the writer does not panic")?;
        assert!(output.stdout == much, "{transport}: {} bytes came back", output.stdout.len());
        assert_eq!(text(&output.stderr), "end\n", "{transport}: it heard the end of its input");
    }
    Ok(())
}

#[tokio::test]
async fn a_gigabyte_for_a_slow_reader_takes_no_memory() -> Result<()> {
    let all = amount(1 << 30);
    let world = World::start().await?;
    let (_, id) = world.run(&world.pod("gigabyte"), &world.sleeper("main")).await?;
    let crictl = Crictl::new(&world.node)?;
    crictl.run(&["exec", &id, "true"])?;
    let daemon = world.node.pid().context("no daemon")?;
    let before = memory(daemon)?;
    for transport in TRANSPORTS {
        let size = all.to_string();
        let command = ["exec", "--transport", transport, &id, "head", "-c", &size, "/dev/zero"];
        let mut running = Running::start(&mut crictl.command(&command))?;
        let mut output = running.0.stdout.take().context("no stdout")?;
        let (mut buffer, mut read, mut most) = (vec![0; 1 << 20], 0, 0);
        loop {
            let count = output.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            // A rest now and then: what comes must wait.
            if read / (all / 8) != (read + count) / (all / 8) {
                std::thread::sleep(Duration::from_millis(300));
                most = most.max(memory(daemon)?);
            }
            read += count;
        }
        assert_eq!(read, all, "{transport}");
        assert!(most < before + (32 << 10), "{transport}: {most} KiB in the daemon, {before} before");
        running.0.wait()?;
    }
    Ok(())
}

#[tokio::test]
async fn a_command_ends_though_its_input_is_open() -> Result<()> {
    let world = World::start().await?;
    let (_, id) = world.run(&world.pod("open"), &world.sleeper("main")).await?;
    let crictl = Crictl::new(&world.node)?;
    for transport in TRANSPORTS {
        let mut running = Running::start(&mut crictl.command(&[
            "exec",
            "-i",
            "--transport",
            transport,
            &id,
            "head",
            "-n",
            "1",
        ]))?;
        running.say("first\n")?;
        assert_eq!(running.hear(6)?, "first\n");
        eventually(LONG, async || {
            running.0.try_wait()?.with_context(|| format!("{transport}: crictl waits for its own input"))
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_background_child_does_not_hold_a_session() -> Result<()> {
    let world = World::start().await?;
    if world.node.runtime() == Runtime::Containerd {
        println!("not run: containerd waits for whoever holds the pipe");
        return Ok(());
    }
    let (_, id) = world.run(&world.pod("background"), &world.sleeper("main")).await?;
    let crictl = Crictl::new(&world.node)?;
    let start = Instant::now();
    assert_eq!(crictl.run(&["exec", &id, "sh", "-c", "sleep 100 & echo started"])?, "started");
    assert!(start.elapsed() < bound(Duration::from_secs(30)), "{:?}", start.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_terminal_has_the_clients_size_and_follows_it() -> Result<()> {
    let world = World::start().await?;
    let (_, id) = world.run(&world.pod("tty"), &world.sleeper("main")).await?;
    let crictl = Crictl::new(&world.node)?;
    for transport in TRANSPORTS {
        let size =
            |rows, columns| nix::pty::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = nix::pty::openpty(Some(&size(33, 101)), None)?;
        let mut command = crictl.command(&["exec", "-it", "--transport", transport, &id, "sh", "-c"]);
        let script = "until [ \"$(stty size)\" = '33 101' ]; do sleep 0.1; done; echo big; read -r line; \
                      echo \"heard $line\"; exit 3";
        command.arg(script).stdin(pty.slave.try_clone()?).stdout(pty.slave.try_clone()?).stderr(pty.slave);
        let mut child = Running(command.spawn()?);
        drop(command);
        let mut master = std::fs::File::from(pty.master);
        let mut seen = String::new();
        let mut read_until = |master: &mut std::fs::File, words: &str| -> Result<()> {
            let mut buffer = [0; 4096];
            while !seen.contains(words) {
                match master.read(&mut buffer) {
                    Ok(0) | Err(_) => bail!("the terminal ended: {seen}"),
                    Ok(count) => seen.push_str(&text(&buffer[..count])),
                }
            }
            Ok(())
        };
        read_until(&mut master, "big")?;
        master.write_all(b"me\n")?;
        read_until(&mut master, "heard me")?;
        read_until(&mut master, "exit code 3")?;
        child.0.wait()?;
    }
    Ok(())
}

fn shell_with_stdin(world: &World, once: bool) -> ContainerConfig {
    let mut config = world.container("shell", "while read -r line; do echo \"heard $line\"; done; echo over");
    config.stdin = true;
    config.stdin_once = once;
    config
}

#[tokio::test]
async fn attaching_reaches_the_containers_own_streams() -> Result<()> {
    let world = World::start().await?;
    let crictl = Crictl::new(&world.node)?;
    for transport in TRANSPORTS {
        let (pod, id) = world.run(&world.pod("attach"), &shell_with_stdin(&world, true)).await?;
        let mut attached =
            Running::start(&mut crictl.command(&["attach", "-i", "--transport", transport, &id]))?;
        attached.say("one\n")?;
        assert_eq!(attached.hear(10)?, "heard one\n", "{transport}");
        // The end of the one client's input is the container's.
        let output = attached.end()?;
        assert_eq!(text(&output.stdout), "over\n", "{transport}: {}", text(&output.stderr));
        assert!(output.status.success(), "{transport}: {}", text(&output.stderr));
        world.client.end_pod(&pod).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_client_that_vanishes_leaves_the_container_as_it_was() -> Result<()> {
    let world = World::start().await?;
    let crictl = Crictl::new(&world.node)?;
    let (_, id) = world.run(&world.pod("vanish"), &shell_with_stdin(&world, false)).await?;
    for n in 0..3 {
        let mut attached = Running::start(&mut crictl.command(&["attach", "-i", &id]))?;
        attached.say(&format!("{n}\n"))?;
        assert_eq!(attached.hear(8)?, format!("heard {n}\n"));
        attached.0.kill()?;
        attached.0.wait()?;
    }
    assert_eq!(world.client.status(&id).await?.state, 1, "it runs on");
    Ok(())
}

#[tokio::test]
async fn a_command_ends_with_its_client() -> Result<()> {
    let world = World::start().await?;
    if world.node.runtime() == Runtime::Containerd {
        println!("not run: containerd lets the command run on");
        return Ok(());
    }
    let crictl = Crictl::new(&world.node)?;
    let (_, id) = world.run(&world.pod("gone"), &world.sleeper("main")).await?;
    // How many there are; the shell that asks is none of them.
    const ALIVE: &str = "for p in $(pgrep 'sleep|cat'); do tr '\\0' ' ' </proc/$p/cmdline; echo; done \
                         | grep -c -E '^(sleep 4321|cat )' || true";
    // One reads its input, one does not: then the connection is full when the client goes.
    let scripts = ["echo up; exec sleep 4321", "echo up; cat; sleep 4321"];
    for (script, transport) in
        scripts.into_iter().flat_map(|script| TRANSPORTS.map(|transport| (script, transport)))
    {
        let command = ["exec", "-i", "--transport", transport, &id, "sh", "-c", script];
        let mut running = Running::start(&mut crictl.command(&command))?;
        assert_eq!(running.hear(3)?, "up\n");
        let mut stdin = running.0.stdin.take().context("no stdin")?;
        let writing = std::thread::spawn(move || while stdin.write_all(&[b'\n'; 4096]).is_ok() {});
        std::thread::sleep(Duration::from_secs(1));
        running.0.kill()?;
        running.0.wait()?;
        writing.join().expect("the writer does not panic");
        eventually(LONG, async || {
            let alive = world.client.shell(&id, ALIVE).await?;
            ensure!(alive.trim() == "0", "{script:?} lives on over {transport}: {alive}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_is_refused_before_a_client_comes() -> Result<()> {
    let world = World::start().await?;
    let config = world.pod("refused");
    let (pod, id) = world.run(&config, &world.sleeper("main")).await?;
    let mut runtime = world.client.runtime.clone();
    let exec = ExecRequest {
        container_id: id.clone(),
        cmd: vec!["true".into()],
        stdout: true,
        ..Default::default()
    };
    let bad = [
        (ExecRequest { container_id: String::new(), ..exec.clone() }, Code::InvalidArgument),
        (ExecRequest { container_id: "0123456789abcdef".into(), ..exec.clone() }, Code::NotFound),
        (ExecRequest { stdout: false, ..exec.clone() }, Code::InvalidArgument),
        (ExecRequest { tty: true, stderr: true, ..exec.clone() }, Code::InvalidArgument),
    ];
    for (request, code) in bad {
        expect_refusal(runtime.exec(request).await, &[code], &[]);
    }
    let attach = AttachRequest { container_id: id.clone(), stdout: true, tty: true, ..Default::default() };
    if world.node.runtime() == Runtime::Berth {
        let codes = [Code::InvalidArgument, Code::FailedPrecondition];
        expect_refusal(runtime.attach(attach).await, &codes, &["terminal"]);
    }
    world.client.stop(&id, 0).await?;
    if world.node.runtime() == Runtime::Berth {
        expect_refusal(runtime.exec(exec).await, &[Code::FailedPrecondition], &[]);
    }
    world.client.stop_pod(&pod).await?;
    let forward = PortForwardRequest { pod_sandbox_id: "0123456789abcdef".into(), port: vec![] };
    expect_refusal(runtime.port_forward(forward).await, &[Code::NotFound], &[]);
    Ok(())
}

#[tokio::test]
async fn a_promise_is_kept_once_and_only_so_many_are_made() -> Result<()> {
    let world = World::start().await?;
    let (_, id) = world.run(&world.pod("promise"), &world.sleeper("main")).await?;
    let mut runtime = world.client.runtime.clone();
    let exec = ExecRequest { container_id: id, cmd: vec!["true".into()], stdout: true, ..Default::default() };
    let url = runtime.exec(exec.clone()).await?.into_inner().url;
    let rest = url.strip_prefix("http://127.0.0.1:").context("another address")?;
    let (port, path) = rest.split_once('/').context("no path")?;
    let port: u16 = port.parse()?;
    let get = |path: &str| -> Result<String> {
        let mut connection = TcpStream::connect(("127.0.0.1", port))?;
        connection.write_all(format!("GET /{path} HTTP/1.1\r\nHost: berth\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        Ok(answer.lines().next().unwrap_or_default().to_owned())
    };
    assert!(get("exec/0123456789abcdef0123456789abcdef")?.contains("404"));
    assert!(get("")?.contains("404"));
    // No upgrade: refused, and the promise is gone.
    assert!(get(path)?.contains("400"));
    assert!(get(path)?.contains("404"));
    let url = runtime.exec(exec.clone()).await?.into_inner().url;
    let token = url.rsplit('/').next().context("no token")?;
    assert!(get(&format!("attach/{token}"))?.contains("404"), "a promise of another kind");
    // At once: a promise is forgotten after a minute.
    let promises = (0..1100).map(|_| {
        let (mut runtime, exec) = (runtime.clone(), exec.clone());
        async move { runtime.exec(exec).await }
    });
    let answers = futures_util::future::join_all(promises).await;
    let kept = answers.iter().filter(|answer| answer.is_ok()).count();
    assert!((900..=1000).contains(&kept), "{kept} promises");
    let refused = answers.into_iter().find(Result::is_err).context("none is refused")?;
    expect_refusal(refused, &[Code::ResourceExhausted], &["1000"]);
    Ok(())
}

#[tokio::test]
async fn sessions_can_be_served_over_tls() -> Result<()> {
    if Runtime::from_env()? == Runtime::Containerd {
        println!("not run: containerd is configured otherwise");
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let (certificate, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()])?;
    std::fs::write(&certificate, made.cert.pem())?;
    std::fs::write(&key, made.signing_key.serialize_pem())?;
    let config = format!("[streaming]\ntls_cert_file = {certificate:?}\ntls_key_file = {key:?}\n");
    let world = World::start_with(Options { config, ..Options::default() }).await?;
    let (_, id) = world.run(&world.pod("tls"), &world.sleeper("main")).await?;
    let request = ExecRequest {
        container_id: id.clone(),
        cmd: vec!["true".into()],
        stdout: true,
        ..Default::default()
    };
    let url = world.client.runtime.clone().exec(request).await?.into_inner().url;
    assert!(url.starts_with("https://127.0.0.1:"), "{url}");
    let crictl = Crictl::new(&world.node)?;
    for transport in TRANSPORTS {
        let said = crictl.run(&["exec", "--transport", transport, &id, "echo", "secret"])?;
        assert_eq!(said, "secret", "{transport}");
    }
    Ok(())
}
