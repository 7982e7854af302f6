//! What a pod has on the host besides its shim: three small files for its containers, and its pinned network namespace.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::mount::UnmountFlags;

use crate::drivers::network::resolv::{self, FieldError};
use crate::error::{Kind, io_kind};
use crate::ids::PodId;
use crate::layout::Layout;
use crate::pods::spec::PodSpec;

/// A file or mount of a pod that can't be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum PodFilesError {
    /// A system call failed.
    #[error("cannot {verb} {path}")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The request's names can't stand in the files.
    #[error(transparent)]
    Content(#[from] FieldError),
}

impl PodFilesError {
    fn at(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { verb, path: path.to_path_buf(), source }
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Io { source, .. } => io_kind(source),
            Self::Content(_) => Kind::InvalidArgument,
        }
    }
}

/// Makes and removes pods' files and pins.
pub struct PodFiles {
    layout: Layout,
}

impl PodFiles {
    /// Below the layout's directories, which exist.
    pub fn new(layout: Layout) -> Self {
        Self { layout }
    }

    /// Writes resolv.conf, hosts and hostname.
    pub fn write(&self, id: &PodId, spec: &PodSpec, addresses: &[IpAddr]) -> Result<(), PodFilesError> {
        let dns = match &spec.dns {
            Some(dns) => resolv::resolv_conf(dns)?,
            None => resolv::host_resolv_conf()
                .map_err(PodFilesError::at("read", Path::new("/etc/resolv.conf")))?,
        };
        let hostname =
            if spec.hostname.is_empty() { crate::drivers::host::hostname() } else { spec.hostname.clone() };
        let hosts = resolv::hosts(&hostname, addresses)?;
        let dir = self.layout.pod_files(id);
        let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(&dir);
        made.map_err(PodFilesError::at("make", &dir))?;
        let files = [
            (self.layout.pod_resolv_conf(id), dns),
            (self.layout.pod_hosts(id), hosts),
            (self.layout.pod_hostname(id), format!("{hostname}\n")),
        ];
        // The root of a pod with a user namespace may write what the root of any other pod may.
        let owner = spec.namespaces.user.as_ref().and_then(|user| user.on_host(0, 0));
        for (path, content) in files {
            fs::write(&path, content).map_err(PodFilesError::at("write", &path))?;
            if let Some((uid, gid)) = owner {
                let given = std::os::unix::fs::chown(&path, Some(uid), Some(gid));
                given.map_err(PodFilesError::at("set the owner of", &path))?;
            }
        }
        Ok(())
    }

    /// Gives the files an SELinux label.
    pub fn label(&self, id: &PodId, label: &str) -> Result<(), PodFilesError> {
        let dir = self.layout.pod_files(id);
        crate::drivers::selinux::relabel(&dir, label).map_err(PodFilesError::at("label", &dir))
    }

    /// Removes the files; true if they were there.
    pub fn remove(&self, id: &PodId) -> Result<bool, PodFilesError> {
        let dir = self.layout.pod_files(id);
        there(fs::remove_dir_all(&dir)).map_err(PodFilesError::at("remove", &dir))
    }

    /// Every pod that has files or a pinned network namespace.
    pub fn known(&self) -> HashSet<PodId> {
        let dirs = [self.layout.all_pod_files(), self.layout.network_namespaces()];
        let entries = dirs.iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten();
        entries.filter_map(|entry| PodId::parse(entry.file_name().to_str()?).ok()).collect()
    }

    /// Gives a network namespace a name on the host, so that it outlives the processes in it.
    pub fn pin_network(&self, id: &PodId, netns: BorrowedFd<'_>) -> Result<(), PodFilesError> {
        let path = self.layout.network_namespace(id);
        fs::File::create_new(&path).map_err(PodFilesError::at("make", &path))?;
        let source = format!("/proc/self/fd/{}", netns.as_raw_fd());
        rustix::mount::mount_bind(source, &path)
            .map_err(io::Error::from)
            .map_err(PodFilesError::at("bind", &path))
    }

    /// Lets the name go; true if there was one. The kernel removes the namespace once nobody uses it.
    pub fn unpin_network(&self, id: &PodId) -> Result<bool, PodFilesError> {
        let path = self.layout.network_namespace(id);
        detach(&path)?;
        there(fs::remove_file(&path)).map_err(PodFilesError::at("remove", &path))
    }

    /// Frees the pod's /dev/shm; true if it was attached somewhere.
    pub fn drop_shm(&self, id: &PodId) -> Result<bool, PodFilesError> {
        detach(&self.layout.pod_shm(id))
    }
}

/// Whether what was removed was there.
fn there(removed: io::Result<()>) -> io::Result<bool> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        removed => removed.map(|()| true),
    }
}

/// False if it is not there, or not a mount (a crash between the file and the mount, or a reboot).
fn detach(path: &Path) -> Result<bool, PodFilesError> {
    match rustix::mount::unmount(path, UnmountFlags::DETACH) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::INVAL) => Ok(false),
        Err(error) => Err(PodFilesError::at("unmount", path)(error.into())),
    }
}
