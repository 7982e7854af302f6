//! CreateContainer: everything that StartContainer needs, and every mistake that can be seen before a process runs.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use tracing::{Instrument, debug_span};

use super::container::ImageUse;
use super::oci::{self, AnonymousVolume, Inputs, Labels, PodFiles};
use super::sandbox::Sandbox;
use super::spec::{ContainerSpec, Security};
use super::state::{Mounted, Phase, State};
use super::user::{self, User, UserFiles};
use super::volumes::Volumes;
use super::{
    Cause, Container, ContainerRecord, Containers, Created, apparmor, devices, filter, selinux, signal,
};
use crate::activity::{self, Verb};
use crate::clock;
use crate::drivers::cgroup::ContainerCgroup;
use crate::drivers::host::HostDevice;
use crate::drivers::id_map::IdMap;
use crate::drivers::layers::View;
use crate::drivers::rootfs::{Rootfs, RootfsError};
use crate::drivers::seccomp::Filter;
use crate::drivers::store::Durability;
use crate::error::chain;
use crate::events::Happening;
use crate::ids::ContainerId;
use crate::images::image::{Image, ImageConfig};
use crate::images::{Hold, NotHeld};
use crate::pods::spec::UserNamespace;
use crate::telemetry::{Leak, Stage, stage, subject};

/// What `make` has finished, for the container that comes of it.
struct Made {
    user: User,
    mounted: Mounted,
    volumes: Volumes,
    anonymous: Vec<AnonymousVolume>,
    cgroup: ContainerCgroup,
}

impl Containers {
    /// Makes a container in a ready sandbox. A second call with the same name and attempt joins the first.
    pub async fn create(self: &Arc<Self>, sandbox: Arc<Sandbox>, spec: ContainerSpec) -> Created {
        let key = (sandbox.id.clone(), spec.metadata.clone());
        let name = spec.metadata.name.clone();
        subject::note_container(&spec, None);
        let (this, subject) = (self.clone(), format!("{}/{name}", sandbox.name()));
        let create = || {
            activity::track(Verb::CreateContainer, subject, "", async move {
                this.create_one(sandbox, spec).await
            })
        };
        let created = self.creating.join_or_start(key, create).await;
        created.unwrap_or_else(|lost| Err(Cause::from(lost).of(name)))
    }

    async fn create_one(self: Arc<Self>, sandbox: Arc<Sandbox>, spec: ContainerSpec) -> Created {
        let name = spec.metadata.name.clone();
        let twin = self.of_pod(&sandbox.id).into_iter().find(|other| other.spec.metadata == spec.metadata);
        if let Some(twin) = twin {
            // A retry: its caller did not hear that the first call had succeeded.
            let duplicate = Cause::Duplicate { pod: sandbox.id.clone(), id: twin.id.clone() };
            return if twin.spec == spec { Ok(twin) } else { Err(duplicate.of(name)) };
        }
        let id = ContainerId::generate();
        activity::identify(&id);
        subject::note_container_id(&id);
        let mut cgroup = None;
        let create = self.create_as(&id, sandbox, spec, &mut cgroup);
        match stage(Stage::ContainerCreate, create).await {
            Ok(container) => Ok(container),
            Err(cause) => {
                activity::step("undo");
                self.undo(&id, cgroup).await;
                Err(cause.of(name))
            }
        }
    }

