//! From a profile to BPF. What does not live here: reading profiles, keeping filters.

use std::collections::{BTreeMap, BTreeSet};

use super::arch::{Arch, X32_BIT};
use super::bpf::{self, ARCH, EQUAL, Instruction, LOAD, Leaf, NUMBER};
use super::profile::{Action, Condition, Profile, ProfileError};
use crate::capability::Set;

const ENOSYS: Action = Action::Errno(38);
/// BPF_MAXINSNS (linux/bpf_common.h).
const MOST: usize = 4096;

/// What decides about one call: clauses in order, and what is said where none holds.
#[derive(Default)]
struct Call {
    clauses: Vec<(Vec<Condition>, Action)>,
    otherwise: Option<Action>,
}

/// The filter of a profile for a container with these capabilities.
///
/// Of the rules for one call, the one with conditions that hold comes before the one without conditions, and the
/// earlier before the later. A number above the highest that the profile knows answers ENOSYS, where the profile
/// would refuse it: libraries try new calls and fall back on ENOSYS only. An interface that the profile does not list
/// ends the process.
pub(super) fn compile(
    profile: &Profile,
    capabilities: Set,
    kernel: (u32, u32),
) -> Result<Vec<Instruction>, ProfileError> {
    let tokens: BTreeSet<u32> = profile.arches.iter().map(|arch| arch.token()).collect();
    let mut code = vec![bpf::plain(LOAD, ARCH)];
    // The native interface first: it is by far the most used.
    let native = Arch::NATIVE.token();
    let others = tokens.iter().copied().filter(|token| *token != native);
    for token in std::iter::once(native).filter(|native| tokens.contains(native)).chain(others) {
        let mut body = vec![bpf::plain(LOAD, NUMBER)];
        body.extend(bpf::tree(&intervals(profile, token, capabilities, kernel)));
        code.extend(skip_unless_equal(token, body.len()));
        code.extend(body);
    }
    code.push(bpf::give(Action::KillProcess));
    if code.len() > MOST {
        return Err(ProfileError::TooLong(code.len()));
    }
    Ok(code)
}

/// Where the token is another, goes on behind the body.
fn skip_unless_equal(token: u32, body: usize) -> Vec<Instruction> {
    match u8::try_from(body) {
        Ok(jf) => vec![Instruction { code: EQUAL, jt: 0, jf, k: token }],
        Err(_) => {
            let far = u32::try_from(body).unwrap_or(u32::MAX);
            vec![Instruction { code: EQUAL, jt: 1, jf: 0, k: token }, bpf::plain(bpf::JUMP, far)]
        }
    }
}

/// All numbers of one token, as intervals that begin where the verdict changes.
fn intervals(profile: &Profile, token: u32, capabilities: Set, kernel: (u32, u32)) -> Vec<(u32, Leaf)> {
    let mut starts: Vec<(u32, Leaf)> = Vec::new();
    let mut push = |start: u32, leaf: Leaf| match starts.last() {
        Some((_, last)) if *last == leaf => {}
        _ => starts.push((start, leaf)),
    };
    for arch in [Arch::X86_64, Arch::X86, Arch::Aarch64, Arch::Arm, Arch::X32] {
        if arch.token() != token {
            continue;
        }
        let base = if arch == Arch::X32 { X32_BIT } else { 0 };
        if !profile.arches.contains(&arch) {
            push(base, Leaf::Always(ENOSYS));
            continue;
        }
        let calls = calls(profile, arch, capabilities, kernel);
        let mut next = base;
        for (number, call) in &calls {
            if *number > next {
                push(next, Leaf::Always(profile.default));
            }
            push(*number, leaf(call, profile.default));
            next = number.saturating_add(1);
        }
        let highest =
            profile.rules.iter().flat_map(|rule| &rule.names).filter_map(|name| arch.number(name)).max();
        // A profile that names no call of this interface knows none: nothing is newer than it.
        let Some(beyond) = highest.map(|highest| highest.saturating_add(1)) else {
            push(next, Leaf::Always(profile.default));
            continue;
        };
        if beyond > next {
            push(next, Leaf::Always(profile.default));
        }
        push(beyond, Leaf::Always(beyond_known(profile.default)));
    }
    starts
}

/// What calls get that are newer than the profile.
fn beyond_known(default: Action) -> Action {
    match default {
        Action::KillThread | Action::KillProcess | Action::Trap | Action::Errno(_) => ENOSYS,
        Action::Trace(_) | Action::Log | Action::Allow => default,
    }
}

fn calls(profile: &Profile, arch: Arch, capabilities: Set, kernel: (u32, u32)) -> BTreeMap<u32, Call> {
    let mut calls: BTreeMap<u32, Call> = BTreeMap::new();
    for rule in profile.rules.iter().filter(|rule| rule.when.holds(capabilities, kernel)) {
        // A name that this interface lacks is none of its calls: nothing to decide.
        for number in rule.names.iter().filter_map(|name| arch.number(name)) {
            let call = calls.entry(number).or_default();
            match (rule.conditions.is_empty(), call.otherwise) {
                (true, None) => call.otherwise = Some(rule.action),
                (true, Some(_)) => {}
                (false, _) => call.clauses.push((rule.conditions.clone(), rule.action)),
            }
        }
    }
    calls
}

fn leaf(call: &Call, default: Action) -> Leaf {
    let otherwise = call.otherwise.unwrap_or(default);
    // Clauses that say what is said anyway, at the end, only cost time.
    let mut clauses = call.clauses.clone();
    while clauses.last().is_some_and(|(_, action)| *action == otherwise) {
        clauses.pop();
    }
    if clauses.is_empty() { Leaf::Always(otherwise) } else { Leaf::Depends(clauses, otherwise) }
}
