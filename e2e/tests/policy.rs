//! Whose images a node takes: signed as cosign signs, kept as registries keep signatures, refused in the kubelet's words.

use std::path::Path;
use std::process::{Command, Output};

use anyhow::Result;
use berth_e2e::client::{expect_refusal, image_spec};
use berth_e2e::crictl::Crictl;
use berth_e2e::images::signed::{sign_bundles, sign_simple};
use berth_e2e::images::{self, Built, Format, Image, catalog, publish};
use berth_e2e::node::Options;
use berth_e2e::registry::Registry;
use berth_e2e::runtime::{Runtime, berth};
use berth_e2e::sigstore::{self, Annotations, By, Certified, SIGN, Sigstore};
use berth_e2e::world::World;
use berth_proto::cri::v1::*;
use rcgen::KeyPair;
use tempfile::TempDir;
use tonic::Code;

const FAILED: &str = "SignatureValidationFailed: ";
const SUBJECT: &str = "https://ci.test/team/app/release@refs/tags/v1";
const ISSUER: &str = "https://oidc.test";
/// When the certificates were made.
const THEN: u64 = 1_700_000_000;

/// Who may sign, and the files that say so.
struct Signers {
    dir: TempDir,
    key: KeyPair,
    sigstore: Sigstore,
    certified: Certified,
}

impl Signers {
    fn new() -> Result<Self> {
        let (dir, key, sigstore) = (tempfile::tempdir()?, KeyPair::generate()?, Sigstore::new()?);
        std::fs::write(dir.path().join("team.pub"), key.public_key_pem())?;
        std::fs::write(dir.path().join("root.json"), sigstore.trusted_root().to_string())?;
        let certified = sigstore.certify(SUBJECT, ISSUER, THEN)?;
        Ok(Self { dir, key, sigstore, certified })
    }

    fn by_certificate(&self) -> By<'_> {
        By::Certificate(&self.certified, &self.sigstore, THEN + 1)
    }

    /// Images of docker.io/keys need the key, those of docker.io/ci the certificate.
    fn rules(&self) -> String {
        let dir = self.dir.path().display();
        format!(
            "[[image.policy.rules]]\nscope = \"docker.io/keys\"\nkeys = [\"{dir}/team.pub\"]\n\
             [[image.policy.rules]]\nscope = \"docker.io/ci\"\ntrusted_root = \"{dir}/root.json\"\n\
             identities = [{{ subject = \"https://ci.test/team/*@refs/tags/*\", issuer = \"{ISSUER}\" }}]\n\
             [[image.policy.rules]]\nscope = \"docker.io/bad\"\naction = \"reject\"\n"
        )
    }
}

/// A node with these rules, whose registry is docker.io's; none where another runtime is tried.
async fn world(config: String) -> Result<Option<World>> {
    if Runtime::from_env()? != Runtime::Berth {
        println!("not run: other runtimes have no such policy");
        return Ok(None);
    }
    Ok(Some(World::start_with(Options { config, ..Options::default() }).await?))
}

fn publish_image(registry: &Registry, name: &str) -> Result<Built> {
    let image = catalog::tiny(name).build()?;
    registry.storage().publish(name, "1", &image)?;
    Ok(image)
}

fn simple(digest: &str, by: &By<'_>) -> Result<(Vec<u8>, Annotations)> {
    let payload = sigstore::payload(digest, "docker.io/keys/app");
    let annotations = sigstore::simple(&payload, by)?;
    Ok((payload, annotations))
}

