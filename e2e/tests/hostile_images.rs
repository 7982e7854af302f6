//! Images made to harm the node, through the whole of the runtime: what leads out of the container's root, what is no user,
//! what a process can't have. The node stays as it is.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::client::{Reply, expect_refusal, image_spec};
use berth_e2e::images::layer::{Layer, Node};
use berth_e2e::images::{Image, catalog, sha256};
use berth_e2e::world::World;
use berth_e2e::{eventually, logs};
use tonic::Code;

/// A directory of the node that no image has anything to do with.
struct Canary {
    path: PathBuf,
    before: BTreeMap<PathBuf, (u32, u64, i64, i64)>,
}

impl Canary {
    fn new(world: &World) -> Result<Self> {
        let path = world.node.scratch().join("canary");
        std::fs::create_dir(&path)?;
        for name in ["passwd", "hosts", "hostname", "resolv.conf", "mtab", "file"] {
            std::fs::write(path.join(name), "untouched")?;
        }
        let before = census(&path)?;
        Ok(Self { path, before })
    }

    fn text(&self) -> String {
        self.path.to_string_lossy().into_owned()
    }

    #[track_caller]
    fn assert_silent(&self) {
        assert_eq!(census(&self.path).unwrap_or_default(), self.before);
    }
}

fn census(root: &Path) -> Result<BTreeMap<PathBuf, (u32, u64, i64, i64)>> {
    let mut all = BTreeMap::new();
    let mut ahead = vec![root.to_path_buf()];
    while let Some(path) = ahead.pop() {
        let meta = std::fs::symlink_metadata(&path)?;
        if meta.is_dir() {
            for entry in std::fs::read_dir(&path)? {
                ahead.push(entry?.path());
            }
        }
        all.insert(path, (meta.mode(), meta.size(), meta.ctime(), meta.ctime_nsec()));
    }
    Ok(all)
}

/// Publishes, pulls, and runs a script in the image: its output, or why there is none.
async fn try_image(world: &World, name: &str, image: &Image, script: &str) -> Result<Reply<String>> {
    let name = world.registry.publish("hostile", name, image)?;
    world.client.pull(&name).await?;
    let config = world.pod("hostile");
    let pod = world.client.run_pod(&config).await?;
    let mut spec = world.sleeper("main");
    spec.image = Some(image_spec(&name));
    let tried = match world.launch(&pod, &spec, &config).await {
        Ok(id) => world.client.shell(&id, script).await,
        Err(status) => Err(status),
    };
    world.client.end_pod(&pod).await?;
    Ok(tried)
}

#[tokio::test]
async fn links_volumes_and_working_directories_lead_nowhere() -> Result<()> {
    let Some(world) = World::start_to_attack().await? else { return Ok(()) };
    let canary = Canary::new(&world)?;
    let up = format!("{}{}", "../".repeat(20), canary.text());
    let etc = |target: &str| Layer::default().whiteout("etc").symlink("etc", target);
    let files = ["passwd", "group", "hosts", "hostname", "resolv.conf", "mtab"].into_iter();
    let each = files.fold(Layer::default(), |layer, name| {
        layer.symlink(&format!("etc/{name}"), &format!("{}/{name}", canary.text()))
    });
    let out = Layer::default().symlink("out", &canary.text()).symlink("way", &up);
    let in_directory = |directory: &str| -> Result<Image> {
        let mut image = catalog::busybox()?.layer(out.clone());
        image.run.working_dir = directory.into();
        Ok(image)
    };
    let mut volumes = catalog::busybox()?.layer(out.clone());
    for path in ["/../../../etc", "/out", "/out/new", "/way", &up, "relative", "", "/proc", "/proc/self/attr"]
    {
        volumes.run.volumes.insert(path.into(), BTreeMap::new());
    }
    let mut tried = 0;
    for (name, image) in [
        ("etc", catalog::busybox()?.layer(etc(&canary.text()))),
        ("etc-up", catalog::busybox()?.layer(etc(&up))),
        ("each", catalog::busybox()?.layer(each)),
        ("workdir", in_directory("/out/new")?),
        ("workdir-up", in_directory(&format!("/way/../{up}/new"))?),
        ("workdir-link", in_directory("/out")?),
        ("workdir-fd", in_directory("/proc/self/fd/7")?),
        ("workdir-cwd", in_directory("/proc/self/cwd")?),
        ("volumes", volumes),
    ] {
        // Either it runs inside of its own root, or it does not run.
        let seen =
            try_image(&world, name, &image, "pwd; cat /out/file /etc/passwd 2>/dev/null; true").await?;
        println!("{name}: {seen:?}");
        if let Ok(text) = &seen {
            assert!(!text.contains("untouched"), "{name} sees the node: {text}");
            tried += 1;
        }
        canary.assert_silent();
    }
    assert!(tried > 3, "only {tried} of these images ran at all");
    Ok(())
}

