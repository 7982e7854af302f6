//! What a container may do: users, groups, capabilities, privileges, sysctls.

use anyhow::Result;
use berth_e2e_kubernetes::pods::{alone, shell, sleeper, with};
use berth_e2e_kubernetes::scenario::scenario;
use serde_json::{Value, json};

const NO_NEW_PRIVILEGES: &str = "registry.k8s.io/e2e-test-images/nonewprivs:1.4";

/// A pod of one script, with the security contexts of pod and container.
fn secured(script: &str, pod: Value, container: Value) -> Value {
    let main = with(shell(script), json!({ "securityContext": container }));
    with(alone(main), json!({ "securityContext": pod }))
}

#[test]
fn users_and_groups_are_those_of_the_container_else_of_the_pod() -> Result<()> {
    scenario("users", |s| {
        let pod = json!({ "runAsUser": 1001, "runAsGroup": 2001, "supplementalGroups": [60000] });
        for (name, pod, container, expected) in [
            ("image", json!({}), json!({}), "0 0 0"),
            ("pod", pod.clone(), json!({}), "1001 2001 2001 60000"),
            ("container", pod, json!({ "runAsUser": 1002, "runAsGroup": 2002 }), "1002 2002 2002 60000"),
            ("group-of-root", json!({ "runAsUser": 1003 }), json!({}), "1003 0 0"),
        ] {
            let said = s.said(name, secured("echo $(id -u) $(id -g) $(id -G)", pod, container))?;
            assert_eq!(said, expected, "{name}");
        }
        Ok(())
    })
}

#[test]
fn groups_of_the_image_are_merged_unless_the_policy_is_strict() -> Result<()> {
    scenario("groups", |s| {
        for (policy, expected) in [("Merge", "1000 50000 60000"), ("Strict", "1000 60000")] {
            let name = policy.to_lowercase();
            let pod = json!({
                "runAsUser": 1000,
                "runAsGroup": 1000,
                "supplementalGroups": [60000],
                "supplementalGroupsPolicy": policy,
            });
            let said = s.said(&name, secured("id -G | tr ' ' '\\n' | sort -n", pod, json!({})))?;
            assert_eq!(said.lines().collect::<Vec<_>>().join(" "), expected, "{policy}");
            let user = s.field(&format!("pod/{name}"), "{.status.containerStatuses[0].user.linux}")?;
            let user: Value = serde_json::from_str(&user)?;
            assert_eq!(user["uid"], 1000, "{user}");
            let groups: Vec<_> = expected.split(' ').map(str::parse::<i64>).collect::<Result<_, _>>()?;
            assert_eq!(user["supplementalGroups"], json!(groups), "{user}");
        }
        Ok(())
    })
}