#[tokio::test]
async fn images_are_pulled_that_a_key_has_signed_and_no_others() -> Result<()> {
    let signers = Signers::new()?;
    let Some(world) = world(signers.rules()).await? else { return Ok(()) };
    let (registry, crictl) = (&world.registry, Crictl::new(&world.node)?);
    let (by, stranger) = (By::Key(&signers.key), KeyPair::generate()?);

    let image = publish_image(registry, "keys/simple")?;
    sign_simple(&registry.storage(), "keys/simple", image.digest(), &[simple(image.digest(), &by)?])?;
    crictl.run(&["pull", "docker.io/keys/simple:1"])?;
    crictl.run(&["pull", &format!("docker.io/keys/simple@{}", image.digest())])?;

    let image = publish_image(registry, "keys/bundle")?;
    let bundle = sigstore::bundle(&sigstore::statement(image.digest(), SIGN), &by)?;
    sign_bundles(&registry.storage(), "keys/bundle", image.digest(), &[bundle])?;
    crictl.run(&["pull", "docker.io/keys/bundle:1"])?;

    let image = publish_image(registry, "keys/unsigned")?;
    let error = crictl.run(&["pull", "docker.io/keys/unsigned:1"]).unwrap_err().to_string();
    let missing =
        format!("the policy for docker.io/keys asks for a signature, and {} has none", image.digest());
    for words in [FAILED, "docker.io/keys/unsigned:1", &missing] {
        assert!(error.contains(words), "{error}");
    }
    assert_eq!(world.client.image("docker.io/keys/unsigned:1").await?, None);

    let image = publish_image(registry, "keys/stranger")?;
    sign_simple(
        &registry.storage(),
        "keys/stranger",
        image.digest(),
        &[simple(image.digest(), &By::Key(&stranger))?],
    )?;
    let refused = world.client.pull("docker.io/keys/stranger:1").await;
    expect_refusal(refused, &[Code::Unknown], &[FAILED, "one is by another key", image.digest()]);

    publish_image(registry, "bad/app")?;
    let refused = world.client.pull("docker.io/bad/app:1").await;
    expect_refusal(refused, &[Code::Unknown], &[FAILED, "the policy for docker.io/bad rejects all images"]);
    publish_image(registry, "free/app")?;
    world.client.pull("docker.io/free/app:1").await?;
    Ok(())
}

#[tokio::test]
async fn images_are_pulled_whose_signer_s_certificate_the_policy_names() -> Result<()> {
    let signers = Signers::new()?;
    let Some(world) = world(signers.rules()).await? else { return Ok(()) };
    let registry = &world.registry;
    let image = publish_image(registry, "ci/simple")?;
    sign_simple(
        &registry.storage(),
        "ci/simple",
        image.digest(),
        &[simple(image.digest(), &signers.by_certificate())?],
    )?;
    world.client.pull("docker.io/ci/simple:1").await?;
    let image = publish_image(registry, "ci/bundle")?;
    let statement = sigstore::statement(image.digest(), SIGN);
    sign_bundles(
        &registry.storage(),
        "ci/bundle",
        image.digest(),
        &[sigstore::bundle(&statement, &signers.by_certificate())?],
    )?;
    world.client.pull("docker.io/ci/bundle:1").await?;

    // Somebody else whom the same authority knows; the right name of another provider; our key, which is for keys only.
    let branch = signers.sigstore.certify("https://ci.test/team/app/release@refs/heads/x", ISSUER, THEN)?;
    let other = signers.sigstore.certify(SUBJECT, "https://other.test", THEN)?;
    for (name, by, why) in [
        ("ci/branch", By::Certificate(&branch, &signers.sigstore, THEN), "whom no identity of the rule fits"),
        ("ci/issuer", By::Certificate(&other, &signers.sigstore, THEN), "https://other.test"),
        ("ci/key", By::Key(&signers.key), "by another key"),
        ("ci/late", By::Certificate(&signers.certified, &signers.sigstore, THEN + 601), "does not verify"),
    ] {
        let image = publish_image(registry, name)?;
        let bundle = sigstore::bundle(&sigstore::statement(image.digest(), SIGN), &by)?;
        sign_bundles(&registry.storage(), name, image.digest(), &[bundle])?;
        let refused = world.client.pull(&format!("docker.io/{name}:1")).await;
        expect_refusal(refused, &[Code::Unknown], &[FAILED, why]);
    }
    Ok(())
}

