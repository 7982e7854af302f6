//! Namespaces and SELinux labels of a container. What does not live here: capabilities, profiles, system call filters.

use oci_spec::runtime as oci;

use super::{Inputs, SpecError};
use crate::containers::spec::{PidMode, SelinuxLabel};

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

/// The label of the process; None where the kernel has no SELinux.
pub(super) fn process_label(inputs: &Inputs<'_>) -> Result<Option<String>, SpecError> {
    let label = checked_label(inputs)?;
    Ok(label.map(|label| {
        let kind = if inputs.container.security.privileged { "spc_t" } else { "container_t" };
        let part = |given: &str, default: &str| {
            if given.is_empty() { default.to_string() } else { given.to_string() }
        };
        let (user, role) = (part(&label.user, "system_u"), part(&label.role, "system_r"));
        format!("{user}:{role}:{}:{}", part(&label.kind, kind), part(&label.level, "s0"))
    }))
}

/// The label of the container's files; None where the kernel has no SELinux.
pub(super) fn mount_label(inputs: &Inputs<'_>) -> Result<Option<String>, SpecError> {
    let label = checked_label(inputs)?;
    Ok(label.map(|label| {
        let level = if label.level.is_empty() { "s0" } else { &label.level };
        format!("system_u:object_r:container_file_t:{level}")
    }))
}

/// A malformed label is refused on every node: a pod must not start on one and fail on the next.
fn checked_label<'a>(inputs: &Inputs<'a>) -> Result<Option<&'a SelinuxLabel>, SpecError> {
    let Some(label) = &inputs.container.security.selinux else {
        return Ok(None);
    };
    let parts = [("user", &label.user), ("role", &label.role), ("type", &label.kind)];
    for (part, text) in parts {
        if !text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')) {
            return Err(SpecError::Selinux { part, text: text.clone() });
        }
    }
    if !label.level.is_empty() && !is_level(&label.level) {
        return Err(SpecError::Selinux { part: "level", text: label.level.clone() });
    }
    Ok(inputs.host.selinux.then_some(label))
}

/// `s0`, `s0-s1`, each with categories: `s0:c1,c5.c9`.
fn is_level(level: &str) -> bool {
    let number = |text: &str, letter: char| {
        let digits = text.strip_prefix(letter).unwrap_or_default();
        !digits.is_empty() && digits.len() <= 5 && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    let one = |text: &str| match text.split_once(':') {
        None => number(text, 's'),
        Some((sensitivity, categories)) => {
            let range =
                |range: &str| range.split('.').count() <= 2 && range.split('.').all(|end| number(end, 'c'));
            number(sensitivity, 's') && categories.split(',').all(range)
        }
    };
    level.split('-').count() <= 2 && level.split('-').all(one)
}

#[cfg(test)]
mod tests {
    use super::is_level;

    #[test]
    fn levels_are_checked() {
        for level in ["s0", "s0:c1", "s0:c4,c5", "s0-s15:c0.c1023", "s0:c1.c3,c7"] {
            assert!(is_level(level), "{level}");
        }
        for level in
            ["s0,c4,c5", "s", "c1", "s0:", "s0:c", "s0-s1-s2", "s0:c1.c2.c3", "s0:c1,", "s0 ", "s0:c123456"]
        {
            assert!(!is_level(level), "{level}");
        }
    }
}
