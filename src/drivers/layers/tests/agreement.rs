//! The other readers: GNU tar and bsdtar. What Berth unpacks is what they unpack, field by field. What does not live here:
//! what they do not agree about (disagreement).

use std::ffi::OsStr;
use std::fs::{File, FileTimes, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{CWD, FileType, Mode, XattrFlags};

use super::snapshot::{self, Snapshot};
use super::*;

/// Names a base system for a longer comparison: see `make agreement`.
const BASE: &str = "BERTH_BASE_TAR";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    Gnu,
    Bsd,
}

impl Reader {
    fn extract(self, archive: &Path, into: &Path) -> bool {
        std::fs::create_dir(into).unwrap();
        let mut command = match self {
            Self::Gnu => Command::new("tar"),
            Self::Bsd => Command::new("bsdtar"),
        };
        if self == Self::Gnu {
            command.args(["--xattrs", "--xattrs-include=*", "--same-owner", "--delay-directory-restore"]);
        }
        command.env("LC_ALL", "C.UTF-8").arg("-C").arg(into).args(["--numeric-owner", "-xpf"]).arg(archive);
        let output = command.output().unwrap_or_else(|error| panic!("{self:?}: {error}: see e2e/setup"));
        // bsdtar complains of names that are no text, and takes them as they are.
        let told = String::from_utf8_lossy(&output.stderr);
        let harmless =
            |line: &str| line.contains("converted from UTF-8") || line.contains("Error exit delayed");
        output.status.success() || told.lines().all(harmless)
    }

    pub fn read(self, archive: &Path) -> Option<Snapshot> {
        let dir = tempfile::tempdir().unwrap();
        let into = dir.path().join("tree");
        self.extract(archive, &into).then(|| snapshot::copied(snapshot::take(&into)))
    }
}

pub fn ours(archive: &Path) -> Result<Snapshot, LayerError> {
    let cache = Cache::new();
    let bytes = std::io::BufReader::with_capacity(256 << 10, File::open(archive).unwrap());
    let unpacked = cache.layers.unpack(bytes, std::fs::metadata(archive).unwrap().len(), None)?;
    Ok(snapshot::copied(snapshot::take(&unpacked.staged.path())))
}

/// What two trees do not have in common; at most a few of it.
pub fn differences(ours: &Snapshot, theirs: &Snapshot) -> Vec<String> {
    let paths: BTreeSet<&PathBuf> = ours.keys().chain(theirs.keys()).collect();
    let differ = paths.into_iter().filter(|path| ours.get(*path) != theirs.get(*path));
    differ.take(5).map(|path| format!("{path:?}: {:?} != {:?}", ours.get(path), theirs.get(path))).collect()
}

#[track_caller]
fn assert_agreement(archive: &Path, told: &str) {
    let unpacked = ours(archive).unwrap_or_else(|error| panic!("{told}: {}", super::told(&error)));
    for reader in [Reader::Gnu, Reader::Bsd] {
        let mut ours = unpacked.clone();
        let mut theirs = reader.read(archive).unwrap_or_else(|| panic!("{told}: {reader:?} fails"));
        if reader == Reader::Bsd {
            // It leaves the time of the directory alone that it is told to unpack into.
            theirs.insert(PathBuf::new(), ours[Path::new("")].clone());
            // And access control lists are set from a header of their own, not from attributes, as GNU tar does.
            ours.values_mut()
                .for_each(|seen| seen.xattrs.retain(|name, _| !name.starts_with(b"system.posix_acl_")));
        }
        assert_eq!(differences(&ours, &theirs), [] as [String; 0], "{told}: {reader:?}");
    }
}

fn at(seconds: i64, nanoseconds: u32) -> SystemTime {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let start = if seconds < 0 { UNIX_EPOCH - whole } else { UNIX_EPOCH + whole };
    start + Duration::from_nanos(nanoseconds.into())
}

