//! Archives made to get out of the layer (attacks.md A43): traps of links, and every kind of entry that steps into them,
//! by itself and over the layers below. Nothing outside may change, down to its time of change.

use proptest::prelude::*;

use super::archive::{Head, Tar, head};
use super::snapshot::{self, Snapshot};
use super::*;

/// What every attack tries to change.
struct Canary {
    dir: tempfile::TempDir,
    before: Snapshot,
}

impl Canary {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "untouched").unwrap();
        std::fs::create_dir(dir.path().join("dir")).unwrap();
        std::fs::write(dir.path().join("dir/file"), "untouched").unwrap();
        let before = snapshot::take(dir.path());
        Self { dir, before }
    }

    fn path(&self) -> &str {
        self.dir.path().to_str().unwrap()
    }

    fn assert_silent(&self, attack: &str) {
        let now = snapshot::take(self.dir.path());
        assert_eq!(now, self.before, "{attack}");
    }
}

const KINDS: [u8; 7] = *b"0123456";
const PATHS: [&str; 18] = [
    "l/file",
    "l/dir",
    "l/dir/file",
    "l",
    "l/",
    "l/.",
    "l//file",
    "./l/file",
    "/l/file",
    "l/dir/../file",
    "l/new",
    "l/new/deep",
    "m/file",
    "d/l/file",
    "l/.wh.file",
    "l/.wh..wh..opq",
    ".wh.l",
    "d/l/.wh.dir",
];

/// Entries that come first. `l`, `m` and `d/l` lead out, or would where nobody looks.
fn traps(outside: &str) -> Vec<(&'static str, Tar)> {
    let up = format!("{}{outside}", "../".repeat(20));
    let file = format!("{outside}/file");
    let both = |target: &str| {
        let mut tar = Tar::default();
        tar.link("l", b'2', target).link("d/l", b'2', target).link("m", b'2', "l").clone()
    };
    vec![
        ("absolute", both(outside)),
        ("relative", both(&up)),
        ("through a missing directory", both(&format!("x/{up}"))),
        ("the root", both("/")),
        ("the parent", both("..")),
        ("a file", both(&file)),
        ("/proc's root", both(&format!("/proc/self/root{outside}"))),
        ("/proc's directory", both(&format!("/proc/self/cwd/../../../../../..{outside}"))),
        ("a loop", both("l")),
        (
            "a chain",
            Tar::default().link("a", b'2', outside).link("b", b'2', "a").link("l", b'2', "b").clone(),
        ),
        ("a link named dot", Tar::default().link(".", b'2', outside).clone()),
        ("a root that is a link", Tar::default().link("/", b'2', outside).clone()),
        ("a hard link to a link", both(outside).link("n", b'1', "l").link("l", b'1', "n").clone()),
        ("a link over a directory", Tar::default().dir("l", 0o755).link("l", b'2', outside).clone()),
        ("a directory over a link", both(outside).dir("l", 0o755).link("l/file", b'2', &file).clone()),
        ("a link under a whiteout", both(outside).file(".wh.l", "").link("l", b'2', outside).clone()),
        ("a link for a whiteout", Tar::default().link(".wh.l", b'2', outside).clone()),
        ("a link in a hidden directory", both(outside).file("d/.wh..wh..opq", "").clone()),
    ]
}

/// The targets that a link of the attack itself has.
fn targets(outside: &str) -> [String; 4] {
    [format!("{outside}/file"), "l/file".into(), "l".into(), format!("../../../../../../../..{outside}/dir")]
}

