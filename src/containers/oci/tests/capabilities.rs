//! Capabilities of root, of others, added, dropped and ambient.

use super::*;

const DEFAULT_SET: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

#[test]
fn capabilities_of_root_and_of_others_are_the_default_set_and_never_inheritable() {
    for uid in [0, 1000] {
        let mut case = case();
        case.user.uid = uid;
        let spec = case.json();
        for name in ["bounding", "effective", "permitted"] {
            assert_eq!(set(&spec, name), DEFAULT_SET, "{name}");
        }
        assert!(set(&spec, "inheritable").is_empty() && set(&spec, "ambient").is_empty());
    }
}

#[test]
fn capabilities_are_added_and_dropped_by_name_and_as_a_whole() {
    let granted = |add: &[&str], drop: &[&str]| {
        let mut case = case();
        case.container.security.capabilities.add = add.iter().map(ToString::to_string).collect();
        case.container.security.capabilities.drop = drop.iter().map(ToString::to_string).collect();
        set(&case.json(), "bounding")
    };
    assert!(granted(&[], &["ALL"]).is_empty());
    assert_eq!(granted(&["NET_BIND_SERVICE"], &["all"]), ["CAP_NET_BIND_SERVICE"]);
    assert_eq!(granted(&["ALL"], &[]).len(), 41);
    assert_eq!(granted(&["ALL"], &["cap_sys_admin"]).len(), 40);
    assert_eq!(granted(&["ALL"], &["ALL"]).len(), 41);
    assert_eq!(granted(&["SYS_PTRACE"], &["MKNOD", "KILL"]).len(), 13);
    assert!(!granted(&["KILL"], &["KILL"]).contains(&"CAP_KILL".to_string()));
    let mut case = case();
    case.container.security.capabilities.add = vec!["SYS_GOD".into()];
    assert!(matches!(case.spec(), Err(SpecError::Capability(_))));
}

#[test]
fn ambient_capabilities_are_only_those_asked_for() {
    let mut case = case();
    case.container.security.capabilities.drop = vec!["ALL".into()];
    case.container.security.capabilities.add_ambient = vec!["NET_BIND_SERVICE".into()];
    let spec = case.json();
    for name in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
        assert_eq!(set(&spec, name), ["CAP_NET_BIND_SERVICE"], "{name}");
    }
}
