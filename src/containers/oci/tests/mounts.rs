//! Order, options and refusals of mounts.

use super::*;

#[test]
fn volumes_come_last_parents_first_with_their_options() {
    let mut case = case();
    let mut readonly = mount("/h/ro/", "/data/ro/");
    readonly.readonly = true;
    let mut recursive = mount("/h/rro", "/rro");
    (recursive.readonly, recursive.recursive_read_only) = (true, true);
    let mut slave = mount("/h/slave", "/slave");
    slave.propagation = Propagation::HostToContainer;
    slave.options = vec![MountOption::NoExec, MountOption::NoSuid];
    let shared = Mount { propagation: Propagation::Bidirectional, ..mount("/h/shared", "/shared//./x") };
    case.container.mounts =
        vec![mount("/h/deep", "/data/a/b"), readonly, recursive, slave, shared, mount("/h", "/data")];
    let spec = case.json();
    let places = ["/rro", "/slave", "/data", "/data/ro", "/shared/x", "/data/a/b"];
    assert_eq!(destinations(&spec)[10..], places);
    assert_eq!(at(&spec, "/data")["options"], json!(["rbind", "rprivate", "rw"]));
    assert_eq!(at(&spec, "/data/ro")["options"], json!(["rbind", "rprivate", "ro"]));
    assert_eq!(at(&spec, "/data/ro")["source"], "/h/ro");
    assert_eq!(at(&spec, "/rro")["options"], json!(["rbind", "rprivate", "rro"]));
    assert_eq!(at(&spec, "/slave")["options"], json!(["rbind", "rslave", "rw", "rnoexec", "rnosuid"]));
    assert_eq!(at(&spec, "/shared/x")["options"], json!(["rbind", "rshared", "rw"]));
    assert_eq!(spec["linux"]["rootfsPropagation"], "rshared");
}

#[test]
fn volumes_replace_the_runtimes_own_mounts() {
    let mut case = case();
    case.container.mounts = vec![mount("/h/hosts", "/etc/hosts"), mount("/h/shm", "/dev/shm/")];
    let spec = case.json();
    assert_eq!(destinations(&spec).len(), 10);
    assert_eq!(at(&spec, "/etc/hosts")["source"], "/h/hosts");
    assert_eq!(at(&spec, "/dev/shm")["type"], "bind");
    case.container.mounts = vec![mount("/dev", "/dev")];
    let spec = case.json();
    let kept = ["/proc", "/sys", "/sys/fs/cgroup", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev"];
    assert_eq!(destinations(&spec), kept);
}

#[test]
fn mounts_that_would_mislead_the_runtime_are_refused() {
    let bad = [
        ("", "/a"),
        ("rel", "/a"),
        ("/a/../etc", "/a"),
        ("/a", ""),
        ("/a", "rel"),
        ("/a", "/x/../../etc"),
        ("/a", "/"),
        ("/a", "/."),
        ("/a", "/proc"),
        ("/a", "/proc/self/attr"),
        ("/a", "//proc/sys"),
        ("/a\0", "/a"),
        ("/a", "/a\0"),
    ];
    for (host, container) in bad {
        let mut case = case();
        case.container.mounts = vec![mount(host, container)];
        assert!(matches!(case.spec(), Err(SpecError::Mount { .. })), "{host:?} {container:?}");
    }
    let mut good = case();
    good.container.mounts =
        vec![mount("/a", "/proc/meminfo"), mount("/a", "/process"), mount("/sys", "/host/proc/..x")];
    assert!(good.spec().is_ok());
    for (readonly, propagation) in [(false, Propagation::Private), (true, Propagation::HostToContainer)] {
        let mut case = case();
        let rro = Mount { readonly, propagation, recursive_read_only: true, ..mount("/a", "/a") };
        case.container.mounts = vec![rro];
        assert!(case.error().contains("recursive_read_only"), "{}", case.error());
    }
}

#[test]
fn a_readonly_root_has_readonly_files() {
    let mut case = case();
    case.container.security.readonly_rootfs = true;
    let spec = case.json();
    assert_eq!(spec["root"]["readonly"], true);
    for place in ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"] {
        assert_eq!(at(&spec, place)["options"], json!(["rbind", "rprivate", "ro"]));
    }
}

#[test]
fn image_volumes_are_numbered_as_the_request_has_them() {
    let mut case = case();
    let image = |path: &str| Mount {
        image: Some(ImageVolume { image: "x".into(), ..ImageVolume::default() }),
        readonly: true,
        propagation: Propagation::HostToContainer,
        ..mount("", path)
    };
    case.container.mounts = vec![image("/a/deep/one"), mount("/h", "/h"), image("/b/"), image("/a")];
    let spec = case.json();
    assert_eq!(destinations(&spec)[10..], ["/h", "/b", "/a", "/a/deep/one"]);
    for (destination, number) in [("/a/deep/one", "0"), ("/b", "1"), ("/a", "2")] {
        let volume = at(&spec, destination);
        assert_eq!((&volume["type"], &volume["source"]), (&json!("image"), &json!(number)));
        assert_eq!(volume["options"], json!(["ro", "nosuid", "nodev"]));
    }
    assert_eq!(spec["linux"]["rootfsPropagation"], "rprivate", "an image has nothing to propagate");
    for bad in ["/", "/proc", "/proc/self", "rel", "/a/../b"] {
        case.container.mounts = vec![image(bad)];
        assert!(matches!(case.spec(), Err(SpecError::Mount { .. })), "{bad}");
    }
}

#[test]
fn an_images_volumes_go_where_nothing_else_is_mounted() {
    let mut case = case();
    let places = |case: &Case| anonymous_places(&case.image, &case.container).unwrap();
    assert!(places(&case).is_empty());
    let declared =
        ["/data/db", "/../../data", "rel/./x", "/", "", "/proc/x", "/sys", "/dev/shm", "/etc/hosts"];
    let more = ["/etc", "//data//", "/claim", "/claim/below", "/claimed", "/nul\0"];
    case.image.volumes = texts(&[&declared[..], &more].concat());
    case.container.mounts = vec![mount("/h/claim", "/claim/"), mount("/h/deep", "/data/db/deep")];
    assert_eq!(places(&case), ["/claimed", "/data", "/data/db", "/etc", "/rel/x"].map(PathBuf::from));
    case.container.security.readonly_rootfs = true;
    case.anonymous = vec![AnonymousVolume { place: "/data".into(), directory: "/s/volumes/1".into() }];
    let spec = case.json();
    assert_eq!(destinations(&spec)[..2], ["/data", "/proc"]);
    assert_eq!(at(&spec, "/data")["source"], "/s/volumes/1");
    assert_eq!(at(&spec, "/data")["options"], json!(["bind", "rprivate", "rw"]));
    case.image.volumes = (0..65).map(|n| format!("/{n}")).collect();
    let error = anonymous_places(&case.image, &case.container).unwrap_err();
    assert_eq!(error.to_string(), "the image declares 65 volumes; 64 are made at most");
}