#[tokio::test]
async fn who_signs_the_index_or_this_machine_s_manifest_approves_of_the_image() -> Result<()> {
    let signers = Signers::new()?;
    let Some(world) = world(signers.rules()).await? else { return Ok(()) };
    let registry = &world.registry;
    for (name, signed) in
        [("keys/index", Some(2)), ("keys/ours", Some(1)), ("keys/foreign", Some(0)), ("keys/none", None)]
    {
        let of =
            |architecture: &str| Image { architecture: architecture.into(), ..catalog::tiny(name) }.build();
        let images = [of("s390x")?, of("amd64")?];
        for image in &images {
            registry.storage().publish_untagged(name, image)?;
        }
        let index = images::index(Format::Oci, &images)?;
        registry.storage().tag(name, "1", &index)?;
        let digests = [images[0].digest(), images[1].digest(), index.digest.as_str()];
        if let Some(signed) = signed {
            let signature = simple(digests[signed], &By::Key(&signers.key))?;
            sign_simple(&registry.storage(), name, digests[signed], &[signature])?;
        }
        let pulled = world.client.pull(&format!("docker.io/{name}:1")).await;
        match signed {
            Some(1..) => drop(pulled?),
            _ => expect_refusal(pulled, &[Code::Unknown], &[FAILED, &index.digest]),
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_good_signature_is_found_among_many_bad_ones_but_not_among_any_number() -> Result<()> {
    let signers = Signers::new()?;
    let Some(world) = world(signers.rules()).await? else { return Ok(()) };
    let registry = &world.registry;
    let stranger = KeyPair::generate()?;
    for (name, bad) in [("keys/few", 30), ("keys/many", 70)] {
        let image = publish_image(registry, name)?;
        let mut all = vec![simple(image.digest(), &By::Key(&signers.key))?];
        for at in 0..bad {
            let payload = sigstore::payload(image.digest(), &format!("docker.io/keys/{at}"));
            let annotations = sigstore::simple(&payload, &By::Key(&stranger))?;
            all.push((payload, annotations));
        }
        sign_simple(&registry.storage(), name, image.digest(), &all)?;
    }
    world.client.pull("docker.io/keys/few:1").await?;
    let refused = world.client.pull("docker.io/keys/many:1").await;
    expect_refusal(refused, &[Code::Unknown], &[FAILED, "beyond the 64 that are looked at"]);

    // A signature without an end, and one that is none.
    let image = publish_image(registry, "keys/huge")?;
    let mut payload = sigstore::payload(image.digest(), "docker.io/keys/huge");
    payload.resize(payload.len() + (1 << 20), b' ');
    let annotations = sigstore::simple(&payload, &By::Key(&signers.key))?;
    sign_simple(
        &registry.storage(),
        "keys/huge",
        image.digest(),
        &[(payload, annotations), (b"no JSON".to_vec(), Annotations::new())],
    )?;
    let refused = world.client.pull("docker.io/keys/huge:1").await;
    expect_refusal(refused, &[Code::Unknown], &[FAILED, "larger than the limit", "can't be read"]);
    Ok(())
}

#[tokio::test]
async fn a_policy_that_comes_later_holds_for_what_is_there_already() -> Result<()> {
    let signers = Signers::new()?;
    let Some(mut world) = world(String::new()).await? else { return Ok(()) };
    const NAME: &str = "docker.io/keys/app:1";
    let image = catalog::busybox()?.label("test", "policy").build()?;
    world.registry.storage().publish("keys/app", "1", &image)?;
    let id = world.client.pull(NAME).await?;
    let mut spec = world.sleeper("old");
    spec.image = Some(image_spec(NAME));
    let (pod, old) = world.run(&world.pod("old"), &spec).await?;

    let config = std::fs::read_to_string(world.node.config_file())?;
    restart(&mut world, &format!("{config}\n{}", signers.rules())).await?;
    // The name is gone, and so is every way to run it; who runs it runs on.
    assert_eq!(world.client.image(NAME).await?, None);
    let listed = world.client.list_images().await?;
    assert!(listed.iter().any(|image| image.id == id && image.repo_tags.is_empty()), "{listed:?}");
    assert_eq!(world.client.status(&old).await?.state(), ContainerState::ContainerRunning);
    let words = [FAILED, "was not admitted by the policy in force"];
    let config = world.pod("new");
    let sandbox = world.client.run_pod(&config).await?;
    let mut runs = world.sleeper("runs");
    runs.image = Some(image_spec(&id));
    expect_refusal(world.client.create(&sandbox, &runs, &config).await, &[Code::Unknown], &words);
    let mut shows = world.sleeper("shows");
    shows.mounts.push(Mount {
        container_path: "/image".into(),
        readonly: true,
        image: Some(image_spec(&id)),
        ..Default::default()
    });
    let refused = world.client.create(&sandbox, &shows, &config).await;
    expect_refusal(refused, &[Code::Unknown], &["ImageVolumeMountFailed: ", words[1]]);
    expect_refusal(world.client.pull(NAME).await, &[Code::Unknown], &[FAILED, "asks for a signature"]);

    // Once it is signed, the pull gives the name back, and the next start knows.
    let digest = image.digest();
    sign_simple(&world.registry.storage(), "keys/app", digest, &[simple(digest, &By::Key(&signers.key))?])?;
    assert_eq!(world.client.pull(NAME).await?, id);
    let text = std::fs::read_to_string(world.node.config_file())?;
    restart(&mut world, &text).await?;
    assert_eq!(world.client.image(NAME).await?.map(|image| image.id), Some(id.clone()));
    world.launch(&sandbox, &runs, &config).await?;
    world.launch(&sandbox, &shows, &config).await?;

    // Another key is another policy.
    std::fs::write(signers.dir.path().join("team.pub"), KeyPair::generate()?.public_key_pem())?;
    restart(&mut world, &text).await?;
    assert_eq!(world.client.image(NAME).await?, None);
    world.client.end_pod(&pod).await?;
    world.client.end_pod(&sandbox).await?;
    Ok(())
}

async fn restart(world: &mut World, config: &str) -> Result<()> {
    world.node.stop()?;
    std::fs::write(world.node.config_file(), config)?;
    world.node.launch().await?;
    world.client = world.node.client().await?;
    Ok(())
}

#[tokio::test]
async fn an_import_is_judged_by_the_names_in_the_archive() -> Result<()> {
    let signers = Signers::new()?;
    let Some(world) = world(signers.rules()).await? else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    for (name, signed) in [("keys/good", true), ("keys/bad", false), ("free/app", false)] {
        let image = catalog::tiny(name).build()?;
        if signed {
            sign_simple(
                &world.registry.storage(),
                name,
                image.digest(),
                &[simple(image.digest(), &By::Key(&signers.key))?],
            )?;
        }
        let (archive, full) = (dir.path().join("image.tar"), format!("docker.io/{name}:1"));
        publish::oci_archive(&image, &full, std::fs::File::create(&archive)?)?;
        let output = import(&world.node.socket(), &archive)?;
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), signed || name == "free/app", "{name}: {told}");
        assert!(output.status.success() || told.contains("asks for a signature"), "{told}");
        assert_eq!(world.client.image(&full).await?.is_some(), output.status.success());
    }
    Ok(())
}

fn import(socket: &Path, archive: &Path) -> Result<Output> {
    Ok(Command::new(berth()?).args(["image", "--socket"]).arg(socket).arg("import").arg(archive).output()?)
}

#[test]
fn a_policy_whose_files_are_not_there_is_told_before_the_start_and_stops_it() -> Result<()> {
    if Runtime::from_env()? != Runtime::Berth {
        println!("not run: other runtimes have no such policy");
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let config = dir.path().join("config.toml");
    std::fs::write(&config, "[[image.policy.rules]]\nscope = \"quay.io\"\nkeys = [\"/no/such/key.pub\"]\n")?;
    let check = Command::new(berth()?).args(["check", "--config"]).arg(&config).output()?;
    // It wraps its lines.
    let told = String::from_utf8_lossy(&check.stdout);
    let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(told.contains("cannot read /no/such/key.pub: No such file"), "{told}");
    let mut serve = Command::new(berth()?);
    serve.arg("serve").arg("--config").arg(&config).arg("--root").arg(dir.path().join("root"));
    let output = serve.arg("--state").arg(dir.path().join("state")).output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && told.contains("cannot read /no/such/key.pub: No such file"),
        "{told}"
    );
    Ok(())
}
