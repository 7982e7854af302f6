//! Values of `[cni]` and `[network]` that cannot work, refused where they are written (for `#[serde(deserialize_with)]`).

use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// IFNAMSIZ without the zero at the end.
const NAME_MAX: usize = 15;
/// What IPv6 needs, and the most that an IP packet has.
const MTU: std::ops::RangeInclusive<u32> = 1280..=65535;

pub(super) fn bridge<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if plain && !matches!(name.as_str(), "" | "." | ".." | "all" | "default" | "lo") && name.len() <= NAME_MAX
    {
        return Ok(name);
    }
    let wanted = "1 to 15 letters, digits, '.', '_' or '-'";
    Err(D::Error::custom(format!("{name:?} can not be the name of a bridge: that has {wanted}")))
}

pub(super) fn mtu<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let mtu = u32::deserialize(deserializer)?;
    if mtu == 0 || MTU.contains(&mtu) {
        return Ok(mtu);
    }
    let (least, most) = (MTU.start(), MTU.end());
    Err(D::Error::custom(format!("{mtu} can not be an MTU: that is 0 or from {least} to {most}")))
}

pub(super) fn timeout<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    match u64::deserialize(deserializer)? {
        0 => Err(D::Error::custom("a plugin needs at least one second")),
        seconds => Ok(seconds),
    }
}
