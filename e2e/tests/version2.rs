//! What a node with cgroup version 2 alone does with limits. Version 1 has no such files; `make e2e-vm` runs this.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use berth_e2e::client::{expect_refusal, image_spec};
use berth_e2e::images::catalog;
use berth_e2e::world::World;
use berth_e2e::{cgroup, eventually, logs};
use berth_proto::cri::v1::*;
use tonic::Code;

const PATIENCE: Duration = Duration::from_secs(20);

/// Whether a test of this file can run here.
fn runs() -> bool {
    let runs = cgroup::version_2();
    if !runs {
        println!("not run: needs cgroup version 2; run by `make e2e-vm`");
    }
    runs
}

fn resources(spec: &mut ContainerConfig) -> &mut LinuxContainerResources {
    spec.linux.get_or_insert_default().resources.get_or_insert_default()
}

/// The directory of a container's cgroup, which is named after it.
fn directory(world: &World, id: &str) -> Result<PathBuf> {
    let below = world.node.cgroup_parent().below();
    below.into_iter().find(|path| path.ends_with(id)).with_context(|| format!("{id} has no cgroup"))
}

fn read(directory: &Path, file: &str) -> Result<String> {
    let path = directory.join(file);
    Ok(fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?.trim().to_owned())
}

#[tokio::test]
async fn a_container_is_alone_in_a_cgroup_that_it_sees_as_the_root() -> Result<()> {
    if !runs() {
        return Ok(());
    }
    let world = World::start().await?;
    let (_, id) = world.run(&world.pod("alone"), &world.container("main", "exec tail -f /dev/null")).await?;
    let own = directory(&world, &id)?;
    assert_eq!(read(&own, "cgroup.procs")?.lines().count(), 1);
    // Spawned into it: what runs was never anywhere else, so nothing is left of a stay elsewhere.
    assert_eq!(world.client.shell(&id, "cat /proc/1/cgroup").await?, "0::/\n");
    let seen =
        world.client.shell(&id, "cat /proc/self/cgroup; cat /sys/fs/cgroup/cgroup.controllers").await?;
    assert!(seen.starts_with("0::/\n"), "an exec is in it too: {seen}");
    for controller in ["cpu", "cpuset", "io", "memory", "pids", "hugetlb"] {
        assert!(seen.split_whitespace().any(|word| word == controller), "{controller}: {seen}");
    }
    let (code, _) = world
        .client
        .exec(&id, &["mkdir", "/sys/fs/cgroup/own"], 10)
        .await
        .map(|reply| (reply.exit_code, String::from_utf8_lossy(&reply.stderr).into_owned()))?;
    assert_ne!(code, 0, "the hierarchy is read-only in a container");
    for kind in ["cpu", "memory", "io"] {
        let pressure = world.client.shell(&id, &format!("cat /sys/fs/cgroup/{kind}.pressure")).await?;
        assert!(pressure.starts_with("some avg10="), "{kind}: {pressure}");
    }
    Ok(())
}

#[tokio::test]
async fn unified_settings_are_in_force_and_wrong_ones_refused() -> Result<()> {
    if !runs() {
        return Ok(());
    }
    let world = World::start().await?;
    let config = world.pod("unified");
    let pod = world.client.run_pod(&config).await?;
    let mut spec = world.sleeper("main");
    let wanted =
        [("memory.high", "33554432"), ("memory.low", "1048576"), ("pids.max", "77"), ("cpu.weight", "33")];
    resources(&mut spec).unified =
        wanted.iter().map(|(file, value)| ((*file).to_owned(), (*value).to_owned())).collect();
    resources(&mut spec).memory_limit_in_bytes = 64 << 20;
    let id = world.launch(&pod, &spec, &config).await?;
    let own = directory(&world, &id)?;
    for (file, value) in wanted.into_iter().chain([("memory.max", "67108864")]) {
        assert_eq!(read(&own, file)?, value, "{file}");
    }
    for (number, (file, value)) in
        [("memory.nothing", "1"), ("cgroup.procs", "0"), ("../x", "1"), ("memory.high", "much")]
            .into_iter()
            .enumerate()
    {
        let mut spec = world.sleeper(&format!("bad-{number}"));
        resources(&mut spec).unified = [(file.to_owned(), value.to_owned())].into();
        let refused = world.client.create(&pod, &spec, &config).await;
        expect_refusal(refused, &[Code::InvalidArgument, Code::FailedPrecondition], &[file]);
    }
    assert_eq!(world.client.containers(None).await?.len(), 1);
    Ok(())
}

/// Grows by itself and in a child, as `part` says.
fn eater(world: &World, name: &str, script: &str) -> ContainerConfig {
    let mut spec = world.container(name, script);
    resources(&mut spec).memory_limit_in_bytes = 16 << 20;
    resources(&mut spec).memory_swap_limit_in_bytes = 16 << 20;
    spec
}

