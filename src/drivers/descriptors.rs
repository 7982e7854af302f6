//! How many files the daemon may have open: a created container costs it one, an exec five. What does not live here: the
//! limits of containers, which keep what the daemon was started with.

use std::sync::OnceLock;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

/// Fewer do not do for a full node.
const ENOUGH: u64 = 65_536;

/// As the daemon was started.
static INHERITED: OnceLock<Rlimit> = OnceLock::new();

/// Lifts the daemon's own limit as far as the hard one, as systemd's documentation asks of daemons that do not use
/// select(2). Says so if that is little.
pub fn lift() {
    let inherited = getrlimit(Resource::Nofile);
    let (current, maximum) = (inherited.current, inherited.maximum);
    let _ = INHERITED.set(inherited);
    // Below the hard limit that needs no privilege.
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, ?current, "cannot lift the limit of open files");
    }
    if maximum.is_some_and(|maximum| maximum < ENOUGH) {
        tracing::warn!(limit = ?maximum, "few files may be open at once: set LimitNOFILE to {ENOUGH} at least");
    }
}

/// Gives a child the limit that the daemon was started with.
pub fn restore(child: Pid) {
    if let Some(Rlimit { current, maximum }) = INHERITED.get() {
        let limit = Rlimit { current: *current, maximum: *maximum };
        if let Err(error) = prlimit(Some(child), Resource::Nofile, limit) {
            tracing::warn!(%error, child = child.as_raw_nonzero(), "cannot set the limit of open files back");
        }
    }
}
