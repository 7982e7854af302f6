//! What the kernel counted: kills at the memory limit. And whether a process is where it should be.

use std::fs;
use std::io;

use super::error::CgroupError;
use super::hierarchy::Hierarchies;
use super::kill;

/// Processes of a cgroup, and of those below it, that the kernel killed for memory. NotFound where the cgroup is gone.
pub(super) fn oom_kills(hierarchies: &Hierarchies, path: &str) -> io::Result<u64> {
    let dir = hierarchies.dir("memory", path).ok_or(io::ErrorKind::NotFound)?;
    match hierarchies {
        // memory.events counts what lies below too.
        Hierarchies::V2(_) => Ok(field(&fs::read_to_string(dir.join("memory.events"))?, "oom_kill")),
        Hierarchies::V1(_) => {
            let own = field(&fs::read_to_string(dir.join("memory.oom_control"))?, "oom_kill");
            let below = kill::tree(&dir).into_iter().skip(1);
            let counts = below.filter_map(|dir| fs::read_to_string(dir.join("memory.oom_control")).ok());
            Ok(own + counts.map(|text| field(&text, "oom_kill")).sum::<u64>())
        }
    }
}

/// A number of a flat keyed file.
fn field(text: &str, name: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok()).unwrap_or(0)
}

/// Whether a process is in a cgroup or below it, in every hierarchy that has limits.
pub(super) fn verify(hierarchies: &Hierarchies, path: &str, pid: i32) -> Result<(), CgroupError> {
    let file = format!("/proc/{pid}/cgroup");
    let text = fs::read_to_string(&file).map_err(|source| CgroupError::Read { path: file.into(), source })?;
    let lines: Vec<(&str, &str)> =
        text.lines().filter_map(|line| line.split_once(':')?.1.split_once(':')).collect();
    let astray = |found: &str| CgroupError::Astray { pid, expected: path.into(), found: found.into() };
    let inside =
        |found: &str| found.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let check = |names: &str| match lines.iter().find(|(n, _)| *n == names) {
        Some((_, found)) if inside(found) => Ok(()),
        Some((_, found)) => Err(astray(found)),
        None => Err(astray("")),
    };
    match hierarchies {
        Hierarchies::V2(_) => check(""),
        Hierarchies::V1(all) => all.iter().try_for_each(|hierarchy| check(&hierarchy.controllers.join(","))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_name_of_a_field_counts() {
        let text = "low 0\noom 3\noom_kill_disable 7\noom_kill 2\noom_group_kill 9\n";
        assert_eq!(field(text, "oom_kill"), 2);
        assert_eq!(field("under_oom 0\n", "oom_kill"), 0);
    }
}