    async fn create_as(
        &self,
        id: &ContainerId,
        sandbox: Arc<Sandbox>,
        spec: ContainerSpec,
        to_undo: &mut Option<ContainerCgroup>,
    ) -> Result<Arc<Container>, Cause> {
        if sandbox.shim().is_none() {
            return Err(Cause::SandboxNotReady(sandbox.id.clone()));
        }
        activity::step("volumes");
        check_volumes(&spec)?;
        self.check_recursion(&spec)?;
        selinux::check(spec.security.selinux.as_ref())?;
        let hold = self.images.hold_named(&spec.image).map_err(|why| match why {
            NotHeld::Unknown => Cause::NoImage(spec.image.clone()),
            NotHeld::Withheld => Cause::NotAdmitted(spec.image.clone()),
        })?;
        let image = hold.image();
        if let Some(kind) = &image.artifact {
            return Err(Cause::Artifact { image: spec.image.clone(), kind: kind.clone() });
        }
        let volumes = self.hold_volumes(&spec)?;
        let label = self.file_label(&sandbox, &spec.security);
        let view = View { user: sandbox.spec.namespaces.user.as_ref(), label: label.as_deref() };
        activity::step("root");
        let mount = || -> Result<_, Cause> {
            let (root, user) = self.make_root(id, &spec, image, view)?;
            Ok((Mounted { root, volumes: self.mount_volumes(&spec, &volumes.uses, view)? }, user))
        };
        let (mounted, user) = debug_span!("mount").in_scope(mount)?;
        let anonymous =
            self.make_anonymous_volumes(id, (&spec, &image.config), &mounted.root, view.user).await?;
        let devices = devices::resolve(&spec)?;
        let rules = devices::rules(&spec, &devices);
        activity::step("cgroup");
        let cgroup = self.drivers.cgroups.create_container(&sandbox.cgroup, id, &spec.resources, &rules);
        let cgroup = cgroup.instrument(debug_span!("cgroup")).await?;
        *to_undo = Some(cgroup.clone());
        activity::step("config");
        let made = Made { user, mounted, volumes, anonymous, cgroup };
        debug_span!("config")
            .in_scope(|| self.write_config(id, &sandbox, (&spec, &image.config), (&made, &devices)))?;
        let container = Arc::new(assemble(id, sandbox, (spec, hold), made));
        activity::step("record");
        self.note_new_layer(&container);
        self.drivers.store.put(id.as_str(), &container.record(), Durability::Process).await?;
        // A sandbox that was stopped meanwhile has not seen this container: it must not outlive it.
        if container.sandbox.shim().is_none() {
            return Err(Cause::SandboxNotReady(container.sandbox.id.clone()));
        }
        let mut turn = self.events.turn();
        self.table().insert(id.clone(), container.clone());
        turn.tell(Happening::Created, id, &container.sandbox.id);
        Ok(container)
    }

    fn check_recursion(&self, spec: &ContainerSpec) -> Result<(), Cause> {
        match spec.mounts.iter().find(|mount| mount.recursive_read_only) {
            Some(mount) if !self.drivers.host.sets_mounts_recursively() => {
                Err(Cause::NoRecursion { target: mount.container_path.clone() })
            }
            _ => Ok(()),
        }
    }

    /// The root file system, and who of the image runs the process.
    fn make_root(
        &self,
        id: &ContainerId,
        spec: &ContainerSpec,
        image: &Image,
        view: View<'_>,
    ) -> Result<(OwnedFd, User), Cause> {
        self.drivers.bundles.make(id)?;
        if let Some(log) = &spec.log_path {
            self.drivers.bundles.make_log_directory(log)?;
        }
        let root = self.mount_root(id, &ImageUse::of(image, &spec.image), view)?;
        let rootfs = Rootfs::new(root);
        let user = resolve_user(spec, image, &rootfs)?;
        check_ids(&user, view.user)?;
        Ok((rootfs.into_fd(), user))
    }

    /// The bundle's config.json, and with it a check of everything that it says.
    fn write_config(
        &self,
        id: &ContainerId,
        sandbox: &Sandbox,
        (spec, image): (&ContainerSpec, &ImageConfig),
        (made, devices): (&Made, &[HostDevice]),
    ) -> Result<(), Cause> {
        let layout = &self.drivers.layout;
        let files = PodFiles {
            resolv_conf: layout.pod_resolv_conf(&sandbox.id),
            hosts: layout.pod_hosts(&sandbox.id),
            hostname: layout.pod_hostname(&sandbox.id),
        };
        let labels = self.labels(sandbox, spec, &made.anonymous)?;
        let profile = apparmor::profile(&self.drivers.apparmor, &spec.security)?;
        let oci = oci::spec(&Inputs {
            container: spec,
            pod: &sandbox.spec,
            image,
            user: &made.user,
            host: &self.drivers.host,
            files: &files,
            cgroup_path: made.cgroup.path(),
            apparmor: profile.as_deref(),
            selinux: labels.as_ref(),
            devices,
            anonymous: &made.anonymous,
        })?;
        // An unknown or garbled profile is an error of the request, not of the start.
        self.seccomp_filter(&spec.security)?;
        Ok(self.drivers.bundles.write_config(id, &oci)?)
    }

