//! CRI messages to domain types and back. Everything that can be wrong with a request by itself is found here.

pub(super) mod container;
pub(super) mod container_item;
pub(super) mod container_status;
pub(super) mod event;
pub(super) mod image;
mod image_volume;
pub(super) mod pod;
pub(super) mod resources;
pub(super) mod security;
pub(super) mod signal;
pub(super) mod stats;
pub(super) mod streaming;

use std::path::{Component, Path};

/// What is wrong with a request.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{field}: {problem}", kubelet_word.map(|word| format!("{word}: ")).unwrap_or_default())]
pub struct Invalid {
    /// The field's path in the message.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
    /// By which the kubelet knows such mistakes: see `Error::kubelet_word`.
    pub kubelet_word: Option<&'static str>,
}

impl Invalid {
    pub(super) fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into(), kubelet_word: None }
    }
}

pub(super) fn required<T>(value: Option<T>, field: &str) -> Result<T, Invalid> {
    value.ok_or_else(|| Invalid::new(field, "is missing"))
}

/// Not empty, and without bytes that end lines or strings.
pub(super) fn name(text: String, field: &str) -> Result<String, Invalid> {
    match text.as_str() {
        "" => Err(Invalid::new(field, "is empty")),
        text if text.bytes().any(|byte| byte < b' ' || byte == 0x7f) => {
            Err(Invalid::new(field, "holds control characters"))
        }
        _ => Ok(text),
    }
}

/// Absolute, without `..` and without NUL.
pub(super) fn absolute(path: &str, field: &str) -> Result<(), Invalid> {
    let refuse = |problem: &str| Err(Invalid::new(field, format!("{path:?} {problem}")));
    if !path.starts_with('/') {
        return refuse("is not an absolute path");
    }
    if path.contains('\0') {
        return refuse("holds a NUL");
    }
    if Path::new(path).components().any(|part| part == Component::ParentDir) {
        return refuse("holds `..`");
    }
    Ok(())
}

/// Relative, below its start: without `..`, `/` in front, and NUL.
pub(super) fn below(path: &str, field: &str) -> Result<(), Invalid> {
    let inside =
        Path::new(path).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if inside && !path.is_empty() && !path.contains('\0') {
        Ok(())
    } else {
        Err(Invalid::new(field, format!("{path:?} is not a relative path without `..`")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_leave_their_place_are_refused() {
        assert_eq!(absolute("/a/b..c/d", "x"), Ok(()));
        for bad in ["", "a", "./a", "/a/../b", "/..", "/a\0"] {
            assert!(absolute(bad, "x").is_err(), "{bad:?}");
        }
        assert_eq!(below("a/b/0.log", "x"), Ok(()));
        for bad in ["", "/a", "..", "a/../b", "a\0"] {
            assert!(below(bad, "x").is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_with_line_ends_are_refused() {
        assert_eq!(name("web".into(), "x"), Ok("web".into()));
        assert_eq!(name(r"a\nb".into(), "x"), Ok(r"a\nb".into()));
        for bad in ["", "a\nb", "a\rb", "a\0b", "\x7f"] {
            assert!(name(bad.into(), "x").is_err(), "{bad:?}");
        }
    }
}
