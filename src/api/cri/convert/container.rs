//! ContainerConfig to a ContainerSpec.

use std::path::{Path, PathBuf};

use berth_proto::cri::v1;

use super::image_volume::image_volume;
use super::{Invalid, absolute, below, name, required, resources, security, signal};
use crate::containers::Filter;
use crate::containers::list::PhaseName;
use crate::containers::spec::{ContainerMetadata, ContainerSpec, Device, Mount, MountOption, Propagation};
use crate::pods::spec::PodSpec;

/// `pod` is the spec of its sandbox.
pub(in crate::api::cri) fn spec(
    config: Option<v1::ContainerConfig>,
    pod: &PodSpec,
) -> Result<ContainerSpec, Invalid> {
    let config = required(config, "config")?;
    let metadata = required(config.metadata, "config.metadata")?;
    let image = required(config.image, "config.image")?;
    let linux = config.linux.unwrap_or_default();
    if let Some(device) = config.cdi_devices.first() {
        return Err(Invalid::new(
            "config.CDI_devices",
            format!("{:?}: CDI devices are not supported yet", device.name),
        ));
    }
    Ok(ContainerSpec {
        metadata: ContainerMetadata {
            name: name(metadata.name, "config.metadata.name")?,
            attempt: metadata.attempt,
        },
        image: name(image.image, "config.image.image")?,
        user_specified_image: image.user_specified_image,
        command: config.command,
        args: config.args,
        working_dir: config.working_dir,
        envs: config.envs.into_iter().map(|env| (env.key, env.value)).collect(),
        mounts: config.mounts.into_iter().enumerate().map(mount).collect::<Result<_, _>>()?,
        devices: config.devices.into_iter().enumerate().map(device).collect::<Result<_, _>>()?,
        labels: config.labels,
        annotations: config.annotations,
        log_path: log_path(&pod.log_directory, &config.log_path)?,
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        resources: resources::from_cri(linux.resources.unwrap_or_default(), "config.linux.resources")?,
        security: security::security(linux.security_context.unwrap_or_default(), &pod.namespaces)?,
        stop_signal: signal::from_cri(config.stop_signal)?,
    })
}

fn log_path(directory: &str, path: &str) -> Result<Option<PathBuf>, Invalid> {
    if directory.is_empty() || path.is_empty() {
        return Ok(None);
    }
    below(path, "config.log_path")?;
    Ok(Some(Path::new(directory).join(path)))
}

fn mount((index, mount): (usize, v1::Mount)) -> Result<Mount, Invalid> {
    let field = |name: &str| format!("config.mounts[{index}].{name}");
    let image = image_volume(&mount, &format!("config.mounts[{index}]"))?;
    let options = mount.mount_options.iter().map(|name| mount_option(name, &field("mount_options")));
    absolute(&mount.container_path, &field("container_path"))?;
    if image.is_none() {
        absolute(&mount.host_path, &field("host_path"))?;
    }
    let propagation = match v1::MountPropagation::try_from(mount.propagation) {
        Ok(v1::MountPropagation::PropagationPrivate) => Propagation::Private,
        Ok(v1::MountPropagation::PropagationHostToContainer) => Propagation::HostToContainer,
        Ok(v1::MountPropagation::PropagationBidirectional) => Propagation::Bidirectional,
        Err(_) => {
            return Err(Invalid::new(field("propagation"), format!("{} is unknown", mount.propagation)));
        }
    };
    if mount.recursive_read_only && !(mount.readonly && propagation == Propagation::Private) {
        return Err(Invalid::new(field("recursive_read_only"), "needs readonly and private propagation"));
    }
    if mount.uid_mappings.is_empty() != mount.gid_mappings.is_empty() {
        return Err(Invalid::new(field("gidMappings"), "and uidMappings are given together or not at all"));
    }
    Ok(Mount {
        container_path: mount.container_path,
        host_path: mount.host_path,
        image,
        readonly: mount.readonly,
        recursive_read_only: mount.recursive_read_only,
        selinux_relabel: mount.selinux_relabel,
        propagation,
        uid_mappings: security::id_mappings(&mount.uid_mappings),
        gid_mappings: security::id_mappings(&mount.gid_mappings),
        options: options.collect::<Result<_, _>>()?,
    })
}

