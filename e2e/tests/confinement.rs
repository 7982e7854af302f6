//! What confines a container beyond its user: mount options, groups, profiles, masks; and that mistakes are told early.

use anyhow::Result;
use berth_e2e::client::expect_refusal;
use berth_e2e::logs;
use berth_e2e::world::{World, security};
use berth_proto::cri::v1::*;
use tonic::Code;

#[tokio::test]
async fn mount_options_hold_for_a_volume_and_all_below_it() -> Result<()> {
    let world = World::start().await?;
    let features = world.client.runtime.clone().status(StatusRequest::default()).await?.into_inner();
    assert!(features.features.unwrap().mount_options);
    let volume = tempfile::tempdir()?;
    let below = volume.path().join("below");
    std::fs::create_dir(&below)?;
    let none = None::<&str>;
    nix::mount::mount(Some("tmpfs"), &below, Some("tmpfs"), nix::mount::MsFlags::empty(), none)?;
    let _unmount = Unmount(below.clone());
    for directory in [volume.path(), &below] {
        let script = directory.join("script");
        std::fs::write(&script, "#!/bin/sh\necho ran\n")?;
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    }
    let script = "/v/script; /v/below/script; grep -E ' /v(/below)? ' /proc/mounts | \
                  grep -c 'nosuid,nodev,noexec' || true";
    let with = |options: &[&str]| {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let mount = Mount {
            host_path: volume.path().to_string_lossy().into_owned(),
            container_path: "/v".into(),
            mount_options: options,
            ..Default::default()
        };
        move |spec: &mut ContainerConfig| spec.mounts = vec![mount]
    };
    let (_, free) = world.printed(script, with(&[])).await?;
    assert_eq!(free, "ran\nran\n0");
    let (_, bound) = world.printed(script, with(&["noexec", "nodev", "nosuid"])).await?;
    assert_eq!(bound.lines().last(), Some("2"), "{bound}");
    assert!(!bound.contains("ran") && bound.contains("Permission denied"), "{bound}");

    let config = world.pod("echo");
    let mut spec = world.sleeper("main");
    with(&["nosuid"])(&mut spec);
    let (pod, id) = world.run(&config, &spec).await?;
    assert_eq!(world.client.status(&id).await?.mounts[0].mount_options, ["nosuid"]);
    let mut spec = world.sleeper("second");
    with(&["exec"])(&mut spec);
    let refused = world.client.create(&pod, &spec, &config).await;
    expect_refusal(refused, &[Code::InvalidArgument], &["config.mounts[0].mount_options", "\"exec\""]);
    world.client.end_pod(&pod).await?;
    Ok(())
}

/// Unmounts when the test is over, however it ends.
struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

#[tokio::test]
async fn groups_are_the_same_for_the_first_process_for_execs_and_in_the_status() -> Result<()> {
    let world = World::start().await?;
    let config = world.pod("groups");
    let pod = world.client.run_pod(&config).await?;
    for (policy, groups) in [
        (SupplementalGroupsPolicy::Merge, vec![1000, 1234, 50000]),
        (SupplementalGroupsPolicy::Strict, vec![1000, 1234]),
    ] {
        let name = policy.as_str_name().to_lowercase();
        let mut spec = world.container(&name, "id -G; exec sleep 1000");
        security(&mut spec).run_as_user = Some(Int64Value { value: 1000 });
        security(&mut spec).supplemental_groups = vec![1234];
        security(&mut spec).supplemental_groups_policy = policy.into();
        let id = world.launch(&pod, &spec, &config).await?;
        let text = groups.iter().map(i64::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(world.client.shell(&id, "id -G").await?.trim(), text);
        let status = world.client.status(&id).await?;
        assert_eq!(logs::text(&status.log_path)?.trim(), text);
        let user = status.user.unwrap().linux.unwrap();
        assert_eq!((user.uid, user.gid, user.supplemental_groups), (1000, 1000, groups));
    }
    Ok(())
}

#[tokio::test]
async fn mistakes_of_a_security_context_are_told_at_create() -> Result<()> {
    let world = World::start().await?;
    let config = world.pod("mistakes");
    let pod = world.client.run_pod(&config).await?;
    let profile = |kind: security_profile::ProfileType, path: &str| {
        Some(SecurityProfile { profile_type: kind.into(), localhost_ref: path.into() })
    };
    use security_profile::ProfileType::Localhost;
    let directory = tempfile::tempdir()?;
    let garbled = directory.path().join("garbled.json");
    std::fs::write(&garbled, r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#)?;
    let garbled = garbled.to_string_lossy().into_owned();
    type Change<'a> = &'a dyn Fn(&mut LinuxContainerSecurityContext);
    let mistakes: [(Change<'_>, &[&str]); 9] = [
        (&|c| c.run_as_group = Some(Int64Value { value: 5 }), &["run_as_group"]),
        (&|c| c.run_as_user = Some(Int64Value { value: -1 }), &["run_as_user"]),
        (&|c| c.seccomp = profile(Localhost, ""), &["seccomp"]),
        (&|c| c.seccomp = profile(Localhost, "/no/such.json"), &["/no/such.json"]),
        (&|c| c.seccomp = profile(Localhost, &garbled), &["SCMP_ACT_NOTIFY", "listener"]),
        (&|c| c.apparmor = profile(Localhost, "localhost/none"), &["AppArmor profile \"none\""]),
        (
            &|c| c.selinux_options = Some(SeLinuxOption { level: "s0,c4,c5".into(), ..Default::default() }),
            &["SELinux level \"s0,c4,c5\""],
        ),
        (&|c| c.masked_paths = vec!["proc/kcore".into()], &["proc/kcore"]),
        (
            &|c| {
                c.capabilities =
                    Some(Capability { add_capabilities: vec!["GOD".into()], ..Default::default() })
            },
            &["GOD"],
        ),
    ];
    for (change, words) in mistakes {
        let mut spec = world.sleeper("main");
        change(security(&mut spec));
        expect_refusal(world.client.create(&pod, &spec, &config).await, &[Code::InvalidArgument], words);
    }
    #[expect(deprecated, reason = "old clients send it")]
    let old = |c: &mut LinuxContainerSecurityContext| c.apparmor_profile = "localhost/none".into();
    let mut spec = world.sleeper("main");
    old(security(&mut spec));
    expect_refusal(world.client.create(&pod, &spec, &config).await, &[Code::InvalidArgument], &["\"none\""]);
    Ok(())
}

#[tokio::test]
async fn an_unmasked_proc_shows_all_and_a_privileged_container_ignores_masks() -> Result<()> {
    let world = World::start().await?;
    let mask = |spec: &mut ContainerConfig| {
        security(spec).masked_paths = vec!["/proc/timer_list".into()];
        security(spec).readonly_paths = vec!["/proc/sys".into()];
    };
    let script = "ls -l /proc/timer_list | cut -c1; grep -c ' /proc/' /proc/mounts";
    let (_, unmasked) = world.printed(script, |_| ()).await?;
    assert_eq!(unmasked, "-\n0");
    let (_, masked) = world.printed(script, mask).await?;
    assert_eq!(masked, "c\n2");
    let mut config = world.pod("privileged");
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap().privileged = true;
    let mut spec = world.sleeper("main");
    mask(&mut spec);
    security(&mut spec).privileged = true;
    let (pod, id) = world.run(&config, &spec).await?;
    assert_eq!(world.client.shell(&id, &format!("{script}; true")).await?, "-\n0\n");
    world.client.end_pod(&pod).await?;
    Ok(())
}
