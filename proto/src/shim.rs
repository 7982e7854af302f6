//! The protocol between daemon and shim: generated messages, its limits, and the exit record both sides know.

/// The generated package.
pub mod v1 {
    #![allow(clippy::all, missing_docs)]
    include!(concat!(env!("OUT_DIR"), "/berth.shim.v1.rs"));
}

/// The protocol's version: raised when a meaning changes, not when a field is added.
pub const VERSION: u32 = 1;

/// Largest packet in bytes, in either direction. Larger content travels as a file descriptor.
pub const MAX_PACKET: usize = 64 * 1024;

/// Most file descriptors beside one packet.
pub const MAX_FDS: usize = 66;

/// Most image volumes of one container: the root and the filter of Start need room too.
pub const MAX_VOLUMES: usize = MAX_FDS - 2;

/// How a container ended, as the shim writes it to `Start.exit_path`: one line `EXIT_CODE FINISHED_AT_NS`.
/// The file appears by rename, so it is whole or absent, and it outlives both shim and daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitRecord {
    /// 0..=255; 128 + signal where a signal ended the process.
    pub exit_code: i32,
    /// Nanoseconds since the epoch.
    pub finished_at: i64,
}

impl ExitRecord {
    /// The line, with its newline.
    pub fn to_line(self) -> String {
        format!("{} {}\n", self.exit_code, self.finished_at)
    }

    /// Reads what [`Self::to_line`] wrote; `None` for anything else.
    pub fn parse(line: &str) -> Option<Self> {
        let (code, at) = line.strip_suffix('\n')?.split_once(' ')?;
        Some(Self { exit_code: code.parse().ok()?, finished_at: at.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::ExitRecord;

    #[test]
    fn an_exit_record_reads_back_and_a_torn_one_is_refused() {
        let record = ExitRecord { exit_code: 137, finished_at: 1_790_000_000_000_000_001 };
        assert_eq!(ExitRecord::parse(&record.to_line()), Some(record));
        for torn in ["", "137", "137 17", "137 17 9\n", "x 1\n", "1 \n"] {
            assert_eq!(ExitRecord::parse(torn), None, "{torn:?}");
        }
    }
}
