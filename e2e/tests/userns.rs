//! Pods with a user namespace: who owns what inside and on the host, and that everything a container needs works there.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use berth_e2e::client::{expect_refusal, image_spec};
use berth_e2e::crictl::Crictl;
use berth_e2e::images::{Layer, catalog};
use berth_e2e::logs;
use berth_e2e::world::{World, security};
use berth_proto::cri::v1::*;
use tonic::Code;

const FIRST: u32 = 200_000;
const COUNT: u32 = 65_536;

fn mapping() -> IdMapping {
    IdMapping { container_id: 0, host_id: FIRST, length: COUNT }
}

fn namespace(mode: NamespaceMode, mappings: &[IdMapping]) -> UserNamespace {
    UserNamespace { mode: mode.into(), uids: mappings.to_vec(), gids: mappings.to_vec() }
}

fn options(config: &mut PodSandboxConfig) -> &mut NamespaceOption {
    let security = config.linux.get_or_insert_default().security_context.get_or_insert_default();
    security.namespace_options.get_or_insert_default()
}

/// A pod whose user 0 is user 200000 of the host.
fn pod(world: &World, name: &str) -> PodSandboxConfig {
    let mut config = world.pod(name);
    options(&mut config).userns_options = Some(namespace(NamespaceMode::Pod, &[mapping()]));
    config
}

fn volume(path: &Path, place: &str) -> Mount {
    Mount {
        host_path: path.to_string_lossy().into_owned(),
        container_path: place.into(),
        uid_mappings: vec![mapping()],
        gid_mappings: vec![mapping()],
        ..Default::default()
    }
}

async fn pid_of(world: &World, id: &str) -> Result<i32> {
    let request = ContainerStatusRequest { container_id: id.into(), verbose: true };
    let reply = world.client.runtime.clone().container_status(request).await?.into_inner();
    let info: serde_json::Value = serde_json::from_str(&reply.info["info"])?;
    Ok(i32::try_from(info["pid"].as_i64().unwrap_or(0))?)
}

#[tokio::test]
async fn root_inside_owns_its_image_and_is_nobody_outside() -> Result<()> {
    let world = World::start().await?;
    let before = world.settled_census().await?;
    let image = catalog::busybox()?.layer(Layer::default().file("etc/of-root", 0o600, "image\n"));
    let name = world.registry.publish("owned", "latest", &image)?;
    world.client.pull(&name).await?;
    let mut spec = world.sleeper("main");
    spec.image = Some(image_spec(&name));
    let (pod, id) = world.run(&pod(&world, "owned"), &spec).await?;

    let script = "id -u; stat -c %u:%g / /etc /etc/of-root /bin/sh; cat /etc/of-root; \
                  echo new > /etc/new; echo more >> /etc/of-root; chown 7:8 /etc/of-root; rm /etc/hostname.bak; \
                  stat -c %u:%g /etc/new /etc/of-root; mkdir /dir; mv /dir /moved; cat /proc/self/uid_map";
    let seen = world.client.shell(&id, &script.replace("rm /etc/hostname.bak; ", "")).await?;
    let words: Vec<_> = seen.split_whitespace().collect();
    let expected = ["0", "0:0", "0:0", "0:0", "0:0", "image", "0:0", "7:8", "0", "200000", "65536"];
    assert_eq!(words, expected, "{seen}");

    let status = std::fs::read_to_string(format!("/proc/{}/status", pid_of(&world, &id).await?))?;
    assert!(status.contains("Uid:\t200000\t200000\t200000\t200000"), "{status}");
    // What the container wrote is on disk under the ids that its users have on the host.
    let upper = world.node.root().join("snapshots").join(&id).join("upper");
    let owner = |path: &str| std::fs::metadata(upper.join(path)).map(|file| (file.uid(), file.gid()));
    assert_eq!(owner("etc/new")?, (FIRST, FIRST));
    assert_eq!(owner("etc/of-root")?, (FIRST + 7, FIRST + 8));
    assert_eq!(owner("")?, (FIRST, FIRST));
    world.client.end_pod(&pod).await?;

    // The layer itself is as it was: another pod without a user namespace sees the host's root.
    let mut spec = world.container("main", "stat -c %u:%g /etc/of-root; cat /etc/of-root");
    spec.image = Some(image_spec(&name));
    let (pod, id) = world.run(&world.pod("plain"), &spec).await?;
    let status = world.client.wait_exited(&id, Duration::from_secs(10)).await?;
    assert_eq!(logs::text(&status.log_path)?.trim(), "0:0\nimage");
    world.client.end_pod(&pod).await?;
    world.expect_nothing_left(&before).await
}

