//! Security contexts: LinuxContainerSecurityContext and what pods share with it.

use std::path::PathBuf;

use berth_proto::cri::v1;

use super::{Invalid, absolute};
use crate::containers::spec::{
    AppArmor, Capabilities, GroupsPolicy, IdMapping, PidMode, RunAs, Seccomp, Security, SelinuxLabel,
};
use crate::ids::ContainerId;
use crate::pods::spec::{PodNamespaces, UserNamespace};

fn at(field: &str) -> String {
    format!("config.linux.security_context.{field}")
}

/// `pod` is what the container's sandbox has.
pub(in crate::api::cri) fn security(
    context: v1::LinuxContainerSecurityContext,
    pod: &PodNamespaces,
) -> Result<Security, Invalid> {
    let capabilities = context.capabilities.unwrap_or_default();
    let namespaces = context.namespace_options.unwrap_or_default();
    check_user_namespace(&namespaces, pod)?;
    #[expect(deprecated, reason = "an old client may still send the old field")]
    let old_apparmor = context.apparmor_profile;
    Ok(Security {
        privileged: context.privileged,
        capabilities: Capabilities {
            add: capabilities.add_capabilities,
            drop: capabilities.drop_capabilities,
            add_ambient: capabilities.add_ambient_capabilities,
        },
        pid: pid_mode(namespaces)?,
        run_as: run_as(context.run_as_user, context.run_as_group, context.run_as_username)?,
        supplemental_groups: context
            .supplemental_groups
            .into_iter()
            .map(|group| id(group, "supplemental_groups"))
            .collect::<Result<_, _>>()?,
        supplemental_groups_policy: match v1::SupplementalGroupsPolicy::try_from(
            context.supplemental_groups_policy,
        ) {
            Ok(v1::SupplementalGroupsPolicy::Merge) => GroupsPolicy::Merge,
            Ok(v1::SupplementalGroupsPolicy::Strict) => GroupsPolicy::Strict,
            Err(_) => return Err(Invalid::new(at("supplemental_groups_policy"), "is unknown")),
        },
        readonly_rootfs: context.readonly_rootfs,
        no_new_privs: context.no_new_privs,
        masked_paths: context.masked_paths,
        readonly_paths: context.readonly_paths,
        // A privileged container is confined by nothing.
        seccomp: if context.privileged {
            Seccomp::Unconfined
        } else {
            seccomp(context.seccomp, &at("seccomp"))?
        },
        apparmor: apparmor(context.apparmor, &old_apparmor)?,
        selinux: selinux(context.selinux_options),
    })
}

