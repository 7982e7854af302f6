//! Profiles: what they say, and what can be wrong with them.
//! What does not live here: Berth's own profile, reading one from JSON, and compiling.

use super::arch::Arch;
use crate::capability::Set;

/// What the kernel is to do with a call (seccomp(2), "Filters").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Action {
    KillThread,
    KillProcess,
    Trap,
    Errno(u16),
    Trace(u16),
    Log,
    Allow,
}

/// How an argument is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Compare {
    Ne,
    Lt,
    Le,
    Eq,
    Ge,
    Gt,
    /// With these bits only.
    Masked(u64),
}

/// One condition on one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Condition {
    /// Which, 0..=5.
    pub index: u8,
    /// How.
    pub compare: Compare,
    /// With what.
    pub value: u64,
    /// The kernel reads an `int` here: bits above are whatever the program left in the register.
    pub narrow: bool,
}

/// What to do with some calls.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rule {
    pub names: Vec<String>,
    pub action: Action,
    /// All must hold.
    pub conditions: Vec<Condition>,
    pub when: When,
}

/// Where a rule counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct When {
    /// The container must have all of these.
    pub with: Set,
    /// The container must have none of these.
    pub without: Set,
    /// Go names of machines; empty = all.
    pub arches: Vec<String>,
    /// Go names of machines.
    pub not_arches: Vec<String>,
    /// The oldest kernel.
    pub kernel: (u32, u32),
    /// Capabilities of which the container must have one; empty = no matter.
    pub any_of: Set,
}

/// A whole profile.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Profile {
    pub default: Action,
    /// The interfaces that may be used at all.
    pub arches: Vec<Arch>,
    pub rules: Vec<Rule>,
    /// SECCOMP_FILTER_FLAG_*, as the runtime spec names them.
    pub flags: Vec<String>,
}

impl When {
    /// Whether the rule counts for a container with these capabilities on this kernel.
    pub(super) fn holds(&self, capabilities: Set, kernel: (u32, u32)) -> bool {
        let machine = |list: &[String]| list.iter().any(|arch| arch == Arch::NATIVE.go_name());
        self.with.intersection(capabilities) == self.with
            && self.without.intersection(capabilities).is_empty()
            && (self.any_of.is_empty() || !self.any_of.intersection(capabilities).is_empty())
            && (self.arches.is_empty() || machine(&self.arches))
            && !machine(&self.not_arches)
            && kernel >= self.kernel
    }
}

impl Profile {
    /// The capabilities on which the verdict depends.
    pub(super) fn relevant(&self) -> Set {
        let of = |rule: &Rule| rule.when.with.union(rule.when.without).union(rule.when.any_of);
        self.rules.iter().fold(Set::EMPTY, |all, rule| all.union(of(rule)))
    }
}

/// Why a profile can't be used. Nothing runs without the filter it asked for.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// Not JSON, or not of a profile's form.
    #[error("it is not a seccomp profile")]
    Json(#[from] serde_json::Error),
    /// An action that nobody knows.
    #[error("action {0:?} is unknown")]
    Action(String),
    /// An action or a field that needs a listener.
    #[error("{0} needs a listener for notifications, which Berth does not offer")]
    Notify(&'static str),
    /// An error number out of range.
    #[error("error number {0} is not from 0 to 4095")]
    Errno(u64),
    /// An error number for what returns none.
    #[error("action {0} takes no error number")]
    NoErrno(String),
    /// A name that is none, or not that of the number beside it.
    #[error("error name {0:?} is unknown, or not that of the error number beside it")]
    ErrnoName(String),
    /// An architecture that nobody knows.
    #[error("architecture {0:?} is unknown")]
    Arch(String),
    /// None of the architectures is one of this machine.
    #[error("none of its architectures is one of this node")]
    NoArch,
    /// A rule without calls, or with a name that can't be one.
    #[error("system call name {0:?} is malformed")]
    Name(String),
    /// A condition that can't be compiled.
    #[error("condition on argument {index} of {name}: {problem}")]
    Condition {
        /// The first call of the rule.
        name: String,
        /// As given.
        index: u64,
        /// What is wrong.
        problem: &'static str,
    },
    /// A capability that nobody knows.
    #[error("a rule depends on a capability that does not exist")]
    Capability(#[from] crate::capability::UnknownCapability),
    /// A kernel version that is none.
    #[error("kernel version {0:?} is malformed")]
    Kernel(String),
    /// A flag that nobody knows.
    #[error("filter flag {0:?} is unknown")]
    Flag(String),
    /// A filter that the kernel would not take.
    #[error("it compiles to {0} instructions; the kernel takes at most 4096")]
    TooLong(usize),
}