#[tokio::test]
async fn everything_that_a_container_has_works_inside() -> Result<()> {
    let world = World::start().await?;
    let (_, id) = world.run(&pod(&world, "whole"), &world.sleeper("main")).await?;
    let checks = [
        ("cat /etc/hostname; hostname", "whole whole"),
        ("stat -c %u:%g /etc/hosts /etc/resolv.conf /etc/hostname", "0:0 0:0 0:0"),
        ("echo 10.0.0.1 other >> /etc/hosts; grep -c other /etc/hosts", "1"),
        ("echo x > /dev/shm/x; stat -c %u:%g /dev/shm /dev/shm/x", "0:0 0:0"),
        ("echo x > /dev/null; head -c 2 /dev/zero | wc -c; stat -c %t:%T /dev/null", "2 1:3"),
        ("ls -d /dev/pts/ptmx /dev/ptmx /dev/fd /dev/mqueue | wc -l", "4"),
        ("ls -d /sys/fs/cgroup/* /sys/class/net/lo /proc/1/cmdline > /dev/null; echo $?", "0"),
        ("touch /sys/kernel/x 2>&1; true", "touch: /sys/kernel/x: Read-only file system"),
        ("mkdir /tmp/x; chown 5:6 /tmp/x; stat -c %u:%g /tmp/x; id -G", "5:6 0"),
        ("cat /proc/sys/net/ipv4/ip_unprivileged_port_start", "0"),
        ("ping -c 1 -W 2 127.0.0.1 > /dev/null && echo pong", "pong"),
    ];
    for (script, expected) in checks {
        let seen = world.client.shell(&id, script).await?;
        assert_eq!(seen.split_whitespace().collect::<Vec<_>>().join(" "), expected, "{script}");
    }
    Ok(())
}

#[tokio::test]
async fn streams_terminals_and_crictl_reach_inside() -> Result<()> {
    let world = World::start().await?;
    let config = pod(&world, "streams");
    let mut spec = world.container("tty", "tty; [ -t 1 ] && stat -c %u $(tty) && echo up > /dev/stdout");
    (spec.tty, spec.stdin) = (true, true);
    let (pod, id) = world.run(&config, &spec).await?;
    let status = world.client.wait_exited(&id, Duration::from_secs(10)).await?;
    let text = logs::text(&status.log_path)?.replace('\r', "");
    assert_eq!(text, "/dev/pts/0\n0\nup\n");

    let mut user = world.sleeper("user");
    security(&mut user).run_as_user = Some(Int64Value { value: 1000 });
    security(&mut user).run_as_group = Some(Int64Value { value: 1000 });
    security(&mut user).supplemental_groups = vec![1234];
    let id = world.launch(&pod, &user, &config).await?;
    let seen = world.client.shell(&id, "echo $(id -u):$(id -g):$(id -G); echo err > /dev/stderr").await?;
    assert_eq!(seen, "1000:1000:1000 1234 50000\n");
    let output = Crictl::new(&world.node)?.run(&["exec", "--sync", &id, "id", "-u"])?;
    assert_eq!(output.trim(), "1000");
    Ok(())
}

