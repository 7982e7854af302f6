//! Images: pulled in every form, looked up by every name, unpacked rightly, removed.

use anyhow::Result;
use berth_e2e::client::expect_refusal;
use berth_e2e::images::layer::{Compression, Layer};
use berth_e2e::images::{self, Format, Image, catalog};
use berth_e2e::node::Options;
use berth_e2e::registry::{self, PASSWORD, Registry, USER};
use berth_e2e::runtime::Runtime;
use berth_e2e::world::World;
use berth_proto::cri::v1::{AuthConfig, ImageFsInfoRequest};
use tonic::Code;

#[tokio::test]
async fn an_index_gives_the_image_of_this_machine() -> Result<()> {
    let world = World::start().await?;
    for format in [Format::Oci, Format::Docker] {
        let of = |architecture: &str| Image {
            format,
            architecture: architecture.into(),
            ..catalog::tiny("index").label("arch", architecture)
        };
        let images = [of("s390x").build()?, of("amd64").build()?, of("arm64").build()?];
        let storage = world.registry.storage();
        for image in &images {
            storage.publish_untagged("multi", image)?;
        }
        storage.tag("multi", &format!("{format:?}"), &images::index(format, &images)?)?;
        let name = world.registry.reference(&format!("multi:{format:?}"));
        let id = world.client.pull(&name).await?;
        let found = world.client.image(&name).await?.unwrap_or_default();
        assert_eq!(found.id, id);
        assert_eq!(found.id, images[1].config_digest(), "{format:?}");
    }
    Ok(())
}

