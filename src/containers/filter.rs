//! Which system call filter a container gets. What does not live here: compiling it.

use crate::capability::{Set, UnknownCapability};
use crate::containers::oci;
use crate::containers::spec::{Seccomp, Security};
use crate::drivers::seccomp::{Filter, SeccompCache, SeccompError, Source};

/// Why a container has no filter although it asked for one; it must not start.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// The filter depends on the capabilities.
    #[error("cannot tell the container's capabilities")]
    Capability(#[from] UnknownCapability),
    /// No such profile, or a bad one.
    #[error("cannot filter the container's system calls")]
    Seccomp(#[from] SeccompError),
}

/// The filter of a container on a node with these capabilities; None where it runs unconfined, as each privileged
/// container does whatever its profile.
///
/// Blocking: see [`SeccompCache::filter`].
pub fn filter(cache: &SeccompCache, security: &Security, node: Set) -> Result<Option<Filter>, FilterError> {
    let source = match &security.seccomp {
        _ if security.privileged => return Ok(None),
        Seccomp::Unconfined => return Ok(None),
        Seccomp::RuntimeDefault => Source::RuntimeDefault,
        Seccomp::Localhost(path) => Source::Localhost(path.clone()),
    };
    Ok(Some(cache.filter(&source, oci::granted(security, node)?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privileged_and_unconfined_containers_have_none_and_a_bad_profile_is_an_error() {
        let cache = SeccompCache::new((6, 18));
        let filter = |privileged, seccomp| {
            let security = Security { privileged, seccomp, ..Security::default() };
            filter(&cache, &security, Set::ALL)
        };
        assert!(filter(false, Seccomp::Unconfined).unwrap().is_none());
        assert!(filter(true, Seccomp::RuntimeDefault).unwrap().is_none());
        assert!(filter(false, Seccomp::RuntimeDefault).unwrap().is_some());
        for path in ["", "x.json", "/nonexistent/x.json"] {
            assert!(filter(false, Seccomp::Localhost(path.into())).is_err(), "{path:?}");
        }
    }
}
