//! Images from registries that want a login, that lack them, or that lie; and when they are asked at all.

use anyhow::Result;
use berth_e2e::faulty::{Fault, FaultyRegistry};
use berth_e2e::images::catalog;
use berth_e2e::registry::{Options, PASSWORD, Registry, USER};
use berth_e2e_kubernetes::pods::{alone, with};
use berth_e2e_kubernetes::scenario::{Scenario, scenario};
use serde_json::{Value, json};

/// A pod whose container runs an image of a shell, and waits.
fn of(image: &str, policy: &str) -> Value {
    let command = ["sh", "-c", "trap exit TERM; while :; do sleep 0.2; done"];
    alone(json!({ "name": "main", "image": image, "imagePullPolicy": policy, "command": command }))
}

fn secret(s: &Scenario, name: &str, host: &str, password: &str) -> Result<()> {
    s.kubectl(&[
        "create",
        "secret",
        "docker-registry",
        name,
        &format!("--docker-server={host}"),
        &format!("--docker-username={USER}"),
        &format!("--docker-password={password}"),
    ])
    .map(drop)
}

fn with_secret(spec: Value, name: &str) -> Value {
    with(spec, json!({ "imagePullSecrets": [{ "name": name }] }))
}

const FAILED: [&str; 3] = ["ErrImagePull", "ImagePullBackOff", "RegistryUnavailable"];

/// Nobody without the right secret pulls `image` from `host`, or runs what is on the node already.
fn needs_a_secret(s: &Scenario, host: &str, image: &str) -> Result<()> {
    secret(s, "right", host, PASSWORD)?;
    secret(s, "wrong", host, "guess")?;
    s.create("anonymous", of(image, "IfNotPresent"))?;
    s.create("mistaken", with_secret(of(image, "IfNotPresent"), "wrong"))?;
    for name in ["anonymous", "mistaken"] {
        let message = s.waits(name, &FAILED)?;
        assert!(message.contains(host), "{name}: {message}");
        let cause = message.to_lowercase();
        assert!(cause.contains("401") || cause.contains("unauthorized"), "{name}: {message}");
    }
    s.start("welcome", with_secret(of(image, "IfNotPresent"), "right"))?;
    // The kubelet asks the registry on behalf of each who has not shown a secret that sufficed.
    s.create("later", of(image, "IfNotPresent"))?;
    s.waits("later", &FAILED)?;
    s.create("never", of(image, "Never"))?;
    s.waits("never", &["ErrImageNeverPull"])?;
    // Of the account, for each of its pods.
    let patch = r#"{"imagePullSecrets":[{"name":"right"}]}"#;
    s.kubectl(&["patch", "serviceaccount", "default", "--patch", patch])?;
    s.start("employed", of(image, "Always"))
}

#[test]
fn a_registry_with_basic_auth_serves_who_has_the_secret() -> Result<()> {
    scenario("pull-basic", |s| {
        let registry = Registry::start_with(Options { login: true, ..Options::default() })?;
        let image =
            registry.publish("private/shell", "1", &catalog::busybox()?.label("private", s.namespace()))?;
        needs_a_secret(s, &registry.host(), &image)
    })
}

#[test]
fn a_registry_with_token_auth_serves_who_has_the_secret() -> Result<()> {
    scenario("pull-token", |s| {
        let image = catalog::busybox()?.label("private", s.namespace()).build()?;
        let registry = FaultyRegistry::start(image, Fault::Login)?;
        let name = registry.reference();
        let host = name.split('/').next().unwrap_or_default();
        needs_a_secret(s, host, &name)?;
        let asked = registry.requests();
        assert!(asked.iter().any(|request| request.contains("/token")), "{asked:?}");
        Ok(())
    })
}

