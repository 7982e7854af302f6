//! The mounts of a container, in the order in which they are made. What does not live here: making them.

use std::path::{Component, Path, PathBuf};

use oci_spec::runtime as oci;

use super::{AnonymousVolume, Inputs, SpecError};
use crate::containers::spec::{ContainerSpec, IdMapping, Mount, Propagation};

/// Files below /proc that tools like lxcfs replace by a view of the container's own limits; nothing else may cover
/// any part of /proc, for the runtime itself relies on it.
const PROC_FILES: [&str; 8] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
];

/// The pod's files.
const FILES: [&str; 3] = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];

/// The group that may write to others' terminals, as every distribution numbers it.
const TTY: u32 = 5;

/// The image's volumes, which whatever else is mounted may lie in; the runtime's own mounts, without those that the request
/// covers; then the request's, parents first.
pub(super) fn mounts(inputs: &Inputs<'_>) -> Result<Vec<oci::Mount>, SpecError> {
    let mut volumes = 0_usize..;
    let one = |asked| requested(asked, &mut volumes);
    let mut asked = inputs.container.mounts.iter().map(one).collect::<Result<Vec<_>, _>>()?;
    // Stable: of two volumes at one place the later wins, as the request has it.
    asked.sort_by_key(|mount| mount.destination().components().count());
    let covered = |mount: &oci::Mount| {
        let inside_dev = mount.destination().starts_with("/dev");
        asked.iter().any(|asked| {
            asked.destination() == mount.destination()
                || (inside_dev && asked.destination().as_path() == Path::new("/dev"))
        })
    };
    let own: Vec<_> = own(inputs).into_iter().filter(|mount| !covered(mount)).collect();
    Ok(inputs.anonymous.iter().map(anonymous_volume).chain(own).chain(asked).collect())
}

/// Propagation of the root: what a volume asks for would be lost below a more private root.
pub(super) fn root_propagation(container: &ContainerSpec) -> &'static str {
    // Nothing is ever mounted in an image, so its volumes have nothing to propagate.
    let paths = container.mounts.iter().filter(|mount| mount.image.is_none());
    let asks = |wanted| paths.clone().any(|mount| mount.propagation == wanted);
    match (asks(Propagation::Bidirectional), asks(Propagation::HostToContainer)) {
        (true, _) => "rshared",
        (false, true) => "rslave",
        (false, false) => "rprivate",
    }
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> oci::Mount {
    let mut mount = oci::Mount::default();
    mount
        .set_destination(PathBuf::from(destination))
        .set_typ(Some(kind.to_string()))
        .set_source(Some(PathBuf::from(source)))
        .set_options(Some(options.iter().map(ToString::to_string).collect()));
    mount
}

/// Whether the runtime itself mounts something there or above.
pub(super) fn target_of_ours(place: &Path) -> bool {
    let trees = ["/proc", "/sys", "/dev"];
    trees.iter().any(|tree| place.starts_with(tree)) || FILES.iter().any(|file| place == Path::new(file))
}

/// Writable also where the root is not: that is what images declare volumes for.
fn anonymous_volume(volume: &AnonymousVolume) -> oci::Mount {
    let mut mount = mount("", "bind", "", &["bind", "rprivate", "rw"]);
    mount.set_destination(volume.place.clone()).set_source(Some(volume.directory.clone()));
    mount
}

fn own(inputs: &Inputs<'_>) -> Vec<oci::Mount> {
    let (security, namespaces) = (&inputs.container.security, &inputs.pod.namespaces);
    let writable = if security.privileged { "rw" } else { "ro" };
    let sysfs = match namespaces.host_network && namespaces.user.is_some() {
        // sysfs shows a network namespace, and only its owner may mount it. Without what the host has mounted below.
        true => mount("/sys", "bind", "/sys", &["bind", "nosuid", "noexec", "nodev", "ro", "rprivate"]),
        false => mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", writable]),
    };
    let shm = match namespaces.host_ipc {
        true => mount("/dev/shm", "bind", "/dev/shm", &["rbind", "rw", "rprivate"]),
        false => mount("/dev/shm", "shm", "pod", &["nosuid", "noexec", "nodev", "mode=1777"]),
    };
    let dev = ["nosuid", "strictatime", "mode=755", "size=65536k"];
    let mut pts = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    if namespaces.user.as_ref().is_none_or(|user| user.has_group(TTY)) {
        pts.push("gid=5");
    }
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &dev),
        mount("/dev/pts", "devpts", "devpts", &pts),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        sysfs,
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", writable]),
        shm,
    ];
    let readonly = if security.readonly_rootfs { "ro" } else { "rw" };
    let sources = [&inputs.files.hosts, &inputs.files.hostname, &inputs.files.resolv_conf];
    for (destination, source) in FILES.into_iter().zip(sources) {
        let mut file = mount(destination, "bind", "", &["rbind", "rprivate", readonly]);
        file.set_source(Some(source.clone()));
        mounts.push(file);
    }
    mounts
}

