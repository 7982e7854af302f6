//! What a container may do: users, groups, capabilities, seccomp, read-only and hidden paths, volumes, devices.

use std::collections::BTreeMap;

use anyhow::Result;
use berth_e2e::cache;
use berth_e2e::client::image_spec;
use berth_e2e::images::catalog;
use berth_e2e::images::layer::{Entry, Layer, Node};
use berth_e2e::runtime::Runtime;
use berth_e2e::world::{World, security};
use berth_proto::cri::v1::*;

#[tokio::test]
async fn users_come_from_numbers_and_names() -> Result<()> {
    let world = World::start().await?;
    let script = "echo $(id -u):$(id -g):$(id -G)";
    let number = |value| Some(Int64Value { value });
    let (_, root) = world.printed(script, |_| ()).await?;
    assert_eq!(root, "0:0:0");
    let (_, numbers) = world
        .printed(script, |spec| {
            security(spec).run_as_user = number(1234);
            security(spec).run_as_group = number(2345);
            security(spec).supplemental_groups = vec![30, 40];
        })
        .await?;
    assert_eq!(numbers, "1234:2345:2345 30 40");
    let (_, name) =
        world.printed(script, |spec| security(spec).run_as_username = "default-user".into()).await?;
    assert_eq!(name, "1000:1000:1000 50000");
    let (_, strict) = world
        .printed(script, |spec| {
            security(spec).run_as_user = number(1000);
            security(spec).supplemental_groups = vec![7];
            security(spec).supplemental_groups_policy = SupplementalGroupsPolicy::Strict as i32;
        })
        .await?;
    assert_eq!(strict, "1000:1000:1000 7");
    Ok(())
}

#[tokio::test]
async fn the_images_user_counts_when_the_request_names_none() -> Result<()> {
    let world = World::start().await?;
    for (user, expected) in [("33", "33:33"), ("www-data", "33:33"), ("1000:50000", "1000:50000")] {
        let image = catalog::busybox()?.user(user);
        let name = world.registry.publish("user", &user.replace(':', "-"), &image)?;
        world.client.pull(&name).await?;
        let (_, seen) =
            world.printed("echo $(id -u):$(id -g)", |spec| spec.image = Some(image_spec(&name))).await?;
        assert_eq!(seen, expected, "{user}");
    }
    Ok(())
}

#[tokio::test]
async fn capabilities_are_added_and_dropped() -> Result<()> {
    let world = World::start().await?;
    let script = "grep -E '^Cap(Bnd|Eff):' /proc/self/status | tr -d '\\n'";
    let change = |add: &[&str], drop: &[&str]| {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let capabilities =
            Capability { add_capabilities: words(add), drop_capabilities: words(drop), ..Default::default() };
        move |spec: &mut ContainerConfig| security(spec).capabilities = Some(capabilities)
    };
    let (_, none) = world.printed(script, change(&[], &["ALL"])).await?;
    assert_eq!(none, "CapEff:\t0000000000000000CapBnd:\t0000000000000000");
    let (_, one) = world.printed(script, change(&["NET_ADMIN"], &["ALL"])).await?;
    assert_eq!(one, "CapEff:\t0000000000001000CapBnd:\t0000000000001000");
    let (code, _) = world.printed("chown 1:1 /tmp", change(&[], &["CHOWN"])).await?;
    assert_ne!(code, 0);
    let (_, user) = world
        .printed(script, |spec| {
            security(spec).run_as_user = Some(Int64Value { value: 1000 });
        })
        .await?;
    assert!(user.starts_with("CapEff:\t0000000000000000"), "an ordinary user has none in effect: {user}");
    Ok(())
}

#[tokio::test]
async fn no_new_privs_takes_the_setuid_bit_away() -> Result<()> {
    let world = World::start().await?;
    let name = world.registry.publish("probe", "latest", &catalog::setuid_probe()?)?;
    world.client.pull(&name).await?;
    for (no_new_privs, expected) in [(true, "Effective uid: 1000"), (false, "Effective uid: 0")] {
        let (_, seen) = world
            .printed("", |spec| {
                spec.image = Some(image_spec(&name));
                spec.command = Vec::new();
                security(spec).run_as_user = Some(Int64Value { value: 1000 });
                security(spec).no_new_privs = no_new_privs;
            })
            .await?;
        assert_eq!(seen, expected);
    }
    Ok(())
}