#[test]
fn the_policy_says_when_the_registry_is_asked() -> Result<()> {
    scenario("pull-policy", |s| {
        let image = catalog::busybox()?.label("policy", s.namespace()).build()?;
        let registry = FaultyRegistry::start(image, Fault::None)?;
        let name = registry.reference();
        s.create("never", of(&name, "Never"))?;
        let message = s.waits("never", &["ErrImageNeverPull"])?;
        assert!(message.contains("is not present with pull policy of Never"), "{message}");
        assert_eq!(registry.requests(), Vec::<String>::new());
        s.start("first", of(&name, "IfNotPresent"))?;
        assert_eq!(s.field("pod/first", "{.status.containerStatuses[0].image}")?, name);
        let message = s.event("first", "Pulled")?;
        assert!(
            message.contains("Successfully pulled image") && message.contains("Image size: "),
            "{message}"
        );
        let asked = registry.requests();
        s.start("second", of(&name, "IfNotPresent"))?;
        let message = s.event("second", "Pulled")?;
        assert!(message.contains("already present on machine"), "{message}");
        assert_eq!(registry.requests(), asked);
        s.start("always", of(&name, "Always"))?;
        let again = registry.requests().split_off(asked.len());
        assert!(again.iter().any(|request| request.contains("/manifests/latest")), "{again:?}");
        assert!(
            !again.iter().any(|request| request.contains("GET") && request.contains("/blobs/")),
            "{again:?}"
        );
        // What could not run before does now.
        s.wait("pod/never", "condition=Ready").map(drop)
    })
}

#[test]
fn a_failed_pull_names_its_cause() -> Result<()> {
    scenario("pull-fails", |s| {
        let registry = Registry::start()?;
        let shell = catalog::busybox()?;
        registry.publish("there", "1", &shell)?;
        let broken = |fault: Fault| FaultyRegistry::start(catalog::tiny(s.namespace()).build()?, fault);
        let (forged, spoilt) = (broken(Fault::WrongManifest)?, broken(Fault::WrongLayer)?);
        let busy = broken(Fault::Manifest(429))?;
        let none = format!("sha256:{}", "0".repeat(64));
        for (name, image, words) in [
            ("tag", registry.reference("there:2"), &["there:2", "not found"] as &[&str]),
            ("repository", registry.reference("nowhere:1"), &["nowhere:1", "not found"]),
            ("digest", registry.reference(&format!("there@{none}")), &[&none, "not found"]),
            ("host", "no-such-host.invalid/image:1".into(), &["no-such-host.invalid"]),
            ("closed", "127.0.0.1:1/image:1".into(), &["127.0.0.1:1", "refused"]),
            ("manifest", forged.reference(), &["digest", "sha256:"]),
            ("layer", spoilt.reference(), &["digest", "sha256:"]),
            ("busy", busy.reference(), &["rate"]),
        ] {
            s.create(name, of(&image, "Always"))?;
            let message = s.waits(name, &FAILED)?;
            let cause = message.to_lowercase();
            assert!(words.iter().all(|word| cause.contains(word)), "{name}: {message}");
            let event = s.event(name, "Failed")?;
            assert!(event.contains(&format!("Failed to pull image \"{image}\"")), "{name}: {event}");
        }
        s.create("name", of("Not/A/Name:1", "Always"))?;
        let message = s.waits("name", &["InvalidImageName"])?;
        assert!(message.contains("Not/A/Name"), "{message}");
        Ok(())
    })
}

#[test]
fn a_pull_that_failed_is_tried_again_and_succeeds() -> Result<()> {
    scenario("pull-again", |s| {
        let registry = Registry::start()?;
        s.create("patient", of(&registry.reference("late:1"), "IfNotPresent"))?;
        s.waits("patient", &["ImagePullBackOff"])?;
        registry.publish("late", "1", &catalog::busybox()?.label("late", s.namespace()))?;
        s.wait("pod/patient", "condition=Ready")?;
        assert_eq!(s.field("pod/patient", "{.status.containerStatuses[0].restartCount}")?, "0");
        Ok(())
    })
}
