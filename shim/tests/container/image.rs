//! The files of the images that the tests' containers have: directories of each, and busybox in one layer below all.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The directories that every image has.
pub fn make(image: &Path) {
    for directory in ["bin", "etc", "tmp", "proc", "sys", "dev", "root"] {
        fs::create_dir_all(image.join(directory)).unwrap();
    }
    fs::set_permissions(image.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
}

/// busybox with its links.
static BASE: OnceLock<PathBuf> = OnceLock::new();

/// The layer below every image.
pub fn base() -> &'static Path {
    BASE.get().unwrap()
}

/// Before the first test.
pub fn set_up() {
    BASE.set(make_base().keep()).unwrap();
}

/// After the last test.
pub fn tear_down() {
    fs::remove_dir_all(BASE.get().unwrap()).unwrap();
}

fn make_base() -> tempfile::TempDir {
    let directory = tempfile::Builder::new().prefix("berth-container-").tempdir().unwrap();
    let image = directory.path();
    fs::set_permissions(image, fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(image.join("bin")).unwrap();
    fs::copy("/bin/busybox", image.join("bin/busybox")).unwrap();
    let applets = Command::new("/bin/busybox").arg("--list").output().unwrap().stdout;
    for applet in String::from_utf8(applets).unwrap().lines().filter(|name| *name != "busybox") {
        symlink("busybox", image.join("bin").join(applet)).unwrap();
    }
    directory
}