#[tokio::test]
async fn a_read_only_root_takes_no_file_but_dev_and_volumes_do() -> Result<()> {
    let world = World::start().await?;
    let volume = tempfile::tempdir()?;
    let script = "touch /file 2>&1; touch /dev/shm/file && touch /volume/file && echo fine";
    let (_, seen) = world
        .printed(script, |spec| {
            security(spec).readonly_rootfs = true;
            spec.mounts = vec![Mount {
                host_path: volume.path().to_string_lossy().into_owned(),
                container_path: "/volume".into(),
                ..Default::default()
            }];
        })
        .await?;
    assert_eq!(seen, "touch: /file: Read-only file system\nfine");
    assert!(volume.path().join("file").exists());
    Ok(())
}

#[tokio::test]
async fn a_volume_of_an_image_begins_with_its_content_and_is_the_containers_own() -> Result<()> {
    if Runtime::from_env()? == Runtime::Containerd {
        println!("not run: containerd makes volumes also inside of those that the request mounts");
        return Ok(());
    }
    let world = World::start().await?;
    let mut data = Layer::default();
    data.push(Entry { path: "data".into(), mode: 0o750, uid: 33, gid: 34, node: Node::Dir });
    let data = data.file("data/first", 0o640, "the image's\n").symlink("data/out", "/etc/passwd");
    let mut image = catalog::busybox()?.layer(data.file("notes", 0o644, "a file"));
    for path in ["/data", "/../new/deep", "/claim/below", "/proc/x", "/"] {
        image.run.volumes.insert(path.into(), BTreeMap::new());
    }
    let name = world.registry.publish("declares", "latest", &image)?;
    world.client.pull(&name).await?;
    let claim = tempfile::tempdir()?;
    let mut spec = world.sleeper("main");
    spec.image = Some(image_spec(&name));
    security(&mut spec).readonly_rootfs = true;
    spec.mounts = vec![Mount {
        host_path: claim.path().to_string_lossy().into_owned(),
        container_path: "/claim".into(),
        ..Default::default()
    }];
    let (pod, first) = world.run(&world.pod("first"), &spec).await?;
    let script = "stat -c '%a %u:%g' /data /data/first /new/deep; cat /data/first; readlink /data/out; \
                  echo more >> /data/first; touch /new/deep/x /x 2>&1; ls /claim | wc -l";
    let seen = world.client.shell(&first, script).await?;
    let expected =
        "750 33:34\n640 0:0\n755 0:0\nthe image's\n/etc/passwd\ntouch: /x: Read-only file system\n0";
    assert_eq!(seen.trim(), expected);
    let mounts =
        world.client.shell(&first, "grep -E ' (/data|/new/deep|/claim/below) ' /proc/mounts").await?;
    assert!(mounts.lines().count() == 2 && !mounts.contains("overlay"), "{mounts}");
    let (other, second) = world.run(&world.pod("second"), &spec).await?;
    assert_eq!(world.client.shell(&second, "cat /data/first; ls /new/deep").await?, "the image's\n");
    for pod in [pod, other] {
        world.client.end_pod(&pod).await?;
    }
    for directory in ["snapshots", "trash"] {
        cache::expect_empty(&world.node.root().join(directory))?;
    }

    image.run.volumes.insert("/notes".into(), BTreeMap::new());
    let name = world.registry.publish("mistaken", "latest", &image)?;
    world.client.pull(&name).await?;
    spec.image = Some(image_spec(&name));
    let config = world.pod("mistaken");
    let pod = world.client.run_pod(&config).await?;
    let error = world.launch(&pod, &spec, &config).await.expect_err("a volume that is a file");
    let words = format!("cannot make the volume /notes that image {name:?} declares");
    assert!(error.message().contains(&words) && error.message().contains("Not a directory"), "{error}");
    Ok(())
}

#[tokio::test]
async fn masked_paths_are_empty_and_read_only_paths_refuse() -> Result<()> {
    let world = World::start().await?;
    let script = "cat /proc/keys | wc -c; ls /etc/empty | wc -l; touch /proc/sys/x /tmp/x 2>&1; true";
    let image =
        catalog::busybox()?.layer(Layer::default().dir("etc/empty").file("etc/empty/file", 0o644, "secret"));
    let name = world.registry.publish("masked", "latest", &image)?;
    world.client.pull(&name).await?;
    let (_, seen) = world
        .printed(script, |spec| {
            spec.image = Some(image_spec(&name));
            security(spec).masked_paths = vec!["/proc/keys".into(), "/etc/empty".into(), "/not/there".into()];
            security(spec).readonly_paths = vec!["/tmp".into(), "/proc/sys".into()];
        })
        .await?;
    let lines: Vec<_> = seen.lines().collect();
    assert_eq!(&lines[..2], ["0", "0"], "{seen}");
    assert!(seen.contains("touch: /tmp/x: Read-only file system"), "{seen}");
    Ok(())
}

