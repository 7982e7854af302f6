//! What layers become: one root, as the image standard says, however they are packed and stacked.

use anyhow::Result;
use berth_e2e::client::image_spec;
use berth_e2e::images::layer::{Compression, Layer, Node};
use berth_e2e::images::{self, Format, Image, catalog};
use berth_e2e::runtime::Runtime;
use berth_e2e::world::World;

#[tokio::test]
async fn every_manifest_and_packing_is_pulled() -> Result<()> {
    let world = World::start().await?;
    for format in [Format::Oci, Format::Docker] {
        for packing in [Compression::None, Compression::Gzip, Compression::Zstd] {
            if (format, packing) == (Format::Docker, Compression::Zstd)
                || (format, packing) == (Format::Docker, Compression::None)
            {
                continue; // Schema 2 names gzip alone.
            }
            let layer =
                Layer::default().file("hello", 0o644, format!("{format:?} {packing:?}")).packed(packing);
            let image = Image { format, ..catalog::busybox()?.layer(layer) };
            let tag = format!("{format:?}-{packing:?}").to_lowercase();
            let name = world.registry.publish("forms", &tag, &image)?;
            world.client.pull(&name).await?;
            let manifest = match format {
                Format::Oci => "application/vnd.oci.image.manifest.v1+json",
                Format::Docker => "application/vnd.docker.distribution.manifest.v2+json",
            };
            assert_eq!(world.registry.media_type("forms", &tag)?, manifest);
            assert_eq!(file_in(&world, &name, "/hello").await?, format!("{format:?} {packing:?}"));
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_docker_manifest_list_gives_the_layers_of_this_machine() -> Result<()> {
    let world = World::start().await?;
    let of = |architecture: &str| -> Result<images::Built> {
        let layer = Layer::default().file("made-for", 0o644, architecture);
        let image = catalog::busybox()?.layer(layer);
        Image { format: Format::Docker, architecture: architecture.into(), ..image }.build()
    };
    let built = [of("arm/v7")?, of("arm64/v8")?, of("386")?, of("amd64")?, of("s390x")?, of("riscv64")?];
    let storage = world.registry.storage();
    for image in &built {
        storage.publish_untagged("list", image)?;
    }
    let list = images::index(Format::Docker, &built)?;
    storage.tag("list", "v2", &list)?;
    let name = world.registry.reference("list:v2");
    let kind = "application/vnd.docker.distribution.manifest.list.v2+json";
    assert_eq!(world.registry.media_type("list", "v2")?, kind);

    assert_eq!(world.client.pull(&name).await?, built[3].config_digest());
    assert_eq!(file_in(&world, &name, "/made-for").await?, "amd64");
    // The list has a digest of its own, and names the image by it.
    let status = world.client.image(&name).await?.unwrap_or_default();
    assert_eq!(status.repo_tags, [name.as_str()]);
    assert_eq!(status.repo_digests, [world.registry.reference(&format!("list@{}", list.digest))]);
    let by_list = world.registry.reference(&format!("list@{}", list.digest));
    assert_eq!(world.client.pull(&by_list).await?, status.id);
    Ok(())
}

/// Content of a file as a container of an image sees it.
async fn file_in(world: &World, image: &str, path: &str) -> Result<String> {
    shell_in(world, image, &format!("cat {path}")).await
}

async fn shell_in(world: &World, image: &str, script: &str) -> Result<String> {
    let mut spec = world.sleeper("look");
    spec.image = Some(image_spec(image));
    let (pod, id) = world.run(&world.pod("look"), &spec).await?;
    let seen = world.client.shell(&id, script).await?;
    world.client.end_pod(&pod).await?;
    Ok(seen)
}

#[tokio::test]
async fn layers_lie_over_each_other_as_the_standard_says() -> Result<()> {
    let world = World::start().await?;
    let below = Layer::default()
        .add("pile", 0o1777, Node::Dir)
        .file("pile/kept", 0o644, "kept")
        .file("pile/gone", 0o644, "gone")
        .dir("full")
        .file("full/old", 0o644, "old")
        .dir("becomes-file")
        .file("becomes-file/x", 0o644, "x");
    // No entry for `pile`: its mode must still be that of the layer below.
    let above = Layer::default()
        .whiteout("pile/gone")
        .file("pile/new", 0o644, "new")
        .dir("full")
        .file("full/fresh", 0o644, "fresh")
        .opaque("full")
        .whiteout("becomes-file")
        .file("becomes-file", 0o644, "file");
    let image = catalog::busybox()?.layer(below).layer(above);
    let name = world.registry.publish("layers", "latest", &image)?;
    world.client.pull(&name).await?;
    let script = "stat -c %a /pile; ls -A /pile /full; cat /becomes-file; \
                  find / -xdev -name '.wh.*'";
    let seen = shell_in(&world, &name, script).await?;
    assert_eq!(seen, "1777\n/full:\nfresh\n\n/pile:\nkept\nnew\nfile");
    Ok(())
}

#[tokio::test]
async fn a_hard_link_may_point_into_a_lower_layer() -> Result<()> {
    let world = World::start().await?;
    if world.node.runtime() == Runtime::Containerd {
        println!("not run: containerd looks for the target in the same layer");
        return Ok(());
    }
    let below = Layer::default().file("origin", 0o640, "origin");
    let above = Layer::default().add("linked", 0o640, Node::Hardlink("origin".into()));
    let image = catalog::busybox()?.layer(below).layer(above);
    let name = world.registry.publish("hard", "latest", &image)?;
    world.client.pull(&name).await?;
    let seen = shell_in(&world, &name, "cat /linked; [ /origin -ef /linked ] && echo same").await?;
    assert_eq!(seen, "originsame\n");
    Ok(())
}

#[tokio::test]
async fn owners_modes_and_links_are_kept() -> Result<()> {
    let world = World::start().await?;
    let mut layer = Layer::default();
    let entry =
        |path: &str, mode, uid, node| images::layer::Entry { path: path.into(), mode, uid, gid: 7, node };
    layer.push(entry("own", 0o2750, 1000, Node::Dir));
    layer.push(entry("own/setuid", 0o4711, 12, Node::File(b"x".to_vec())));
    layer.push(entry("own/link", 0o777, 13, Node::Symlink("../etc/passwd".into())));
    layer.push(entry("own/pipe", 0o600, 14, Node::Fifo));
    layer.push(entry("own/null", 0o666, 0, Node::Char(1, 3)));
    let name = world.registry.publish("owners", "latest", &catalog::busybox()?.layer(layer))?;
    world.client.pull(&name).await?;
    let script =
        "cd /own; stat -c '%n %a %u %g %F' . setuid link pipe null; stat -c '%t,%T' null; readlink link";
    let seen = shell_in(&world, &name, script).await?;
    assert_eq!(
        seen,
        ". 2750 1000 7 directory\nsetuid 4711 12 7 regular file\nlink 777 13 7 symbolic link\npipe 600 14 7 fifo\n\
         null 666 0 7 character special file\n1,3\n../etc/passwd\n"
    );
    Ok(())
}

#[tokio::test]
async fn an_image_may_have_many_layers() -> Result<()> {
    let world = World::start().await?;
    let mut image = catalog::busybox()?;
    for number in 0..100 {
        image = image.layer(Layer::default().file("top", 0o644, number.to_string()).file(
            &format!("many/{number}"),
            0o644,
            "",
        ));
    }
    let name = world.registry.publish("many", "latest", &image)?;
    world.client.pull(&name).await?;
    assert_eq!(shell_in(&world, &name, "cat /top; ls /many | wc -l").await?, "99100\n");
    Ok(())
}
