//! Things on the node that nobody owns any more, counted where they are found. What does not live here: finding and
//! removing them.

use super::METRICS;
use super::metrics::Labels;

/// What was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leak {
    /// A mount in the host's mount namespace.
    Mount,
    /// A pinned network namespace.
    Netns,
    /// A control group.
    Cgroup,
    /// A container's or pod's directory.
    Bundle,
    /// A writable layer.
    Snapshot,
    /// An unpacked layer, whole or half done.
    Layer,
    /// A manifest or config.
    Blob,
    /// Something in the trash that cannot be removed.
    Trash,
    /// A shim.
    Shim,
    /// A pod's addresses, or its link on the bridge.
    Address,
}

impl Leak {
    /// All kinds.
    pub const ALL: [Self; 10] = [
        Self::Mount,
        Self::Netns,
        Self::Cgroup,
        Self::Bundle,
        Self::Snapshot,
        Self::Layer,
        Self::Blob,
        Self::Trash,
        Self::Shim,
        Self::Address,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Mount => "mount",
            Self::Netns => "netns",
            Self::Cgroup => "cgroup",
            Self::Bundle => "bundle",
            Self::Snapshot => "snapshot",
            Self::Layer => "layer",
            Self::Blob => "blob",
            Self::Trash => "trash",
            Self::Shim => "shim",
            Self::Address => "address",
        }
    }

    pub(super) fn labels(self) -> Labels<1> {
        [("kind", self.name())]
    }

    /// One that is left for now.
    pub fn found(self) {
        METRICS.leaks_found.get_or_create(&self.labels()).inc();
    }

    /// One that was removed at once.
    pub fn mended(self) {
        self.found();
        METRICS.leaks_mended.get_or_create(&self.labels()).inc();
    }

    /// One, and whether it could be removed.
    pub fn note<T, E>(self, removed: &Result<T, E>) {
        if removed.is_ok() { self.mended() } else { self.found() }
    }

    /// What a removal says: whether there was one, or why it can't be removed.
    pub fn note_if_any<E>(self, removed: &Result<bool, E>) {
        match removed {
            Ok(false) => {}
            Ok(true) => self.mended(),
            Err(_) => self.found(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_removed_is_found_and_not_mended() {
        let counts = || {
            let labels = Leak::Mount.labels();
            (
                METRICS.leaks_found.get_or_create(&labels).get(),
                METRICS.leaks_mended.get_or_create(&labels).get(),
            )
        };
        let before = counts();
        Leak::Mount.note_if_any::<()>(&Ok(false));
        assert_eq!(counts(), before);
        Leak::Mount.note_if_any::<()>(&Ok(true));
        Leak::Mount.note_if_any(&Err(()));
        Leak::Mount.note::<(), ()>(&Err(()));
        assert_eq!(counts(), (before.0 + 3, before.1 + 1));
    }
}
