//! Images and volumes made to lead the runtime elsewhere; the canary on the host must stay as it is.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use rustix::fs::{CWD, RenameFlags};
use serde_json::json;

use crate::Test;
use crate::container::SpawnError;
use crate::fixture::{Case, mount_table};

pub const TESTS: &[Test] = &[
    ("linked_proc_sys_and_dev_are_refused_by_name", linked_standard),
    ("nothing_is_mounted_over_proc", over_proc),
    ("a_linked_dev_null_does_not_turn_a_mask_into_a_hole", linked_null),
    ("a_linked_console_does_not_lead_a_terminal_out", linked_console),
    ("a_working_directory_cannot_leave_the_root", working_directory),
    ("linked_destinations_stay_inside", linked_destinations),
    ("a_racing_exchange_of_the_destination_stays_inside", race),
    ("a_failed_start_leaves_no_mount", leftovers),
];

/// A directory outside of the image that nothing may change.
fn canary(case: &Case) -> PathBuf {
    let canary = case.volume("canary");
    fs::write(canary.join("file"), "canary").unwrap();
    canary
}

fn silent(canary: &std::path::Path) {
    let names: Vec<_> = fs::read_dir(canary).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["file"]);
    assert_eq!(fs::read_to_string(canary.join("file")).unwrap(), "canary");
}

fn linked_standard() {
    for name in ["proc", "sys", "dev"] {
        for aim in ["/tmp", "../../../canary", "../canary"] {
            let case = Case::sh("true");
            let canary = canary(&case);
            fs::remove_dir(case.image().join(name)).unwrap();
            symlink(aim, case.image().join(name)).unwrap();
            let error = case.error();
            assert!(error.message.contains(&format!("/{name} ")), "{error:?}");
            silent(&canary);
        }
    }
}

fn over_proc() {
    for destination in ["/proc", "/proc/self/attr", "/proc/sys", "/alias/sys"] {
        let mut case = Case::sh("true");
        symlink("/proc", case.image().join("alias")).unwrap();
        let volume = case.volume("volume");
        case.bind(&volume, destination, &["rbind"]);
        let error = case.error();
        assert!(error.message.contains(destination) && error.message.contains("over /proc"), "{error:?}");
    }
    let mut case = Case::sh("true");
    case.mount(json!({"type": "tmpfs", "source": "tmpfs", "destination": "/proc", "options": []}));
    assert!(case.error().message.contains("over /proc"));
    let mut case = Case::sh("cat /proc/cpuinfo");
    let source = case.directory.path().join("cpuinfo");
    fs::write(&source, "one cpu\n").unwrap();
    case.bind(&source, "/proc/cpuinfo", &["rbind"]);
    assert_eq!(case.run().stdout, "one cpu\n");
}

fn linked_null() {
    let mut case = Case::sh("cat /secret; stat -c %t:%T /secret");
    case.spec["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    symlink("/proc/sys/kernel/core_pattern", case.image().join("dev/null")).unwrap();
    fs::write(case.image().join("secret"), "secret").unwrap();
    case.spec["linux"]["maskedPaths"] = json!(["/secret"]);
    let before = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let error = case.error();
    assert!(error.message.starts_with("make device /dev/null"), "{error:?}");
    assert_eq!(before, fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap());
    fs::remove_file(case.image().join("dev/null")).unwrap();
    assert_eq!(case.run().stdout, "1:3\n");
}

fn linked_console() {
    let mut case = Case::sh("true");
    let canary = canary(&case);
    case.spec["process"]["terminal"] = json!(true);
    let dev = case.volume("dev");
    symlink("../../../../canary/x", dev.join("console")).unwrap();
    case.spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/dev");
    symlink("../../../../canary/x", case.image().join("dev/console")).unwrap();
    let error = case.error();
    assert!(error.message.contains("/dev/console"), "{error:?}");
    silent(&canary);
}

fn working_directory() {
    let links =
        ["/proc/self/cwd", "/proc/1/root", "/proc/self/fd/3", "/proc/self/fd/5", "/link", "/link/deep"];
    for directory in links {
        let mut case = Case::sh("pwd; ls /");
        let canary = canary(&case);
        symlink("../../../../../canary", case.image().join("link")).unwrap();
        case.spec["process"]["cwd"] = json!(directory);
        match case.start() {
            Ok(running) => {
                let output = running.finish();
                assert!(output.stdout.starts_with("/canary"), "{directory}: {output:?}");
            }
            Err(error) => assert!(error.message.contains(directory), "{error:?}"),
        }
        silent(&canary);
    }
}

fn linked_destinations() {
    let mut case = Case::sh("ls /etc/canary/deep; cat /canary2");
    let canary = canary(&case);
    let volume = case.volume("volume");
    fs::write(volume.join("in volume"), "").unwrap();
    let file = case.directory.path().join("single");
    fs::write(&file, "single\n").unwrap();
    symlink("/../../../../etc/canary", case.image().join("link")).unwrap();
    symlink("../../../../../../../canary2", case.image().join("filelink")).unwrap();
    case.bind(&volume, "/link/deep", &["rbind"]);
    case.bind(&file, "/filelink", &["rbind"]);
    assert_eq!(case.run().stdout, "in volume\nsingle\n");
    silent(&canary);
    assert!(!case.directory.path().join("canary2").exists());
}

/// One process exchanges a directory of a volume with a link to the canary while containers mount beneath it.
fn race() {
    let mut case = Case::sh("true");
    let canary = canary(&case);
    let (shared, volume) = (case.volume("shared"), case.volume("volume"));
    fs::create_dir(shared.join("place")).unwrap();
    symlink(&canary, shared.join("link")).unwrap();
    case.bind(&shared, "/shared", &["rbind"]);
    case.bind(&volume, "/shared/place/deep/er", &["rbind"]);
    let before = mount_table();
    let berth_sys::clone::Side::Parent(racer) = berth_sys::clone::fork().unwrap() else {
        loop {
            let _ = rustix::fs::renameat_with(
                CWD,
                shared.join("place"),
                CWD,
                shared.join("link"),
                RenameFlags::EXCHANGE,
            );
        }
    };
    let results: Vec<Result<i32, SpawnError>> =
        (0..100).map(|_| case.start().map(|running| running.finish().code)).collect();
    nix::sys::signal::kill(racer, nix::sys::signal::Signal::SIGKILL).unwrap();
    nix::sys::wait::waitpid(racer, None).unwrap();
    assert_eq!(before, mount_table());
    silent(&canary);
    for result in results {
        match result {
            Ok(code) => assert_eq!(code, 0),
            Err(error) => assert!(error.message.contains("/shared/place/deep/er"), "{error:?}"),
        }
    }
}

fn leftovers() {
    let before = mount_table();
    let mut case = Case::sh("true");
    case.spec["mounts"]
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "tmpfs", "destination": "/t", "options": ["bad=1"]}));
    case.error();
    assert_eq!(before, mount_table());
    case.spec["mounts"].as_array_mut().unwrap().pop();
    assert_eq!(case.run().code, 0, "the same call works afterwards");
}
