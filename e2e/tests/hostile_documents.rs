//! Documents of images made to be understood in two ways, or in none, to ask for other hosts, or to keep the daemon busy.
//! Each is refused in few words; the daemon lives on, and the next image works.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use anyhow::Result;
use berth_e2e::client::expect_refusal;
use berth_e2e::faulty::{Fault, FaultyRegistry};
use berth_e2e::images::{Blob, Built, catalog};
use berth_e2e::world::World;
use tonic::Code;

/// The manifest of a good image with its text changed.
fn changed(image: &Built, change: impl FnOnce(String) -> String) -> Result<Built> {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut image.manifest.source.open()?, &mut bytes)?;
    let text = change(String::from_utf8(bytes)?);
    Ok(Built { manifest: Blob::new(&image.manifest.media_type, text.into_bytes()), ..image.clone() })
}

async fn refuse(world: &World, image: Built, codes: &[Code]) -> Result<String> {
    let registry = FaultyRegistry::start(image, Fault::None)?;
    let reply = world.client.pull(&registry.reference()).await;
    let told = reply.as_ref().err().map(|status| status.message().to_owned()).unwrap_or_default();
    expect_refusal(reply, codes, &["image"]);
    assert!(told.len() < 8192 && !told.contains('\u{1b}'), "{} bytes: {told:.200}", told.len());
    assert_eq!(world.client.image(&registry.reference()).await?, None);
    Ok(told)
}

#[tokio::test]
async fn documents_that_are_two_things_or_none_are_refused() -> Result<()> {
    let Some(world) = World::start_to_attack().await? else { return Ok(()) };
    let pid = world.node.pid();
    let good = catalog::tiny("documents").build()?;
    let layer = good.blobs[0].digest.clone();
    let codes = [Code::InvalidArgument, Code::DataLoss];
    let before_end = |more: &str| {
        let more = more.to_owned();
        move |text: String| format!("{},{more}}}", &text[..text.len() - 1])
    };
    for more in [
        r#""manifests":[]"#,
        r#""layers":[]"#,
        r#""Layers":[]"#,
        r#""layer\u017f":[]"#,
        r#""mediaType":"application/vnd.oci.image.index.v1+json""#,
        r#""MediaType":"application/vnd.oci.image.index.v1+json""#,
        r#""annotations":{"a":"1","a":"2"}"#,
    ] {
        refuse(&world, changed(&good, before_end(more))?, &codes).await?;
    }
    let bad_digests = [
        "".to_owned(),
        "sha256:".to_owned(),
        layer[..70].to_owned(),
        format!("{layer}0"),
        layer.to_uppercase(),
        "sha256:../../../../etc/passwd".to_owned(),
        "md5:d41d8cd98f00b204e9800998ecf8427e".to_owned(),
        format!("sha256:{}", "0".repeat(1 << 20)),
        "\\u001b[31m".to_owned(),
    ];
    for digest in bad_digests {
        let told = refuse(&world, changed(&good, |text| text.replace(&layer, &digest))?, &codes).await?;
        assert!(told.contains("digest"), "{told}");
    }
    for size in ["-1", "18446744073709551616", "1e99", "null", "\"1\"", "[]"] {
        let size = format!("\"size\":{size}");
        let own = format!("\"size\":{}", good.blobs[0].size);
        refuse(&world, changed(&good, |text| text.replacen(&own, &size, 1))?, &codes).await?;
    }
    let quoted = format!("\"size\":\"{}\"", "x".repeat(1 << 20));
    let own = format!("\"size\":{}", good.blobs[0].size);
    refuse(&world, changed(&good, |text| text.replacen(&own, &quoted, 1))?, &codes).await?;
    refuse(&world, changed(&good, |_| "[".repeat(1 << 20))?, &codes).await?;
    assert_eq!(world.node.pid(), pid);
    world.client.pull(&world.busybox).await?;
    Ok(())
}

