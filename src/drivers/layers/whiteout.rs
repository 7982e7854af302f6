//! Whiteouts as archives write them (image-spec, layer.md "Whiteouts"). What does not live here: overlay's form of them.

use super::error::LayerError;

/// What the last name of a path means.
#[derive(Debug, PartialEq, Eq)]
pub enum Meaning<'a> {
    /// A file.
    Plain,
    /// Hides this name of the same directory.
    Hides(&'a [u8]),
    /// Hides everything that the directory has from the layers below.
    Opaque,
    /// AUFS's own bookkeeping, part of no image.
    Bookkeeping,
}

const PREFIX: &[u8] = b".wh.";
const META: &[u8] = b".wh..wh.";

/// Reads a path's names.
pub fn meaning<'a>(path: &[u8], names: &[&'a [u8]]) -> Result<Meaning<'a>, LayerError> {
    let Some((name, parents)) = names.split_last() else {
        return Ok(Meaning::Plain);
    };
    if parents.iter().any(|name| name.starts_with(META)) {
        return Ok(Meaning::Bookkeeping);
    }
    if parents.iter().any(|name| name.starts_with(PREFIX)) {
        return Err(LayerError::entry(path, "a whiteout for a parent"));
    }
    if *name == b".wh..wh..opq" {
        return Ok(Meaning::Opaque);
    }
    if name.starts_with(META) {
        return Ok(Meaning::Bookkeeping);
    }
    match name.strip_prefix(PREFIX) {
        None => Ok(Meaning::Plain),
        Some(b"" | b"." | b"..") => Err(LayerError::entry(path, "a whiteout of nothing")),
        Some(hidden) => Ok(Meaning::Hides(hidden)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_what_the_specification_says() {
        let of = |names: &[&'static [u8]]| meaning(b"", names).map_err(|_| ());
        assert_eq!(of(&[]), Ok(Meaning::Plain));
        assert_eq!(of(&[b"a", b".whx"]), Ok(Meaning::Plain));
        assert_eq!(of(&[b"a", b".wh.x"]), Ok(Meaning::Hides(b"x")));
        assert_eq!(of(&[b"a", b".wh..wh..opq"]), Ok(Meaning::Opaque));
        assert_eq!(of(&[b".wh..wh.plnk", b"1.2"]), Ok(Meaning::Bookkeeping));
        assert_eq!(of(&[b".wh..wh.aufs"]), Ok(Meaning::Bookkeeping));
        for bad in [&b".wh."[..], b".wh..", b".wh..."] {
            assert_eq!(of(&[bad]), Err(()));
        }
        assert_eq!(of(&[b".wh.a", b"b"]), Err(()));
    }
}