#[tokio::test]
async fn nothing_of_an_image_is_executed_for_the_node() -> Result<()> {
    let Some(world) = World::start_to_attack().await? else { return Ok(()) };
    let canary = Canary::new(&world)?;
    let script = format!("#!/bin/sh\necho x > {0}/marker; touch /marker\n", canary.text());
    let programs =
        ["unpigz", "pigz", "gzip", "xz", "zstd", "tar", "getent", "newuidmap", "mount", "iptables"];
    for packing in [berth_e2e::images::Compression::Gzip, berth_e2e::images::Compression::Zstd] {
        let mut layer = Layer::default()
            .file("etc/nsswitch.conf", 0o644, "passwd: evil files\ngroup: evil files\n")
            .file("etc/ld.so.preload", 0o644, "")
            .file("lib/x86_64-linux-gnu/libnss_evil.so.2", 0o755, script.clone());
        for program in programs {
            layer = layer.file(&format!("usr/local/sbin/{program}"), 0o755, script.clone());
        }
        let mut image = catalog::busybox()?.layer(layer.packed(packing)).user("www-data");
        image.run.env = vec!["PATH=/usr/local/sbin:/bin".into(), "LD_PRELOAD=/marker".into()];
        let seen = try_image(&world, &format!("{packing:?}").to_lowercase(), &image, "id -u; ls /").await??;
        assert!(seen.starts_with("33\n") && !seen.contains("marker"), "{seen}");
        canary.assert_silent();
    }
    Ok(())
}

#[tokio::test]
async fn what_is_no_user_never_becomes_root() -> Result<()> {
    let Some(world) = World::start_to_attack().await? else { return Ok(()) };
    let odd = ["4294967296", "4294967295", "1000000000000", "-1", "+0", "00", " 0", "007", "0 ", "a\nb"];
    let passwd = odd.iter().fold(String::new(), |text, name| text + name + ":x:0:0::/:\n");
    let layer = Layer::default().file("etc/passwd", 0o644, passwd);
    for (number, user) in odd.into_iter().enumerate() {
        let image = catalog::busybox()?.layer(layer.clone()).user(user);
        let tried = try_image(&world, &format!("user{number}"), &image, "id -u").await?;
        match tried {
            Ok(uid) => assert_ne!(uid.trim(), "0", "{user:?}"),
            Err(status) => {
                expect_refusal::<()>(Err(status), &[Code::InvalidArgument, Code::NotFound], &["user"])
            }
        }
    }
    let high = catalog::busybox()?.layer(layer).user("2147483648:0");
    assert_eq!(try_image(&world, "high", &high, "id -u").await??.trim(), "2147483648");
    Ok(())
}

#[tokio::test]
async fn account_files_that_are_none_are_refused_at_once() -> Result<()> {
    let Some(world) = World::start_to_attack().await? else { return Ok(()) };
    let pid = world.node.pid().context("a daemon")?;
    let memory = berth_e2e::process::memory(pid)?;
    let removed = || Layer::default().whiteout("etc/passwd");
    let members = (0..1_000_000).fold(String::from("big:x:9:"), |text, number| text + &format!("m{number},"));
    for (name, layer, refused) in [
        ("pipe", removed().add("etc/passwd", 0o644, Node::Fifo), true),
        ("endless", removed().symlink("etc/passwd", "/dev/zero"), true),
        ("device", removed().add("etc/passwd", 0o644, Node::Char(1, 5)), true),
        ("large", Layer::default().file("etc/passwd", 0o644, vec![b'x'; (10 << 20) + 1]), true),
        ("link", removed().symlink("etc/passwd", "/proc/self/environ"), true),
        ("members", Layer::default().file("etc/group", 0o644, members), false),
    ] {
        let image = catalog::busybox()?.layer(layer).user("www-data");
        let start = Instant::now();
        let tried = try_image(&world, name, &image, "id -u").await?;
        println!("{name}: {tried:?}");
        assert_eq!(tried.is_err(), refused, "{name}");
        assert!(start.elapsed() < berth_e2e::bound(Duration::from_secs(15)), "{name}");
    }
    let grown = berth_e2e::process::memory(pid)?.saturating_sub(memory);
    println!("the daemon's memory grew by {} KiB", grown >> 10);
    assert_eq!(world.node.pid(), Some(pid));
    Ok(())
}

