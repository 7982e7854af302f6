//! Where images come from besides one registry that is asked plainly: another runtime's files, proxies, slow links.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use berth_e2e::client::expect_refusal;
use berth_e2e::eventually;
use berth_e2e::faulty::{Fault, FaultyRegistry};
use berth_e2e::images::layer::{Entry, Node as File};
use berth_e2e::images::{Built, Image, Layer, catalog};
use berth_e2e::node::{Node, Options};
use berth_e2e::registry::{self, Registry};
use berth_e2e::runtime::{Runtime, berth};
use tonic::Code;

/// These are about files, keys and commands of Berth.
fn is_berth() -> Result<bool> {
    let is = Runtime::from_env()? == Runtime::Berth;
    if !is {
        println!("not run: other runtimes have other keys");
    }
    Ok(is)
}

/// One layer that does not pack.
fn noise(bytes: usize) -> Result<Built> {
    let mut state = 11_u64;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    });
    let content = noise.take(bytes).collect();
    let mut layer = Layer::default();
    layer.push(Entry { path: "data".into(), mode: 0o644, uid: 0, gid: 0, node: File::File(content) });
    Image::of(layer).cmd(&["/data"]).build()
}

const MIB: usize = 1 << 20;

/// Kills the daemon in the middle of a slow layer. Bytes sent then, and when the image was there.
async fn cut_short(spoil: impl FnOnce(&Path) -> Result<()>) -> Result<(usize, usize)> {
    let registry = FaultyRegistry::start(noise(16 * MIB)?, Fault::ThrottledLayer(4 * MIB))?;
    // One connection, whose bytes can be counted without those that others had on their way.
    let mut node = Node::start(&Options { registry: "connections = 1".into(), ..Options::default() }).await?;
    let (client, name) = (node.client().await?, registry.reference());
    let pull = tokio::spawn(async move { client.pull(&name).await });
    eventually(Duration::from_secs(60), async || {
        let sent = registry.sent();
        ensure!(sent >= 8 * MIB, "{sent} bytes after a minute");
        Ok(())
    })
    .await?;
    node.kill()?;
    ensure!(pull.await?.is_err(), "the pull was over");
    let before = registry.sent();
    let spool = node.root().join("spool");
    let kept: Vec<_> = spool.read_dir()?.flatten().map(|entry| entry.path()).collect();
    ensure!(kept.len() == 1, "{kept:?}");
    spoil(&kept[0])?;
    node.launch().await?;
    node.client().await?.pull(&registry.reference()).await?;
    ensure!(spool.read_dir()?.next().is_none(), "the spool outlives its layer");
    Ok((before, registry.sent()))
}

#[tokio::test]
async fn a_daemon_that_was_killed_does_not_ask_again_for_what_had_come() -> Result<()> {
    if !is_berth()? {
        return Ok(());
    }
    let (before, after) = cut_short(|_| Ok(())).await?;
    println!("{before} bytes before the end, {after} in all");
    assert!(after < 16 * MIB + 3 * MIB, "{before} {after}");
    Ok(())
}

#[tokio::test]
async fn what_a_power_cut_has_spoiled_is_fetched_anew() -> Result<()> {
    if !is_berth()? {
        return Ok(());
    }
    let spoil = |path: &Path| {
        let mut bytes = std::fs::read(path)?;
        let middle = bytes.len() / 2;
        bytes[middle..middle + 4096].fill(0);
        Ok(std::fs::write(path, bytes)?)
    };
    let (before, after) = cut_short(spoil).await?;
    assert!(after > before + 16 * MIB, "{before} {after}");
    Ok(())
}

fn explain(config: &Path, image: &str) -> Result<(bool, String)> {
    let output = Command::new(berth()?)
        .args(["image", "explain", image, "--config"])
        .arg(config)
        .env("HTTPS_PROXY", "http://someone:hush@proxy.test:3128")
        .env("NO_PROXY", "127.0.0.0/8")
        .output()?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8(text)?))
}

