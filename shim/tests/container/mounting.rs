//! Mounts: what is there, what may be written, what propagates, and what the host sees of it: nothing.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, UnmountFlags, fsconfig_create, fsmount,
    fsopen, mount_bind, mount_change, unmount,
};
use serde_json::json;

use crate::Test;
use crate::container::Pod;
use crate::fixture::{Case, mount_table};

pub const TESTS: &[Test] = &[
    ("the_standard_file_systems_are_mounted_with_their_options", standard),
    ("devices_and_links_are_in_dev", devices),
    ("masked_and_read_only_paths_cannot_be_read_or_written", masked),
    ("a_read_only_root_cannot_be_written_but_its_volumes_can", read_only_root),
    ("volumes_of_directories_and_files_are_bound", volumes),
    ("a_recursively_read_only_volume_covers_the_mounts_beneath_it", recursive),
    ("private_slave_and_shared_volumes_propagate_as_they_should", propagation),
    ("the_pod_s_shm_is_one_for_its_containers", shared_memory),
    ("volumes_of_images_come_as_descriptors_and_go_where_the_spec_says", image_volumes),
    ("a_missing_source_is_named_with_its_destination", missing_source),
    ("bad_options_are_told_with_the_kernel_s_words", bad_options),
    ("a_dangling_link_in_the_image_is_followed_inside", dangling),
    ("the_host_sees_no_mount_while_the_container_runs", host_table),
    ("a_root_that_is_mounted_on_the_host_stays_there_untouched", attached_root),
    ("the_host_s_dev_is_left_alone_when_it_is_bound", host_dev),
];

fn standard() {
    let mut case = Case::sh("cat /proc/self/mounts");
    case.spec["linux"]["rootfsPropagation"] = json!("rslave");
    let mounts = case.run().stdout;
    for line in [
        "proc /proc proc rw,nosuid,nodev,noexec",
        "tmpfs /dev tmpfs rw,nosuid,size=65536k,mode=755",
        "devpts /dev/pts devpts rw,nosuid,noexec",
        "mqueue /dev/mqueue mqueue rw,nosuid,nodev,noexec",
        "sysfs /sys sysfs ro,nosuid,nodev,noexec",
        "shm /dev/shm tmpfs rw,nosuid,nodev,noexec",
        "cgroup /sys/fs/cgroup/memory cgroup ro,nosuid,nodev,noexec",
    ] {
        assert!(mounts.lines().any(|mount| mount.starts_with(line)), "{line} in {mounts}");
    }
    assert!(mounts.contains(" / overlay "), "{mounts}");
    assert!(
        mounts.contains("devtmpfs /proc/keys devtmpfs ro,"),
        "else a chmod would reach the host's node: {mounts}"
    );
    assert!(!mounts.contains("ext4"), "the host's mounts are gone: {mounts}");
}