/// An image volume, mounted by the daemon: it comes to the shim as the descriptor of this number.
fn image_volume(asked: &Mount, destination: PathBuf, number: usize) -> oci::Mount {
    let mut options = vec!["ro", "nosuid", "nodev"];
    options.extend(asked.options.iter().map(|option| option.name()));
    let mut volume = mount("", "image", &number.to_string(), &options);
    volume.set_destination(destination);
    volume
}

/// One mount of the request, checked. Image volumes are numbered by `volumes`.
fn requested(asked: &Mount, volumes: &mut std::ops::RangeFrom<usize>) -> Result<oci::Mount, SpecError> {
    let wrong = |problem| SpecError::Mount {
        host_path: asked.host_path.clone(),
        container_path: asked.container_path.clone(),
        problem,
    };
    let destination = normal(&asked.container_path)
        .ok_or_else(|| wrong("the path inside the container must be absolute and without `..` and NUL"))?;
    if destination == Path::new("/") {
        return Err(wrong("the container's root can't be replaced"));
    }
    if destination.starts_with("/proc") && !PROC_FILES.iter().any(|file| destination == Path::new(file)) {
        return Err(wrong("/proc can't be covered"));
    }
    if asked.image.is_some() {
        return Ok(image_volume(asked, destination, volumes.next().unwrap_or_default()));
    }
    let source = normal(&asked.host_path)
        .ok_or_else(|| wrong("the path on the node must be absolute and without `..` and NUL"))?;
    if asked.recursive_read_only && !(asked.readonly && asked.propagation == Propagation::Private) {
        return Err(wrong("recursive_read_only needs readonly and private propagation"));
    }
    let propagation = match asked.propagation {
        Propagation::Private => "rprivate",
        Propagation::HostToContainer => "rslave",
        Propagation::Bidirectional => "rshared",
    };
    let access = match (asked.readonly, asked.recursive_read_only) {
        (_, true) => "rro",
        (true, false) => "ro",
        (false, false) => "rw",
    };
    let mut options = vec!["rbind".to_string(), propagation.to_string(), access.to_string()];
    // For the whole tree: a file system mounted below the volume must not give back what was taken away.
    options.extend(asked.options.iter().map(|option| format!("r{}", option.name())));
    let mut mount = oci::Mount::default();
    mount
        .set_destination(destination)
        .set_typ(Some("bind".to_string()))
        .set_source(Some(source))
        .set_options(Some(options));
    if !asked.uid_mappings.is_empty() || !asked.gid_mappings.is_empty() {
        mount.set_uid_mappings(Some(mappings(&asked.uid_mappings)));
        mount.set_gid_mappings(Some(mappings(&asked.gid_mappings)));
    }
    Ok(mount)
}

/// Mappings as the runtime spec has them.
pub(super) fn mappings(given: &[IdMapping]) -> Vec<oci::LinuxIdMapping> {
    given
        .iter()
        .filter_map(|given| {
            let mapping = oci::LinuxIdMappingBuilder::default();
            // The builder has a default for each field: it never fails.
            mapping.host_id(given.host_id).container_id(given.container_id).size(given.length).build().ok()
        })
        .collect()
}

/// An absolute path without `.`, `..`, doubled or trailing slashes; None where that can't be had without guessing.
pub(super) fn normal(path: &str) -> Option<PathBuf> {
    if !path.starts_with('/') || path.contains('\0') {
        return None;
    }
    let parts = Path::new(path).components();
    parts.map(|part| (!matches!(part, Component::ParentDir)).then_some(part)).collect()
}