#[tokio::test]
async fn volumes_keep_their_owners_on_the_host() -> Result<()> {
    let world = World::start().await?;
    let directory = tempfile::tempdir()?;
    std::fs::write(directory.path().join("old"), "old")?;
    std::os::unix::fs::chown(directory.path().join("old"), Some(5), Some(6))?;
    let plain = tempfile::tempdir()?;
    let mut spec = world.sleeper("main");
    let mut unmapped = volume(plain.path(), "/unmapped");
    (unmapped.uid_mappings, unmapped.gid_mappings) = (vec![], vec![]);
    spec.mounts = vec![volume(directory.path(), "/mapped"), unmapped];
    let (_, id) = world.run(&pod(&world, "volumes"), &spec).await?;
    let script = "stat -c %u:%g /mapped /mapped/old /unmapped; echo new > /mapped/new; chown 33:34 /mapped/new; \
                  touch /unmapped/x 2>&1; true";
    let seen = world.client.shell(&id, script).await?;
    assert_eq!(seen, "0:0\n5:6\n65534:65534\ntouch: /unmapped/x: Permission denied\n");
    let new = std::fs::metadata(directory.path().join("new"))?;
    assert_eq!((new.uid(), new.gid()), (33, 34));
    let mounts = world.client.status(&id).await?.mounts;
    assert_eq!(mounts[0].uid_mappings, [mapping()]);
    Ok(())
}

#[tokio::test]
async fn a_volume_that_cannot_be_mapped_is_an_error_that_names_it_and_its_file_system() -> Result<()> {
    let world = World::start().await?;
    let config = pod(&world, "unmappable");
    let pod = world.client.run_pod(&config).await?;
    let mut spec = world.sleeper("main");
    spec.mounts = vec![volume(Path::new("/sys/kernel"), "/v")];
    let words = ["/sys/kernel at /v", "ID-mapped", "sysfs", "Invalid argument"];
    expect_refusal(world.client.create(&pod, &spec, &config).await, &[Code::InvalidArgument], &words);
    Ok(())
}

#[tokio::test]
async fn a_pod_on_the_hosts_network_can_have_a_user_namespace_too() -> Result<()> {
    let world = World::start().await?;
    let features = world.client.runtime.clone().status(StatusRequest::default()).await?.into_inner();
    assert!(features.features.unwrap().user_namespaces_host_network);
    let mut config = pod(&world, "host-network");
    options(&mut config).network = NamespaceMode::Node.into();
    config.hostname = String::new();
    let (_, id) = world.run(&config, &world.sleeper("main")).await?;
    let script = "cat /proc/self/uid_map; readlink /proc/self/ns/net; ls /sys/class/net; ls -d /sys/fs/cgroup; \
                  touch /sys/x 2>&1; ls /sys/kernel/security | wc -l";
    let seen = world.client.shell(&id, script).await?;
    assert!(seen.contains("200000"), "{seen}");
    let net = std::fs::read_link("/proc/self/ns/net")?;
    assert!(seen.contains(net.to_str().unwrap()) && seen.contains("Read-only file system"), "{seen}");
    let user = std::fs::read_link(format!("/proc/{}/ns/user", pid_of(&world, &id).await?))?;
    assert_ne!(user, std::fs::read_link("/proc/self/ns/user")?);
    Ok(())
}

#[tokio::test]
async fn root_of_a_pod_has_no_power_over_the_host() -> Result<()> {
    let world = World::start().await?;
    let mut config = pod(&world, "powerless");
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap().privileged = true;
    let mut spec = world.sleeper("main");
    security(&mut spec).privileged = true;
    let secret = tempfile::NamedTempFile::new()?;
    std::fs::write(secret.path(), "secret")?;
    let mut mount = volume(secret.path(), "/secret");
    (mount.uid_mappings, mount.gid_mappings) = (vec![], vec![]);
    spec.mounts = vec![mount];
    let (_, id) = world.run(&config, &spec).await?;
    let attempts = "cat /secret; echo x > /secret; mknod /null c 1 3; mount -t proc p /mnt -o hidepid=2 && umount /mnt; \
                    echo 1 > /proc/sys/kernel/panic; echo c > /proc/sysrq-trigger; hostname other; \
                    mount -o remount,rw /sys; echo 0 > /sys/kernel/mm/ksm/run; date -s 2001-01-01; \
                    echo 1 > /sys/fs/cgroup/memory/release_agent; true";
    let reply = world.client.exec(&id, &["sh", "-c", attempts], 30).await?;
    assert!(!String::from_utf8_lossy(&reply.stdout).contains("secret"), "{reply:?}");
    let refused = String::from_utf8_lossy(&reply.stderr).into_owned();
    for part in
        ["/secret: Permission denied", "mknod: /null: Operation not permitted", "panic: Permission denied"]
    {
        assert!(refused.contains(part), "{part} is not in {refused}");
    }
    assert_eq!(std::fs::read_to_string(secret.path())?, "secret");
    // It is root over what is its own.
    let own = "mount -t tmpfs none /mnt && touch /mnt/x && ip link add name dummy9 type bridge && ip link del dummy9; echo $?";
    assert_eq!(world.client.shell(&id, own).await?, "0\n");
    Ok(())
}

