//! The seal of a layer that was just unpacked, most of it not read again, is what reading all of it from the disk gives.

use super::archive::{Tar, head};
use super::*;

fn seal_of(archive: &[u8], on: Option<&[u8]>) -> Sealed {
    let cache = Cache::new();
    let parents: Vec<_> = on.into_iter().map(|below| cache.keep(&cache.unpack(below).unwrap())).collect();
    let unpacked =
        if parents.is_empty() { cache.unpack(archive) } else { cache.unpack_over(archive, &parents) };
    let (unpacked, id) = (unpacked.unwrap(), Digest::of(b"layer"));
    let sealed = cache.layers.commit(&unpacked.staged, &id).unwrap();
    assert_eq!(cache.layers.inspect(&id, &mut |_| ()).unwrap(), sealed);
    sealed
}

#[test]
fn of_an_archive_that_says_everything_twice() {
    let sparse = [("GNU.sparse.size", "9"), ("GNU.sparse.numblocks", "1"), ("GNU.sparse.map", "3,2")];
    let sparse: Vec<_> = sparse.iter().map(|(key, value)| (*key, value.as_bytes())).collect();
    let mut tar = Tar::default();
    tar.dir("d", 0o755)
        .file("d/f", "first")
        .file("f", "a file")
        .link("same", b'1', "f")
        .link("to", b'2', "f");
    // The inode of what goes is free for what comes.
    tar.file("f", "another file")
        .pax(&sparse)
        .add(&head("f", b'0'), b"ab")
        .file("d/f", "second")
        .file("d", "");
    let once = seal_of(&tar.bytes(), None);
    assert_eq!(once.inodes, 5);
    assert_ne!(seal_of(&tar.file("to", "x").bytes(), None).seal, once.seal);
}

#[test]
fn of_one_that_stands_on_others() {
    let below = Tar::default().dir("d", 0o755).file("d/low", "low").file("d/gone", "gone").bytes();
    let above =
        Tar::default().link("linked", b'1', "d/low").file("d/.wh.gone", "").file("own", "own").bytes();
    seal_of(&above, Some(&below));
}