fn mount_option(name: &str, field: &str) -> Result<MountOption, Invalid> {
    let known = [MountOption::NoExec, MountOption::NoDev, MountOption::NoSuid]
        .into_iter()
        .find(|option| option.name() == name);
    known.ok_or_else(|| Invalid::new(field, format!("{name:?} is not noexec, nodev or nosuid")))
}

fn device((index, device): (usize, v1::Device)) -> Result<Device, Invalid> {
    let field = |name: &str| format!("config.devices[{index}].{name}");
    absolute(&device.host_path, &field("host_path"))?;
    let container_path =
        if device.container_path.is_empty() { device.host_path.clone() } else { device.container_path };
    absolute(&container_path, &field("container_path"))?;
    let permissions = if device.permissions.is_empty() { "rwm".to_string() } else { device.permissions };
    let device = Device { container_path, host_path: device.host_path, permissions };
    if crate::containers::permissions_are_valid(&device) {
        Ok(device)
    } else {
        Err(Invalid::new(field("permissions"), format!("{:?} is not made of r, w and m", device.permissions)))
    }
}

pub(in crate::api::cri) fn filter(filter: Option<v1::ContainerFilter>) -> Filter {
    let filter = filter.unwrap_or_default();
    let phase = |state: v1::ContainerStateValue| match v1::ContainerState::try_from(state.state) {
        Ok(v1::ContainerState::ContainerCreated) => PhaseName::Created,
        Ok(v1::ContainerState::ContainerRunning) => PhaseName::Running,
        Ok(v1::ContainerState::ContainerExited) => PhaseName::Exited,
        _ => PhaseName::Unknown,
    };
    Filter {
        id: filter.id,
        pod: filter.pod_sandbox_id,
        phase: filter.state.map(phase),
        labels: filter.label_selector,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(change: impl FnOnce(&mut v1::Mount)) -> Result<Mount, Invalid> {
        let mut volume =
            v1::Mount { host_path: "/h".into(), container_path: "/c".into(), ..v1::Mount::default() };
        change(&mut volume);
        mount((3, volume))
    }

    #[test]
    fn mount_options_are_three_and_others_are_refused_by_name() {
        let names = ["nosuid", "noexec", "nodev"].map(String::from);
        let asked = volume(|volume| volume.mount_options = names.to_vec()).unwrap();
        assert_eq!(asked.options, [MountOption::NoSuid, MountOption::NoExec, MountOption::NoDev]);
        for bad in ["exec", "ro", "NOEXEC", "noexec,nodev", ""] {
            let error = volume(|volume| volume.mount_options = vec![bad.into()]).unwrap_err().to_string();
            assert!(error.contains(&format!("config.mounts[3].mount_options: {bad:?}")), "{error}");
        }
    }

    #[test]
    fn recursive_read_only_needs_a_private_read_only_volume() {
        let asked = |readonly, propagation: v1::MountPropagation| {
            volume(|volume| {
                (volume.recursive_read_only, volume.readonly) = (true, readonly);
                volume.propagation = propagation.into();
            })
        };
        assert!(asked(true, v1::MountPropagation::PropagationPrivate).unwrap().recursive_read_only);
        for (readonly, propagation) in [
            (false, v1::MountPropagation::PropagationPrivate),
            (true, v1::MountPropagation::PropagationHostToContainer),
            (true, v1::MountPropagation::PropagationBidirectional),
        ] {
            assert!(asked(readonly, propagation).is_err(), "{readonly} {propagation:?}");
        }
    }
}