#[tokio::test]
async fn seccomp_profiles_are_applied() -> Result<()> {
    use security_profile::ProfileType;
    let world = World::start().await?;
    let script = "grep ^Seccomp: /proc/self/status | tr -dc 0-9";
    let change = |kind: ProfileType, path: &str| {
        let profile = SecurityProfile { profile_type: kind as i32, localhost_ref: path.into() };
        move |spec: &mut ContainerConfig| security(spec).seccomp = Some(profile)
    };
    let (_, default) = world.printed(script, change(ProfileType::RuntimeDefault, "")).await?;
    assert_eq!(default, "2");
    let (_, unconfined) = world.printed(script, change(ProfileType::Unconfined, "")).await?;
    assert_eq!(unconfined, "0");

    let profile = tempfile::NamedTempFile::new()?;
    std::fs::write(
        profile.path(),
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}"#,
    )?;
    let path = profile.path().to_string_lossy().into_owned();
    let (_, local) = world
        .printed("mkdir /tmp/x 2>&1; touch /tmp/y && echo fine", change(ProfileType::Localhost, &path))
        .await?;
    assert_eq!(local, "mkdir: can't create directory '/tmp/x': Operation not permitted\nfine");
    Ok(())
}

#[tokio::test]
async fn volumes_are_mounted_as_asked_and_told_in_the_status() -> Result<()> {
    let world = World::start().await?;
    let volume = tempfile::tempdir()?;
    std::fs::write(volume.path().join("in"), "hello")?;
    let link = volume.path().join("link");
    std::os::unix::fs::symlink(volume.path(), &link)?;
    let path = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let config = world.pod("volumes");
    let mut spec = world.sleeper("main");
    spec.mounts = vec![
        Mount { host_path: path(volume.path()), container_path: "/data".into(), ..Default::default() },
        Mount {
            host_path: path(&volume.path().join("in")),
            container_path: "/etc/one/file".into(),
            readonly: true,
            ..Default::default()
        },
        Mount { host_path: path(&link), container_path: "/linked".into(), ..Default::default() },
    ];
    let (_, id) = world.run(&config, &spec).await?;
    let script =
        "cat /data/in /etc/one/file /linked/in; echo out > /data/out; echo x 2>&1 > /etc/one/file; true";
    assert!(world.client.shell(&id, script).await?.starts_with("hellohellohello"));
    assert_eq!(std::fs::read_to_string(volume.path().join("out"))?, "out\n");
    assert_eq!(std::fs::read_to_string(volume.path().join("in"))?, "hello");
    let mounts = world.client.status(&id).await?.mounts;
    assert_eq!(mounts.len(), 3, "only what was asked for: {mounts:?}");
    assert_eq!(mounts[1].container_path, "/etc/one/file");
    assert!(mounts[1].readonly && !mounts[0].readonly);
    Ok(())
}

#[tokio::test]
async fn a_device_of_the_host_is_there_with_its_permissions() -> Result<()> {
    let world = World::start().await?;
    let (_, seen) = world
        .printed("ls -l /dev/zerox; head -c 3 /dev/zerox | wc -c", |spec| {
            spec.devices = vec![Device {
                container_path: "/dev/zerox".into(),
                host_path: "/dev/zero".into(),
                permissions: "r".into(),
            }];
        })
        .await?;
    assert!(seen.starts_with('c') && seen.ends_with("\n3"), "{seen}");
    Ok(())
}

#[tokio::test]
async fn a_privileged_container_has_every_capability_and_device() -> Result<()> {
    let world = World::start().await?;
    let mut config = world.pod("privileged");
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap().privileged = true;
    let mut spec = world.sleeper("main");
    security(&mut spec).privileged = true;
    let (_, id) = world.run(&config, &spec).await?;
    let script = "mount -t tmpfs none /mnt && ls /dev/kmsg && grep CapBnd /proc/self/status";
    let seen = world.client.shell(&id, script).await?;
    let host = std::fs::read_to_string("/proc/self/status")?;
    let own = host.lines().find(|line| line.starts_with("CapBnd")).unwrap_or_default();
    assert!(seen.contains("/dev/kmsg") && seen.contains(own), "{seen}");
    Ok(())
}

#[tokio::test]
async fn a_terminal_is_a_terminal() -> Result<()> {
    let world = World::start().await?;
    let (_, seen) = world
        .printed("[ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo terminal", |spec| {
            (spec.tty, spec.stdin) = (true, true);
        })
        .await?;
    assert_eq!(seen.trim_end_matches('\r'), "terminal");
    Ok(())
}
