//! Which capabilities a container gets. What does not live here: their names.

use oci_spec::runtime as oci;

use super::{Inputs, SpecError, named};
use crate::capability::{Capability, Set, UnknownCapability};
use crate::containers::spec::{Capabilities, Security};

/// What containers of the field have had for ten years; images rely on it.
pub const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// The bounding set: the default changed as asked, or with privileged all; never more than the node has.
///
/// `ALL` is applied first, a name after it: `drop ALL, add KILL` and `add ALL, drop KILL` both mean what they say.
/// Of a name that is both added and dropped, the drop wins.
pub fn granted(security: &Security, node: Set) -> Result<Set, UnknownCapability> {
    let Capabilities { add, drop, .. } = &security.capabilities;
    let (add_all, add) = parse(add)?;
    let (drop_all, drop) = parse(drop)?;
    if security.privileged {
        return Ok(node);
    }
    let base = match (add_all, drop_all) {
        (true, _) => Set::ALL,
        (false, true) => Set::EMPTY,
        (false, false) => DEFAULT.iter().filter_map(|name| Capability::parse(name).ok()).collect(),
    };
    let kept: Set = base.union(add).iter().filter(|capability| !drop.contains(*capability)).collect();
    Ok(kept.intersection(node))
}

fn parse(names: &[String]) -> Result<(bool, Set), UnknownCapability> {
    let (all, named): (Vec<_>, Vec<_>) = names.iter().partition(|name| name.eq_ignore_ascii_case("ALL"));
    let named = named.into_iter().map(|name| Capability::parse(name)).collect::<Result<Set, _>>()?;
    Ok((!all.is_empty(), named))
}

/// The five sets. Effective and permitted equal the bounding set: for a user other than root the kernel empties both
/// when the user changes, and execve(2) gives nothing back. Inheritable holds what is ambient and else nothing, for a
/// file with inheritable capabilities must not give rights that nobody asked for.
pub(super) fn capabilities(inputs: &Inputs<'_>) -> Result<oci::LinuxCapabilities, SpecError> {
    let security = &inputs.container.security;
    let node = inputs.host.capabilities;
    let (ambient_all, ambient) = parse(&security.capabilities.add_ambient)?;
    let bounding = granted(security, node)?;
    let ambient = if ambient_all { bounding } else { ambient.intersection(node) };
    let bounding = bounding.union(ambient);
    let mut sets = oci::LinuxCapabilities::default();
    sets.set_bounding(Some(named(bounding)))
        .set_effective(Some(named(bounding)))
        .set_permitted(Some(named(bounding)))
        .set_inheritable(Some(named(ambient)))
        .set_ambient(Some(named(ambient)));
    Ok(sets)
}