    /// The labels of a container where the kernel has SELinux; its volumes get theirs at once.
    fn labels(
        &self,
        sandbox: &Sandbox,
        spec: &ContainerSpec,
        anonymous: &[AnonymousVolume],
    ) -> Result<Option<Labels>, Cause> {
        let Some(level) = self.level(sandbox, &spec.security) else { return Ok(None) };
        let labels =
            Labels { process: selinux::process(&spec.security, &level), files: selinux::files(&level) };
        let asked = spec.mounts.iter().filter(|mount| mount.selinux_relabel);
        let asked = asked.map(|mount| (PathBuf::from(&mount.host_path), mount.container_path.clone()));
        let own =
            anonymous.iter().map(|volume| (volume.directory.clone(), volume.place.display().to_string()));
        for (path, target) in asked.chain(own) {
            crate::drivers::selinux::relabel(&path, &labels.files).map_err(|source| Cause::Relabel {
                path,
                target,
                source,
            })?;
        }
        Ok(Some(labels))
    }

    /// The label of the files that a container may use; None where the kernel has no SELinux.
    pub(super) fn file_label(&self, sandbox: &Sandbox, security: &Security) -> Option<String> {
        self.level(sandbox, security).map(|level| selinux::files(&level))
    }

    /// The container's own level, else its pod's.
    fn level(&self, sandbox: &Sandbox, security: &Security) -> Option<String> {
        let own = security.selinux.as_ref().filter(|own| !own.level.is_empty());
        let asked = own.or(sandbox.spec.selinux.as_ref());
        self.drivers.host.selinux.then(|| selinux::level(&sandbox.id, asked))
    }

    /// Mounts the container's root: its image's layers below, its own writable one on top. Nothing shows on the host.
    /// In a pod with a user namespace its files belong to that one's users.
    pub(super) fn mount_root(
        &self,
        id: &ContainerId,
        image: &ImageUse,
        view: View<'_>,
    ) -> Result<OwnedFd, Cause> {
        let (upper, work) = self.drivers.bundles.snapshot(id)?;
        Ok(self.drivers.layers.root(&image.layers, (&upper, &work), view)?)
    }

    /// The filter of a container's processes, compiled once for each profile.
    pub(super) fn seccomp_filter(&self, security: &Security) -> Result<Option<Filter>, Cause> {
        Ok(filter::filter(&self.drivers.seccomp, security, self.drivers.host.capabilities)?)
    }

    /// Gives back whatever a failed create had made; what is not there is not missed.
    async fn undo(&self, id: &ContainerId, cgroup: Option<ContainerCgroup>) {
        if let Some(cgroup) = cgroup
            && let Err(error) = self.drivers.cgroups.remove_container(&cgroup).await
        {
            Leak::Cgroup.found();
            tracing::warn!(
                error = chain(&error),
                "cannot remove the cgroup of a container that was not made"
            );
        }
        if let Err(error) = self.drivers.bundles.remove(id) {
            Leak::Bundle.found();
            tracing::warn!(
                error = chain(&error),
                "cannot remove the directories of a container that was not made"
            );
        }
        if let Err(error) =
            self.drivers.store.delete::<ContainerRecord>(id.as_str(), Durability::Process).await
        {
            tracing::warn!(
                error = chain(&error),
                "cannot remove the record of a container that was not made"
            );
        }
    }
}

