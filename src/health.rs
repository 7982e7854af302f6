//! What is wrong with this node's runtime, and since when. What does not live here: CRI's conditions (api/cri/info).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{StatVfsMountFlags, statvfs};

use crate::activity;
use crate::clock;
use crate::drivers::Drivers;
use crate::drivers::apparmor::Apparmor;
use crate::error::chain;
use crate::looks::Looks;

/// A verb that takes longer is stuck: the kubelet gives most of them two minutes.
const STUCK: Duration = Duration::from_secs(120);
/// A disk that does not answer for so long hangs.
const HANGS: Duration = Duration::from_secs(10);

/// One thing that is well, or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// What; RuntimeReady and NetworkReady are those that the kubelet heeds.
    pub name: &'static str,
    /// None: it is well.
    pub wrong: Option<Wrong>,
    /// Since when that is so, as far as anybody has looked: nanoseconds since the epoch.
    pub since: i64,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// One word.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

type Found = Result<(), Wrong>;

/// Looks at the node when asked.
pub struct Health {
    drivers: Arc<Drivers>,
    /// Bytes that unpacking leaves on the disk.
    reserve: u64,
    /// Whether it can be written, and whether there is room.
    storage: Looks<(Found, Found)>,
    known: Mutex<BTreeMap<&'static str, (bool, i64)>>,
}

impl Health {
    /// `reserve` in bytes: less room than that is none.
    pub fn new(drivers: Arc<Drivers>, reserve: u64) -> Self {
        Self { drivers, reserve, storage: Looks::default(), known: Mutex::default() }
    }

    /// All conditions, told within a few seconds whatever hangs.
    pub async fn conditions(&self) -> Vec<Condition> {
        let (network, (writable, room)) = tokio::join!(self.drivers.network.ready(), self.storage());
        let network = network.map_err(|error| Wrong { reason: error.reason, message: error.message });
        let mut found = vec![
            ("RuntimeReady", writable),
            ("NetworkReady", network),
            ("StorageHasRoom", room),
            ("CallsProgress", calls()),
        ];
        found.extend(apparmor(&self.drivers.apparmor).map(|found| ("AppArmorReady", found)));
        found.push(("UserNamespacesReady", self.user_namespaces()));
        found.extend(self.writable_limit().map(|found| ("WritableLimitReady", found)));
        found.into_iter().map(|(name, found)| self.since(name, found.err())).collect()
    }

    /// Notes when this has changed.
    fn since(&self, name: &'static str, wrong: Option<Wrong>) -> Condition {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let now = (wrong.is_none(), clock::now());
        let entry = known.entry(name).or_insert(now);
        if entry.0 != now.0 {
            *entry = now;
        }
        Condition { name, wrong, since: entry.1 }
    }

    async fn storage(&self) -> (Found, Found) {
        let (root, reserve) = (self.drivers.layout.root().to_path_buf(), self.reserve);
        let places = [root.clone(), self.drivers.layout.state().to_path_buf()];
        let look = || async move {
            let looked = tokio::task::spawn_blocking(move || (writable(&places), room(&root, reserve))).await;
            looked.unwrap_or((Ok(()), Ok(())))
        };
        let seen = self.storage.look(look).await;
        match seen.waiting {
            Some(waiting) if waiting > HANGS => (Err(hangs(self.drivers.layout.root(), waiting)), Ok(())),
            _ => seen.last.unwrap_or((Ok(()), Ok(()))),
        }
    }

    /// None: no limit was asked for.
    fn writable_limit(&self) -> Option<Found> {
        let in_force = self.drivers.bundles.quotas().in_force()?;
        Some(in_force.map_err(|why| Wrong {
            reason: "Unsupported",
            message: format!("writable_limit_mib is not in force: {why}"),
        }))
    }

    fn user_namespaces(&self) -> Found {
        self.drivers.layers.maps_ids().map_err(|why| Wrong {
            reason: "Unsupported",
            message: format!("hostUsers: false is refused: {why}"),
        })
    }
}

fn hangs(root: &Path, waiting: Duration) -> Wrong {
    let message = format!("{} has not answered for {} s", root.display(), waiting.as_secs());
    Wrong { reason: "StorageHangs", message }
}

/// Blocking.
fn writable(places: &[PathBuf]) -> Found {
    for place in places {
        let stat = statvfs(place).map_err(|error| Wrong {
            reason: "StorageUnavailable",
            message: format!("{}: {error}", place.display()),
        })?;
        if stat.f_flag.contains(StatVfsMountFlags::RDONLY) {
            let message = format!("{} is on a file system that is read-only", place.display());
            return Err(Wrong { reason: "StorageReadOnly", message });
        }
    }
    Ok(())
}

/// Blocking.
fn room(root: &Path, reserve: u64) -> Found {
    let Ok(stat) = statvfs(root) else { return Ok(()) };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let full = |what: String| {
        let message = format!("the file system of {} has {what}: images can't be pulled", root.display());
        Err(Wrong { reason: "DiskFull", message })
    };
    if free < reserve {
        return full(format!("{} MiB left, less than the reserve of {} MiB", free >> 20, reserve >> 20));
    }
    // Some file systems have no number of inodes.
    if stat.f_files > 0 && stat.f_favail == 0 { full("no inodes left".to_string()) } else { Ok(()) }
}

fn calls() -> Found {
    let stuck: Vec<_> = activity::list().into_iter().filter(|doing| doing.is_stuck(STUCK)).collect();
    let Some(first) = stuck.first() else { return Ok(()) };
    let others = match stuck.len() - 1 {
        0 => String::new(),
        more => format!("; {more} more: berth debug dump"),
    };
    Err(Wrong { reason: "CallsStuck", message: format!("{first}{others}") })
}

/// None where the kernel has none.
fn apparmor(found: &Apparmor) -> Option<Found> {
    match found {
        Apparmor::Off => None,
        Apparmor::On { default: Ok(()) } => Some(Ok(())),
        Apparmor::On { default: Err(error) } => {
            let message = format!("RuntimeDefault confines nothing: {}", chain(error));
            Some(Err(Wrong { reason: "NoDefaultProfile", message }))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

    use super::*;

    #[test]
    fn what_is_missing_full_or_read_only_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path().to_path_buf();
        assert_eq!((writable(std::slice::from_ref(&here)), room(&here, 1)), (Ok(()), Ok(())));
        let gone = writable(&[here.join("no")]).unwrap_err();
        assert!(gone.reason == "StorageUnavailable" && gone.message.contains("No such file"), "{gone:?}");
        let full = room(&here, u64::MAX).unwrap_err();
        assert!(full.reason == "DiskFull" && full.message.contains("less than the reserve"), "{full:?}");
        // A file system of its own, attached nowhere.
        let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        fsconfig_create(&context).unwrap();
        let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY);
        let mount = mount.unwrap();
        let place = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
        assert_eq!(writable(&[here, place]).unwrap_err().reason, "StorageReadOnly");
    }
}