/// Applies each of the attacks behind `trap` and returns how many there were.
fn attack_all(trap: &Tar, outside: &str, apply: &mut dyn FnMut(&[u8], String)) -> usize {
    let mut tried = 0;
    for kind in KINDS {
        let targets = targets(outside);
        let aims = if matches!(kind, b'1' | b'2') { &targets[..] } else { &targets[..1] };
        for (path, link) in PATHS.iter().flat_map(|path| aims.iter().map(move |aim| (*path, aim.as_str()))) {
            let mut tar = trap.clone();
            let attributes =
                Head { link, mode: 0o4777, uid: 1234, mtime: 5, device: (1, 3), ..head(path, kind) };
            tar.add(&Head { xattr: Some(("user.evil", b"1")), ..attributes }, b"");
            // Again, without what may have failed first.
            tar.add(&attributes, b"");
            apply(&tar.bytes(), format!("{} {path} -> {link}", char::from(kind)));
            tried += 1;
        }
    }
    tried
}

#[test]
fn no_entry_reaches_out_of_its_layer() {
    let (cache, canary) = (Cache::in_memory(), Canary::new());
    let (mut tried, mut applied) = (0, 0);
    for (name, trap) in traps(canary.path()) {
        tried += attack_all(&trap, canary.path(), &mut |archive, attack| {
            // Refused or kept inside: both are right.
            applied += usize::from(cache.unpack(archive).is_ok());
            canary.assert_silent(&format!("{name}: {attack}"));
        });
    }
    println!("{tried} attacks, {applied} of them kept inside, the others refused");
    assert!(tried > 3000 && applied > 500, "{tried} {applied}");
    cache.assert_nothing_staged();
}

#[test]
fn no_entry_reaches_out_of_the_layers_below() {
    let (cache, canary) = (Cache::in_memory(), Canary::new());
    let (mut tried, mut applied) = (0, 0);
    for (name, trap) in traps(canary.path()) {
        // Some traps are refused by themselves.
        let Ok(lower) = cache.unpack(&trap.bytes()) else { continue };
        let parents = [cache.keep(&lower)];
        let below = snapshot::take(&cache.layout.layer(&parents[0]));
        tried += attack_all(&Tar::default(), canary.path(), &mut |archive, attack| {
            applied += usize::from(cache.unpack_over(archive, &parents).is_ok());
            canary.assert_silent(&format!("over {name}: {attack}"));
        });
        // The times of a lower layer may not change either: others share it.
        assert_eq!(snapshot::take(&cache.layout.layer(&parents[0])), below, "{name}");
    }
    println!("{tried} attacks, {applied} of them kept inside, the others refused");
    assert!(tried > 1500 && applied > 200, "{tried} {applied}");
    cache.assert_nothing_staged();
}

#[test]
fn paths_that_lead_out_are_refused() {
    let (cache, canary) = (Cache::in_memory(), Canary::new());
    let outside = canary.path();
    let up = "../".repeat(20);
    for path in
        [&format!("{up}{outside}/file"), &format!("a/{up}{outside}/file"), "..", "./..", "a/..", "a/../b"]
    {
        for kind in KINDS {
            let tar = Tar::default().add(&Head { link: path, mode: 0o777, ..head(path, kind) }, b"").clone();
            let error = cache.unpack(&tar.bytes()).unwrap_err();
            assert!(told(&error).contains("out of the layer"), "{path}: {}", told(&error));
            canary.assert_silent(path);
        }
    }
    let absolute = format!("{outside}/file");
    let unpacked = cache.unpack(&Tar::default().file(&absolute, "mine").bytes()).unwrap();
    let inside = unpacked.staged.path().join(absolute.trim_start_matches('/'));
    assert_eq!(std::fs::read_to_string(inside).unwrap(), "mine");
    canary.assert_silent("an absolute path");
}

/// One entry of a generated archive, over few names, so that entries meet.
fn entry(outside: String) -> impl Strategy<Value = (u8, String, String, u32)> + Clone {
    let name = prop::sample::select(vec!["a", "b", "l", ".", ".wh.a", ".wh.l", ".wh..wh..opq", "file", ""]);
    let path = prop::collection::vec(name, 1..5).prop_map(|names| names.join("/"));
    let target = prop_oneof![
        2 => path.clone(),
        1 => Just(outside.clone()),
        1 => Just(format!("{outside}/file")),
        1 => Just(format!("../../../../../../../../..{outside}")),
        1 => Just("..".to_string()),
        1 => path.clone().prop_map(|path| format!("../{path}")),
    ];
    let kind = prop::sample::select(b"0012222255513467".to_vec());
    (kind, path, target, 0..4096_u32)
}

