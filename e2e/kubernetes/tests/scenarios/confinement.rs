//! System calls and files of the kernel that a container is kept from: seccomp and /proc.

use anyhow::{Context, Result};
use berth_e2e_kubernetes::pods::{alone, shell, sleeper, with};
use berth_e2e_kubernetes::scenario::{Scenario, scenario};
use serde_json::{Value, json};

fn confined(script: &str, seccomp: Value) -> Value {
    alone(with(shell(script), json!({ "securityContext": { "seccompProfile": seccomp } })))
}

#[test]
fn the_runtimes_seccomp_profile_is_used_where_it_is_asked_for() -> Result<()> {
    scenario("seccomp", |s| {
        let script = "grep -E '^Seccomp(_filters)?:' /proc/self/status | cut -f2 | tr '\\n' ' '; \
                      unshare -U true 2>/dev/null && echo unshared || echo refused";
        let said = s.said("default", confined(script, json!({ "type": "RuntimeDefault" })))?;
        assert_eq!(said, "2 1 refused");
        let said = s.said("unconfined", confined(script, json!({ "type": "Unconfined" })))?;
        assert!(said.starts_with("0 0 "), "{said}");
        // Of the pod, for each container that says nothing.
        let pod = json!({ "securityContext": { "seccompProfile": { "type": "RuntimeDefault" } } });
        assert_eq!(s.said("pod", with(alone(shell(script)), pod))?, "2 1 refused");
        Ok(())
    })
}

/// A profile among the kubelet's that forbids to make directories. Dropping it removes it.
struct Profile(std::path::PathBuf);

impl Profile {
    fn new(s: &Scenario) -> Result<Self> {
        let directory = s.directory().kubelet_root().join("seccomp");
        std::fs::create_dir_all(&directory)?;
        let profile = Self(directory.join(format!("{}.json", s.namespace())));
        let text = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28 }],
        });
        std::fs::write(&profile.0, text.to_string())?;
        Ok(profile)
    }

    fn name(&self) -> Result<&str> {
        self.0.file_name().and_then(|name| name.to_str()).context("a profile without a name")
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_seccomp_profile_of_the_nodes_is_used() -> Result<()> {
    scenario("seccomp-local", |s| {
        let profile = Profile::new(s)?;
        let local = |name: &str| json!({ "type": "Localhost", "localhostProfile": name });
        let said = s.said("local", confined("mkdir /x; echo done > /y; cat /y", local(profile.name()?)))?;
        assert_eq!(said, "mkdir: can't create directory '/x': No space left on device\ndone");
        s.create("missing", confined("true", local("no-such.json")))?;
        let message = s.waits("missing", &["CreateContainerError"])?;
        assert!(message.contains("no-such.json"), "{message}");
        Ok(())
    })
}

#[test]
fn proc_is_masked_unless_a_user_namespace_keeps_its_pod() -> Result<()> {
    scenario("proc-mount", |s| {
        let script = "cat /proc/timer_list 2>/dev/null | head -c1 | wc -c; mount | grep -c ' /proc/'; exit 0";
        assert_eq!(s.said("masked", alone(shell(script)))?.lines().next(), Some("0"));
        let unmasked = with(
            shell("mount | grep ' /proc/'; exit 0"),
            json!({ "securityContext": { "procMount": "Unmasked" } }),
        );
        assert_eq!(s.said("unmasked", with(alone(unmasked.clone()), json!({ "hostUsers": false })))?, "");
        let refusal = s.create("refused", alone(unmasked)).err().map(|error| format!("{error:#}"));
        let refusal = refusal.context("an unmasked /proc for the node's root")?;
        assert!(refusal.contains("hostUsers"), "{refusal}");
        s.start("sleeper", alone(sleeper()))?;
        let written =
            s.refused(&["exec", "sleeper", "--", "sh", "-c", "echo 1 > /proc/sys/kernel/domainname"])?;
        assert!(written.contains("Read-only file system"), "{written}");
        Ok(())
    })
}
