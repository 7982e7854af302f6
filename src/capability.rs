//! Linux capabilities: their names, numbers and sets. What does not live here: which container gets which.

use std::fmt;

use berth_sys::capability::NAMES;

/// A name that is no capability.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of a Linux capability")]
pub struct UnknownCapability(pub String);

/// One capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Capability(u8);

impl Capability {
    /// Takes a name with `CAP_` or without it, in any case.
    pub fn parse(name: &str) -> Result<Self, UnknownCapability> {
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        let number = NAMES.iter().position(|known| *known == bare);
        match number.and_then(|number| u8::try_from(number).ok()) {
            Some(number) => Ok(Self(number)),
            None => Err(UnknownCapability(name.chars().take(80).collect())),
        }
    }

    /// The name without `CAP_`.
    pub fn name(self) -> &'static str {
        NAMES[usize::from(self.0)]
    }

    /// The kernel's number.
    pub fn number(self) -> u8 {
        self.0
    }
}

/// A set of known capabilities.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Set(u64);

impl Set {
    /// None at all.
    pub const EMPTY: Self = Self(0);
    /// Each that this file knows.
    pub const ALL: Self = Self((1 << NAMES.len()) - 1);

    /// The bits as the kernel shows them in /proc/PID/status; bits that have no name here are left out.
    pub fn from_bits(bits: u64) -> Self {
        Self(bits & Self::ALL.0)
    }

    /// The bits as the kernel shows them.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Takes one in.
    pub fn insert(&mut self, capability: Capability) {
        self.0 |= 1 << capability.0;
    }

    /// Takes one out.
    pub fn remove(&mut self, capability: Capability) {
        self.0 &= !(1 << capability.0);
    }

    /// Whether it is in.
    pub fn contains(self, capability: Capability) -> bool {
        self.0 & (1 << capability.0) != 0
    }

    /// What is in both.
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in either.
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Nothing is in.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// In the order of their numbers.
    pub fn iter(self) -> impl Iterator<Item = Capability> {
        (0..)
            .zip(NAMES)
            .map(|(number, _)| Capability(number))
            .filter(move |capability| self.contains(*capability))
    }
}

impl FromIterator<Capability> for Set {
    fn from_iter<I: IntoIterator<Item = Capability>>(capabilities: I) -> Self {
        capabilities.into_iter().fold(Self::EMPTY, |mut set, capability| {
            set.insert(capability);
            set
        })
    }
}

impl fmt::Debug for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Capability::name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_with_and_without_the_prefix_in_any_case() {
        for name in ["SYS_ADMIN", "CAP_SYS_ADMIN", "sys_admin", "cap_Sys_Admin"] {
            assert_eq!(Capability::parse(name).map(Capability::number), Ok(21), "{name}");
        }
        for name in ["", "CAP_", "ALL", "CAP_CAP_KILL", "SYS ADMIN", "41", "KILL\0"] {
            assert!(Capability::parse(name).is_err(), "{name}");
        }
    }

    #[test]
    fn numbers_are_the_kernels() {
        for (name, number) in [("CHOWN", 0), ("NET_RAW", 13), ("MKNOD", 27), ("SETFCAP", 31), ("BPF", 39)] {
            assert_eq!(Capability::parse(name).map(Capability::number), Ok(number));
        }
        assert_eq!(Set::ALL.bits(), 0x1ff_ffff_ffff);
        assert_eq!(Set::from_bits(u64::MAX), Set::ALL);
        assert_eq!(Set::ALL.iter().count(), 41);
    }
}
