//! Volumes that the kubelet fills: configuration, secrets, projections, scratch space, and parts of them.

use anyhow::Result;
use berth_e2e_kubernetes::images::{BUSYBOX, HTTPD};
use berth_e2e_kubernetes::pods::{alone, shell, sleeper, with};
use berth_e2e_kubernetes::scenario::{Scenario, scenario};
use serde_json::json;

fn configure(s: &Scenario) -> Result<()> {
    s.kubectl(&["create", "configmap", "look", "--from-literal=color=red", "--from-literal=SHAPE=round"])?;
    s.kubectl(&["create", "secret", "generic", "login", "--from-literal=password=s3cret"]).map(drop)
}

#[test]
fn config_maps_and_secrets_are_files_and_variables() -> Result<()> {
    scenario("configmap", |s| {
        configure(s)?;
        let script = "echo $SHAPE $WORD; cat /look/the/color /login/password; echo; \
                      stat -L -c '%a %F' /look/the/color /login/password; mount | grep ' /login ' | cut -d' ' -f5; \
                      echo x > /login/password; echo x > /look/new";
        let main = with(
            shell(script),
            json!({
                "envFrom": [{ "configMapRef": { "name": "look" } }],
                "env": [{ "name": "WORD", "valueFrom": { "secretKeyRef": { "name": "login", "key": "password" } } }],
                "volumeMounts": [
                    { "name": "look", "mountPath": "/look" },
                    { "name": "login", "mountPath": "/login", "readOnly": true },
                ],
            }),
        );
        let volumes = json!([
            { "name": "look", "configMap": { "name": "look", "items": [{ "key": "color", "path": "the/color" }] } },
            { "name": "login", "secret": { "secretName": "login", "defaultMode": 0o400 } },
        ]);
        let said = s.said("reader", with(alone(main), json!({ "volumes": volumes })))?;
        let lines: Vec<_> = said.lines().collect();
        let expected = ["round s3cret", "reds3cret", "644 regular file", "400 regular file", "tmpfs"];
        assert_eq!(lines[..5], expected, "{said}");
        assert_eq!(said.matches("Read-only file system").count(), 2, "{said}");
        Ok(())
    })
}

