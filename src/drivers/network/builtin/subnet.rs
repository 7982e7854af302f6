//! An IP network in CIDR notation, and the arithmetic of its addresses. What does not live here: who has which.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// A network that pods get addresses of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    base: IpAddr,
    prefix: u8,
}

/// Why a text is no network for pods.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a subnet for pods: it takes an address, a slash and a prefix length of at most 30 (IPv4) or 126 (IPv6)"
)]
pub struct SubnetError(String);

impl Subnet {
    /// Takes `10.1.0.0/16` or `fd00::/64`; bits beyond the prefix are dropped.
    pub fn parse(text: &str) -> Result<Self, SubnetError> {
        let fail = || SubnetError(text.chars().take(80).collect());
        let (ip, prefix) = text.trim().split_once('/').ok_or_else(fail)?;
        let ip: IpAddr = ip.parse().map_err(|_| fail())?;
        let prefix: u8 = prefix.parse().map_err(|_| fail())?;
        let most = if ip.is_ipv4() { 30 } else { 126 };
        if prefix == 0 || prefix > most {
            return Err(fail());
        }
        Ok(Self::of(ip, prefix))
    }

    /// The network that an address is in.
    pub fn of(ip: IpAddr, prefix: u8) -> Self {
        Self { base: from_bits(to_bits(&ip) & !host_mask(&ip, prefix), &ip), prefix }
    }

    /// The first address, which is the host's.
    pub fn gateway(&self) -> IpAddr {
        self.at(1)
    }

    /// Length of the prefix.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// The address without any host bit.
    pub fn base(&self) -> IpAddr {
        self.base
    }

    /// IPv4.
    pub fn is_ipv4(&self) -> bool {
        self.base.is_ipv4()
    }

    /// The address with this host number.
    pub fn at(&self, number: u128) -> IpAddr {
        from_bits(to_bits(&self.base) | number & host_mask(&self.base, self.prefix), &self.base)
    }

    /// The host number of an address.
    pub fn number(&self, ip: &IpAddr) -> u128 {
        to_bits(ip) & host_mask(ip, self.prefix)
    }

    /// Host numbers that pods may have: not the network's, the gateway's, nor the broadcast's.
    pub fn pods(&self) -> std::ops::RangeInclusive<u128> {
        2..=host_mask(&self.base, self.prefix) - 1
    }

    /// Whether an address is inside.
    pub fn contains(&self, ip: &IpAddr) -> bool {
        ip.is_ipv4() == self.is_ipv4() && Self::of(*ip, self.prefix) == *self
    }

    /// Whether two networks share an address.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(&other.base) || other.contains(&self.base)
    }

    /// The bytes of a mask with the prefix set.
    pub fn mask(&self) -> Vec<u8> {
        let mask = !host_mask(&self.base, self.prefix);
        if self.is_ipv4() { (mask as u32).to_be_bytes().to_vec() } else { mask.to_be_bytes().to_vec() }
    }
}

fn host_mask(ip: &IpAddr, prefix: u8) -> u128 {
    let bits = if ip.is_ipv4() { 32 } else { 128 };
    let hosts = u32::from(bits - prefix.min(bits));
    if hosts == 128 { u128::MAX } else { (1 << hosts) - 1 }
}

fn to_bits(ip: &IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

fn from_bits(bits: u128, like: &IpAddr) -> IpAddr {
    if like.is_ipv4() { Ipv4Addr::from_bits(bits as u32).into() } else { Ipv6Addr::from_bits(bits).into() }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl TryFrom<String> for Subnet {
    type Error = SubnetError;
    fn try_from(text: String) -> Result<Self, SubnetError> {
        Self::parse(&text)
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> String {
        subnet.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_holds_for_both_families() {
        let v4 = Subnet::parse("10.1.2.3/30").unwrap();
        assert_eq!((v4.to_string().as_str(), v4.gateway().to_string().as_str()), ("10.1.2.0/30", "10.1.2.1"));
        assert_eq!(v4.pods(), 2..=2);
        assert_eq!(v4.mask(), [255, 255, 255, 252]);
        let v6 = Subnet::parse("fd00::/64").unwrap();
        assert_eq!(v6.at(0x10).to_string(), "fd00::10");
        assert!(v6.contains(&"fd00::1:2".parse().unwrap()) && !v6.contains(&"10.1.2.1".parse().unwrap()));
        assert!(v4.overlaps(&Subnet::parse("10.0.0.0/8").unwrap()));
        for bad in ["", "10.0.0.0", "10.0.0.0/0", "10.0.0.0/31", "fd00::/127", "x/24", "10.0.0.0/99"] {
            assert!(Subnet::parse(bad).is_err(), "{bad}");
        }
    }
}
