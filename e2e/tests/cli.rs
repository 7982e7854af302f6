//! The command line: what `berth image`, `config`, `check` and `version` print, and what they refuse.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use berth_e2e::images::{Compression, Image, catalog, publish};
use berth_e2e::node::{Node, Options};
use berth_e2e::registry::{self, Registry};
use berth_e2e::runtime::{Runtime, berth, berth_shim};
use berth_e2e::world::World;
use serde_json::Value;

/// These are commands of Berth's own.
fn is_berth() -> Result<bool> {
    let is = Runtime::from_env()? == Runtime::Berth;
    if !is {
        println!("not run: it is about a command of berth's");
    }
    Ok(is)
}

fn run(arguments: &[&str], stdin: &[u8]) -> Result<Output> {
    let mut child = Command::new(berth()?)
        .args(arguments)
        .env_remove("BERTH_SOCKET")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut input = child.stdin.take().context("no stdin")?;
    let bytes = stdin.to_vec();
    // A command that ends without reading it all is fine.
    let writer = std::thread::spawn(move || input.write_all(&bytes));
    let output = child.wait_with_output()?;
    let _ = writer.join();
    Ok(output)
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// `berth image` against a node.
fn image(node: &Node, arguments: &[&str], stdin: &[u8]) -> Result<Output> {
    let socket = node.socket();
    let socket = socket.to_str().context("socket path")?;
    run(&[&["image", "--socket", socket], arguments].concat(), stdin)
}

/// Standard output of one that must succeed.
fn good(node: &Node, arguments: &[&str], stdin: &[u8]) -> Result<String> {
    let output = image(node, arguments, stdin)?;
    anyhow::ensure!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    Ok(stdout(&output))
}

/// Standard error of one that must fail.
fn bad(node: &Node, arguments: &[&str], stdin: &[u8]) -> Result<String> {
    let output = image(node, arguments, stdin)?;
    anyhow::ensure!(!output.status.success(), "{arguments:?} succeeds: {}", stdout(&output));
    Ok(stderr(&output))
}

#[tokio::test]
async fn an_image_is_pulled_listed_and_removed() -> Result<()> {
    if !is_berth()? {
        return Ok(());
    }
    let world = World::start().await?;
    let node = &world.node;
    let built = catalog::tiny("cli").build()?;
    world.registry.storage().publish("cli", "v1", &built)?;
    world.registry.storage().publish("cli", "v2", &built)?;
    let (one, two) = (world.registry.reference("cli:v1"), world.registry.reference("cli:v2"));

    let pulled = image(node, &["pull", &one], b"")?;
    assert_eq!(stdout(&pulled).trim(), built.config_digest());
    let told = stderr(&pulled);
    let layer = &built.blobs[0].digest["sha256:".len()..][..12];
    assert!(told.contains(&format!("{layer}: done, ")), "{told}");
    let again = image(node, &["pull", &two], b"")?;
    assert!(stderr(&again).contains("already present"), "{}", stderr(&again));

    let table = good(node, &["ls"], b"")?;
    assert!(table.starts_with("IMAGE "), "{table}");
    let name = one.trim_end_matches(":v1");
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    for tag in ["v1", "v2"] {
        assert!(rows.iter().any(|row| row[..2] == [name, tag]), "{table}");
    }
    let json: Value = serde_json::from_str(&good(node, &["ls", "--json"], b"")?)?;
    let listed = json.as_array().context("no array")?;
    let listed = listed.iter().find(|image| image["id"] == *built.config_digest());
    assert_eq!(listed.context("not listed")?["tags"], serde_json::json!([one, two]));
    assert!(good(node, &["ls", "-q"], b"")?.lines().any(|id| id == built.config_digest()));

    let failed = image(node, &["rm", "no.example/such:1", &two], b"")?;
    assert_eq!(failed.status.code(), Some(1));
    assert!(
        stderr(&failed).contains("cannot remove no.example/such:1: there is no such image"),
        "{}",
        stderr(&failed)
    );
    assert_eq!(stdout(&failed), format!("removed {two}\n"));
    assert!(!good(node, &["ls"], b"")?.contains("cli"));
    Ok(())
}

#[tokio::test]
async fn a_pull_that_fails_says_why_in_one_line() -> Result<()> {
    if !is_berth()? {
        return Ok(());
    }
    let world = World::start().await?;
    let missing = world.registry.reference("none:v1");
    let error = bad(&world.node, &["pull", &missing], b"")?;
    assert!(
        error.starts_with("berth: ") && error.contains(&missing) && error.lines().count() == 1,
        "{error}"
    );
    let error = bad(&world.node, &["pull", "UPPER/case"], b"")?;
    assert!(error.contains("\"UPPER/case\" names no image"), "{error}");
    let nobody = run(&["image", "--socket", "/nowhere/berth.sock", "ls"], b"")?;
    assert!(stderr(&nobody).contains("no daemon answers at /nowhere/berth.sock"), "{}", stderr(&nobody));
    Ok(())
}

#[tokio::test]
async fn a_password_comes_by_flag_or_by_standard_input() -> Result<()> {
    if !is_berth()? {
        return Ok(());
    }
    let world = World::start().await?;
    let locked = Registry::start_with(registry::Options { login: true, ..Default::default() })?;
    let name = locked.publish("locked", "v1", &catalog::tiny("locked"))?;
    let (user, password) = (registry::USER, registry::PASSWORD);
    bad(&world.node, &["pull", &name], b"")?;
    bad(&world.node, &["pull", "--user", &format!("{user}:wrong"), &name], b"")?;
    let error = bad(&world.node, &["pull", "--user", user, &name], b"")?;
    assert!(error.contains("--password-stdin"), "{error}");
    good(
        &world.node,
        &["pull", "--user", user, "--password-stdin", &name],
        format!("{password}\n").as_bytes(),
    )?;
    good(&world.node, &["rm", &name], b"")?;
    good(&world.node, &["pull", "--user", &format!("{user}:{password}"), &name], b"")?;
    assert!(!world.node.log().contains(password));
    Ok(())
}

fn archives(reference: &str) -> Result<[Vec<u8>; 2]> {
    let image = catalog::tiny(reference);
    let (mut oci, mut docker) = (Vec::new(), Vec::new());
    publish::oci_archive(&image.build()?, reference, &mut oci)?;
    let layers = image.layers.into_iter().map(|layer| layer.packed(Compression::None)).collect();
    publish::docker_archive(&Image { layers, ..Image::default() }.build()?, reference, &mut docker)?;
    Ok([oci, docker])
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

#[tokio::test]
async fn archives_come_as_files_by_pipe_and_as_gzip() -> Result<()> {
    if !is_berth()? {
        return Ok(());
    }
    let world = World::start().await?;
    let node = &world.node;
    let reference = "docker.io/library/carried:v1";
    for archive in archives(reference)? {
        let file = node.scratch().join("archive.tar");
        let path = file.to_str().context("path")?;
        std::fs::write(&file, &archive)?;
        let ways: [(&str, Vec<u8>); 3] = [(path, Vec::new()), ("-", archive.clone()), ("-", gzip(&archive)?)];
        for (way, stdin) in ways {
            let told = good(node, &["import", way], &stdin)?;
            assert!(told.trim_end().ends_with(&format!("  {reference}")), "{told}");
            assert!(world.client.image(reference).await?.is_some());
            good(node, &["rm", reference], b"")?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_bad_archive_is_refused_and_leaves_nothing() -> Result<()> {
    if !is_berth()? {
        return Ok(());
    }
    let world = World::start().await?;
    let node = &world.node;
    let before = good(node, &["ls"], b"")?;
    let [archive, _] = archives("docker.io/library/broken:v1")?;
    let packed = gzip(&archive)?;
    let cut = |bytes: &[u8]| bytes[..bytes.len() / 2].to_vec();
    for input in [Vec::new(), b"no archive at all".to_vec(), cut(&archive), cut(&packed)] {
        let error = bad(node, &["import", "-"], &input)?;
        assert!(error.starts_with("berth: ") && error.contains("archive"), "{error}");
    }
    let error = bad(node, &["import", "/no/such.tar"], b"")?;
    assert!(error.contains("cannot read /no/such.tar: No such file"), "{error}");
    bad(node, &["import", "/proc/self/mem"], b"")?;
    assert_eq!(good(node, &["ls"], b"")?, before);
    assert_eq!(std::fs::read_dir(node.root().join("staging"))?.count(), 0);
    Ok(())
}

#[tokio::test]
async fn the_default_configuration_starts_a_daemon() -> Result<()> {
    if !is_berth()? {
        return Ok(());
    }
    let default = run(&["config", "default"], b"")?;
    assert!(default.status.success());
    let check = run(&["check", "--config", "-"], &default.stdout)?;
    let table = stdout(&check);
    assert!(table.lines().all(|line| line.chars().count() <= 100), "{table}");
    for what in [
        "kernel",
        "overlay",
        "cgroup version",
        "seccomp",
        "AppArmor",
        "user namespaces",
        "network",
        "capabilities",
    ] {
        assert!(table.contains(what), "{what}: {table}");
    }
    let changed = stdout(&default).replace("[network]", "[network]\nbridge = \"not a bridge\"");
    let refused = run(&["serve", "--config", "-"], changed.as_bytes())?;
    let error = stderr(&refused);
    assert!(!refused.status.success() && error.starts_with("berth: standard input, line "), "{error}");
    serve_default(&stdout(&default))?;
    assert!(stdout(&run(&["version"], b"")?).starts_with("berth "));
    Ok(())
}

/// `berth config default | berth serve --config -`, until it answers; the socket's directory is not there before.
fn serve_default(text: &str) -> Result<()> {
    let scratch = tempfile::Builder::new().prefix("berth-e2e-").tempdir()?;
    let path = |name: &str| scratch.path().join(name).to_string_lossy().into_owned();
    // Only in this repository are the two programs not side by side.
    let text = text.replace("# path = \"\"", &format!("path = {:?}", berth_shim()?));
    let socket = path("made/by/berth.sock");
    let mut daemon = Command::new(berth()?)
        .args([
            "serve",
            "--config",
            "-",
            "--root",
            &path("root"),
            "--state",
            &path("state"),
            "--socket",
            &socket,
        ])
        .stdin(Stdio::piped())
        .stderr(std::fs::File::create(path("log"))?)
        .spawn()?;
    daemon.stdin.take().context("no stdin")?.write_all(text.as_bytes())?;
    let end = Instant::now() + berth_e2e::bound(Duration::from_secs(20));
    let mut answer = run(&["image", "--socket", &socket, "ls"], b"")?;
    while !answer.status.success() && Instant::now() < end && daemon.try_wait()?.is_none() {
        std::thread::sleep(Duration::from_millis(50));
        answer = run(&["image", "--socket", &socket, "ls"], b"")?;
    }
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(daemon.id().cast_signed()),
        nix::sys::signal::Signal::SIGTERM,
    )?;
    let ended = daemon.wait()?;
    anyhow::ensure!(
        answer.status.success(),
        "{}\n{}",
        stderr(&answer),
        std::fs::read_to_string(path("log"))?
    );
    anyhow::ensure!(ended.success(), "it ended with {ended}");
    Ok(())
}

#[tokio::test]
async fn directories_of_another_daemon_are_refused() -> Result<()> {
    if !is_berth()? {
        return Ok(());
    }
    let node = Node::start(&Options::default()).await?;
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let (root, state) = (text(&node.root()), text(&node.state()));
    let config = text(&node.config_file());
    let other = text(&node.scratch().join("other"));
    let serve = |root: &str, state: &str| {
        let socket = format!("{other}/made/s.sock");
        run(&["serve", "--config", &config, "--root", root, "--state", state, "--socket", &socket], b"")
    };
    for (root, state, flag) in [(&root, &other, "--root"), (&other, &state, "--state")] {
        let refused = serve(root, state)?;
        let error = stderr(&refused);
        assert!(
            !refused.status.success() && error.contains(&format!("another berth holds the lock of {flag} ")),
            "{error}"
        );
    }
    let relative = stderr(&serve("here", &other)?);
    assert!(relative.contains("--root here: this must be an absolute path"), "{relative}");
    let missing = run(&["serve", "--config", "/no/such.toml"], b"")?;
    assert!(stderr(&missing).contains("cannot read the configuration /no/such.toml"), "{}", stderr(&missing));
    assert!(node.client().await.is_ok());
    Ok(())
}
