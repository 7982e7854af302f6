//! The file below a log: opened so that nothing but a regular file is ever written, and written so that it holds
//! whole records only.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{FileType, Mode, OFlags};

/// An open log file, or what was one before writes to it failed.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    fd: OwnedFd,
    dropped: u64,
    failing: bool,
}

impl LogFile {
    /// Opens or makes the file, mode 0640.
    ///
    /// # Errors
    /// open's; a symlink is `ELOOP`, a FIFO, device or directory is refused.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let fd = open(&path)?;
        Ok(Self { path, fd, dropped: 0, failing: false })
    }

    /// Opens the path again and uses it from now on; on an error nothing changes.
    pub fn reopen(&mut self) -> io::Result<()> {
        self.fd = open(&self.path)?;
        self.failing = false;
        Ok(())
    }

    /// Bytes that could not be written.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Writes records of `each` slices. What cannot be written is dropped and counted; the container goes on.
    pub fn write(&mut self, mut slices: &[IoSlice<'_>], each: usize) {
        while !slices.is_empty() {
            let total: usize = slices.iter().map(|slice| slice.len()).sum();
            match rustix::io::writev(&self.fd, slices) {
                Ok(written) if written == total => {
                    self.failing = false;
                    return;
                }
                Ok(written) => {
                    let rest = self.undo_torn_record(slices, each, written);
                    if rest.len() == slices.len() {
                        return self.drop_records(total, rustix::io::Errno::NOSPC);
                    }
                    slices = rest;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return self.drop_records(total, error),
            }
        }
    }

    /// After a short write: removes the record that was written in part, and returns it and those after it.
    fn undo_torn_record<'a, 'b>(
        &mut self,
        slices: &'a [IoSlice<'b>],
        each: usize,
        written: usize,
    ) -> &'a [IoSlice<'b>] {
        let mut whole = 0;
        let mut rest = slices;
        while let Some((record, after)) = rest.split_at_checked(each) {
            let size: usize = record.iter().map(|slice| slice.len()).sum();
            if whole + size > written {
                break;
            }
            (whole, rest) = (whole + size, after);
        }
        let torn = (written - whole) as u64;
        let cut = rustix::fs::fstat(&self.fd)
            .and_then(|stat| rustix::fs::ftruncate(&self.fd, (stat.st_size as u64).saturating_sub(torn)));
        if let Err(error) = cut {
            eprintln!("log {}: cannot remove a torn record: {error}", self.path.display());
        }
        rest
    }

    fn drop_records(&mut self, bytes: usize, error: rustix::io::Errno) {
        self.dropped += bytes as u64;
        if !self.failing {
            eprintln!("log {}: records are dropped: {error}", self.path.display());
        }
        self.failing = true;
    }
}

fn open(path: &std::path::Path) -> io::Result<OwnedFd> {
    if !path.is_absolute() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path is not absolute"));
    }
    // NONBLOCK: the open of a FIFO fails or returns at once; it has no effect on a regular file.
    let flags = OFlags::WRONLY
        | OFlags::APPEND
        | OFlags::CREATE
        | OFlags::NOFOLLOW
        | OFlags::CLOEXEC
        | OFlags::NONBLOCK
        | OFlags::NOCTTY;
    let fd = rustix::fs::open(path, flags, Mode::from_raw_mode(0o640))?;
    if FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_fifos_devices_and_directories_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let canary = dir.path().join("canary");
        std::fs::write(&canary, "untouched").unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&canary, &link).unwrap();
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        for path in [
            link,
            fifo.clone(),
            "/dev/null".into(),
            dir.path().into(),
            "relative".into(),
            dir.path().join("no/x"),
        ] {
            assert!(LogFile::open(path.clone()).is_err(), "{}", path.display());
        }
        let _reader = rustix::fs::open(&fifo, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).unwrap();
        assert!(LogFile::open(fifo).is_err(), "a FIFO with a reader");
        assert_eq!(std::fs::read_to_string(canary).unwrap(), "untouched");
    }

    /// A tmpfs of one page beside the test, removed with its guard.
    struct Small(tempfile::TempDir);

    impl Drop for Small {
        fn drop(&mut self) {
            rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
        }
    }

    #[test]
    fn a_full_file_system_drops_whole_records_and_writing_resumes_with_space() {
        let dir = Small(tempfile::tempdir().unwrap());
        rustix::mount::mount("tmpfs", dir.0.path(), "tmpfs", rustix::mount::MountFlags::empty(), c"size=8k")
            .unwrap();
        let path = dir.0.path().join("log");
        let filler = dir.0.path().join("filler");
        std::fs::write(&filler, [0; 4096]).unwrap();
        let mut log = LogFile::open(path.clone()).unwrap();
        let text = [b'x'; 700];
        let record = [IoSlice::new(b"head "), IoSlice::new(&text), IoSlice::new(b"\n")];
        let many: Vec<_> = record.iter().cycle().take(30).copied().collect();
        log.write(&many, 3);
        let whole = std::fs::read(&path).unwrap();
        assert!(!whole.is_empty() && whole.len().is_multiple_of(706), "{}", whole.len());
        assert_eq!(log.dropped() as usize, 10 * 706 - whole.len());
        std::fs::remove_file(filler).unwrap();
        log.write(&record, 3);
        assert_eq!(std::fs::read(&path).unwrap().len(), whole.len() + 706);
    }
}
