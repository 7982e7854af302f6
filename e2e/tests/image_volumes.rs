//! Volumes that show images: what is in them, that nobody writes them, and that their images stay.

use anyhow::Result;
use berth_e2e::client::{expect_refusal, image_spec};
use berth_e2e::crictl::Crictl;
use berth_e2e::images::layer::{Entry, Layer, Node};
use berth_e2e::images::{Image, catalog};
use berth_e2e::runtime::Runtime;
use berth_e2e::world::World;
use berth_proto::cri::v1::*;
use tonic::Code;

const PREFIX: &str = "ImageVolumeMountFailed";

/// As the kubelet asks for it: by the id that the pull gave.
fn volume(image: &str, container_path: &str) -> Mount {
    Mount {
        container_path: container_path.into(),
        readonly: true,
        image: Some(image_spec(image)),
        ..Default::default()
    }
}

fn part(image: &str, container_path: &str, sub_path: &str) -> Mount {
    Mount { image_sub_path: sub_path.into(), ..volume(image, container_path) }
}

/// Two layers, the upper one with a whiteout, and links that point out.
fn data() -> Image {
    let below = Layer::default()
        .dir("dir")
        .file("dir/below", 0o644, "below\n")
        .file("dir/gone", 0o644, "gone\n")
        .dir("etc")
        .file("etc/passwd", 0o644, "the image's own\n")
        .symlink("out", "../../../../etc")
        .symlink("absolute", "/etc")
        .symlink("magic", "/proc/self/root");
    let above = Layer::default().whiteout("dir/gone").file("dir/above", 0o600, "above\n").file(
        "tool",
        0o755,
        "#!/bin/sh\necho executed\n",
    );
    Image::of(below).layer(above)
}

async fn pulled(world: &World, name: &str, image: &Image) -> Result<String> {
    let name = world.registry.publish(name, "latest", image)?;
    Ok(world.client.pull(&name).await?)
}

fn mount_table(world: &World) -> Result<Vec<String>> {
    let table = std::fs::read_to_string("/proc/1/mountinfo")?;
    let scratch = world.node.scratch().to_string_lossy().into_owned();
    Ok(table.lines().filter(|line| line.contains(&scratch)).map(str::to_owned).collect())
}