/// A tree of everything that a layer may have.
fn odd_tree(root: &Path) {
    let path = |name: &[u8]| root.join(OsStr::from_bytes(name));
    let file = |name: &[u8], content: &[u8]| {
        std::fs::write(path(name), content).unwrap();
        path(name)
    };
    for name in [&b"dir"[..], b"dir/sticky", b"dir/setgid", b"dir/secret", b"names", b"times", b"owners"] {
        std::fs::create_dir(path(name)).unwrap();
    }
    file(b"empty", b"");
    file(b"plain", b"plain");
    file(b"block", &[7; 512]);
    file(b"big", &(0..1_000_003_u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect::<Vec<_>>());
    let holes = File::create(path(b"holes")).unwrap();
    holes.write_all_at(b"middle", 3 << 20).unwrap();
    holes.set_len(5_000_000).unwrap();
    std::fs::hard_link(path(b"plain"), path(b"dir/second name")).unwrap();
    std::fs::hard_link(path(b"plain"), path(b"third")).unwrap();
    for (name, target) in [("absolute", "/etc/passwd"), ("up", "../../.."), ("dangling", "nowhere")] {
        symlink(target, path(name.as_bytes())).unwrap();
    }
    symlink("t".repeat(300), path(b"far")).unwrap();
    for (name, kind, major, minor) in [
        ("null", FileType::CharacterDevice, 1, 3),
        ("loop", FileType::BlockDevice, 7, 300),
        ("pipe", FileType::Fifo, 0, 0),
    ] {
        let device = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(CWD, path(name.as_bytes()), kind, Mode::from_raw_mode(0o640), device).unwrap();
    }
    for name in [
        &[b'n'; 99][..],
        &[b'n'; 100],
        &[b'n'; 101],
        &[b'n'; 255],
        b"\xff\xfe not text",
        "\u{e4}\u{308}".as_bytes(),
        b"new\nline",
        b"back\\slash\\101",
        b"-rf",
        b" blanks ",
        b"a=b",
        b"quote\"'",
        b"\x01\x7f\x1b[31m",
    ] {
        file(&[b"names/", name].concat(), name);
    }
    let deep = (0..12).fold(path(b"names"), |at, number| at.join(format!("{number}{}", "d".repeat(40))));
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::write(deep.join("leaf"), "leaf").unwrap();
    describe(root);
}

/// Owners, modes, attributes and times; times last.
fn describe(root: &Path) {
    let file = |name: String| {
        std::fs::write(root.join(&name), &name).unwrap();
        root.join(name)
    };
    for owner in [1_u32, 1000, 65_534, 2_097_151, 2_097_152, 4_000_000_000, u32::MAX - 1] {
        std::os::unix::fs::chown(file(format!("owners/{owner}")), Some(owner), Some(owner / 2)).unwrap();
        let link = root.join(format!("owners/link {owner}"));
        symlink("x", &link).unwrap();
        std::os::unix::fs::lchown(link, Some(owner), Some(7)).unwrap();
    }
    let modes = [("plain", 0o4755), ("big", 0o2711), ("empty", 0), ("block", 0o1666), ("pipe", 0o622)];
    let directories = [("dir/sticky", 0o1777), ("dir/setgid", 0o2775), ("dir/secret", 0)];
    for (name, mode) in modes.into_iter().chain(directories) {
        std::fs::set_permissions(root.join(name), Permissions::from_mode(mode)).unwrap();
    }
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for (name, attribute, value) in [
        ("big", "security.capability", &capability[..]),
        ("big", "user.binary", b"\0=\n\xff"),
        ("dir/setgid", "user.of-a-directory", b""),
        ("dir/setgid", "trusted.too", b"yes"),
    ] {
        rustix::fs::setxattr(root.join(name), attribute, value, XattrFlags::empty()).unwrap();
    }
    // No fraction before 1970: libarchive 3.6 reads -1.5 as -0.5.
    let times = [(0, 0), (1, 1), (-2, 0), (1_700_000_000, 123_456_789), (8_589_934_592, 999_999_999)];
    for (number, (seconds, nanoseconds)) in times.into_iter().enumerate() {
        let path = file(format!("times/{number}"));
        let times = FileTimes::new().set_modified(at(seconds, nanoseconds));
        File::open(path).unwrap().set_times(times).unwrap();
    }
    for name in ["dir/sticky", "dir", "times", "."] {
        let times = FileTimes::new().set_modified(at(1_234_567_890, 987_654_321));
        File::open(root.join(name)).unwrap().set_times(times).unwrap();
    }
}

/// An archive of `tree`, by some writer; what a format can't hold its writer leaves out.
fn write(tree: &Path, archive: &Path, command: &[&str]) {
    let output = Command::new(command[0])
        .args(&command[1..])
        .arg("-cf")
        .arg(archive)
        .arg("-C")
        .arg(tree)
        .arg(".")
        .output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}: see e2e/setup"));
    assert!(std::fs::metadata(archive).is_ok_and(|meta| meta.len() > 100_000), "{command:?}: {output:?}");
}

