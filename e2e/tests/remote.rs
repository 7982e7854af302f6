//! Sessions under load: many at once, slow readers, clients that vanish, floods. What is here is Berth's own promise.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::logs;
use berth_e2e::process::{descriptors, memory, shims, zombies};
use berth_e2e::remote::{Remote, Streams};
use berth_e2e::runtime::Runtime;
use berth_e2e::world::World;
use berth_e2e::{bound, eventually};
use tokio::task::JoinSet;

const LONG: Duration = Duration::from_secs(120);
const STDIN: Streams = Streams { stdin: true, tty: false };
const NOTHING: Streams = Streams { stdin: false, tty: false };

async fn berth() -> Result<Option<World>> {
    let world = World::start().await?;
    if world.node.runtime() == Runtime::Containerd {
        println!("not run: a promise of Berth's own");
        return Ok(None);
    }
    Ok(Some(world))
}

fn daemon(world: &World) -> Result<u32> {
    world.node.pid().context("no daemon")
}

fn shim(world: &World) -> Result<u32> {
    let all = shims(&world.node.state());
    ensure!(all.len() == 1, "{all:?}");
    Ok(all[0])
}

/// Both processes hold no more than before, soon after.
async fn expect_no_leak(world: &World, before: [usize; 2]) -> Result<()> {
    eventually(Duration::from_secs(20), async || {
        let now = [descriptors(daemon(world)?)?, descriptors(shim(world)?)?];
        let dead = zombies(shim(world)?);
        // Connections of the runtime and threads of the test come and go.
        let well = now[0] <= before[0] + 4 && now[1] <= before[1] && dead == 0;
        ensure!(well, "descriptors {before:?} became {now:?}; {dead} zombies");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_commands_at_once_each_have_their_own_output_and_end() -> Result<()> {
    let Some(world) = berth().await? else { return Ok(()) };
    let (_, id) = world.run(&world.pod("many"), &world.sleeper("main")).await?;
    Remote::exec(&world.client, &id, &["true"], NOTHING).await?.finish().await?;
    let before = [descriptors(daemon(&world)?)?, descriptors(shim(&world)?)?];
    let mut sessions = JoinSet::new();
    for number in 0..500 {
        let (client, id) = (world.client.clone(), id.clone());
        sessions.spawn(async move {
            // Odd ones over the streaming server, even ones by ExecSync.
            let script = format!("echo {number}; echo e{number} >&2; exit {}", number % 200);
            let command = ["sh", "-c", &script];
            let (stdout, stderr, code) = if number % 2 == 0 {
                let reply = client.exec(&id, &command, 0).await?;
                (reply.stdout, reply.stderr, reply.exit_code)
            } else {
                let outcome = Remote::exec(&client, &id, &command, NOTHING).await?.finish().await?;
                let code = outcome.exit_code()?;
                (outcome.stdout, outcome.stderr, code)
            };
            let seen = (String::from_utf8(stdout)?, String::from_utf8(stderr)?, code);
            ensure!(
                seen == (format!("{number}\n"), format!("e{number}\n"), number % 200),
                "{number}: {seen:?}"
            );
            Ok(())
        });
    }
    while let Some(session) = sessions.join_next().await {
        session??;
    }
    expect_no_leak(&world, before).await
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_vanish_leave_neither_descriptors_nor_processes() -> Result<()> {
    let Some(world) = berth().await? else { return Ok(()) };
    let mut spec = world.container("main", "while read line; do echo heard $line; done");
    spec.stdin = true;
    let (_, id) = world.run(&world.pod("vanish"), &spec).await?;
    Remote::exec(&world.client, &id, &["true"], NOTHING).await?.finish().await?;
    let before = [descriptors(daemon(&world)?)?, descriptors(shim(&world)?)?];
    for round in 0..4 {
        let mut clients = Vec::new();
        for number in 0..25 {
            let mut attached = Remote::attach(&world.client, &id, STDIN).await?;
            attached.say(format!("{round}-{number}\n").as_bytes()).await?;
            let heard = attached.hear().await?.context("no answer")?;
            ensure!(String::from_utf8_lossy(&heard).contains("heard"), "{heard:?}");
            clients.push(attached);
            let script = "trap '' HUP; setsid sleep 4321 & cat >/dev/null; sleep 4321";
            let streams = Streams { stdin: true, tty: number % 2 == 0 };
            clients.push(Remote::exec(&world.client, &id, &["sh", "-c", script], streams).await?);
        }
        // Without a word: the sockets are closed.
        drop(clients);
    }
    expect_no_leak(&world, before).await?;
    // The container's own init reaps nobody: what is dead may still be listed.
    let alive = "for p in $(pgrep sleep); do grep State: /proc/$p/status; done | grep -v Z || true";
    eventually(Duration::from_secs(20), async || {
        let left = world.client.shell(&id, alive).await?;
        ensure!(left.is_empty(), "commands outlive their clients: {left}");
        Ok(())
    })
    .await?;
    let mut last = Remote::attach(&world.client, &id, STDIN).await?;
    last.say(b"still there\n").await?;
    assert_eq!(last.hear().await?.as_deref(), Some(&b"heard still there\n"[..]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attached_client_gets_a_flood_and_an_endless_line_whole_as_the_log_does() -> Result<()> {
    let Some(world) = berth().await? else { return Ok(()) };
    let script =
        "read go; head -c 30000000 /dev/zero | tr '\\0' x; echo; seq 1 300000; echo over >&2; sleep 1000";
    let mut spec = world.container("main", script);
    spec.stdin = true;
    let (_, id) = world.run(&world.pod("flood"), &spec).await?;
    let mut attached = Remote::attach(&world.client, &id, STDIN).await?;
    // One that does not read is dropped, and holds nobody up for long.
    let _stuck = Remote::attach(&world.client, &id, NOTHING).await?;
    attached.say(b"go\n").await?;
    let mut seen = Vec::new();
    let start = Instant::now();
    while !seen.ends_with(b"\n300000\n") {
        ensure!(start.elapsed() < bound(LONG), "{} bytes", seen.len());
        seen.extend(attached.hear().await?.context("the session ended")?);
    }
    let mut expected = vec![b'x'; 30_000_000];
    expected.push(b'\n');
    (1..=300_000).for_each(|number| expected.extend(format!("{number}\n").bytes()));
    assert!(seen == expected, "{} of {} bytes", seen.len(), expected.len());
    assert!(memory(shim(&world)?)? < 16 * 1024, "{} KiB", memory(shim(&world)?)?);
    // The record of `over` comes last; a line that is being written does not parse.
    let path = world.client.status(&id).await?.log_path;
    let logged = eventually(LONG, async || {
        let text = logs::text(&path)?;
        ensure!(text.ends_with("over\n"), "{} bytes", text.len());
        Ok(text)
    })
    .await?;
    assert!(logged.as_bytes().strip_suffix(b"over\n") == Some(&expected[..]), "{} bytes", logged.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_sizes_ends_with_the_last_one() -> Result<()> {
    let Some(world) = berth().await? else { return Ok(()) };
    let mut spec = world.container("main", "read go; stty size; sleep 1000");
    (spec.stdin, spec.tty) = (true, true);
    let (_, id) = world.run(&world.pod("sizes"), &spec).await?;
    let tty = Streams { stdin: true, tty: true };
    let attached = Remote::attach(&world.client, &id, tty).await?;
    let executed =
        Remote::exec(&world.client, &id, &["sh", "-c", "read go; stty size; sleep 1000"], tty).await?;
    for mut session in [attached, executed] {
        for number in 0..2000_u16 {
            session.resize(number, u16::MAX - number).await?;
        }
        session.resize(132, 43).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        session.say(b"go\n").await?;
        let mut seen = String::new();
        while !seen.contains("43 132\r\n") {
            let bytes = session.hear().await?.with_context(|| format!("it ended after {seen:?}"))?;
            seen += &String::from_utf8_lossy(&bytes);
        }
    }
    Ok(())
}
