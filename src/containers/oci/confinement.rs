//! Namespaces of a container. What does not live here: capabilities, profiles, labels, system call filters.

use oci_spec::runtime as oci;

use super::Inputs;
use crate::containers::spec::PidMode;

/// Only those that are new for each container; see the module's comment for the others.
pub(super) fn namespaces(inputs: &Inputs<'_>) -> Vec<oci::LinuxNamespace> {
    let security = &inputs.container.security;
    let mut kinds = vec![oci::LinuxNamespaceType::Mount];
    if security.pid == PidMode::Container {
        kinds.push(oci::LinuxNamespaceType::Pid);
    }
    // A user namespace may mount the cgroups of a namespace that it owns only.
    if !security.privileged || inputs.pod.namespaces.user.is_some() {
        kinds.push(oci::LinuxNamespaceType::Cgroup);
    }
    kinds
        .into_iter()
        .map(|kind| {
            let mut namespace = oci::LinuxNamespace::default();
            namespace.set_typ(kind).set_path(None);
            namespace
        })
        .collect()
}