#[tokio::test]
async fn files_of_cri_o_say_where_images_are_and_who_asks() -> Result<()> {
    if !is_berth()? {
        return Ok(());
    }
    let private = Registry::start_with(registry::Options { login: true, tls: true })?;
    let plain = Registry::start()?;
    private.publish("mirror/app", "v1", &catalog::tiny("private"))?;
    plain.publish("open", "v1", &catalog::tiny("plain"))?;
    let dir = tempfile::tempdir()?;
    let (conf, auth) = (dir.path().join("registries.conf"), dir.path().join("auth.json"));
    // By this address a registry on this machine is one like all others.
    let open = plain.host().replace("127.0.0.1", "0.0.0.0");
    std::fs::write(
        &conf,
        format!(
            "[[registry]]\nprefix = \"example.test/team\"\nlocation = \"upstream.test/team\"\n\
             [[registry.mirror]]\nlocation = \"{}/mirror\"\n\
             [[registry]]\nlocation = \"{open}\"\ninsecure = true\n\
             [[registry]]\nlocation = \"blocked.test\"\nblocked = true\n\
             [aliases]\nfedora = \"registry.fedoraproject.org/fedora\"\n",
            private.host()
        ),
    )?;
    std::fs::write(
        &auth,
        format!("{{\"auths\":{{\"{}/mirror\":{{\"auth\":\"{}\"}}}}}}", private.host(), registry::AUTH),
    )?;
    let registry = format!("registries_conf_path = {conf:?}\nauth_file = {auth:?}");
    let node = Node::start(&Options { registry, ..Options::default() }).await?;
    let certificates = node.certs_dir().join(private.host());
    std::fs::create_dir_all(&certificates)?;
    std::fs::copy(private.certificate(), certificates.join("ca.crt"))?;
    let client = node.client().await?;
    client.pull("example.test/team/app:v1").await?;
    let status = client.image("example.test/team/app:v1").await?.context("no image")?;
    assert_eq!(status.repo_tags, ["example.test/team/app:v1"]);
    client.pull(&format!("{open}/open:v1")).await?;
    expect_refusal(client.pull("blocked.test/a:1").await, &[Code::PermissionDenied], &["registries.conf"]);
    let meant = "registry.fedoraproject.org/fedora";
    expect_refusal(client.pull("fedora:42").await, &[Code::FailedPrecondition], &[meant]);

    explains(&node, &private)
}

/// The same files, told to a person.
fn explains(node: &Node, private: &Registry) -> Result<()> {
    let (good, text) = explain(&node.config_file(), "example.test/team/app:v1")?;
    println!("{text}");
    let key = format!("auth.json, entry \"{}/mirror\"", private.host());
    let mirror = format!("1. https://{}/v2/mirror/app", private.host());
    for part in [
        &mirror,
        "2. https://upstream.test/v2/team/app",
        &key,
        "ca.crt",
        "proxy        http://proxy.test:3128/",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(
        good && !text.contains("hush")
            && !text.contains(registry::PASSWORD)
            && !text.contains(registry::AUTH)
    );
    std::fs::create_dir_all(node.certs_dir().join("broken.test"))?;
    std::fs::write(node.certs_dir().join("broken.test/hosts.toml"), "\n[host.\"ftp://x\"]\n")?;
    let (good, text) = explain(&node.config_file(), "broken.test/a")?;
    assert!(!good && text.contains("broken.test/hosts.toml line 2"), "{text}");
    Ok(())
}

/// A proxy for plain HTTP is a server that is asked by whole URLs; ours serves the image itself.
#[tokio::test]
async fn proxies_of_the_environment_are_asked_but_for_whom_no_proxy_names() -> Result<()> {
    if !is_berth()? {
        return Ok(());
    }
    let proxy = FaultyRegistry::start(catalog::tiny("proxied").build()?, Fault::None)?;
    let direct = FaultyRegistry::start(catalog::tiny("direct").build()?, Fault::None)?;
    let url = format!("http://{}", proxy.host());
    let environment =
        vec![("HTTP_PROXY", url.clone()), ("HTTPS_PROXY", url), ("NO_PROXY", "other.test,0.0.0.0/8".into())];
    let node =
        Node::start(&Options { environment, registry: "retries = 0".into(), ..Options::default() }).await?;
    let near = direct.host().replace("127.0.0.1", "0.0.0.0");
    for host in ["far.test", near.as_str()] {
        std::fs::create_dir_all(node.certs_dir().join(host))?;
        std::fs::write(
            node.certs_dir().join(host).join("hosts.toml"),
            format!("server = \"http://{host}\"\n"),
        )?;
    }
    let client = node.client().await?;
    client.pull("far.test/image:latest").await?;
    let asked = proxy.requests();
    assert!(asked.iter().all(|line| line.starts_with("GET http://far.test/v2/image/")), "{asked:?}");
    // TLS goes through a tunnel, which this proxy does not make.
    expect_refusal(client.pull("secure.test/image:latest").await, &[Code::Unknown], &["secure.test"]);
    let asked = proxy.requests();
    assert!(asked.iter().any(|line| line == "CONNECT secure.test:443"), "{asked:?}");

    client.pull(&format!("{near}/image:latest")).await?;
    assert!(
        direct.requests().iter().all(|line| line.starts_with("GET /v2/image/")),
        "{:?}",
        direct.requests()
    );
    assert_eq!(proxy.requests().len(), asked.len(), "a network in NO_PROXY is asked without the proxy");
    Ok(())
}
