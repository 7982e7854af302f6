//! Values for cgroup files, written all or not at all. What does not live here: which values a limit needs.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::error::CgroupError;

/// One value for one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// The controller whose directory has the file; on version 2 it does not matter.
    pub controller: &'static str,
    /// File name.
    pub file: String,
    /// Value; each line is written by itself, as the kernel wants it for keyed files.
    pub value: String,
    /// The limit, in the words of an error.
    pub resource: &'static str,
}

impl Setting {
    /// One value for one file.
    pub fn new(
        controller: &'static str,
        file: impl Into<String>,
        value: impl ToString,
        resource: &'static str,
    ) -> Self {
        Self { controller, file: file.into(), value: value.to_string(), resource }
    }
}

/// What a cgroup's files say now; None for a file that does not exist.
pub(super) trait Current {
    /// The content of a file, trimmed.
    fn read(&self, controller: &str, file: &str) -> Option<String>;
}

impl<F: Fn(&str, &str) -> Option<String>> Current for F {
    fn read(&self, controller: &str, file: &str) -> Option<String> {
        self(controller, file)
    }
}

/// What brings back the values that some settings have replaced.
#[derive(Debug, Default)]
#[must_use = "dropped, the new values stay"]
pub struct Undo(Vec<(PathBuf, String)>);

impl Undo {
    /// The new values stay.
    pub fn forget(self) {}

    /// Writes the old values, last first. There is nobody to tell of a failure: it is logged.
    pub(super) fn revert(self) {
        for (path, old) in self.0.iter().rev() {
            if let Err(error) = write_lines(path, old) {
                tracing::warn!(path = %path.display(), value = %old, %error, "an old cgroup value could not be restored");
            }
        }
    }
}

/// Writes settings in their order to the directories that `dir` names. When one is refused, those before it get their old
/// values back, last first, and the error tells the one that was refused.
pub(super) fn apply(
    settings: &[Setting],
    dir: &dyn Fn(&str) -> Option<PathBuf>,
) -> Result<Undo, CgroupError> {
    let mut undo = Undo(Vec::with_capacity(settings.len()));
    let result = settings.iter().try_for_each(|setting| {
        let unenforceable = || CgroupError::Unenforceable {
            resource: setting.resource,
            value: setting.value.clone(),
            file: setting.file.clone(),
        };
        let path = dir(setting.controller).ok_or_else(unenforceable)?.join(&setting.file);
        let old = match fs::read_to_string(&path) {
            Ok(old) => old,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(unenforceable()),
            Err(source) => return Err(CgroupError::Read { path, source }),
        };
        // Pushed first: a value of several lines may be refused in the middle.
        undo.0.push((path.clone(), old_value(&setting.file, &setting.value, &old)));
        write_lines(&path, &setting.value).map_err(|source| CgroupError::Write {
            resource: setting.resource,
            path,
            value: setting.value.clone(),
            source,
        })
    });
    match result {
        Ok(()) => Ok(undo),
        Err(error) => {
            undo.revert();
            Err(error)
        }
    }
}

/// What brings a file back to `old` after `new` was written to it.
fn old_value(file: &str, new: &str, old: &str) -> String {
    let reset = match file {
        "io.max" => "rbps=max wbps=max riops=max wiops=max",
        "io.weight" | "io.bfq.weight" => "default",
        "io.latency" => "target=0",
        _ => return old.trim().to_string(),
    };
    // Keyed files list only what is set: a device that was not listed goes back to no limit.
    let key = |line: &str| line.split(' ').next().unwrap_or_default().to_string();
    let listed: Vec<String> = old.lines().map(key).collect();
    let fresh = new
        .lines()
        .map(key)
        .filter(|k| k.contains(':') && !listed.contains(k))
        .map(|k| format!("{k} {reset}"));
    old.lines().map(str::to_string).chain(fresh).collect::<Vec<_>>().join("\n")
}

/// Writes each line by its own write(2).
fn write_lines(path: &Path, value: &str) -> io::Result<()> {
    if value.is_empty() {
        return write(path, "\n");
    }
    value.lines().try_for_each(|line| write(path, line))
}

/// Writes to a file that exists, in one write(2); cgroup files can't be made or truncated.
pub(super) fn write(path: &Path, value: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).open(path)?;
    file.write_all(value.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_value_brings_the_old_ones_back() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().to_path_buf();
        fs::write(at.join("one"), "1\n").unwrap();
        fs::write(at.join("two"), "2\n").unwrap();
        let find = |controller: &str| (controller == "c").then(|| at.clone());
        let setting = |controller, file: &str| Setting::new(controller, file, "9", "a limit");
        let error =
            apply(&[setting("c", "one"), setting("c", "two"), setting("c", "three")], &find).unwrap_err();
        assert!(matches!(&error, CgroupError::Unenforceable { file, .. } if file == "three"), "{error}");
        assert_eq!(fs::read_to_string(at.join("one")).unwrap().trim(), "1");
        assert_eq!(fs::read_to_string(at.join("two")).unwrap().trim(), "2");
        assert!(apply(&[setting("absent", "one")], &find).is_err());
        let undo = apply(&[setting("c", "one")], &find).unwrap();
        assert_eq!(fs::read_to_string(at.join("one")).unwrap(), "9\n");
        undo.revert();
        assert_eq!(fs::read_to_string(at.join("one")).unwrap().trim(), "1");
    }

    #[test]
    fn a_device_without_a_limit_gets_back_to_none() {
        let old = "8:0 rbps=1 wbps=max riops=max wiops=max\n";
        let undo = old_value("io.max", "8:16 rbps=5\n8:0 rbps=7", old);
        assert_eq!(
            undo,
            "8:0 rbps=1 wbps=max riops=max wiops=max\n8:16 rbps=max wbps=max riops=max wiops=max"
        );
        assert_eq!(old_value("cpu.max", "1 2", "max 100000\n"), "max 100000");
    }
}