pub(super) fn selinux(label: Option<v1::SeLinuxOption>) -> Option<SelinuxLabel> {
    let label = label?;
    Some(SelinuxLabel { user: label.user, role: label.role, kind: label.r#type, level: label.level })
}

fn id(value: i64, field: &str) -> Result<u32, Invalid> {
    u32::try_from(value)
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| Invalid::new(at(field), format!("{value} is not an id, 0..=4294967294")))
}

fn run_as(
    user: Option<v1::Int64Value>,
    group: Option<v1::Int64Value>,
    username: String,
) -> Result<RunAs, Invalid> {
    let group = group.map(|group| id(group.value, "run_as_group")).transpose()?;
    match (user, username.as_str()) {
        (Some(user), _) => Ok(RunAs::Uid(id(user.value, "run_as_user")?, group)),
        (None, "") if group.is_some() => {
            Err(Invalid::new(at("run_as_group"), "is set while neither run_as_user nor run_as_username is"))
        }
        (None, "") => Ok(RunAs::Image),
        (None, _) => Ok(RunAs::Name(username, group)),
    }
}

fn pid_mode(options: v1::NamespaceOption) -> Result<PidMode, Invalid> {
    match v1::NamespaceMode::try_from(options.pid) {
        Ok(v1::NamespaceMode::Pod) => Ok(PidMode::Pod),
        Ok(v1::NamespaceMode::Container) => Ok(PidMode::Container),
        Ok(v1::NamespaceMode::Node) => Ok(PidMode::Node),
        Ok(v1::NamespaceMode::Target) => ContainerId::parse(&options.target_id)
            .map(PidMode::Target)
            .map_err(|error| Invalid::new(at("namespace_options.target_id"), error.to_string())),
        Err(_) => Err(Invalid::new(at("namespace_options.pid"), format!("mode {} is unknown", options.pid))),
    }
}

/// A container lives in its pod's user namespace: it may say so, or nothing, but nothing else.
fn check_user_namespace(options: &v1::NamespaceOption, pod: &PodNamespaces) -> Result<(), Invalid> {
    let field = at("namespace_options.userns_options");
    if options.userns_options.is_some() && user_namespace(options.userns_options.clone(), &field)? != pod.user
    {
        return Err(Invalid::new(field, "differs from the pod sandbox's"));
    }
    if pod.user.is_some() && options.pid == v1::NamespaceMode::Node as i32 {
        let problem = "NODE is not possible in a pod with a user namespace";
        return Err(Invalid::new(at("namespace_options.pid"), problem));
    }
    Ok(())
}

/// No profile means none; an empty one means RuntimeDefault.
pub(super) fn seccomp(profile: Option<v1::SecurityProfile>, field: &str) -> Result<Seccomp, Invalid> {
    let Some(profile) = profile else {
        return Ok(Seccomp::Unconfined);
    };
    match v1::security_profile::ProfileType::try_from(profile.profile_type) {
        Ok(v1::security_profile::ProfileType::RuntimeDefault) => Ok(Seccomp::RuntimeDefault),
        Ok(v1::security_profile::ProfileType::Unconfined) => Ok(Seccomp::Unconfined),
        Ok(v1::security_profile::ProfileType::Localhost) => {
            absolute(&profile.localhost_ref, &format!("{field}.localhost_ref"))?;
            Ok(Seccomp::Localhost(PathBuf::from(profile.localhost_ref)))
        }
        Err(_) => Err(Invalid::new(field, format!("profile type {} is unknown", profile.profile_type))),
    }
}

/// The new field wins over the old one, whose form is `runtime/default`, `unconfined` or `localhost/NAME`.
fn apparmor(profile: Option<v1::SecurityProfile>, old: &str) -> Result<AppArmor, Invalid> {
    let localhost = |name: &str| match name {
        "" => Err(Invalid::new(at("apparmor"), "names no profile")),
        name => Ok(AppArmor::Localhost(name.to_string())),
    };
    let Some(profile) = profile else {
        return match old {
            "" | "runtime/default" => Ok(AppArmor::RuntimeDefault),
            "unconfined" => Ok(AppArmor::Unconfined),
            old => localhost(old.strip_prefix("localhost/").unwrap_or_default()),
        };
    };
    match v1::security_profile::ProfileType::try_from(profile.profile_type) {
        Ok(v1::security_profile::ProfileType::RuntimeDefault) => Ok(AppArmor::RuntimeDefault),
        Ok(v1::security_profile::ProfileType::Unconfined) => Ok(AppArmor::Unconfined),
        Ok(v1::security_profile::ProfileType::Localhost) => {
            localhost(profile.localhost_ref.strip_prefix("localhost/").unwrap_or(&profile.localhost_ref))
        }
        Err(_) => {
            Err(Invalid::new(at("apparmor"), format!("profile type {} is unknown", profile.profile_type)))
        }
    }
}

/// NODE is the host's; POD needs exactly one mapping for users and one for groups, from id 0 inside.
pub(super) fn user_namespace(
    asked: Option<v1::UserNamespace>,
    field: &str,
) -> Result<Option<UserNamespace>, Invalid> {
    let Some(user) = asked else { return Ok(None) };
    let none = user.uids.is_empty() && user.gids.is_empty();
    match v1::NamespaceMode::try_from(user.mode) {
        Ok(v1::NamespaceMode::Node) if none => Ok(None),
        Ok(v1::NamespaceMode::Node) => Err(Invalid::new(field, "mode NODE takes no mappings")),
        Ok(v1::NamespaceMode::Pod) => Ok(Some(UserNamespace {
            uids: vec![whole(&user.uids, &format!("{field}.uids"))?],
            gids: vec![whole(&user.gids, &format!("{field}.gids"))?],
        })),
        _ => Err(Invalid::new(format!("{field}.mode"), "is neither POD nor NODE")),
    }
}

fn whole(mappings: &[v1::IdMapping], field: &str) -> Result<IdMapping, Invalid> {
    let wrong = |problem: &str| Err(Invalid::new(field, problem));
    let [one] = mappings else {
        return wrong("must be exactly one mapping");
    };
    if one.container_id != 0 || one.length == 0 {
        return wrong("must begin at container id 0 and have a length");
    }
    if one.host_id == 0 {
        return wrong("would make the root of the pod the root of the node");
    }
    if one.host_id.checked_add(one.length).is_none() {
        return wrong("ends beyond the highest id, 4294967294");
    }
    Ok(IdMapping { host_id: one.host_id, container_id: 0, length: one.length })
}

pub(in crate::api::cri) fn id_mappings(mappings: &[v1::IdMapping]) -> Vec<IdMapping> {
    let map =
        |m: &v1::IdMapping| IdMapping { host_id: m.host_id, container_id: m.container_id, length: m.length };
    mappings.iter().map(map).collect()
}

pub(in crate::api::cri) fn id_mappings_to_cri(mappings: &[IdMapping]) -> Vec<v1::IdMapping> {
    let map =
        |m: &IdMapping| v1::IdMapping { host_id: m.host_id, container_id: m.container_id, length: m.length };
    mappings.iter().map(map).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_without_a_user_is_refused() {
        let group = Some(v1::Int64Value { value: 7 });
        assert!(run_as(None, group, String::new()).is_err());
        assert_eq!(run_as(None, group, "ann".into()), Ok(RunAs::Name("ann".into(), Some(7))));
        assert_eq!(run_as(Some(v1::Int64Value { value: 0 }), None, String::new()), Ok(RunAs::Uid(0, None)));
        for value in [-1, 4_294_967_295, 4_294_967_296] {
            assert!(run_as(Some(v1::Int64Value { value }), None, String::new()).is_err(), "{value}");
        }
    }

    #[test]
    fn a_user_namespace_is_one_range_from_zero_that_spares_the_nodes_root() {
        let range = |container_id, host_id, length| v1::IdMapping { host_id, container_id, length };
        let user = |mode: v1::NamespaceMode, ids: &[v1::IdMapping]| {
            let user = v1::UserNamespace { mode: mode.into(), uids: ids.to_vec(), gids: ids.to_vec() };
            user_namespace(Some(user), "x")
        };
        let one = IdMapping { container_id: 0, host_id: 1000, length: 10 };
        let pod = user(v1::NamespaceMode::Pod, &[range(0, 1000, 10)]).unwrap();
        assert_eq!(pod, Some(UserNamespace { uids: vec![one], gids: vec![one] }));
        assert_eq!((user(v1::NamespaceMode::Node, &[]), user_namespace(None, "x")), (Ok(None), Ok(None)));
        for bad in [
            &[][..],
            &[range(1, 1000, 10)],
            &[range(0, 1000, 0)],
            &[range(0, 0, 10)],
            &[range(0, 1000, u32::MAX - 999)],
            &[range(0, 1000, 10), range(0, 2000, 10)],
        ] {
            assert!(user(v1::NamespaceMode::Pod, bad).is_err(), "{bad:?}");
        }
        for mode in [v1::NamespaceMode::Container, v1::NamespaceMode::Target] {
            assert!(user(mode, &[]).is_err(), "{mode:?}");
        }
        assert!(user(v1::NamespaceMode::Node, &[range(0, 1000, 10)]).is_err());
    }

    #[test]
    fn no_seccomp_profile_is_none_and_an_empty_one_is_the_default() {
        assert_eq!(seccomp(None, "x"), Ok(Seccomp::Unconfined));
        assert_eq!(seccomp(Some(v1::SecurityProfile::default()), "x"), Ok(Seccomp::RuntimeDefault));
        let local = |path: &str| v1::SecurityProfile { profile_type: 2, localhost_ref: path.into() };
        assert!(seccomp(Some(local("")), "x").is_err(), "an empty path must not mean unconfined");
        assert!(seccomp(Some(local("a.json")), "x").is_err());
        assert_eq!(seccomp(Some(local("/a.json")), "x"), Ok(Seccomp::Localhost("/a.json".into())));
    }
}
