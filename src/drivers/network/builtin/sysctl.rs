//! Kernel parameters of the calling thread's network namespace. What does not live here: which pods get which.

use std::io;
use std::path::Path;

use super::BuiltInError;

const ROOT: &str = "/proc/sys";

/// Writes a parameter unless it has that value.
pub fn set(name: &str, value: &str) -> Result<(), BuiltInError> {
    let path = Path::new(ROOT).join(name);
    let failed = |source: io::Error| BuiltInError::Sysctl {
        name: name.replace('/', "."),
        value: value.into(),
        source,
    };
    if std::fs::read_to_string(&path).map_err(failed)?.trim() == value {
        return Ok(());
    }
    std::fs::write(&path, value).map_err(failed)
}

/// The same, but a kernel without the parameter (without IPv6) is fine.
pub fn set_if_there(name: &str, value: &str) -> Result<(), BuiltInError> {
    match set(name, value) {
        Err(BuiltInError::Sysctl { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Whether the namespace has IPv6.
pub fn has_ipv6() -> bool {
    read("net/ipv6/conf/all/disable_ipv6").is_some_and(|value| value == "0")
}

/// Makes the host a router.
pub fn forward(ipv6: bool) -> Result<(), BuiltInError> {
    set("net/ipv4/ip_forward", "1")?;
    if ipv6 && read("net/ipv6/conf/all/forwarding").as_deref() != Some("1") {
        keep_router_advertisements()?;
        set("net/ipv6/conf/all/forwarding", "1")?;
    }
    Ok(())
}

/// A router ignores router advertisements, and a host that lived by them would lose its way out; 2 keeps them.
fn keep_router_advertisements() -> Result<(), BuiltInError> {
    let all = Path::new(ROOT).join("net/ipv6/conf");
    for entry in std::fs::read_dir(&all).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let parameter = format!("net/ipv6/conf/{name}/accept_ra");
        if !["all", "default", "lo"].contains(&name.as_str()) && read(&parameter).as_deref() == Some("1") {
            set(&parameter, "2")?;
        }
    }
    Ok(())
}

fn read(name: &str) -> Option<String> {
    std::fs::read_to_string(Path::new(ROOT).join(name)).ok().map(|text| text.trim().to_string())
}