#[tokio::test]
async fn namespaces_that_cannot_be_are_refused() -> Result<()> {
    let world = World::start().await?;
    let before = world.settled_census().await?;
    let second = IdMapping { container_id: COUNT, host_id: 900_000, length: 10 };
    let late = IdMapping { container_id: 1, ..mapping() };
    for (user, word) in [
        (namespace(NamespaceMode::Pod, &[mapping(), second]), "exactly one mapping"),
        (namespace(NamespaceMode::Pod, &[]), "exactly one mapping"),
        (namespace(NamespaceMode::Pod, &[late]), "container id 0"),
        (namespace(NamespaceMode::Pod, &[IdMapping { host_id: 0, ..mapping() }]), "root of the node"),
        (namespace(NamespaceMode::Pod, &[IdMapping { length: 0, ..mapping() }]), "length"),
        (namespace(NamespaceMode::Pod, &[IdMapping { host_id: u32::MAX, ..mapping() }]), "highest id"),
        (namespace(NamespaceMode::Container, &[]), "mode"),
        (namespace(NamespaceMode::Target, &[]), "mode"),
        (UserNamespace { mode: 77, ..Default::default() }, "mode"),
    ] {
        let mut config = world.pod("refused");
        options(&mut config).userns_options = Some(user);
        expect_refusal(
            world.client.run_pod(&config).await,
            &[Code::InvalidArgument],
            &["userns_options", word],
        );
    }
    for change in [|o: &mut NamespaceOption| o.pid = 2, |o: &mut NamespaceOption| o.ipc = 2] {
        let mut config = pod(&world, "refused");
        change(options(&mut config));
        expect_refusal(world.client.run_pod(&config).await, &[Code::InvalidArgument], &["user namespace"]);
    }
    world.expect_nothing_left(&before).await
}

#[tokio::test]
async fn a_container_lives_in_its_pods_user_namespace_only() -> Result<()> {
    let world = World::start().await?;
    let config = pod(&world, "strict");
    let pod = world.client.run_pod(&config).await?;
    let refused = async |change: &dyn Fn(&mut LinuxContainerSecurityContext), words: &[&str]| {
        let mut spec = world.sleeper("main");
        change(security(&mut spec));
        expect_refusal(world.client.create(&pod, &spec, &config).await, &[Code::InvalidArgument], words);
    };
    let other = namespace(NamespaceMode::Pod, &[IdMapping { host_id: 900_000, ..mapping() }]);
    let with = |user: UserNamespace| {
        move |context: &mut LinuxContainerSecurityContext| {
            context.namespace_options.get_or_insert_default().userns_options = Some(user.clone());
        }
    };
    refused(&with(other), &["differs from the pod sandbox's"]).await;
    refused(&with(namespace(NamespaceMode::Node, &[])), &["differs from the pod sandbox's"]).await;
    refused(&|context| context.namespace_options.get_or_insert_default().pid = 2, &["NODE"]).await;
    refused(
        &|context| context.run_as_user = Some(Int64Value { value: 70_000 }),
        &["user 70000", "mapped range"],
    )
    .await;
    refused(&|context| context.supplemental_groups = vec![70_001], &["group 70001", "mapped range"]).await;
    Ok(())
}

#[tokio::test]
async fn a_created_container_survives_the_daemon_with_its_ids() -> Result<()> {
    let mut world = World::start().await?;
    let config = pod(&world, "again");
    let pod = world.client.run_pod(&config).await?;
    let id = world.client.create(&pod, &world.sleeper("main"), &config).await?;
    world.node.kill()?;
    world.node.launch().await?;
    world.client = world.node.client().await?;
    world.client.start(&id).await?;
    assert_eq!(
        world
            .client
            .shell(&id, "stat -c %u:%g /etc /bin/sh; cat /proc/self/uid_map")
            .await?
            .split_whitespace()
            .collect::<Vec<_>>(),
        ["0:0", "0:0", "0", "200000", "65536"]
    );
    let namespaces = world.client.pod_status(&pod).await?.linux.unwrap().namespaces.unwrap().options.unwrap();
    assert_eq!(namespaces.userns_options, Some(namespace(NamespaceMode::Pod, &[mapping()])));
    Ok(())
}

