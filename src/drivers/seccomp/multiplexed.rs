//! The calls of i386 that stand for many: socketcall(2) and ipc(2). A profile that speaks of `socket` or `shmget` means what
//! they do, too. What does not live here: reading and compiling profiles.

use super::arch::Arch;
use super::profile::{Action, Compare, Condition, Profile, Rule, When};

/// The calls behind `socketcall`, by its first argument from 1 (linux/net.h).
const SOCKET: [&str; 20] = [
    "socket",
    "bind",
    "connect",
    "listen",
    "accept",
    "getsockname",
    "getpeername",
    "socketpair",
    "send",
    "recv",
    "sendto",
    "recvfrom",
    "shutdown",
    "setsockopt",
    "getsockopt",
    "sendmsg",
    "recvmsg",
    "accept4",
    "recvmmsg",
    "sendmmsg",
];
/// The calls behind `ipc`, by the low half of its first argument (linux/ipc.h).
const IPC: [(&str, u64); 12] = [
    ("semop", 1),
    ("semget", 2),
    ("semctl", 3),
    ("semtimedop", 4),
    ("msgsnd", 11),
    ("msgrcv", 12),
    ("msgget", 13),
    ("msgctl", 14),
    ("shmat", 21),
    ("shmdt", 22),
    ("shmget", 23),
    ("shmctl", 24),
];

/// Adds, where the profile is for i386, what its rules mean for the two. Their arguments are in memory, out of a filter's
/// sight: where a verdict hangs on one, the strictest that the profile has for the call is given. What the profile itself
/// says of the two comes first.
pub(super) fn complete(profile: &mut Profile) {
    if !profile.arches.contains(&Arch::X86) {
        return;
    }
    let sockets = SOCKET.iter().zip(1..).map(|(name, number)| (*name, equal(Compare::Eq, number)));
    let ipc = IPC.iter().map(|(name, number)| (*name, equal(Compare::Masked(0xffff), *number)));
    let families: [(&str, Vec<_>); 2] = [("socketcall", sockets.collect()), ("ipc", ipc.collect())];
    for (whole, calls) in families {
        let refused = |rule: &Rule| {
            rule.conditions.is_empty() && refuses(rule.action) && rule.names.iter().any(|name| name == whole)
        };
        if !profile.rules.iter().any(refused) {
            let added: Vec<_> =
                calls.into_iter().flat_map(|(name, is)| meant(profile, whole, name, is)).collect();
            profile.rules.extend(added);
        }
    }
}

fn equal(compare: Compare, value: u64) -> Condition {
    Condition { index: 0, compare, value, narrow: true }
}

/// What the rules for one call mean for the call that stands for many: refusals, then what does not hang on an argument, then
/// the default in place of what does. The first that holds counts.
fn meant(profile: &Profile, whole: &str, name: &str, is: Condition) -> Vec<Rule> {
    let rules = || profile.rules.iter().filter(|rule| rule.names.iter().any(|known| known == name));
    let rule = |action: Action, when: &When| Rule {
        names: vec![whole.to_string()],
        action,
        conditions: vec![is],
        when: when.clone(),
    };
    let (hidden, plain): (Vec<_>, Vec<_>) = rules().partition(|rule| !rule.conditions.is_empty());
    let (refusals, grants): (Vec<_>, Vec<_>) = hidden.into_iter().partition(|rule| refuses(rule.action));
    let kept = refusals.into_iter().chain(plain).map(|given| rule(given.action, &given.when));
    kept.chain(grants.into_iter().map(|given| rule(profile.default, &given.when))).collect()
}

fn refuses(action: Action) -> bool {
    !matches!(action, Action::Allow | Action::Log | Action::Trace(_))
}