#[tokio::test]
async fn an_image_is_the_same_by_every_name() -> Result<()> {
    let world = World::start().await?;
    let image = catalog::tiny("names").build()?;
    for tag in ["one", "two"] {
        world.registry.storage().publish("names", tag, &image)?;
    }
    let (one, two) = (world.registry.reference("names:one"), world.registry.reference("names:two"));
    let by_digest = world.registry.reference(&format!("names@{}", image.digest()));
    let id = world.client.pull(&one).await?;
    assert_eq!(world.client.pull(&two).await?, id);
    let status = world.client.image(&one).await?.unwrap_or_default();
    let mut tags = status.repo_tags.clone();
    tags.sort();
    assert_eq!(tags, [one.clone(), two.clone()]);
    assert_eq!(status.repo_digests, std::slice::from_ref(&by_digest));
    for name in [&two, &by_digest, &id] {
        assert_eq!(world.client.image(name).await?.as_ref(), Some(&status), "{name}");
    }
    let listed = world.client.list_images().await?;
    assert_eq!(listed.iter().filter(|other| other.id == id).collect::<Vec<_>>(), [&status]);
    assert!(status.size > 0);

    world.client.remove_image(&one).await?;
    for name in [&one, &two, &by_digest, &id] {
        assert_eq!(world.client.image(name).await?, None, "{name}");
        world.client.remove_image(name).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_pull_by_digest_has_no_tag() -> Result<()> {
    let world = World::start().await?;
    let image = catalog::tiny("digest").build()?;
    world.registry.storage().publish("digest", "latest", &image)?;
    let name = world.registry.reference(&format!("digest@{}", image.digest()));
    world.client.pull(&name).await?;
    let status = world.client.image(&name).await?.unwrap_or_default();
    assert_eq!((status.repo_tags, status.repo_digests), (vec![], vec![name]));
    Ok(())
}

#[tokio::test]
async fn without_a_tag_it_is_latest() -> Result<()> {
    let world = World::start().await?;
    let name = world.registry.publish("untagged", "latest", &catalog::tiny("untagged"))?;
    let short = name.trim_end_matches(":latest");
    world.client.pull(short).await?;
    let status = world.client.image(short).await?.unwrap_or_default();
    assert_eq!(status.repo_tags, [name]);
    Ok(())
}

#[tokio::test]
async fn a_moved_tag_names_the_new_image() -> Result<()> {
    let world = World::start().await?;
    let name = world.registry.publish("moving", "latest", &catalog::tiny("before"))?;
    let old = world.client.pull(&name).await?;
    world.registry.publish("moving", "latest", &catalog::tiny("after"))?;
    let new = world.client.pull(&name).await?;
    assert_ne!(old, new);
    assert_eq!(world.client.image(&name).await?.unwrap_or_default().id, new);
    let left = world.client.image(&old).await?;
    assert_eq!(left.map(|image| image.repo_tags), Some(vec![]), "the old image lost its tag, not its life");
    Ok(())
}

#[tokio::test]
async fn a_login_opens_the_registry() -> Result<()> {
    let world = World::start().await?;
    let closed = Registry::start_with(registry::Options { login: true, ..Default::default() })?;
    let name = closed.publish("private", "latest", &catalog::tiny("private"))?;
    let refused = [Code::Unauthenticated, Code::PermissionDenied, Code::Unknown];
    expect_refusal(world.client.pull(&name).await, &refused, &["private"]);
    let login = |username: &str, password: &str| {
        Some(AuthConfig { username: username.into(), password: password.into(), ..Default::default() })
    };
    expect_refusal(world.client.pull_as(&name, login(USER, "wrong")).await, &refused, &["private"]);
    world.client.pull_as(&name, login(USER, PASSWORD)).await?;
    world.client.remove_image(&name).await?;
    // base64 of `ann:s3cret`
    let packed = AuthConfig { auth: "YW5uOnMzY3JldA==".into(), ..Default::default() };
    world.client.pull_as(&name, Some(packed)).await?;
    assert!(!world.node.log().contains(PASSWORD), "the password is in the log");
    Ok(())
}

#[tokio::test]
async fn https_is_trusted_when_hosts_toml_says_so() -> Result<()> {
    let world = World::start().await?;
    let secure = Registry::start_with(registry::Options { tls: true, ..Default::default() })?;
    let name = secure.publish("secure", "latest", &catalog::tiny("secure"))?;
    let directory = world.node.certs_dir().join(secure.host());
    std::fs::create_dir_all(&directory)?;
    let write = |text: String| std::fs::write(directory.join("hosts.toml"), text);
    write(format!("server = \"https://{}\"\n", secure.host()))?;
    let refused = [Code::Unavailable, Code::Unknown, Code::Internal, Code::FailedPrecondition];
    expect_refusal(world.client.pull(&name).await, &refused, &["certificate"]);
    let host = secure.host();
    write(format!(
        "server = \"https://{host}\"\n[host.\"https://{host}\"]\ncapabilities = [\"pull\", \"resolve\"]\nca = {:?}\n",
        secure.certificate()
    ))?;
    world.client.pull(&name).await?;
    Ok(())
}

#[tokio::test]
async fn a_mirror_serves_what_another_registry_is_named_for() -> Result<()> {
    let world = World::start().await?;
    let directory = world.node.certs_dir().join("images.example");
    std::fs::create_dir_all(&directory)?;
    let text = format!(
        "server = \"http://127.0.0.1:1\"\n[host.\"http://{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n",
        world.registry.host()
    );
    std::fs::write(directory.join("hosts.toml"), text)?;
    world.registry.publish("team/app", "v1", &catalog::tiny("mirrored"))?;
    world.client.pull("images.example/team/app:v1").await?;
    let status = world.client.image("images.example/team/app:v1").await?.unwrap_or_default();
    assert_eq!(status.repo_tags, ["images.example/team/app:v1"]);
    Ok(())
}

#[tokio::test]
async fn an_image_in_use_cannot_be_pulled_from_under_its_container() -> Result<()> {
    let world = World::start().await?;
    let (_, id) = world.run(&world.pod("using"), &world.sleeper("main")).await?;
    let _ = world.client.remove_image(&world.busybox).await;
    assert_eq!(
        world.client.shell(&id, "cat /etc/passwd | head -1").await?,
        "root:x:0:0:root:/root:/bin/sh\n"
    );
    Ok(())
}

#[tokio::test]
async fn five_pulls_of_one_image_are_one_image() -> Result<()> {
    let world = World::start().await?;
    let layer = Layer::default().file("data", 0o644, vec![7; 4 << 20]);
    let name = world.registry.publish("parallel", "latest", &Image::of(layer))?;
    let pull = || world.client.pull(&name);
    let ids = tokio::try_join!(pull(), pull(), pull(), pull(), pull())?;
    assert!([&ids.1, &ids.2, &ids.3, &ids.4].iter().all(|id| **id == ids.0));
    let remove = || world.client.remove_image(&ids.0);
    tokio::try_join!(remove(), remove(), remove(), remove(), remove())?;
    assert_eq!(world.client.image(&name).await?, None);
    Ok(())
}

#[tokio::test]
async fn disk_use_grows_with_an_image_and_shrinks_without_it() -> Result<()> {
    let world = World::start().await?;
    let used = async || -> Result<u64> {
        let info = world.client.images.clone().image_fs_info(ImageFsInfoRequest {}).await?.into_inner();
        let system = info.image_filesystems.into_iter().next().unwrap_or_default();
        assert!(system.timestamp > 0 && !system.fs_id.unwrap_or_default().mountpoint.is_empty());
        Ok(system.used_bytes.unwrap_or_default().value)
    };
    if world.node.runtime() == Runtime::Containerd {
        used().await?;
        println!("the rest is not run: containerd's number lags behind");
        return Ok(());
    }
    let before = used().await?;
    let layer = Layer::default().file("data", 0o644, vec![7; 8 << 20]);
    let name = world.registry.publish("heavy", "latest", &Image::of(layer))?;
    world.client.pull(&name).await?;
    let with = used().await?;
    assert!(with >= before + (8 << 20), "{before} {with}");
    world.client.remove_image(&name).await?;
    let after = used().await?;
    assert!(after < before + (1 << 20), "{before} {after}");
    Ok(())
}

#[tokio::test]
async fn archives_are_imported() -> Result<()> {
    let world = World::start().await?;
    if world.node.runtime() == Runtime::Containerd {
        println!("not run: it is about a command of berth's");
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let image = catalog::tiny("imported");
    let packed = image.build()?;
    let oci = directory.path().join("oci.tar");
    images::publish::oci_archive(&packed, "docker.io/library/oci:v1", std::fs::File::create(&oci)?)?;
    let plain = Image {
        layers: image.layers.into_iter().map(|l| l.packed(Compression::None)).collect(),
        ..Image::default()
    };
    let docker = directory.path().join("docker.tar");
    images::publish::docker_archive(
        &plain.build()?,
        "docker.io/library/docker:v1",
        std::fs::File::create(&docker)?,
    )?;
    for (file, name) in [(oci, "docker.io/library/oci:v1"), (docker, "docker.io/library/docker:v1")] {
        let output = std::process::Command::new(berth_e2e::runtime::berth()?)
            .args(["image", "--socket"])
            .arg(world.node.socket())
            .arg("import")
            .arg(&file)
            .output()?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(world.client.image(name).await?.unwrap_or_default().repo_tags, [name]);
    }
    Ok(())
}

#[tokio::test]
async fn images_outlive_the_daemon() -> Result<()> {
    let mut world = World::start().await?;
    let before = world.client.list_images().await?;
    world.node.kill()?;
    world.node.launch().await?;
    world.client = world.node.client().await?;
    assert_eq!(world.client.list_images().await?, before);
    world.run(&world.pod("after"), &world.sleeper("main")).await?;
    Ok(())
}

#[tokio::test]
async fn one_image_of_two_registries_is_one_image_with_all_names_until_it_is_removed() -> Result<()> {
    let world = World::start().await?;
    let other = Registry::start()?;
    let image = catalog::tiny("twice").build()?;
    let registries = [&world.registry, &other];
    let mut names = Vec::new();
    let mut digests = Vec::new();
    for registry in registries {
        registry.storage().publish("team/twice", "v1", &image)?;
        names.push(registry.reference("team/twice:v1"));
        digests.push(registry.reference(&format!("team/twice@{}", image.digest())));
    }
    names.sort();
    digests.sort();
    let id = image.config_digest();
    let by_digits = &id["sha256:".len()..];
    for removed in [names[0].as_str(), names[1].as_str(), digests[0].as_str(), id, by_digits] {
        for name in &names {
            assert_eq!(world.client.pull(name).await?, id);
        }
        let found: Vec<_> =
            world.client.list_images().await?.into_iter().filter(|one| one.id == id).collect();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((&found[0].repo_tags, &found[0].repo_digests), (&names, &digests));
        world.client.remove_image(removed).await?;
        for name in names.iter().chain(&digests).map(String::as_str).chain([id]) {
            assert_eq!(world.client.image(name).await?, None, "{name} after {removed} was removed");
        }
    }
    Ok(())
}

#[tokio::test]
async fn an_image_has_the_same_id_everywhere() -> Result<()> {
    let world = World::start().await?;
    let pulled = world.client.pull(&world.busybox).await?;
    let status = world.client.image(&world.busybox).await?.unwrap_or_default();
    for asked in [&world.busybox, &pulled, &status.repo_digests[0]] {
        let mut spec = world.sleeper("main");
        spec.image = Some(berth_e2e::client::image_spec(asked));
        let (pod, id) = world.run(&world.pod("ids"), &spec).await?;
        let container = world.client.status(&id).await?;
        let listed = world.client.containers(None).await?.remove(0);
        let ids = [&status.id, &container.image_id, &listed.image_id, &listed.image_ref];
        assert!(ids.iter().all(|id| **id == pulled), "{ids:?} of {asked}");
        assert_eq!(&container.image_ref, &status.repo_digests[0]);
        world.client.end_pod(&pod).await?;
    }
    Ok(())
}

#[tokio::test]
async fn the_user_of_an_image_is_a_number_or_a_name_and_never_a_group() -> Result<()> {
    let world = World::start().await?;
    for (number, (user, uid, name)) in [
        ("", Some(0), ""),
        ("1002", Some(1002), ""),
        ("1003:users", Some(1003), ""),
        ("www-data", None, "www-data"),
        ("www-data:100", None, "www-data"),
        ("4294967296", None, "4294967296"),
    ]
    .into_iter()
    .enumerate()
    {
        let image = world.registry.publish("user", &number.to_string(), &catalog::tiny("user").user(user))?;
        world.client.pull(&image).await?;
        let found = world.client.image(&image).await?.unwrap_or_default();
        if world.node.runtime() == Runtime::Berth {
            assert_eq!((found.uid.map(|uid| uid.value), found.username.as_str()), (uid, name), "{user:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn pinned_images_say_so_and_can_be_removed_by_hand() -> Result<()> {
    let config = "[image]\npinned = [\"*/node-agent:*\", \"docker.io/library/plain:v1\"]\n";
    let options = Options { config: config.into(), ..Options::default() };
    let mut world = World::start_with(options).await?;
    if world.node.runtime() == Runtime::Containerd {
        println!("not run: containerd pins its sandbox image only");
        return Ok(());
    }
    let pinned = world.registry.publish("node-agent", "v1", &catalog::tiny("agent"))?;
    let plain = world.registry.publish("node-agent-not", "v1", &catalog::tiny("plain"))?;
    world.registry.publish("library/plain", "v1", &catalog::tiny("exact"))?;
    for (name, expected) in [(&pinned, true), (&plain, false), (&"plain:v1".to_owned(), true)] {
        world.client.pull(name).await?;
        let image = world.client.image(name).await?.unwrap_or_default();
        assert_eq!(image.pinned, expected, "{name}");
        let listed = world.client.list_images().await?;
        assert!(listed.contains(&image), "{name}");
    }
    world.node.kill()?;
    world.node.launch().await?;
    world.client = world.node.client().await?;
    assert!(world.client.image(&pinned).await?.unwrap_or_default().pinned);
    world.client.remove_image(&pinned).await?;
    assert_eq!(world.client.image(&pinned).await?, None);
    Ok(())
}