#[tokio::test]
async fn wherever_it_runs_it_stays_below_its_pods_cgroup() -> Result<()> {
    let world = World::start().await?;
    for host_network in [false, true] {
        let mut config = pod(&world, "below");
        if host_network {
            options(&mut config).network = NamespaceMode::Node.into();
            config.hostname = String::new();
        }
        let parent = config.linux.as_ref().unwrap().cgroup_parent.clone();
        let (pod, id) = world.run(&config, &world.sleeper("main")).await?;
        let first = pid_of(&world, &id).await?;
        let cgroups = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/cgroup"));
        let (all, own) = (cgroups(&first.to_string())?, cgroups("self")?);
        // A hierarchy that Berth does not manage leaves everybody where the daemon is.
        let managed: Vec<_> = all.lines().filter(|line| !own.lines().any(|same| same == *line)).collect();
        assert!(!managed.is_empty() && managed.iter().all(|line| line.contains(&parent)), "{parent}: {all}");
        // From inside nothing above is seen, and nothing can be left.
        let script = "grep -c -v ':/' /proc/self/cgroup; cat /proc/self/cgroup; \
                      for f in $(find /sys/fs/cgroup -name cgroup.procs); do echo 0 > $f; done 2>&1 | sort -u | head -3";
        let seen = world.client.shell(&id, script).await?;
        assert!(!seen.contains(&parent), "{seen}");
        assert!(!seen.contains("/../"), "{seen}");
        world.client.end_pod(&pod).await?;
    }
    Ok(())
}

#[tokio::test]
async fn root_inside_cannot_look_into_those_who_join() -> Result<()> {
    let world = World::start().await?;
    let mut config = pod(&world, "hunter");
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap().privileged = true;
    let mut spec = world.container(
        "hunter",
        "while :; do for p in /proc/[0-9]*; do readlink $p/exe $p/cwd $p/fd/*; done; done 2>/dev/null | \
         grep -i -E 'berth|memfd|seccomp|config.json'",
    );
    security(&mut spec).privileged = true;
    let (_, id) = world.run(&config, &spec).await?;
    for _ in 0..50 {
        world.client.exec(&id, &["true"], 10).await?;
    }
    let status = world.client.status(&id).await?;
    assert_eq!(logs::text(&status.log_path)?, "");
    Ok(())
}

#[tokio::test]
async fn capabilities_inside_are_those_asked_for_and_no_more() -> Result<()> {
    let world = World::start().await?;
    let script =
        "grep -E '^(Cap(Inh|Prm|Eff|Bnd|Amb)|Seccomp|NoNewPrivs):' /proc/self/status | tr -s '\\t\\n' ' '";
    let config = pod(&world, "sets");
    let mut spec = world.sleeper("main");
    security(&mut spec).seccomp = Some(SecurityProfile::default());
    security(&mut spec).no_new_privs = true;
    let (pod, id) = world.run(&config, &spec).await?;
    let root = "CapInh: 0000000000000000 CapPrm: 00000000a80425fb CapEff: 00000000a80425fb CapBnd: 00000000a80425fb \
                CapAmb: 0000000000000000 NoNewPrivs: 1 Seccomp: 2 ";
    assert_eq!(world.client.shell(&id, script).await?, root);
    let mut user = world.sleeper("user");
    security(&mut user).run_as_user = Some(Int64Value { value: 1000 });
    security(&mut user).no_new_privs = true;
    let id = world.launch(&pod, &user, &config).await?;
    let none = "CapInh: 0000000000000000 CapPrm: 0000000000000000 CapEff: 0000000000000000 CapBnd: 00000000a80425fb \
                CapAmb: 0000000000000000 NoNewPrivs: 1 Seccomp: 0 ";
    assert_eq!(world.client.shell(&id, script).await?, none);
    Ok(())
}