#[tokio::test]
async fn an_index_full_of_strange_platforms_is_told_briefly() -> Result<()> {
    let Some(world) = World::start_to_attack().await? else { return Ok(()) };
    let good = catalog::tiny("index").build()?;
    let kind = "application/vnd.oci.image.index.v1+json";
    let entry = format!(
        r#"{{"mediaType":"{}","digest":"{}","size":{},"platform":{{"os":"{}\u001b[31m\n","architecture":"x"}}}}"#,
        good.manifest.media_type,
        good.manifest.digest,
        good.manifest.size,
        "o".repeat(1000)
    );
    let text = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, vec![entry; 2000].join(","));
    let index = Built { manifest: Blob::new(kind, text.into_bytes()), ..good };
    refuse(&world, index, &[Code::NotFound]).await?;
    Ok(())
}

#[tokio::test]
async fn urls_in_a_document_are_asked_for_nothing() -> Result<()> {
    let Some(world) = World::start_to_attack().await? else { return Ok(()) };
    let thief = TcpListener::bind("127.0.0.1:0")?;
    thief.set_nonblocking(true)?;
    let url = format!("http://{}/steal", thief.local_addr()?);
    let good = catalog::tiny("urls").build()?;
    let digest = format!("\"digest\":\"{}\"", good.blobs[0].digest);
    let image = changed(&good, |text| text.replace(&digest, &format!("{digest},\"urls\":[\"{url}\"]")))?;
    let registry = FaultyRegistry::start(image, Fault::Login)?;
    let auth = berth_proto::cri::v1::AuthConfig {
        username: berth_e2e::registry::USER.into(),
        password: berth_e2e::registry::PASSWORD.into(),
        ..Default::default()
    };
    world.client.pull_as(&registry.reference(), Some(auth)).await?;
    let asked = thief.accept().map(|(_, who)| who);
    assert_eq!(asked.err().map(|error| error.kind()), Some(std::io::ErrorKind::WouldBlock));
    assert!(!world.node.log().contains(berth_e2e::registry::PASSWORD), "the log holds the password");
    Ok(())
}

#[tokio::test]
async fn fifty_damaged_layers_at_once_keep_nobody_from_the_next_pull() -> Result<()> {
    let Some(world) = World::start_to_attack().await? else { return Ok(()) };
    let storage = world.registry.storage();
    let mut names = Vec::new();
    for number in 0..50 {
        let mut built = catalog::tiny(&format!("damaged{number}")).build()?;
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut built.blobs[0].source.open()?, &mut bytes)?;
        match number % 3 {
            0 => bytes.truncate(bytes.len() - 5),
            1 => bytes.extend_from_slice(b"trailing junk"),
            _ => bytes.truncate(12),
        }
        let blob = Blob::new(&built.blobs[0].media_type, bytes);
        let (old, old_size) = (built.blobs[0].digest.clone(), format!("\"size\":{}", built.blobs[0].size));
        built = changed(&built, |text| {
            text.replace(&old, &blob.digest).replacen(&old_size, &format!("\"size\":{}", blob.size), 1)
        })?;
        built.blobs[0] = blob;
        storage.publish(&format!("damaged{number}"), "latest", &built)?;
        names.push(world.registry.reference(&format!("damaged{number}:latest")));
    }
    let start = Instant::now();
    let pulls = names.iter().map(|name| {
        let (client, name) = (world.client.clone(), name.clone());
        tokio::spawn(async move { client.pull(&name).await })
    });
    for pull in pulls.collect::<Vec<_>>() {
        expect_refusal(
            pull.await?,
            &[Code::InvalidArgument, Code::DataLoss],
            &["cannot unpack layer sha256:"],
        );
    }
    println!("50 refusals in {:?}", start.elapsed());
    assert!(start.elapsed() < berth_e2e::bound(Duration::from_secs(20)));
    let good = world.registry.publish("good", "latest", &catalog::tiny("good"))?;
    world.client.pull(&good).await?;
    let staged = std::fs::read_dir(world.node.root().join("staging"))?.count();
    assert_eq!(staged, 0, "staging");
    Ok(())
}