fn generated(entries: &[(u8, String, String, u32)]) -> Tar {
    let mut tar = Tar::default();
    for (kind, path, link, n) in entries {
        let xattr = (n % 3 == 0).then_some(("user.x", &b"y"[..]));
        let link = if matches!(kind, b'1' | b'2') { link.as_str() } else { "" };
        let data: &[u8] = if matches!(kind, b'0' | b'7') { b"data" } else { b"" };
        let (mode, uid, mtime) = (*n, n % 5, u64::from(*n));
        tar.add(&Head { link, mode, uid, mtime, xattr, device: (n % 2, n % 3), ..head(path, *kind) }, data);
    }
    tar
}

#[test]
fn thousands_of_generated_archives_stay_inside_and_are_counted_right() {
    let (cache, canary) = (Cache::in_memory(), Canary::new());
    let entries = prop::collection::vec(entry(canary.path().to_string()), 1..10);
    let config = ProptestConfig {
        cases: 3000,
        failure_persistence: None,
        max_shrink_iters: 500,
        ..Default::default()
    };
    let applied = std::cell::Cell::new(0);
    let stacked = std::cell::Cell::new(0);
    let run = |(lower, upper): (Vec<_>, Vec<_>)| {
        let result = cache.unpack(&generated(&lower).bytes());
        canary.assert_silent(&format!("{lower:?}"));
        let Ok(unpacked) = result else { return Ok(()) };
        applied.set(applied.get() + 1);
        let seen = snapshot::take(&unpacked.staged.path());
        let inodes = seen.iter().filter(|(path, seen)| seen.same_as == **path).count() as u64;
        let sealed = unpacked.staged.seal().unwrap();
        prop_assert_eq!(sealed.inodes, inodes);
        let root = unpacked.staged.open().unwrap();
        prop_assert_eq!(seal::of_new(root.as_fd(), &Default::default()).unwrap(), sealed);
        // One in eight also with the parents in view: an overlay has to be mounted for each.
        if applied.get() % 8 == 0 {
            let id = cache.keep(&unpacked);
            stacked.set(stacked.get() + 1);
            let parent = cache.layout.layer(&id);
            let below = snapshot::take(&parent);
            let _ = cache.unpack_over(&generated(&upper).bytes(), std::slice::from_ref(&id));
            canary.assert_silent(&format!("{upper:?} over {lower:?}"));
            prop_assert!(snapshot::take(&parent) == below, "the layer below changed");
            std::fs::remove_dir_all(&parent).unwrap();
        }
        Ok(())
    };
    proptest::test_runner::TestRunner::new(config).run(&(entries.clone(), entries), run).unwrap();
    println!("{} of 3000 archives were applied, {} layers on top of them", applied.get(), stacked.get());
    assert!(applied.get() > 300 && stacked.get() > 30, "{} {}", applied.get(), stacked.get());
    cache.assert_nothing_staged();
}

#[test]
fn nobody_else_reaches_a_layer_while_it_grows() {
    use std::os::unix::fs::PermissionsExt;
    let cache = Cache::in_memory();
    let unpacked = cache.unpack(&Tar::default().file("setuid", "x").bytes()).unwrap();
    let growing = unpacked.staged.path();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(growing.parent().unwrap()), mode(&cache.layout.staging())), (0o700, 0o700));
    // As a user of the node: neither by its path nor from below.
    let script = format!("cd {0} || ls {0} || cat {0}/setuid", growing.display());
    std::fs::set_permissions(cache.dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let tried = std::process::Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", &script])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&tried.stderr);
    assert!(!tried.status.success() && tried.stdout.is_empty() && told.contains("ermission"), "{told}");
}
