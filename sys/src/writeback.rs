//! Writing back to disk before it is waited for: sync_file_range(2). What does not live here: making sure of anything.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Has the kernel start writing what is in memory of a file, and does not wait for it: a later sync has less to do.
pub fn start(file: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the call takes a descriptor, which is open as long as it is borrowed, and numbers.
    let result = unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_file_can_be_written_back_and_a_pipe_cannot() {
        let file = tempfile::tempfile().unwrap();
        start(file.as_fd()).unwrap();
        let (reader, _writer) = std::io::pipe().unwrap();
        assert!(start(reader.as_fd()).is_err());
    }
}
