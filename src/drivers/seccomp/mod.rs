//! System call filters: a profile becomes BPF once, and is kept as a sealed file that the shim installs.
//! What does not live here: which profile a container asks for, and installing (berth-sys, in the child).

mod arch;
mod bpf;
mod compile;
mod default;
mod json;
mod multiplexed;
mod profile;

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{MemfdFlags, SealFlags};

use crate::capability::Set;
use crate::ids::Digest;
use profile::Profile;

pub use profile::ProfileError;

/// Where a profile comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Berth's own.
    RuntimeDefault,
    /// A JSON file of the node, by absolute path: OCI runtime spec `linux.seccomp`, or Docker's form.
    Localhost(PathBuf),
}

/// A compiled filter.
#[derive(Debug)]
pub struct Filter {
    /// `struct sock_filter` records, in a sealed file; opened for reading, at its start, for this caller alone.
    pub fd: OwnedFd,
    /// `SECCOMP_FILTER_FLAG_*` to install it with.
    pub flags: Vec<String>,
}

/// Why there is no filter. The container must not start then.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// Empty or relative.
    #[error("seccomp profile path {path:?} is not an absolute path")]
    Path {
        /// As given.
        path: PathBuf,
    },
    /// It can't be read.
    #[error("cannot read seccomp profile {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not a regular file, or too large for a profile.
    #[error("seccomp profile {path} is not a regular file of at most 1 MiB")]
    NotProfile {
        /// The file.
        path: PathBuf,
    },
    /// It can't be understood or compiled.
    #[error("seccomp profile {path} can't be used")]
    Profile {
        /// The file, or `RuntimeDefault`.
        path: PathBuf,
        /// Why.
        #[source]
        source: ProfileError,
    },
    /// The kernel gives no memory file.
    #[error("cannot keep the seccomp filter in memory")]
    Memory(#[source] std::io::Error),
}

const LARGEST: u64 = 1 << 20;
/// Filters kept; a node uses a handful. When there are more the cache starts anew.
const MOST_KEPT: usize = 256;

struct Kept {
    file: File,
    flags: Vec<String>,
}

/// Content of the profile, None for Berth's own, and the capabilities that it looks at.
type Key = (Option<Digest>, Set);

/// Compiled filters, by profile content and by those capabilities of the container that the profile looks at.
pub struct SeccompCache {
    kernel: (u32, u32),
    default: Profile,
    kept: Mutex<HashMap<Key, Arc<Kept>>>,
}

impl SeccompCache {
    /// An empty cache for a kernel of this version (major, minor).
    pub fn new(kernel: (u32, u32)) -> Self {
        Self { kernel, default: default::profile(), kept: Mutex::new(HashMap::new()) }
    }

    /// The filter of a profile for a container with these capabilities (its bounding set).
    ///
    /// Blocking: reads the profile's file, and compiles at the first use (some milliseconds).
    pub fn filter(&self, source: &Source, capabilities: Set) -> Result<Filter, SeccompError> {
        let kept = match source {
            Source::RuntimeDefault => {
                let key = (None, self.default.relevant().intersection(capabilities));
                self.kept(key, &self.default, Path::new("RuntimeDefault"))?
            }
            Source::Localhost(path) => {
                let json = read(path)?;
                let bad = |source| SeccompError::Profile { path: path.clone(), source };
                let profile = json::parse(&json).map_err(bad)?;
                let key = (Some(Digest::of(&json)), profile.relevant().intersection(capabilities));
                self.kept(key, &profile, path)?
            }
        };
        // A description of its own: passed fds share their offset with all others of the same description.
        let path = format!("/proc/self/fd/{}", kept.file.as_raw_fd());
        let fd = File::open(path).map_err(SeccompError::Memory)?;
        Ok(Filter { fd: fd.into(), flags: kept.flags.clone() })
    }

    fn kept(&self, key: Key, profile: &Profile, path: &Path) -> Result<Arc<Kept>, SeccompError> {
        // Held while compiling: pods that start together wait for one compilation instead of doing one each.
        let mut all = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = all.get(&key) {
            return Ok(Arc::clone(kept));
        }
        let code = compile::compile(profile, key.1, self.kernel)
            .map_err(|source| SeccompError::Profile { path: path.to_path_buf(), source })?;
        let file = sealed(&bpf::bytes(&code)).map_err(SeccompError::Memory)?;
        let kept = Arc::new(Kept { file, flags: profile.flags.clone() });
        if all.len() >= MOST_KEPT {
            all.clear();
        }
        all.insert(key, Arc::clone(&kept));
        Ok(kept)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, SeccompError> {
    if !path.is_absolute() {
        return Err(SeccompError::Path { path: path.to_path_buf() });
    }
    let failed = |source| SeccompError::Read { path: path.to_path_buf(), source };
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let mut json = Vec::new();
    if metadata.is_file() && metadata.len() <= LARGEST {
        file.take(LARGEST + 1).read_to_end(&mut json).map_err(failed)?;
    }
    if !metadata.is_file() || metadata.len() > LARGEST || json.len() as u64 > LARGEST {
        return Err(SeccompError::NotProfile { path: path.to_path_buf() });
    }
    Ok(json)
}

fn sealed(bytes: &[u8]) -> std::io::Result<File> {
    let fd = rustix::fs::memfd_create("seccomp", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = File::from(fd);
    file.write_all(bytes)?;
    rustix::fs::fcntl_add_seals(
        &file,
        SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL,
    )?;
    Ok(file)
}

#[cfg(test)]
mod kernel_tests;
#[cfg(test)]
mod tests;
