//! Pods whose users are not the node's.

use std::os::unix::fs::MetadataExt as _;

use anyhow::{Context, Result};
use berth_e2e_kubernetes::images::HTTPD;
use berth_e2e_kubernetes::pods::{alone, shell, sleeper, with};
use berth_e2e_kubernetes::scenario::scenario;
use serde_json::json;

/// The first id on the node of a pod's map, and how many there are.
fn range(map: &str) -> Result<(u32, u32)> {
    let numbers: Vec<u32> = map.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let [0, first, count] = numbers[..] else { anyhow::bail!("uid_map is {map}") };
    Ok((first, count))
}

#[test]
fn root_of_a_pod_is_nobody_on_the_node() -> Result<()> {
    scenario("userns", |s| {
        for name in ["one", "two"] {
            s.start(name, with(alone(sleeper()), json!({ "hostUsers": false })))?;
        }
        let mut ranges = Vec::new();
        for name in ["one", "two"] {
            ranges.push(range(&s.shell(name, "cat /proc/self/uid_map")?)?);
            assert_eq!(s.shell(name, "id -u; stat -c %u:%g /etc/passwd /root")?, "0\n0:0\n0:0");
            assert_eq!(s.shell(name, "touch /new && chown 33:33 /new && stat -c %u:%g /new")?, "33:33");
        }
        assert!(ranges.iter().all(|(first, count)| *first >= 65_536 && *count == 65_536), "{ranges:?}");
        assert_ne!(ranges[0], ranges[1], "two pods have the same users");
        s.start("plain", alone(sleeper()))?;
        let map = s.shell("plain", "cat /proc/self/uid_map")?;
        assert_eq!(range(&map)?, (0, u32::MAX));
        Ok(())
    })
}

#[test]
fn volumes_belong_to_the_pods_users_inside_and_to_the_nodes_outside() -> Result<()> {
    scenario("userns-volumes", |s| {
        s.kubectl(&["create", "configmap", "look", "--from-literal=color=red"])?;
        let shared = s.directory().disk().join(s.namespace());
        std::fs::create_dir(&shared)?;
        let script = "stat -c %u:%g /data /host; stat -L -c %u:%g /look/color /image/www/index.html; \
                      echo x > /data/new; stat -c %u:%g /data/new; echo x > /host/new; stat -c %u:%g /host/new; \
                      chown 1000:1000 /host/new";
        let mounts = json!({ "volumeMounts": [
            { "name": "data", "mountPath": "/data" },
            { "name": "host", "mountPath": "/host" },
            { "name": "look", "mountPath": "/look" },
            { "name": "image", "mountPath": "/image" },
        ] });
        let spec = json!({
            "hostUsers": false,
            "volumes": [
                { "name": "data", "emptyDir": {} },
                { "name": "host", "hostPath": { "path": shared } },
                { "name": "look", "configMap": { "name": "look" } },
                { "name": "image", "image": { "reference": HTTPD } },
            ],
        });
        let said = s.said("owner", with(alone(with(shell(script), mounts)), spec));
        let owner = std::fs::metadata(shared.join("new")).map(|file| (file.uid(), file.gid()));
        std::fs::remove_dir_all(&shared)?;
        assert_eq!(said?, ["0:0"; 6].join("\n"));
        assert_eq!(owner.context("nothing was written")?, (1000, 1000));
        Ok(())
    })
}

#[test]
fn a_pod_with_its_own_users_has_network_probes_and_exec() -> Result<()> {
    scenario("userns-whole", |s| {
        let web = json!({
            "name": "main",
            "image": HTTPD,
            "readinessProbe": { "httpGet": { "path": "/", "port": 80 }, "periodSeconds": 1 },
            "livenessProbe": { "exec": { "command": ["wget", "-q", "-O", "-", "http://127.0.0.1/"] } },
            "securityContext": { "seccompProfile": { "type": "RuntimeDefault" } },
        });
        s.start("web", with(alone(web), json!({ "hostUsers": false })))?;
        let address = s.field("pod/web", "{.status.podIP}")?;
        let page = s.said("client", alone(shell(&format!("wget -q -O - http://{address}/"))))?;
        assert_eq!(page, "<html><body>httpd</body></html>");
        assert_eq!(s.shell("web", "cat /proc/1/comm; hostname")?, "httpd\nweb");
        assert_eq!(s.field("pod/web", "{.status.containerStatuses[0].restartCount}")?, "0");
        Ok(())
    })
}