fn assemble(
    id: &ContainerId,
    sandbox: Arc<Sandbox>,
    (spec, hold): (ContainerSpec, Hold),
    made: Made,
) -> Container {
    let image = ImageUse::of(hold.image(), &spec.image);
    let Volumes { uses, mut holds } = made.volumes;
    holds.push(hold);
    let record = ContainerRecord {
        id: id.clone(),
        pod: sandbox.id.clone(),
        image,
        volumes: uses,
        resources: spec.resources.clone(),
        update_annotations: BTreeMap::new(),
        spec,
        user: made.user,
        cgroup: made.cgroup,
        created_at: clock::now(),
        phase: Phase::Created,
    };
    let container = Container::from_record(record, sandbox, holds);
    *container.state() = State::Created { mounted: Some(made.mounted) };
    container
}

impl ImageUse {
    /// What a container made with `request` as its image keeps of the image.
    pub(super) fn of(image: &Image, request: &str) -> Self {
        let by_digest = image.digests.iter().find(|name| *name == request).or_else(|| image.digests.first());
        Self {
            id: image.id.clone(),
            reference: by_digest.cloned().unwrap_or_else(|| image.id.to_string()),
            layers: image.layers.clone(),
            stop_signal: signal::from_name(&image.config.stop_signal),
        }
    }
}

fn check_volumes(spec: &ContainerSpec) -> Result<(), Cause> {
    let mut paths = spec.mounts.iter().filter(|mount| mount.image.is_none());
    let missing = paths.find(|mount| !crate::drivers::host::exists(&mount.host_path));
    match missing {
        None => check_mappings(spec),
        Some(mount) => Err(Cause::NoVolumeSource {
            path: PathBuf::from(&mount.host_path),
            target: mount.container_path.clone(),
        }),
    }
}

/// Tries what the start will do: not every file system can show its files under other ids.
fn check_mappings(spec: &ContainerSpec) -> Result<(), Cause> {
    let mut last: Option<(UserNamespace, IdMap)> = None;
    let paths = spec.mounts.iter().filter(|mount| mount.image.is_none());
    for mount in paths.filter(|mount| !mount.uid_mappings.is_empty()) {
        let path = PathBuf::from(&mount.host_path);
        let wrong = |source| Cause::NotMappable {
            kind: crate::drivers::host::file_system(&path),
            path: path.clone(),
            target: mount.container_path.clone(),
            source,
        };
        let user = UserNamespace { uids: mount.uid_mappings.clone(), gids: mount.gid_mappings.clone() };
        // All volumes of a pod have the pod's mapping.
        let map = match last.take() {
            Some((same, map)) if same == user => map,
            _ => IdMap::new(&user).map_err(wrong)?,
        };
        map.mount(&path).map_err(wrong)?;
        last = Some((user, map));
    }
    Ok(())
}

/// The kernel would refuse a user that the pod's user namespace does not have, but only at the start.
fn check_ids(user: &User, namespace: Option<&UserNamespace>) -> Result<(), Cause> {
    let Some(namespace) = namespace else { return Ok(()) };
    if !namespace.has_user(user.uid) {
        return Err(Cause::NotMapped { what: "user", id: user.uid });
    }
    match user.groups.iter().find(|group| !namespace.has_group(**group)) {
        Some(group) => Err(Cause::NotMapped { what: "group", id: *group }),
        None => Ok(()),
    }
}

fn resolve_user(spec: &ContainerSpec, image: &Image, rootfs: &Rootfs) -> Result<User, Cause> {
    let open = |path: &str| -> Result<Option<Box<dyn BufRead>>, RootfsError> {
        Ok(rootfs.open(path)?.map(|file| Box::new(file) as Box<dyn BufRead>))
    };
    let files = UserFiles { passwd: open("etc/passwd")?, group: open("etc/group")? };
    let request = user::Request {
        run_as: &spec.security.run_as,
        image: &spec.image,
        image_user: &image.config.user,
        supplemental: &spec.security.supplemental_groups,
        policy: spec.security.supplemental_groups_policy,
    };
    Ok(user::resolve(&request, files)?)
}