#[test]
fn whatever_writes_them_layers_are_what_gnu_tar_and_bsdtar_read() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    odd_tree(&tree);
    let archive = dir.path().join("archive");
    for command in [
        &["tar", "--format=gnu"][..],
        &["tar", "--format=oldgnu"],
        &["tar", "--format=ustar"],
        &["tar", "--format=v7"],
        &["tar", "--format=posix"],
        &["tar", "--format=posix", "--xattrs", "--xattrs-include=*"],
        &["bsdtar", "--format=pax"],
        &["bsdtar", "--format=ustar"],
        &["bsdtar", "--format=gnutar"],
    ] {
        write(&tree, &archive, command);
        assert_agreement(&archive, &command.join(" "));
    }
    // The best format loses nothing at all.
    write(&tree, &archive, &["tar", "--format=posix", "--xattrs", "--xattrs-include=*"]);
    let original = snapshot::copied(snapshot::take(&tree));
    assert_eq!(differences(&ours(&archive).unwrap(), &original), [] as [String; 0]);
}

#[test]
fn sparse_files_are_what_gnu_tar_and_bsdtar_read_in_each_of_their_four_forms() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    odd_tree(&tree);
    // More pieces than one header, or one block behind it, has room for.
    let many = File::create(tree.join("many")).unwrap();
    (0..60).for_each(|piece| many.write_all_at(b"piece", piece * 65_536 + 4096).unwrap());
    let long = tree.join("names").join("h".repeat(180));
    File::create(long).unwrap().set_len(100_000).unwrap();
    let archive = dir.path().join("archive");
    for command in [
        &["tar", "--format=gnu", "--sparse"][..],
        &["tar", "--format=oldgnu", "--sparse"],
        &["tar", "--format=posix", "--sparse", "--sparse-version=0.0"],
        &["tar", "--format=posix", "--sparse", "--sparse-version=0.1"],
        &["tar", "--format=posix", "--sparse", "--sparse-version=1.0"],
    ] {
        write(&tree, &archive, command);
        assert_agreement(&archive, &command.join(" "));
        assert!(std::fs::metadata(&archive).unwrap().len() < 3_000_000, "{command:?} left no hole out");
    }
    let cache = Cache::new();
    let unpacked = cache.unpack(&std::fs::read(&archive).unwrap()).unwrap();
    let holes = std::fs::metadata(unpacked.staged.path().join("holes")).unwrap();
    assert!(std::os::unix::fs::MetadataExt::blocks(&holes) < 100, "{holes:?}");
}

#[test]
fn real_files_of_this_machine_are_what_gnu_tar_and_bsdtar_read() {
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("archive");
    let mut command = Command::new("tar");
    command.args(["--format=posix", "--xattrs", "--xattrs-include=*", "--warning=no-file-changed", "-cf"]);
    command.arg(&archive).args(["-C", "/", "--no-recursion", ".", "usr", "--recursion", "etc", "usr/sbin"]);
    assert!(command.output().unwrap().status.code().is_some_and(|code| code < 2));
    assert_agreement(&archive, "this machine's /etc and /usr/sbin");
}

#[test]
fn a_whole_base_system_is_what_gnu_tar_and_bsdtar_read() {
    let Some(archive) = std::env::var_os(BASE) else {
        println!("not run: {BASE} names no archive; `make agreement` makes one, in minutes");
        return;
    };
    assert_agreement(Path::new(&archive), "a base system");
}
