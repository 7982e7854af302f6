//! A container's directories: its OCI bundle (runtime-spec, bundle.md) in the state directory, its writable layer in
//! the root directory. What does not live here: mounting, and what config.json says.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use berth_proto::shim::ExitRecord;
use oci_spec::runtime::Spec;

use super::disk_usage::DiskUsage;
use super::quota::Quotas;
use super::trash::Trash;
use crate::error::{Kind, io_kind};
use crate::ids::ContainerId;
use crate::layout::Layout;
use crate::telemetry::Leak;

/// A directory or file of a container that can't be made, read or removed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {path}")]
pub struct BundleError {
    verb: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl BundleError {
    fn at(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { verb, path: path.to_path_buf(), source }
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        io_kind(&self.source)
    }
}

/// Makes and removes containers' directories.
pub struct Bundles {
    layout: Layout,
    trash: Trash,
    quotas: Quotas,
}

impl Bundles {
    /// Below the layout's directories, which exist.
    pub fn new(layout: Layout, trash: Trash, quotas: Quotas) -> Self {
        Self { layout, trash, quotas }
    }

    /// Makes the bundle and the snapshot of a new container.
    pub fn make(&self, id: &ContainerId) -> Result<(), BundleError> {
        for dir in [self.layout.bundle(id), self.layout.snapshot(id)] {
            mkdir(&dir, 0o700)?;
        }
        let snapshot = self.layout.snapshot(id);
        self.quotas.begin(&snapshot).map_err(BundleError::at("set the quota of", &snapshot))?;
        // The mode of `/` inside.
        mkdir(&self.layout.upper(id), 0o755)
    }

    /// Makes the directory of a container's anonymous volumes.
    pub fn make_volumes(&self, id: &ContainerId) -> Result<(), BundleError> {
        mkdir(&self.layout.anonymous_volumes(id), 0o700)
    }

    /// The quotas of writable layers.
    pub fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    /// What a container's writable layer occupies, where its file system counts that.
    pub fn usage(&self, id: &ContainerId) -> Option<DiskUsage> {
        self.quotas.usage(&self.layout.snapshot(id))
    }

    /// Makes the directory of a container's log; the kubelet has done so already, crictl has not.
    pub fn make_log_directory(&self, log: &Path) -> Result<(), BundleError> {
        let Some(dir) = log.parent() else { return Ok(()) };
        let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(dir);
        made.map_err(BundleError::at("make the log directory", dir))
    }

    /// The writable layer and a work directory that no mount has used: what a volatile overlay needs.
    pub fn snapshot(&self, id: &ContainerId) -> Result<(PathBuf, PathBuf), BundleError> {
        let (upper, work) = (self.layout.upper(id), self.layout.work(id));
        remove(&work)?;
        mkdir(&work, 0o700)?;
        Ok((upper, work))
    }

    /// Writes config.json; whoever reads it meanwhile gets the old one or the new one, whole.
    pub fn write_config(&self, id: &ContainerId, spec: &Spec) -> Result<(), BundleError> {
        let path = self.layout.oci_config(id);
        let fresh = path.with_extension("new");
        let write = || {
            fs::write(&fresh, serde_json::to_vec(spec)?)?;
            fs::rename(&fresh, &path)
        };
        write().map_err(BundleError::at("write", &path))
    }

    /// Reads config.json.
    pub fn read_config(&self, id: &ContainerId) -> Result<Spec, BundleError> {
        let path = self.layout.oci_config(id);
        let read = || -> io::Result<Spec> { Ok(serde_json::from_slice(&fs::read(&path)?)?) };
        read().map_err(BundleError::at("read", &path))
    }

    /// How the container ended, if its shim has written it down.
    pub fn exit_record(&self, id: &ContainerId) -> Option<ExitRecord> {
        ExitRecord::parse(&fs::read_to_string(self.layout.exit_record(id)).ok()?)
    }

    /// Removes what belongs to none of these containers: a create that a crash cut short had no record yet.
    pub fn sweep(&self, known: &HashSet<ContainerId>) -> Result<(), BundleError> {
        let mut left: HashMap<ContainerId, Vec<Leak>> = HashMap::new();
        for (dir, kind) in [(self.layout.bundles(), Leak::Bundle), (self.layout.snapshots(), Leak::Snapshot)]
        {
            let entries = fs::read_dir(&dir).map_err(BundleError::at("list", &dir))?;
            let ids =
                entries.flatten().filter_map(|entry| ContainerId::parse(entry.file_name().to_str()?).ok());
            ids.filter(|id| !known.contains(id)).for_each(|id| left.entry(id).or_default().push(kind));
        }
        for (id, kinds) in left {
            tracing::warn!(container_id = %id, "no record knows this container: its directories are removed");
            let removed = self.remove(&id);
            kinds.iter().for_each(|kind| kind.note(&removed));
            removed?;
        }
        Ok(())
    }

    /// Removes both; fine if they are not there. The writable layer's files vanish in the background.
    pub fn remove(&self, id: &ContainerId) -> Result<(), BundleError> {
        remove(&self.layout.bundle(id))?;
        let snapshot = self.layout.snapshot(id);
        match self.trash.take(&snapshot) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            moved => {
                moved.map_err(BundleError::at("move away", &snapshot))?;
                drop(self.trash.empty());
                Ok(())
            }
        }
    }
}

fn mkdir(path: &Path, mode: u32) -> Result<(), BundleError> {
    let made = fs::DirBuilder::new().mode(mode).create(path);
    made.map_err(BundleError::at("make", path))
}

fn remove(path: &Path) -> Result<(), BundleError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(BundleError::at("remove", path)),
    }
}