#[test]
fn a_volume_belongs_to_the_pods_group() -> Result<()> {
    scenario("fsgroup", |s| {
        s.kubectl(&["create", "secret", "generic", "login", "--from-literal=password=s3cret"])?;
        let script = "stat -c '%g %a' /data; stat -L -c '%g %a' /login/password; cat /login/password; echo; \
                      echo x > /data/new && stat -c '%u %g' /data/new";
        let mounts =
            json!([{ "name": "data", "mountPath": "/data" }, { "name": "login", "mountPath": "/login" }]);
        let main = with(shell(script), json!({ "volumeMounts": mounts }));
        let spec = json!({
            "securityContext": { "runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 4000 },
            "volumes": [
                { "name": "data", "emptyDir": {} },
                { "name": "login", "secret": { "secretName": "login", "defaultMode": 0o400 } },
            ],
        });
        let said = s.said("grouped", with(alone(main), spec))?;
        assert_eq!(said.lines().collect::<Vec<_>>(), ["4000 2777", "4000 440", "s3cret", "1000 4000"]);
        Ok(())
    })
}

#[test]
fn capabilities_are_added_and_dropped() -> Result<()> {
    scenario("capabilities", |s| {
        let script = "grep -E 'Cap(Prm|Eff|Bnd|Amb)' /proc/self/status | cut -f2 | uniq";
        let user = json!({ "runAsUser": 1000 });
        for (name, pod, capabilities, expected) in [
            ("default", json!({}), json!({}), "00000000a80425fb\n0000000000000000"),
            ("dropped", json!({}), json!({ "drop": ["ALL"] }), "0000000000000000"),
            (
                "one",
                json!({}),
                json!({ "drop": ["ALL"], "add": ["NET_BIND_SERVICE"] }),
                "0000000000000400\n0000000000000000",
            ),
            ("added", json!({}), json!({ "add": ["SYS_TIME"] }), "00000000aa0425fb\n0000000000000000"),
            (
                "user",
                user,
                json!({ "drop": ["ALL"], "add": ["NET_BIND_SERVICE"] }),
                "0000000000000000\n0000000000000400\n0000000000000000",
            ),
        ] {
            let said = s.said(name, secured(script, pod, json!({ "capabilities": capabilities })))?;
            assert_eq!(said, expected, "{name}");
        }
        Ok(())
    })
}

#[test]
fn a_privileged_container_has_the_nodes_devices_and_all_capabilities() -> Result<()> {
    scenario("privileged", |s| {
        let script = "grep CapEff /proc/self/status | cut -f2; grep Seccomp: /proc/self/status | cut -f2; \
                      ls /dev | grep -c -x -e loop-control -e kmsg -e fuse; \
                      mount -t tmpfs t /mnt 2>/dev/null && echo mounted; \
                      echo 1 2>/dev/null > /proc/sys/net/ipv4/ip_forward && echo set";
        let all = u64::from_str_radix(
            std::fs::read_to_string("/proc/self/status")?
                .lines()
                .find_map(|line| line.strip_prefix("CapBnd:\t"))
                .unwrap_or("0"),
            16,
        )?;
        let said = s.said("privileged", secured(script, json!({}), json!({ "privileged": true })))?;
        let lines: Vec<_> = said.lines().collect();
        assert_eq!(u64::from_str_radix(lines[0], 16)?, all, "{said}");
        assert_eq!(lines[1], "0", "{said}");
        assert_ne!(lines[2], "0", "{said}");
        assert_eq!(lines[3..], ["mounted", "set"], "{said}");
        let said = s.said("plain", secured(script, json!({}), json!({})))?;
        assert_eq!(said, "00000000a80425fb\n0\n0", "{said}");
        Ok(())
    })
}

#[test]
fn nobody_gains_privileges_where_that_is_not_allowed() -> Result<()> {
    scenario("no-new-privileges", |s| {
        for (name, allowed, expected) in
            [("may", true, "Effective uid: 0"), ("may-not", false, "Effective uid: 1000")]
        {
            let security = json!({ "runAsUser": 1000, "allowPrivilegeEscalation": allowed });
            let probe = json!({ "name": "main", "image": NO_NEW_PRIVILEGES, "securityContext": security });
            assert_eq!(s.said(name, alone(probe))?, expected);
        }
        Ok(())
    })
}

#[test]
fn root_is_refused_where_it_must_not_be() -> Result<()> {
    scenario("non-root", |s| {
        let must = json!({ "runAsNonRoot": true });
        s.create("root", secured("true", must.clone(), json!({})))?;
        let message = s.waits("root", &["CreateContainerConfigError"])?;
        assert!(message.contains("container has runAsNonRoot and image will run as root"), "{message}");
        // The kubelet asks the runtime who the image's user is.
        let named =
            json!({ "name": "main", "image": "docker.io/library/user-by-name", "securityContext": must });
        s.create("named", alone(named))?;
        let message = s.waits("named", &["CreateContainerConfigError"])?;
        assert!(message.contains("image has non-numeric user (www-data)"), "{message}");
        let numbered =
            json!({ "name": "main", "image": "docker.io/library/user-by-number", "securityContext": must });
        assert_eq!(s.said("numbered", alone(numbered))?, "1002");
        assert_eq!(s.said("other", secured("id -u", must, json!({ "runAsUser": 7 })))?, "7");
        Ok(())
    })
}

#[test]
fn a_read_only_root_is_written_only_in_volumes() -> Result<()> {
    scenario("read-only-root", |s| {
        let script = "for f in /x /etc/x /tmp/x /dev/shm/x; do (echo x > $f) 2>/dev/null && echo $f; done";
        let security = json!({ "readOnlyRootFilesystem": true });
        let mounts = json!([{ "name": "tmp", "mountPath": "/tmp" }]);
        let main = with(shell(script), json!({ "securityContext": security, "volumeMounts": mounts }));
        let said =
            s.said("sealed", with(alone(main), json!({ "volumes": [{ "name": "tmp", "emptyDir": {} }] })))?;
        assert_eq!(said, "/tmp/x\n/dev/shm/x");
        Ok(())
    })
}

#[test]
fn sysctls_that_are_a_pods_own_are_set_and_others_refused() -> Result<()> {
    scenario("sysctls", |s| {
        let sysctls = |list: &[(&str, &str)]| {
            let list: Vec<_> =
                list.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
            json!({ "sysctls": list })
        };
        let range = ("net.ipv4.ip_local_port_range", "40000 50000");
        let safe =
            sysctls(&[range, ("kernel.shm_rmid_forced", "1"), ("net.ipv4.ping_group_range", "0 1000")]);
        let script =
            "cd /proc/sys; cat net/ipv4/ip_local_port_range kernel/shm_rmid_forced net/ipv4/ping_group_range";
        let said = s.said("safe", secured(script, safe, json!({})))?;
        assert_eq!(said.split_whitespace().collect::<Vec<_>>(), ["40000", "50000", "1", "0", "1000"]);
        let unsafe_one = sysctls(&[("kernel.msgmax", "10000")]);
        s.create("unsafe", secured("true", unsafe_one, json!({})))?;
        let path = "{.status.reason}";
        s.until(|| s.field("pod/unsafe", path), |reason| reason == "SysctlForbidden").map(drop)
    })
}

#[test]
fn a_user_that_the_image_lacks_is_named_in_the_error() -> Result<()> {
    scenario("no-user", |s| {
        let main = json!({ "name": "main", "image": "docker.io/library/user-unknown" });
        s.create("lost", alone(main))?;
        let message = s.waits("lost", &["CreateContainerError", "RunContainerError"])?;
        assert!(message.contains("nosuchuser"), "{message}");
        // Whoever says a number needs no name.
        let numbered =
            json!({ "securityContext": { "runAsUser": 5 }, "image": "docker.io/library/user-unknown" });
        s.start("found", alone(with(sleeper(), numbered)))?;
        assert_eq!(s.shell("found", "id -u")?, "5");
        Ok(())
    })
}