#[tokio::test]
async fn an_image_is_shown_read_only_and_runs() -> Result<()> {
    let world = World::start().await?;
    let two = pulled(&world, "two", &data()).await?;
    let one = pulled(&world, "one", &Image::of(Layer::default().file("single", 0o644, "single\n"))).await?;
    let config = world.pod("shown");
    let pod = world.client.run_pod(&config).await?;
    let before = mount_table(&world)?;
    let mut spec = world.sleeper("main");
    spec.mounts = vec![volume(&two, "/two"), volume(&one, "/deep/one")];
    let id = world.launch(&pod, &spec, &config).await?;

    let seen =
        world.client.shell(&id, "cat /two/dir/*; ls /two/dir; cat /deep/one/single; /two/tool").await?;
    assert_eq!(seen, "above\nbelow\nabove\nbelow\nsingle\nexecuted\n");
    for path in ["/two/new", "/two/dir/below", "/deep/one/single"] {
        let refused = world.client.exec(&id, &["sh", "-c", &format!("echo x > {path}")], 10).await?;
        assert_ne!(refused.exit_code, 0, "{path}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains("Read-only file system"), "{refused:?}");
    }
    if world.node.runtime() == Runtime::Berth {
        let options = world.client.shell(&id, "grep -E ' /(two|deep/one) ' /proc/mounts").await?;
        let whole = |line: &str| line.contains(" ro,nosuid,nodev,") && !line.contains("noexec");
        assert!(options.lines().count() == 2 && options.lines().all(whole), "{options}");
        assert_eq!(mount_table(&world)?, before, "the host's mount table shows it");
    }
    Ok(())
}

#[tokio::test]
async fn even_a_privileged_container_cannot_write_into_an_image() -> Result<()> {
    let world = World::start().await?;
    let one = pulled(&world, "one", &Image::of(Layer::default().file("single", 0o644, "single\n"))).await?;
    let config = {
        let mut config = world.pod("privileged");
        let linux = config.linux.get_or_insert_default();
        linux.security_context.get_or_insert_default().privileged = true;
        config
    };
    let mut spec = world.sleeper("main");
    spec.linux.get_or_insert_default().security_context.get_or_insert_default().privileged = true;
    spec.mounts = vec![volume(&one, "/one")];
    let (pod, id) = world.run(&config, &spec).await?;
    let script = "mount -o remount,rw,bind /one; mount -o remount,rw /one; echo changed > /one/single; cat /one/single";
    assert_eq!(world.client.shell(&id, script).await?, "single\n");
    let mut other = world.sleeper("other");
    other.mounts = spec.mounts.clone();
    let other = world.launch(&pod, &other, &config).await?;
    assert_eq!(world.client.shell(&other, "cat /one/single").await?, "single\n");
    Ok(())
}

#[tokio::test]
async fn the_status_tells_which_image_a_volume_shows() -> Result<()> {
    let world = World::start().await?;
    let built = data().build()?;
    world.registry.storage().publish("data", "latest", &built)?;
    let name = world.registry.reference("data:latest");
    let image = world.client.pull(&name).await?;
    let host = tempfile::tempdir()?;
    let mut asked = part(&image, "/volume", "dir");
    asked.image.get_or_insert_default().user_specified_image = name.clone();
    let mut spec = world.sleeper("main");
    spec.mounts = vec![
        Mount {
            host_path: host.path().to_string_lossy().into_owned(),
            container_path: "/host".into(),
            ..Default::default()
        },
        asked.clone(),
    ];
    let (_, id) = world.run(&world.pod("status"), &spec).await?;
    let mounts = world.client.status(&id).await?.mounts;
    assert_eq!(mounts.len(), 2, "{mounts:?}");
    assert_eq!((&mounts[0].image, mounts[0].container_path.as_str()), (&None, "/host"));
    let shown = &mounts[1];
    let by_digest = world.registry.reference(&format!("data@{}", built.digest()));
    assert_eq!(
        (shown.container_path.as_str(), shown.image_sub_path.as_str(), shown.readonly),
        ("/volume", "dir", true)
    );
    let spec = shown.image.clone().unwrap_or_default();
    assert_eq!((spec.image, spec.user_specified_image, spec.image_ref), (image, name, by_digest.clone()));
    if world.node.runtime() == Runtime::Berth {
        let inspected = Crictl::new(&world.node)?.run(&["inspect", &id])?;
        assert!(inspected.contains(&by_digest), "{inspected}");
    }
    Ok(())
}

#[tokio::test]
async fn a_sub_path_is_a_directory_inside_of_the_image() -> Result<()> {
    let world = World::start().await?;
    if world.node.runtime() == Runtime::Containerd {
        println!("not run: containerd refuses links that point out, we follow them inside");
        return Ok(());
    }
    let image = pulled(&world, "data", &data()).await?;
    let mut spec = world.sleeper("main");
    spec.mounts =
        vec![part(&image, "/a", "dir"), part(&image, "/b", "out"), part(&image, "/c", "/absolute/")];
    let (pod, id) = world.run(&world.pod("parts"), &spec).await?;
    let seen = world.client.shell(&id, "ls /a; cat /b/passwd /c/passwd").await?;
    assert_eq!(seen, "above\nbelow\nthe image's own\nthe image's own\n");
    let refused = world.client.exec(&id, &["touch", "/a/new"], 10).await?;
    assert_ne!(refused.exit_code, 0);

    let config = world.pod("parts");
    for (sub_path, words) in [
        ("none", &["none", "No such file"][..]),
        ("dir/none/x", &["No such file"]),
        ("tool", &["tool", "Not a directory"]),
        ("dir/below/x", &["Not a directory"]),
        ("magic", &["magic"]),
        ("../dir", &[".."]),
        ("dir/../../etc", &[".."]),
    ] {
        let mut spec = world.sleeper("bad");
        spec.mounts = vec![part(&image, "/bad", sub_path)];
        let refused = world.client.create(&pod, &spec, &config).await;
        let message = refused.as_ref().err().map(|status| status.message().to_owned()).unwrap_or_default();
        assert!(message.starts_with(PREFIX), "{sub_path}: {message}");
        expect_refusal(refused, &[Code::InvalidArgument], words);
    }
    assert_eq!(world.client.containers(None).await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn what_makes_no_sense_of_an_image_volume_is_refused_by_name() -> Result<()> {
    let world = World::start().await?;
    let image = pulled(&world, "data", &data()).await?;
    let config = world.pod("bad");
    let pod = world.client.run_pod(&config).await?;
    let before = world.census()?;
    let good = volume(&image, "/volume");
    for (bad, codes, words) in [
        (volume("none.example/none:1", "/volume"), &[Code::NotFound][..], "none.example/none:1"),
        (volume(&format!("sha256:{}", "0".repeat(64)), "/volume"), &[Code::NotFound], "pull it first"),
        (volume("", "/volume"), &[Code::InvalidArgument], "image"),
        (Mount { readonly: false, ..good.clone() }, &[Code::InvalidArgument], "readonly"),
        (Mount { host_path: "/tmp".into(), ..good.clone() }, &[Code::InvalidArgument], "host_path"),
    ] {
        let mut spec = world.sleeper("main");
        spec.mounts = vec![bad.clone()];
        let refused = world.client.create(&pod, &spec, &config).await;
        let status = refused.as_ref().err().cloned().unwrap_or(tonic::Status::ok(""));
        assert!(status.message().starts_with(PREFIX), "{bad:?}: {status:?}");
        if world.node.runtime() == Runtime::Berth {
            expect_refusal(refused, codes, &[words]);
        }
    }
    for bad in [
        Mount { recursive_read_only: true, readonly: false, ..good.clone() },
        Mount {
            recursive_read_only: true,
            propagation: MountPropagation::PropagationHostToContainer as i32,
            ..good.clone()
        },
        Mount { container_path: "relative".into(), ..good.clone() },
        Mount { container_path: "/a/../b".into(), ..good.clone() },
        Mount { container_path: "/proc/sys".into(), ..good.clone() },
    ] {
        let mut spec = world.sleeper("main");
        spec.mounts = vec![bad.clone()];
        assert!(world.client.create(&pod, &spec, &config).await.is_err(), "{bad:?}");
    }
    world.expect_nothing_left(&before).await?;
    // The same call with a good volume works; so does a recursive read-only one.
    let mut spec = world.sleeper("main");
    spec.mounts = vec![Mount { recursive_read_only: true, ..good }];
    world.launch(&pod, &spec, &config).await?;
    Ok(())
}

#[tokio::test]
async fn an_image_stays_while_a_volume_shows_it_also_over_a_restart() -> Result<()> {
    let mut world = World::start().await?;
    if world.node.runtime() == Runtime::Containerd {
        println!("not run: it looks into the layer cache");
        return Ok(());
    }
    let heavy = Layer::default().dir("d").file("d/data", 0o644, vec![7; 4 << 20]);
    let image = pulled(&world, "heavy", &Image::of(heavy)).await?;
    let config = world.pod("stays");
    let pod = world.client.run_pod(&config).await?;
    let mut spec = world.sleeper("running");
    spec.mounts = vec![volume(&image, "/volume")];
    let running = world.launch(&pod, &spec, &config).await?;
    let mut spec = world.sleeper("created");
    spec.mounts = vec![part(&image, "/volume", "d")];
    let created = world.client.create(&pod, &spec, &config).await?;
    let layers = |world: &World| std::fs::read_dir(world.node.root().join("layers")).map(Iterator::count);
    let with = layers(&world)?;

    world.client.remove_image(&image).await?;
    assert_eq!(world.client.image(&image).await?, None);
    assert_eq!(layers(&world)?, with, "layers of a volume were removed");
    world.node.kill()?;
    world.node.launch().await?;
    world.client = world.node.client().await?;
    assert_eq!(layers(&world)?, with, "the new daemon does not know of the volumes");

    assert_eq!(world.client.shell(&running, "wc -c < /volume/d/data").await?.trim(), (4 << 20).to_string());
    // Its mounts went with the old daemon.
    world.client.start(&created).await?;
    assert_eq!(world.client.shell(&created, "wc -c < /volume/data").await?.trim(), (4 << 20).to_string());
    let status = world.client.status(&created).await?;
    assert!(status.mounts[0].image.clone().unwrap_or_default().image_ref.contains("heavy@sha256:"));

    world.client.end_pod(&pod).await?;
    for _ in 0..100 {
        if layers(&world)? == with - 1 {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the layer is still there: {} of {with}", layers(&world)?);
}

#[tokio::test]
async fn volumes_of_images_and_of_the_host_are_mounted_in_the_requests_order() -> Result<()> {
    let world = World::start().await?;
    if world.node.runtime() == Runtime::Containerd {
        println!("not run: containerd mounts one image once for a pod");
        return Ok(());
    }
    let dirs = Layer::default().dir("inner").file("name", 0o644, "image\n").dir("a").dir("b");
    let image = pulled(&world, "dirs", &Image::of(dirs)).await?;
    let host = tempfile::tempdir()?;
    std::fs::write(host.path().join("name"), "host\n")?;
    let host_mount = |path: &str| Mount {
        host_path: host.path().to_string_lossy().into_owned(),
        container_path: path.into(),
        ..Default::default()
    };
    let mut spec = world.sleeper("main");
    spec.mounts = vec![
        host_mount("/v/inner"),
        volume(&image, "/v"),
        volume(&image, "/twice"),
        host_mount("/twice"),
        host_mount("/again"),
        volume(&image, "/again"),
        part(&image, "/empty", "a"),
    ];
    // As many as a pod may want.
    spec.mounts.extend((0..20).map(|number| volume(&image, &format!("/many/{number}"))));
    let (_, id) = world.run(&world.pod("order"), &spec).await?;
    let script =
        "cat /v/name /v/inner/name /twice/name /again/name; ls /empty; cat /many/*/name | sort | uniq -c";
    let seen = world.client.shell(&id, script).await?;
    assert_eq!(
        seen.split_whitespace().collect::<Vec<_>>(),
        ["image", "host", "host", "image", "20", "image"]
    );
    Ok(())
}

#[tokio::test]
async fn no_setuid_program_of_an_image_volume_gives_rights() -> Result<()> {
    let world = World::start().await?;
    if world.node.runtime() == Runtime::Containerd {
        println!("not run: containerd mounts image volumes without nosuid");
        return Ok(());
    }
    let probe = pulled(&world, "probe", &catalog::setuid_probe()?).await?;
    let mut devices = Layer::default();
    devices.push(Entry { path: "null".into(), mode: 0o666, uid: 0, gid: 0, node: Node::Char(1, 3) });
    let devices = pulled(&world, "devices", &Image::of(devices)).await?;
    let mut spec = world.sleeper("main");
    spec.mounts = vec![volume(&probe, "/probe"), volume(&devices, "/devices")];
    let context = spec.linux.get_or_insert_default().security_context.get_or_insert_default();
    context.run_as_user = Some(Int64Value { value: 1000 });
    let (_, id) = world.run(&world.pod("setuid"), &spec).await?;
    assert_eq!(world.client.shell(&id, "/probe/probe").await?.trim(), "Effective uid: 1000");
    let refused = world.client.exec(&id, &["sh", "-c", "cat /devices/null"], 10).await?;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("ermission denied"), "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn an_image_volume_belongs_to_the_users_of_the_pods_user_namespace() -> Result<()> {
    let world = World::start().await?;
    if world.node.runtime() == Runtime::Containerd {
        println!("not run: it is about our own way to map owners");
        return Ok(());
    }
    let mut layer = Layer::default();
    for (path, uid) in [("root", 0), ("user", 1000)] {
        let node = Node::File(path.into());
        layer.push(Entry { path: path.into(), mode: 0o600, uid, gid: uid, node });
    }
    let image = pulled(&world, "owned", &Image::of(layer.dir("d"))).await?;
    let ids = vec![IdMapping { container_id: 0, host_id: 300_000, length: 65_536 }];
    let user = UserNamespace { mode: NamespaceMode::Pod as i32, uids: ids.clone(), gids: ids.clone() };
    let mut config = world.pod("users");
    let linux = config.linux.get_or_insert_default();
    let options = &mut linux.security_context.get_or_insert_default().namespace_options;
    options.get_or_insert_default().userns_options = Some(user.clone());
    let mut spec = world.sleeper("main");
    let context = spec.linux.get_or_insert_default().security_context.get_or_insert_default();
    context.namespace_options.get_or_insert_default().userns_options = Some(user);
    // As the kubelet sends it.
    let mapped = Mount { uid_mappings: ids.clone(), gid_mappings: ids, ..volume(&image, "/volume") };
    spec.mounts = vec![mapped, part(&image, "/part", "d")];
    let (_, id) = world.run(&config, &spec).await?;
    let script = "cat /proc/self/uid_map | tr -s ' '; stat -c '%u %g' /volume/root /volume/user /part; cat /volume/root";
    let seen = world.client.shell(&id, script).await?;
    assert_eq!(seen, " 0 300000 65536\n0 0\n1000 1000\n0 0\nroot");
    Ok(())
}
