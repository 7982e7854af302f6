//! What processes hold open. What does not live here: which processes those are (a cgroup knows).

use std::fs;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};

/// Of several processes together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Processes {
    /// How many there are.
    pub count: u64,
    /// Open file descriptors.
    pub files: u64,
    /// Those of them that are sockets.
    pub sockets: u64,
    /// The first process's soft limit of open files; None where it is gone.
    pub files_max: Option<u64>,
}

/// Looks at each of them; those that are gone count as having nothing open. Blocking: a system call for each descriptor.
pub fn look(pids: &[i32]) -> Processes {
    let mut all = Processes { count: pids.len() as u64, ..Processes::default() };
    all.files_max =
        pids.first().and_then(|pid| files_max(&fs::read_to_string(format!("/proc/{pid}/limits")).ok()?));
    for pid in pids {
        let (files, sockets) = descriptors(*pid).unwrap_or_default();
        all.files += files;
        all.sockets += sockets;
    }
    all
}

fn descriptors(pid: i32) -> rustix::io::Result<(u64, u64)> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(CWD, format!("/proc/{pid}/fd"), flags, Mode::empty())?;
    let (mut files, mut sockets) = (0, 0);
    for entry in rustix::fs::Dir::read_from(&dir)? {
        let entry = entry?;
        if entry.file_name().to_bytes().starts_with(b".") {
            continue;
        }
        files += 1;
        // The type of what the descriptor leads to: nothing is opened.
        let stat = rustix::fs::statat(&dir, entry.file_name(), AtFlags::empty());
        if stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Socket) {
            sockets += 1;
        }
    }
    Ok((files, sockets))
}

/// proc_pid_limits(5): the line of open files; no limit is the largest number.
fn files_max(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_ascii_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        soft => soft.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn open_files_and_sockets_of_a_process_are_counted() {
        let (_ours, theirs) = UnixStream::pair().unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "ulimit -Sn 321; exec sleep 100"]);
        command.stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let pids = [i32::try_from(child.id()).unwrap(), i32::MAX];
        // What runs the tests may have left more open than the three.
        let as_expected = |looked: &Processes| {
            (looked.count, looked.sockets, looked.files_max) == (2, 1, Some(321)) && looked.files >= 3
        };
        let end = Instant::now() + Duration::from_secs(20);
        let mut looked = look(&pids);
        // The shell has to come that far.
        while !as_expected(&looked) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
            looked = look(&pids);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(as_expected(&looked), "{looked:?}");
    }

    #[test]
    fn a_limit_may_be_none() {
        assert_eq!(
            files_max("Max processes 1 2 processes\nMax open files   unlimited unlimited files\n"),
            Some(u64::MAX)
        );
        assert_eq!(
            files_max("Max open files            1024                 4096                 files     \n"),
            Some(1024)
        );
        assert_eq!(files_max(""), None);
    }
}
