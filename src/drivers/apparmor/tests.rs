//! Names everywhere; the profile itself in the virtual machine of e2e/vm/run, whose kernel has AppArmor:
//! `e2e/vm/run --add /sbin/apparmor_parser:/sbin/apparmor_parser ... TEST-PROGRAM drivers::apparmor`.

use std::process::Command;

use super::*;

#[test]
fn profiles_are_told_by_their_whole_names() {
    assert_eq!(of("berth-default (enforce)"), "berth-default");
    assert_eq!(of("/usr/bin/{a (b),c} (complain)"), "/usr/bin/{a (b),c}");
    assert!(!Apparmor::Off.knows(DEFAULT));
}

/// Runs a script under the profile, with every right of root; the shell puts it on as the shim does.
fn confined(script: &str) -> String {
    let put_on = format!("echo 'exec {DEFAULT}' > /proc/self/attr/exec && exec sh -c \"$1\"");
    let output = Command::new("/bin/sh").args(["-c", &put_on, "sh", script]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test]
async fn the_default_profile_loads_and_keeps_the_kernels_switches_shut() {
    if !is_on() {
        eprintln!("skipped: this kernel has no AppArmor; run by e2e/vm/run");
        return;
    }
    let apparmor = Apparmor::open().await;
    assert!(matches!(apparmor, Apparmor::On { default: Ok(()) }), "{apparmor:?}");
    assert!(apparmor.knows(DEFAULT) && !apparmor.knows("berth"));
    // Loading it again, as the next daemon does, is fine.
    assert!(matches!(Apparmor::open().await, Apparmor::On { default: Ok(()) }));

    assert_eq!(confined("cat /proc/self/attr/current").trim(), "berth-default (enforce)");
    let allowed = "echo x > /tmp/file && cat /tmp/file && mkdir -p /tmp/dir && rmdir /tmp/dir && kill -0 $$ && \
                   cat /proc/1/status > /dev/null && echo 200 > /proc/self/oom_score_adj && \
                   echo 4096 > /proc/sys/kernel/shmmni && echo 0 > /proc/sys/net/ipv4/ip_forward && echo fine";
    assert_eq!(confined(allowed), "x\nfine\n");
    for denied in [
        "echo h > /proc/sysrq-trigger",
        "head -c 1 /proc/kcore",
        "echo x > /proc/sys/kernel/core_pattern",
        "echo 1 > /proc/sys/kernel/modules_disabled",
        "echo 1 > /proc/sys/kernel/sysrq",
        "echo 1 > /proc/sys/vm/drop_caches",
        "echo 1 > /proc/sys/fs/file-max",
        "echo x > /sys/kernel/uevent_helper",
        "echo 0 > /sys/kernel/profiling",
        "echo 0 > /sys/module/printk/parameters/time",
        "cat /sys/kernel/security/apparmor/profiles",
        "mount -t tmpfs none /tmp",
        "mount -o remount,ro /",
    ] {
        let said = confined(&format!("({denied}) && echo allowed"));
        assert!(
            !said.contains("allowed") && said.to_lowercase().contains("permission denied"),
            "{denied}: {said}"
        );
    }
}