fn devices() {
    let mut case = Case::sh(
        "stat -c '%n %F %a %t:%T' /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty /dev/net/tun /dev/own; \
         for name in fd stdin stdout stderr ptmx; do readlink /dev/$name; done; echo x > /dev/null && head -c 3 /dev/zero | wc -c",
    );
    case.spec["linux"]["devices"] = json!([
        {"path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200, "fileMode": 0o600},
        {"path": "/dev/own", "type": "p", "fileMode": 0o640, "uid": 3, "gid": 4},
    ]);
    let expected = "/dev/null character special file 666 1:3\n/dev/zero character special file 666 1:5\n\
        /dev/full character special file 666 1:7\n/dev/random character special file 666 1:8\n\
        /dev/urandom character special file 666 1:9\n/dev/tty character special file 666 5:0\n\
        /dev/net/tun character special file 600 a:c8\n/dev/own fifo 640 0:0\n\
        /proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n3\n";
    let output = case.run();
    assert_eq!(output.stdout, expected, "{output:?}");
}

fn masked() {
    let mut case = Case::sh(
        "cat /proc/timer_list /masked/file; ls /sys/firmware /masked/directory; echo x > /proc/sys/kernel/core_pattern; \
         echo x > /masked/directory/y; echo x > /readonly/y; echo x > /readonly2/below; :",
    );
    for name in ["masked/directory", "readonly"] {
        fs::create_dir_all(case.image().join(name)).unwrap();
    }
    for name in ["masked/file", "masked/directory/file", "readonly/file"] {
        fs::write(case.image().join(name), "secret").unwrap();
    }
    let linux = &mut case.spec["linux"];
    for path in ["/masked/file", "/masked/directory"] {
        linux["maskedPaths"].as_array_mut().unwrap().push(json!(path));
    }
    linux["readonlyPaths"].as_array_mut().unwrap().push(json!("/readonly"));
    let output = case.run();
    assert_eq!(
        output.stdout.replace(['\n', ':'], "").replace("/sys/firmware", "").replace("/masked/directory", ""),
        "",
        "{output:?}"
    );
    assert_eq!(output.stderr.matches("Read-only file system").count(), 3, "{output:?}");
}

fn read_only_root() {
    let mut case = Case::sh("touch /x; touch /volume/x && echo written");
    case.spec["root"]["readonly"] = json!(true);
    let volume = case.volume("volume");
    case.bind(&volume, "/volume", &["rbind"]);
    let output = case.run();
    assert_eq!(output.stdout, "written\n");
    assert!(output.stderr.contains("/x: Read-only"), "{output:?}");
    assert!(volume.join("x").exists());
}

fn volumes() {
    let mut case = Case::sh(
        "cat /a/b/file /etc/hosts; touch /a/b/x /etc/hosts/x; echo hi > /etc/hosts; grep ' /a/b ' /proc/mounts",
    );
    let volume = case.volume("volume");
    fs::write(volume.join("file"), "in volume\n").unwrap();
    let hosts = case.directory.path().join("hosts");
    fs::write(&hosts, "127.0.0.1\n").unwrap();
    case.bind(&volume, "/a/b", &["rbind", "ro", "nosuid", "noexec", "nodev", "noatime"]);
    case.bind(&hosts, "/etc/hosts", &["bind", "rw"]);
    let output = case.run();
    assert!(output.stdout.starts_with("in volume\n127.0.0.1\n"), "{output:?}");
    assert!(output.stdout.contains(" ro,nosuid,nodev,noexec,noatime"), "{output:?}");
    assert!(output.stderr.contains("/a/b/x: Read-only file system"), "{output:?}");
    assert_eq!(fs::read_to_string(&hosts).unwrap(), "hi\n");
}

fn recursive() {
    for (option, expected) in [("ro", "top: no\nbelow: yes\n"), ("rro", "top: no\nbelow: no\n")] {
        let mut case = Case::sh(
            "touch /v/x && echo top: yes || echo top: no; touch /v/below/x && echo below: yes || echo below: no",
        );
        let (volume, other) = (case.volume("volume"), case.volume("other"));
        fs::create_dir(volume.join("below")).unwrap();
        mount_bind(&other, volume.join("below")).unwrap();
        case.bind(&volume, "/v", &["rbind", option]);
        let output = case.run();
        unmount(volume.join("below"), UnmountFlags::DETACH).unwrap();
        assert_eq!(output.stdout, expected, "{option}");
    }
}

/// Whether a mount that the host makes shows inside, and one made inside shows on the host.
fn propagates(option: &str) -> (bool, bool) {
    let mut case = Case::sh("exec sleep 1000");
    let (volume, marker) = (case.volume("volume"), case.volume("marker"));
    fs::write(marker.join("marker"), "").unwrap();
    for name in ["host", "inside"] {
        fs::create_dir(volume.join(name)).unwrap();
    }
    mount_bind(&volume, &volume).unwrap();
    mount_change(&volume, MountPropagationFlags::SHARED).unwrap();
    case.bind(&volume, "/v", &["rbind", option]);
    let running = case.start().unwrap();
    mount_bind(&marker, volume.join("host")).unwrap();
    let mut process = crate::fixture::process(&[
        "/bin/sh",
        "-c",
        "mount -t tmpfs t /v/inside; touch /v/inside/marker; ls /v/host",
    ]);
    for set in ["bounding", "effective", "permitted"] {
        process["capabilities"][set] = json!(["CAP_SYS_ADMIN"]);
    }
    let output = running.exec(&process, &[]).unwrap().finish();
    let result = (output.stdout.contains("marker"), volume.join("inside/marker").exists());
    running.kill();
    unmount(&volume, UnmountFlags::DETACH).unwrap();
    result
}

fn propagation() {
    assert_eq!(propagates("rprivate"), (false, false));
    assert_eq!(propagates("rslave"), (true, false));
    assert_eq!(propagates("rshared"), (true, true));
}

fn shared_memory() {
    let context = rustix::mount::fsopen("tmpfs", rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    rustix::mount::fsconfig_create(&context).unwrap();
    let flags = rustix::mount::FsMountFlags::FSMOUNT_CLOEXEC;
    let shm = rustix::mount::fsmount(&context, flags, rustix::mount::MountAttrFlags::empty()).unwrap();
    let mut pod = Pod { shm: Some(shm), user_ns: None, init: None };
    for (script, expected) in [("echo shared > /dev/shm/x", ""), ("cat /dev/shm/x", "shared\n")] {
        let mut case = Case::sh(script);
        case.pod = pod;
        case.spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/dev/shm");
        case.mount(json!({"type": "shm", "source": "pod", "destination": "/dev/shm", "options": ["nosuid", "noexec"]}));
        assert_eq!(case.run().stdout, expected);
        pod = case.pod;
    }
}

fn missing_source() {
    let mut case = Case::sh("true");
    case.bind(std::path::Path::new("/no/such/thing"), "/v", &["rbind"]);
    let error = case.error();
    assert_eq!(error.message, "open /no/such/thing, the source of the mount /v: No such file or directory");
    assert_eq!(error.errno, nix::libc::ENOENT);
}

fn bad_options() {
    let mut case = Case::sh("true");
    case.mount(json!({"type": "tmpfs", "source": "tmpfs", "destination": "/t", "options": ["colour=red"]}));
    let error = case.error().message;
    assert!(error.starts_with("mount tmpfs on /t: Invalid argument") && error.contains("colour"), "{error}");
    let mut case = Case::sh("true");
    case.mount(json!({"type": "fancyfs", "source": "x", "destination": "/t"}));
    assert_eq!(case.error().message, "mount fancyfs on /t: No such device");
    let mut case = Case::sh("true");
    let volume = case.volume("volume");
    case.bind(&volume, "/v", &["rbind", "colour=red"]);
    assert!(case.error().message.contains("unknown option \"colour\""));
}

fn dangling() {
    let mut case = Case::sh("cat /etc/resolv.conf /run/deep/resolv.conf");
    std::os::unix::fs::symlink("../run/deep/resolv.conf", case.image().join("etc/resolv.conf")).unwrap();
    let source = case.directory.path().join("resolv");
    fs::write(&source, "nameserver\n").unwrap();
    case.bind(&source, "/etc/resolv.conf", &["rbind", "ro"]);
    assert_eq!(case.run().stdout, "nameserver\nnameserver\n");
}

fn host_table() {
    let before = mount_table();
    let mut case = Case::sh("exec sleep 1000");
    let volume = case.volume("volume");
    case.bind(&volume, "/v", &["rbind", "rshared"]);
    let running = case.start().unwrap();
    assert_eq!(before, mount_table());
    assert!(
        !fs::read_to_string("/proc/self/mounts")
            .unwrap()
            .lines()
            .any(|line| line.contains("overlay") && line.contains("berth-container-"))
    );
    running.kill();
    assert_eq!(before, mount_table());
}

fn host_dev() {
    let mut case = Case::sh("ls -d /dev/marker; ls /dev/null /dev/fd");
    let dev = case.volume("dev");
    fs::write(dev.join("marker"), "").unwrap();
    case.spec["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    case.bind(&dev, "/dev", &["rbind"]);
    assert_eq!(case.run().stdout, "/dev/marker\n");
    assert_eq!(fs::read_dir(&dev).unwrap().count(), 1);
}

fn attached_root() {
    let case = Case::sh("echo x > /made; cat /proc/self/mounts | grep -c ' / '");
    let place = case.volume("attached");
    let flags = rustix::mount::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(case.root(), "", rustix::fs::CWD, &place, flags).unwrap();
    let before = mount_table();
    let root = rustix::fs::open(&place, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    let output = case.start_with(root).unwrap().finish();
    let (after, made) = (mount_table(), place.join("made").exists());
    unmount(&place, UnmountFlags::DETACH).unwrap();
    assert_eq!((output.stdout.as_str(), made), ("1\n", true));
    assert_eq!(before, after);
}

/// A detached file system with one file.
fn detached(name: &str) -> OwnedFd {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    fsconfig_create(context.as_fd()).unwrap();
    let mount = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap();
    fs::write(format!("/proc/self/fd/{}/name", mount.as_raw_fd()), name).unwrap();
    mount
}

fn image_volumes() {
    let script = "cat /a/name /b/c/name; touch /a/x || echo refused; grep -E ' /(a|b/c) ' /proc/self/mounts";
    let mut case = Case::sh(script);
    let volume = |number: &str, destination: &str| {
        let options = ["ro", "nosuid", "nodev"];
        json!({"type": "image", "source": number, "destination": destination, "options": options})
    };
    case.volumes = vec![detached("one"), detached("two")];
    case.mount(volume("1", "/a"));
    case.mount(volume("0", "/b/c"));
    let output = case.run();
    assert!(output.stdout.starts_with("twoonerefused\n"), "{output:?}");
    let lines = [" /a tmpfs ro,nosuid,nodev,", " /b/c tmpfs ro,nosuid,nodev,"];
    assert!(lines.iter().all(|line| output.stdout.contains(line)), "{output:?}");

    for number in ["2", "1", "-1", "", "x"] {
        let mut case = Case::sh("true");
        case.volumes = vec![detached("one"), detached("two")];
        case.mount(volume("1", "/a"));
        case.mount(volume(number, "/b"));
        let message = case.error().to_string();
        assert!(message.contains("image volume") && message.contains("/b"), "{number}: {message}");
    }
}