#[tokio::test]
async fn whatever_an_image_says_of_its_process_the_daemon_lives_on() -> Result<()> {
    let Some(world) = World::start_to_attack().await? else { return Ok(()) };
    let pid = world.node.pid();
    let base = catalog::busybox()?;
    let with = |change: &dyn Fn(&mut Image)| {
        let mut image = base.clone();
        change(&mut image);
        image
    };
    let path = || "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_string();
    let env = |more: Vec<String>| with(&move |image| image.run.env = [vec![path()], more.clone()].concat());
    let ok: &[&str] = &["env-no-value", "env-twice", "label", "env-home"];
    for (name, image) in [
        ("env-no-value", env(vec!["A".into(), "=b".into(), "".into()])),
        ("env-twice", env(vec!["A=1".into(), "A=2".into(), "A=3".into()])),
        ("env-zero", env(vec!["A=b\0c".into()])),
        ("env-long", env(vec![format!("A={}", "x".repeat(1 << 20))])),
        ("env-many", env((0..400_000).map(|number| format!("A{number}=x")).collect())),
        ("env-home", env(vec!["HOME=/a\nroot:x:0:0::/:".into()])),
        (
            "label",
            with(&|image| drop(image.run.labels.insert("binary".into(), "binary:///bin/x\n\0".into()))),
        ),
        ("workdir-zero", with(&|image| image.run.working_dir = "/a\0b".into())),
        ("workdir-long", with(&|image| image.run.working_dir = "/a".repeat(100_000))),
        ("user-long", with(&|image| image.run.user = "u".repeat(1 << 20))),
    ] {
        let start = Instant::now();
        let tried = try_image(&world, name, &image, "echo $A; env | grep -c ^A= || true").await?;
        let told = tried.as_ref().map_err(|status| (status.code(), status.message().len()));
        println!("{name} in {:?}: {told:?}", start.elapsed());
        match &tried {
            Ok(_) => assert!(ok.contains(&name), "{name}"),
            Err(status) => {
                let known = [
                    Code::InvalidArgument,
                    Code::FailedPrecondition,
                    Code::ResourceExhausted,
                    Code::NotFound,
                ];
                assert!(!ok.contains(&name) && known.contains(&status.code()), "{name}: {status}");
                assert!(status.message().len() < 8192, "{name}");
            }
        }
        assert!(start.elapsed() < berth_e2e::bound(Duration::from_secs(20)), "{name}");
    }
    assert_eq!(world.node.pid(), pid);
    Ok(())
}

#[tokio::test]
async fn a_stop_signal_that_is_none_is_sigterm() -> Result<()> {
    let Some(world) = World::start_to_attack().await? else { return Ok(()) };
    for signal in ["-1", "0", "65", "SIGRTMAX+99", "$(x)", "SIGKILL\n", ""] {
        let mut image = catalog::busybox()?;
        image.run.stop_signal = signal.into();
        let name = world.registry.publish(
            "hostile",
            &format!("signal{}", sha256(signal.as_bytes())[7..20].to_owned()),
            &image,
        )?;
        world.client.pull(&name).await?;
        let script = "trap 'exit 0' TERM; echo up; while :; do sleep 1000 & wait $!; done";
        let mut spec = world.container("main", script);
        spec.image = Some(image_spec(&name));
        let (pod, id) = world.run(&world.pod("signal"), &spec).await?;
        // Before the trap, the first process of a container does not hear of signals.
        let log = world.client.status(&id).await?.log_path;
        eventually(Duration::from_secs(10), async || {
            ensure!(logs::text(&log)? == "up\n", "the shell does not start");
            Ok(())
        })
        .await?;
        // The shell ends with 0 when it is told to by SIGTERM.
        world.client.stop(&id, 20).await?;
        assert_eq!(world.client.status(&id).await?.exit_code, 0, "{signal:?}");
        world.client.end_pod(&pod).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_container_of_the_same_base_does_not_disturb_a_pull() -> Result<()> {
    let Some(world) = World::start_to_attack().await? else { return Ok(()) };
    let canary = Canary::new(&world)?;
    let racer = format!(
        "mkdir -p /opt/d; while :; do mv /opt /was; ln -s {0} /opt; rm /opt; mv /was /opt; \
         for f in /etc/x /usr/x; do ln -sf {0}/file $f; echo x > $f; done 2>/dev/null; done",
        canary.text()
    );
    let (pod, _) = world.run(&world.pod("racer"), &world.container("racer", &racer)).await?;
    for number in 0..8 {
        let layer = Layer::default()
            .file("opt/d/file", 0o644, format!("{number}"))
            .file("etc/x", 0o644, "image")
            .hardlink("usr/x", "etc/x");
        let image = catalog::busybox()?.layer(layer);
        let seen =
            try_image(&world, &format!("raced{number}"), &image, "cat /opt/d/file /etc/x /usr/x").await??;
        assert_eq!(seen, format!("{number}imageimage"));
        canary.assert_silent();
    }
    world.client.end_pod(&pod).await?;
    Ok(())
}
