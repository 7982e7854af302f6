//! Texts with stars.

/// Whether a text fits one in which each `*` stands for any text. The first and the last piece are anchored; those
/// between are each found as early as possible.
pub(super) fn fits(glob: &str, text: &str) -> bool {
    let Some((first, rest)) = glob.split_once('*') else { return glob == text };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    let inner = text.strip_prefix(first).and_then(|text| text.strip_suffix(last));
    let Some(mut inner) = inner else { return false };
    for piece in middle.split('*') {
        let Some(at) = inner.find(piece) else { return false };
        inner = &inner[at + piece.len()..];
    }
    true
}
