//! Installing a seccomp filter on the calling thread. Compiling profiles to filters lives in the daemon.

use std::io;

use libc::{sock_filter, sock_fprog};

/// A checked list of BPF instructions, ready to be installed.
pub struct Filter {
    instructions: Vec<sock_filter>,
}

impl Filter {
    /// Reads `struct sock_filter` records as the kernel lays them out.
    ///
    /// # Errors
    /// InvalidData if there is no record, a part of one, or more than the kernel takes (4096).
    pub fn parse(bytes: &[u8]) -> io::Result<Self> {
        const RECORD: usize = size_of::<sock_filter>();
        let count = bytes.len() / RECORD;
        if count == 0 || count > 4096 || !bytes.len().is_multiple_of(RECORD) {
            let text = format!(
                "a seccomp filter has 1 to 4096 records of {RECORD} bytes, not {} bytes",
                bytes.len()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let instructions = bytes.chunks_exact(RECORD).map(|record| sock_filter {
            code: u16::from_ne_bytes([record[0], record[1]]),
            jt: record[2],
            jf: record[3],
            k: u32::from_ne_bytes([record[4], record[5], record[6], record[7]]),
        });
        Ok(Self { instructions: instructions.collect() })
    }

    /// Installs the filter on the calling thread; `flags` are the `SECCOMP_FILTER_FLAG_*` bits of [`flag`].
    ///
    /// # Errors
    /// The errno of seccomp(2): EACCES without no_new_privs and CAP_SYS_ADMIN, EINVAL for a bad filter or flag.
    pub fn install(&self, flags: libc::c_ulong) -> io::Result<()> {
        let program = sock_fprog {
            len: u16::try_from(self.instructions.len()).map_err(io::Error::other)?,
            filter: self.instructions.as_ptr().cast_mut(),
        };
        // SAFETY: `program` points to `len` whole instructions that outlive the call; the kernel only reads them.
        let result = unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// The bit of a filter flag as the OCI runtime spec names it; None for an unknown name.
#[must_use]
pub fn flag(name: &str) -> Option<libc::c_ulong> {
    match name {
        "SECCOMP_FILTER_FLAG_TSYNC" => Some(libc::SECCOMP_FILTER_FLAG_TSYNC),
        "SECCOMP_FILTER_FLAG_LOG" => Some(libc::SECCOMP_FILTER_FLAG_LOG),
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => Some(libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW),
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => Some(1 << 5),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_of_no_records_or_parts_of_one_is_refused() {
        assert!(Filter::parse(&[]).is_err());
        assert!(Filter::parse(&[0; 12]).is_err());
        assert!(Filter::parse(&[0; 8 * 4097]).is_err());
        assert!(Filter::parse(&[0; 16]).is_ok());
    }
}
