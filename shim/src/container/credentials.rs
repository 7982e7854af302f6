//! User and groups of a process. Capabilities live in `capabilities`.

use std::os::fd::BorrowedFd;

use rustix::fs::{Gid, Uid};

use super::failure::{Failing, Result};
use super::spec::{IdMapping, User};

pub(super) struct Credentials {
    uid: Uid,
    gid: Gid,
    additional: Vec<Gid>,
}

impl Credentials {
    pub(super) fn parse(user: &User) -> Self {
        let additional = user.additional_gids.iter().map(|gid| Gid::from_raw(*gid)).collect();
        Self { uid: Uid::from_raw(user.uid), gid: Gid::from_raw(user.gid), additional }
    }

    /// The same user as the host numbers it, under the mappings of a user namespace; none of them: there is none.
    pub(super) fn on_host(&self, users: &[IdMapping]) -> Self {
        let inside = self.uid.as_raw();
        let mapped = users.iter().find_map(|users| {
            let offset = inside.checked_sub(users.container).filter(|offset| *offset < users.size)?;
            users.host.checked_add(offset)
        });
        Self { uid: mapped.map_or(self.uid, Uid::from_raw), gid: self.gid, additional: Vec::new() }
    }

    /// Makes the user the owner of `stream`.
    pub(super) fn own(&self, stream: BorrowedFd<'_>) -> rustix::io::Result<()> {
        rustix::fs::fchown(stream, Some(self.uid), None)
    }

    /// Takes groups and user; the permitted capabilities stay for `Capabilities::put_on`.
    pub(super) fn put_on(&self) -> Result<()> {
        rustix::thread::set_keep_capabilities(true).failing(|| "keep capabilities".to_owned())?;
        rustix::thread::set_thread_groups(&self.additional)
            .failing(|| "set the supplementary groups".to_owned())?;
        set_ids(self.uid, self.gid)?;
        rustix::thread::set_keep_capabilities(false).failing(|| "keep capabilities no longer".to_owned())
    }
}

/// Becomes root of the user namespace that was just entered, so that what is made there has an owner.
pub(super) fn become_root() -> Result<()> {
    set_ids(Uid::ROOT, Gid::ROOT)?;
    rustix::thread::set_thread_groups(&[]).failing(|| "drop the host's groups".to_owned())
}

fn set_ids(uid: Uid, gid: Gid) -> Result<()> {
    rustix::thread::set_thread_res_gid(gid, gid, gid).failing(|| format!("become group {}", gid.as_raw()))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).failing(|| format!("become user {}", uid.as_raw()))
}
