//! Archives that cost more the longer they are than their length explains (attacks.md A47). Each is measured beside an
//! honest one of the same length; where the work was quadratic it took hundreds of times as long.

use std::time::{Duration, Instant};

use super::archive::{Head, Tar, head, record};
use super::*;

fn time(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

#[track_caller]
fn assert_in_proportion(attack: Duration, honest: Duration) {
    println!("attack {attack:?}, honest {honest:?}");
    assert!(attack < honest * 8 + Duration::from_secs(3), "attack {attack:?}, honest {honest:?}");
}

fn directories(count: usize, mut each: impl FnMut(&mut Tar, &str)) -> Vec<u8> {
    let mut tar = Tar::default();
    for number in 0..count {
        let path = format!("d{}/{number}", number % 100);
        tar.dir(&path, 0o755);
        each(&mut tar, &path);
    }
    tar.bytes()
}

#[test]
fn many_opaque_directories() {
    let cache = Cache::in_memory();
    let honest = directories(10_000, |tar, path| {
        tar.file(&format!("{path}/f"), "");
    });
    let attack = directories(10_000, |tar, path| {
        tar.file(&format!("{path}/.wh..wh..opq"), "");
    });
    let honest = time(|| drop(cache.unpack(&honest).unwrap()));
    assert_in_proportion(time(|| drop(cache.unpack(&attack).unwrap())), honest);
}

#[test]
fn one_directory_made_opaque_again_and_again_over_others() {
    let cache = Cache::in_memory();
    let mut below = Tar::default();
    (0..3000).for_each(|number| {
        below.file(&format!("d/{number}"), "");
    });
    let parents = [cache.keep(&cache.unpack(&below.bytes()).unwrap())];
    let mut honest = Tar::default();
    (0..6000).for_each(|number| {
        honest.file(&format!("d/new{number}"), "");
    });
    let mut attack = Tar::default();
    (0..3000).for_each(|number| {
        attack.file(&format!("d/e/f/new{number}"), "");
    });
    for number in 0..1000 {
        let name = ["d/e/f/.wh..wh..opq", "d/.wh..wh..opq", ".wh.d"][number % 3];
        attack.file(name, "");
    }
    let honest = time(|| drop(cache.unpack_over(&honest.bytes(), &parents).unwrap()));
    let attacked = || {
        let unpacked = cache.unpack_over(&attack.bytes(), &parents).unwrap();
        assert_eq!(std::fs::read_dir(unpacked.staged.path().join("d/e/f")).unwrap().count(), 3000);
    };
    assert_in_proportion(time(attacked), honest);
}

#[test]
fn a_file_in_the_place_of_another_beside_many_directories() {
    let cache = Cache::in_memory();
    let archive = |path: &dyn Fn(usize) -> String| {
        let mut tar = Tar::default();
        (0..10_000).for_each(|number| {
            tar.dir(&format!("{}/{number}", number % 100), 0o755);
        });
        (0..10_000).for_each(|number| {
            tar.file(&path(number), "");
        });
        tar.bytes()
    };
    let (honest, attack) = (archive(&|number| format!("f{number}")), archive(&|_| "f".into()));
    let honest = time(|| drop(cache.unpack(&honest).unwrap()));
    assert_in_proportion(time(|| drop(cache.unpack(&attack).unwrap())), honest);
}

#[test]
fn many_attributes_of_one_file() {
    let records = |key: &dyn Fn(usize) -> String| -> Vec<u8> {
        (0..30_000).flat_map(|number| record(&key(number), b"")).collect()
    };
    let read = |body: &[u8]| {
        let mut tar = Tar::default();
        (0..10).for_each(|_| {
            tar.raw(&head("pax", b'x'), body).file("f", "");
        });
        time(|| {
            let bytes = tar.bytes();
            let mut reader = tar::Reader::new(bytes.as_slice());
            while reader.next_entry().unwrap().is_some() {}
        })
    };
    let honest = read(&records(&|number| format!("comment.{number:06}.....")));
    assert_in_proportion(read(&records(&|number| format!("SCHILY.xattr.u.{number}"))), honest);
}

#[test]
fn links_that_lead_to_and_fro() {
    let cache = Cache::in_memory();
    let to_and_fro = "a/../".repeat(40);
    let mut tar = Tar::default();
    tar.dir("a", 0o755).link("l", b'2', &to_and_fro).file("l/within", "");
    let unpacked = cache.unpack(&tar.bytes()).unwrap();
    assert!(unpacked.staged.path().join("within").exists());
    tar.link("m", b'2', &"a/../".repeat(800)).file("m/beyond", "");
    assert!(told(&cache.unpack(&tar.bytes()).unwrap_err()).contains("too many symbolic links"));
    let mut tar = Tar::default();
    tar.dir("a", 0o755).link("0", b'2', &to_and_fro);
    for number in 1..30 {
        tar.link(&number.to_string(), b'2', &format!("{to_and_fro}{}", number - 1));
    }
    tar.add(&Head { mode: 0o600, ..head("29/beyond", b'0') }, b"");
    assert!(told(&cache.unpack(&tar.bytes()).unwrap_err()).contains("too many symbolic links"));
}