#[test]
fn a_running_pod_sees_what_was_changed_in_its_config_map() -> Result<()> {
    scenario("configmap-changed", |s| {
        configure(s)?;
        let mounts = json!([
            { "name": "look", "mountPath": "/look" },
            { "name": "look", "mountPath": "/etc/color", "subPath": "color" },
        ]);
        let volumes = json!([{ "name": "look", "configMap": { "name": "look" } }]);
        let main = with(sleeper(), json!({ "volumeMounts": mounts }));
        s.start("reader", with(alone(main), json!({ "volumes": volumes })))?;
        assert_eq!(s.shell("reader", "cat /look/color; echo; cat /etc/color")?, "red\nred");
        s.kubectl(&["patch", "configmap", "look", "--patch", r#"{"data":{"color":"blue"}}"#])?;
        s.until(|| s.shell("reader", "cat /look/color"), |color| color == "blue")?;
        // A part of a volume is a bind mount of a file, which does not follow.
        assert_eq!(s.shell("reader", "cat /etc/color")?, "red");
        Ok(())
    })
}

#[test]
fn a_projected_volume_unites_its_sources() -> Result<()> {
    scenario("projected", |s| {
        configure(s)?;
        let script = "cd /all; cat color password name limit labels; echo; \
                      cut -d. -f2 token | base64 -d 2>/dev/null | grep -o '\"aud\":[^]]*]'; ls /all";
        let sources = json!([
            { "configMap": { "name": "look", "items": [{ "key": "color", "path": "color" }] } },
            { "secret": { "name": "login", "items": [{ "key": "password", "path": "password" }] } },
            { "serviceAccountToken": { "path": "token", "audience": "vault", "expirationSeconds": 600 } },
            { "downwardAPI": { "items": [
                { "path": "name", "fieldRef": { "fieldPath": "metadata.name" } },
                { "path": "labels", "fieldRef": { "fieldPath": "metadata.namespace" } },
                { "path": "limit", "resourceFieldRef": { "containerName": "main", "resource": "limits.memory" } },
            ] } },
        ]);
        let main = with(
            shell(script),
            json!({
                "resources": { "limits": { "memory": "64Mi" } },
                "volumeMounts": [{ "name": "all", "mountPath": "/all" }],
            }),
        );
        let volumes = json!([{ "name": "all", "projected": { "sources": sources } }]);
        let said = s.said("united", with(alone(main), json!({ "volumes": volumes })))?;
        let all = format!("reds3cretunited67108864{}", s.namespace());
        assert!(said.starts_with(&all), "{said}");
        assert!(said.contains(r#""aud":["vault"]"#), "{said}");
        assert!(said.ends_with("color\nlabels\nlimit\nname\npassword\ntoken"), "{said}");
        Ok(())
    })
}

#[test]
fn containers_share_an_empty_dir_on_disk_or_in_memory() -> Result<()> {
    scenario("emptydir", |s| {
        let mounts =
            json!([{ "name": "disk", "mountPath": "/disk" }, { "name": "memory", "mountPath": "/memory" }]);
        let script = "echo from-init > /disk/file; echo from-init > /memory/file";
        let init = json!({ "name": "init", "image": BUSYBOX, "command": ["sh", "-c", script], "volumeMounts": mounts });
        let script = "cat /disk/file /memory/file; df -m /memory | tail -n1 | tr -s ' ' | cut -d' ' -f1,2; \
                      stat -c %a /disk /memory; dd if=/dev/zero of=/memory/big bs=1M count=20";
        let main = with(
            shell(script),
            json!({ "volumeMounts": mounts, "resources": { "limits": { "memory": "64Mi" } } }),
        );
        let spec = json!({
            "initContainers": [init],
            "volumes": [
                { "name": "disk", "emptyDir": {} },
                { "name": "memory", "emptyDir": { "medium": "Memory", "sizeLimit": "16Mi" } },
            ],
        });
        let said = s.said("sharer", with(alone(main), spec))?;
        let lines: Vec<_> = said.lines().collect();
        assert_eq!(lines[..5], ["from-init", "from-init", "tmpfs 16", "777", "1777"], "{said}");
        assert!(said.contains("No space left on device"), "{said}");
        Ok(())
    })
}

#[test]
fn a_part_of_a_volume_is_mounted_by_a_fixed_and_by_a_made_up_name() -> Result<()> {
    scenario("subpath", |s| {
        let script = "echo one > /part/file; echo two > /mine/file; cat /whole/part/file /whole/subpath-pod/file; \
                      mount | grep -c ' /whole\\| /part\\| /mine'";
        let main = with(
            shell(script),
            json!({
                "env": [{ "name": "ME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } }],
                "volumeMounts": [
                    { "name": "data", "mountPath": "/whole" },
                    { "name": "data", "mountPath": "/part", "subPath": "part" },
                    { "name": "data", "mountPath": "/mine", "subPathExpr": "$(ME)" },
                ],
            }),
        );
        let volumes = json!([{ "name": "data", "emptyDir": {} }]);
        let said = s.said("subpath-pod", with(alone(main), json!({ "volumes": volumes })))?;
        assert_eq!(said, "one\ntwo\n3");
        Ok(())
    })
}

#[test]
fn an_image_is_a_volume_whole_and_in_part() -> Result<()> {
    scenario("image-volume", |s| {
        let script = "exec 2>&1; cat /image/www/index.html /page/index.html; echo x > /page/new; ls -A /page";
        let main = with(
            shell(script),
            json!({ "volumeMounts": [
                { "name": "site", "mountPath": "/image" },
                { "name": "site", "mountPath": "/page", "subPath": "www" },
            ] }),
        );
        let volumes =
            json!([{ "name": "site", "image": { "reference": HTTPD, "pullPolicy": "IfNotPresent" } }]);
        let said = s.said("site", with(alone(main), json!({ "volumes": volumes })))?;
        assert_eq!(said.matches("<html><body>httpd</body></html>").count(), 2, "{said}");
        assert!(said.contains("Read-only file system") && said.ends_with("\nindex.html"), "{said}");
        Ok(())
    })
}

#[test]
fn an_image_volume_that_cannot_be_says_why() -> Result<()> {
    scenario("image-volume-bad", |s| {
        let mount =
            |part: &str| json!({ "volumeMounts": [{ "name": "v", "mountPath": "/v", "subPath": part }] });
        let volume = |image: &str, policy: &str| json!({ "volumes": [{ "name": "v", "image": { "reference": image, "pullPolicy": policy } }] });
        let nowhere = "registry.k8s.io/no-such-image:1";
        for (name, image, policy, part, reasons, words) in [
            (
                "part",
                HTTPD,
                "IfNotPresent",
                "none",
                &["CreateContainerError"] as &[_],
                "inside the image: No such file",
            ),
            ("pull", nowhere, "Always", "", &["ErrImagePull", "ImagePullBackOff"], "no-such-image"),
            ("never", nowhere, "Never", "", &["ErrImageNeverPull"], "no-such-image"),
        ] {
            s.create(name, with(alone(with(sleeper(), mount(part))), volume(image, policy)))?;
            let message = s.waits(name, reasons)?;
            assert!(message.contains(words), "{name}: {message}");
        }
        Ok(())
    })
}