#[tokio::test]
async fn a_kill_for_memory_is_told_and_takes_all_if_asked() -> Result<()> {
    if !runs() {
        return Ok(());
    }
    let world = World::start().await?;
    let config = world.pod("memory");
    let pod = world.client.run_pod(&config).await?;
    let grow = "dd if=/dev/zero of=/dev/null bs=64M count=1";
    let itself = world.launch(&pod, &eater(&world, "itself", &format!("exec {grow}")), &config).await?;
    let status = world.client.wait_exited(&itself, PATIENCE).await?;
    assert_eq!((status.reason.as_str(), status.exit_code), ("OOMKilled", 137));

    let script = format!("{grow}; echo $?; exec tail -f /dev/null");
    let child = world.launch(&pod, &eater(&world, "child", &script), &config).await?;
    let log_path = world.client.status(&child).await?.log_path;
    eventually(PATIENCE, async || {
        let text = logs::text(&log_path)?;
        ensure!(text.ends_with("137\n"), "{text:?}");
        Ok(())
    })
    .await?;
    assert_eq!(world.client.status(&child).await?.state(), ContainerState::ContainerRunning);

    let mut spec = eater(&world, "group", &script);
    resources(&mut spec).unified = [("memory.oom.group".to_owned(), "1".to_owned())].into();
    let group = world.launch(&pod, &spec, &config).await?;
    let status = world.client.wait_exited(&group, PATIENCE).await?;
    assert_eq!((status.reason.as_str(), status.exit_code), ("OOMKilled", 137));
    Ok(())
}

#[tokio::test]
async fn a_fork_bomb_ends_with_its_container() -> Result<()> {
    if !runs() {
        return Ok(());
    }
    let world = World::start().await?;
    let before = world.settled_census().await?;
    // busybox's shell gives up at the first fork that fails: not the container's first process.
    let script = "(while :; do sleep 1000 & done) 2>/dev/null; exec tail -f /dev/null";
    let mut spec = world.container("bomb", script);
    resources(&mut spec).unified = [("pids.max".to_owned(), "100".to_owned())].into();
    let (pod, id) = world.run(&world.pod("bomb"), &spec).await?;
    let own = directory(&world, &id)?;
    eventually(PATIENCE, async || {
        let (reached, now) = (read(&own, "pids.events")?, read(&own, "pids.current")?);
        ensure!(!reached.starts_with("max 0"), "it does not reach its limit: {now}");
        Ok(())
    })
    .await?;
    world.client.stop(&id, 0).await?;
    assert_eq!(world.client.status(&id).await?.exit_code, 137);
    world.client.end_pod(&pod).await?;
    world.expect_nothing_left(&before).await
}

/// Huge pages are the whole machine's: what was there is there again when this is dropped.
struct Pages(String);

const PAGES: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";

impl Pages {
    fn reserve(count: u32) -> Result<Self> {
        let before = Self(fs::read_to_string(PAGES)?);
        fs::write(PAGES, count.to_string())?;
        anyhow::ensure!(
            fs::read_to_string(PAGES)?.trim() == count.to_string(),
            "no room for {count} huge pages"
        );
        Ok(before)
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let _ = fs::write(PAGES, self.0.trim());
    }
}

#[tokio::test]
async fn huge_pages_are_taken_up_to_the_limit() -> Result<()> {
    if !runs() {
        return Ok(());
    }
    let _pages = Pages::reserve(8)?;
    let world = World::start().await?;
    let image = world.registry.publish("hugepages", "latest", &catalog::with_program("hugepages")?)?;
    world.client.pull(&image).await?;
    let config = world.pod("huge");
    let pod = world.client.run_pod(&config).await?;
    for (name, limit, expected) in [
        ("two", 2, "2, then Cannot allocate memory"),
        ("none", 0, "0, then Cannot allocate memory"),
        ("enough", 8, "4"),
    ] {
        let mut spec = world.container(name, "hugepages 4; exec tail -f /dev/null");
        spec.image = Some(image_spec(&image));
        resources(&mut spec).hugepage_limits =
            vec![HugepageLimit { page_size: "2MB".into(), limit: limit << 21 }];
        let id = world.launch(&pod, &spec, &config).await?;
        let own = directory(&world, &id)?;
        for file in ["hugetlb.2MB.max", "hugetlb.2MB.rsvd.max"] {
            assert_eq!(read(&own, file)?, (limit << 21).to_string(), "{name} {file}");
        }
        let log_path = world.client.status(&id).await?.log_path;
        eventually(PATIENCE, async || {
            let said = logs::text(&log_path)?;
            ensure!(said.trim() == expected, "{name}: {said:?}");
            Ok(())
        })
        .await?;
        world.client.remove(&id).await?;
    }
    Ok(())
}
