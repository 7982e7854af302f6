//! A container as CRI's Container and ContainerStatus.

use berth_proto::cri::v1;

use super::{resources, security, signal};
use crate::containers::spec::{Mount, Propagation};
use crate::containers::state::{Exited, Phase};
use crate::containers::{Container, ContainerSnapshot, ImageUse};
use crate::ids::Digest;
use crate::images::reference::Reference;

pub(super) fn metadata(container: &Container) -> v1::ContainerMetadata {
    let metadata = &container.spec.metadata;
    v1::ContainerMetadata { name: metadata.name.clone(), attempt: metadata.attempt }
}

pub(super) fn image(container: &Container) -> v1::ImageSpec {
    v1::ImageSpec {
        image: container.spec.image.clone(),
        user_specified_image: container.spec.user_specified_image.clone(),
        ..Default::default()
    }
}

/// As users know it: the kubelet writes it into the pod's status, where people and policies compare it with the spec.
fn named_image(container: &Container) -> v1::ImageSpec {
    let image = image(container);
    v1::ImageSpec { image: name(&image), ..image }
}

/// The user's own words, where they are known, in normal form.
fn name(image: &v1::ImageSpec) -> String {
    let asked =
        if image.user_specified_image.is_empty() { &image.image } else { &image.user_specified_image };
    match Reference::parse(asked) {
        Ok(reference) if Digest::parse(asked).is_err() => reference.to_string(),
        _ => asked.clone(),
    }
}

pub(super) fn state(phase: &Phase) -> i32 {
    let state = match phase {
        Phase::Created => v1::ContainerState::ContainerCreated,
        Phase::Running(_) => v1::ContainerState::ContainerRunning,
        Phase::Exited(_) => v1::ContainerState::ContainerExited,
    };
    state.into()
}

pub(in crate::api::cri) fn item(container: &Container) -> v1::Container {
    v1::Container {
        id: container.id.to_string(),
        pod_sandbox_id: container.sandbox.id.to_string(),
        metadata: Some(metadata(container)),
        image: Some(image(container)),
        image_ref: container.image.id.to_string(),
        state: state(&container.phase()),
        created_at: container.created_at,
        labels: container.spec.labels.clone(),
        annotations: container.spec.annotations.clone(),
        image_id: container.image.id.to_string(),
    }
}

pub(in crate::api::cri) fn status(snapshot: &ContainerSnapshot) -> v1::ContainerStatus {
    let ContainerSnapshot { container, phase, resources } = snapshot;
    let spec = &container.spec;
    let log_path =
        spec.log_path.as_ref().map_or_else(String::new, |path| path.to_string_lossy().into_owned());
    let mut status = v1::ContainerStatus {
        id: container.id.to_string(),
        metadata: Some(metadata(container)),
        state: state(phase),
        created_at: container.created_at,
        image: Some(named_image(container)),
        image_ref: container.image.reference.clone(),
        image_id: container.image.id.to_string(),
        labels: spec.labels.clone(),
        annotations: spec.annotations.clone(),
        mounts: mounts(container),
        log_path,
        resources: Some(v1::ContainerResources { linux: Some(resources::to_cri(resources)), windows: None }),
        user: Some(user(container)),
        stop_signal: signal::to_cri(container.stop_signal()).into(),
        ..Default::default()
    };
    match phase {
        Phase::Created => {}
        Phase::Running(run) => status.started_at = run.started_at,
        Phase::Exited(exited) => set_exited(&mut status, exited),
    }
    status
}

fn set_exited(status: &mut v1::ContainerStatus, exited: &Exited) {
    status.started_at = exited.started_at;
    status.finished_at = exited.exit.finished_at;
    status.exit_code = exited.exit.code;
    status.reason = exited.reason.as_str().to_string();
    status.message = exited.message.clone();
}

fn user(container: &Container) -> v1::ContainerUser {
    let user = &container.user;
    v1::ContainerUser {
        linux: Some(v1::LinuxContainerUser {
            uid: user.uid.into(),
            gid: user.gid.into(),
            supplemental_groups: user.groups.iter().map(|group| i64::from(*group)).collect(),
        }),
    }
}

fn mounts(container: &Container) -> Vec<v1::Mount> {
    let mut images = container.volumes.iter();
    let one = |asked: &Mount| mount(asked, asked.image.as_ref().and_then(|_| images.next()));
    container.spec.mounts.iter().map(one).collect()
}

/// `shown` is the image of an image volume.
fn mount(mount: &Mount, shown: Option<&ImageUse>) -> v1::Mount {
    let propagation = match mount.propagation {
        Propagation::Private => v1::MountPropagation::PropagationPrivate,
        Propagation::HostToContainer => v1::MountPropagation::PropagationHostToContainer,
        Propagation::Bidirectional => v1::MountPropagation::PropagationBidirectional,
    };
    v1::Mount {
        container_path: mount.container_path.clone(),
        host_path: mount.host_path.clone(),
        readonly: mount.readonly,
        selinux_relabel: mount.selinux_relabel,
        propagation: propagation.into(),
        uid_mappings: security::id_mappings_to_cri(&mount.uid_mappings),
        gid_mappings: security::id_mappings_to_cri(&mount.gid_mappings),
        recursive_read_only: mount.recursive_read_only,
        image: mount.image.as_ref().map(|volume| v1::ImageSpec {
            image: volume.image.clone(),
            user_specified_image: volume.user_specified_image.clone(),
            image_ref: shown.map_or_else(String::new, |image| image.reference.clone()),
            ..Default::default()
        }),
        image_sub_path: mount
            .image
            .as_ref()
            .and_then(|volume| volume.sub_path.as_ref())
            .map_or_else(String::new, |path| path.to_string_lossy().into_owned()),
        mount_options: mount.options.iter().map(|option| option.name().to_string()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_called_as_its_user_called_it_in_normal_form() {
        let id = format!("sha256:{}", "a".repeat(64));
        for (image, asked, expected) in [
            (id.as_str(), "busybox", "docker.io/library/busybox:latest"),
            (&id, "quay.io/a/b:1", "quay.io/a/b:1"),
            (&id, &id, &id),
            (&id, "", &id),
            ("busybox:1", "", "docker.io/library/busybox:1"),
        ] {
            let spec = v1::ImageSpec {
                image: image.to_string(),
                user_specified_image: asked.to_string(),
                ..Default::default()
            };
            assert_eq!(name(&spec), expected);
        }
    }
}
