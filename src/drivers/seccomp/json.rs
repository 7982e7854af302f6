//! Reading a profile from JSON, in the form of the OCI runtime spec or of Docker's profiles.
//! What does not live here: what a profile means.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::arch::Arch;
use super::multiplexed;
use super::profile::{Action, Compare, Condition, Profile, ProfileError, Rule, When};
use crate::capability::{Capability, Set};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct JsonProfile {
    default_action: String,
    default_errno_ret: Option<u64>,
    default_errno: Option<String>,
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(default)]
    arch_map: Vec<JsonArch>,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    listener_path: String,
    #[serde(default)]
    listener_metadata: String,
    #[serde(default)]
    syscalls: Option<Vec<JsonRule>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct JsonArch {
    architecture: String,
    #[serde(default)]
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct JsonRule {
    #[serde(default)]
    names: Vec<String>,
    #[serde(default)]
    name: String,
    action: String,
    errno_ret: Option<u64>,
    errno: Option<String>,
    #[serde(default)]
    args: Option<Vec<JsonCondition>>,
    #[serde(default)]
    includes: Option<JsonWhen>,
    #[serde(default)]
    excludes: Option<JsonWhen>,
    #[serde(default, rename = "comment")]
    _comment: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct JsonCondition {
    index: u64,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct JsonWhen {
    #[serde(default)]
    caps: Option<Vec<String>>,
    #[serde(default)]
    arches: Option<Vec<String>>,
    #[serde(default)]
    min_kernel: Option<String>,
}

/// Reads a profile. Unknown fields are refused: what is not understood can't be enforced.
pub(super) fn parse(json: &[u8]) -> Result<Profile, ProfileError> {
    let given: JsonProfile = serde_json::from_slice(json)?;
    if !given.listener_path.is_empty() || !given.listener_metadata.is_empty() {
        return Err(ProfileError::Notify("listenerPath"));
    }
    let mut rules = Vec::new();
    for rule in given.syscalls.unwrap_or_default() {
        rules.extend(parse_rule(rule)?);
    }
    for flag in &given.flags {
        if flag == "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" {
            return Err(ProfileError::Notify("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"));
        }
        let known =
            ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"];
        if !known.contains(&flag.as_str()) {
            return Err(ProfileError::Flag(flag.clone()));
        }
    }
    let default = action(&given.default_action, errno(given.default_errno_ret, given.default_errno)?)?;
    let arches = arches(&given.architectures, &given.arch_map)?;
    let mut profile = Profile { default, arches, rules, flags: given.flags };
    multiplexed::complete(&mut profile);
    Ok(profile)
}

/// What an action returns where the profile does not say (runtime-spec, config-linux.md "Seccomp").
const EPERM: u64 = 1;

/// An error by number, by name as CRI-O's profiles have it, or by both.
fn errno(number: Option<u64>, name: Option<String>) -> Result<Option<u64>, ProfileError> {
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        return Ok(number);
    };
    let named = (1..=MOST_NAMED).find(|number| format!("{:?}", nix::errno::Errno::from_raw(*number)) == name);
    match (named.and_then(|named| u64::try_from(named).ok()), number) {
        (Some(named), None) => Ok(Some(named)),
        (Some(named), Some(number)) if named == number => Ok(Some(named)),
        _ => Err(ProfileError::ErrnoName(name.chars().take(80).collect())),
    }
}

/// EHWPOISON, the last of errno(3).
const MOST_NAMED: i32 = 133;

/// Those of this machine; the native one where none is named.
fn arches(listed: &[String], map: &[JsonArch]) -> Result<Vec<Arch>, ProfileError> {
    let parse = |name: &String| Arch::from_scmp(name).ok_or_else(|| ProfileError::Arch(name.clone()));
    let mut found = Vec::new();
    for name in listed {
        found.extend(parse(name)?);
    }
    for entry in map {
        let subs = entry.sub_architectures.iter().flatten().map(parse).collect::<Result<Vec<_>, _>>()?;
        if let Some(arch) = parse(&entry.architecture)?.filter(|arch| *arch == Arch::NATIVE) {
            found.push(arch);
            found.extend(subs.into_iter().flatten());
        }
    }
    match (found.is_empty(), listed.is_empty() && map.is_empty()) {
        (true, true) => return Ok(vec![Arch::NATIVE]),
        (true, false) => return Err(ProfileError::NoArch),
        (false, _) => {}
    }
    // A profile for 32-bit programs only would leave nothing that can execute the workload.
    found.push(Arch::NATIVE);
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

fn action(name: &str, errno: Option<u64>) -> Result<Action, ProfileError> {
    let number = || {
        let errno = errno.unwrap_or(EPERM);
        u16::try_from(errno).ok().filter(|errno| *errno <= 4095).ok_or(ProfileError::Errno(errno))
    };
    let action = match name {
        "SCMP_ACT_ERRNO" => return Ok(Action::Errno(number()?)),
        "SCMP_ACT_TRACE" => return Ok(Action::Trace(number()?)),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
        "SCMP_ACT_TRAP" => Action::Trap,
        "SCMP_ACT_LOG" => Action::Log,
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_NOTIFY" => return Err(ProfileError::Notify("SCMP_ACT_NOTIFY")),
        name => return Err(ProfileError::Action(name.chars().take(80).collect())),
    };
    // The runtime spec wants an error here: whoever wrote the number meant another action.
    if errno.is_some() { Err(ProfileError::NoErrno(name.to_string())) } else { Ok(action) }
}

fn parse_rule(given: JsonRule) -> Result<Vec<Rule>, ProfileError> {
    let mut names = given.names;
    if !given.name.is_empty() {
        names.push(given.name);
    }
    let plausible = |name: &String| {
        let letters = |byte| matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_');
        !name.is_empty() && name.len() <= 64 && name.bytes().all(letters)
    };
    if names.is_empty() {
        return Err(ProfileError::Name(String::new()));
    }
    if let Some(bad) = names.iter().find(|name| !plausible(name)) {
        return Err(ProfileError::Name(bad.chars().take(80).collect()));
    }
    let action = action(&given.action, errno(given.errno_ret, given.errno)?)?;
    let when = when(given.includes.unwrap_or_default(), given.excludes.unwrap_or_default())?;
    let given = given.args.unwrap_or_default();
    let conditions =
        given.into_iter().map(|arg| condition(&names[0], &arg)).collect::<Result<Vec<_>, _>>()?;
    let rule = |conditions| Rule { names: names.clone(), action, conditions, when: when.clone() };
    let mut counts = BTreeMap::new();
    for condition in &conditions {
        *counts.entry(condition.index).or_insert(0) += 1;
    }
    // Two conditions on one argument mean either, not both: that is how OCI runtimes have always read them.
    if counts.values().any(|count| *count > 1) {
        return Ok(conditions.into_iter().map(|condition| rule(vec![condition])).collect());
    }
    Ok(vec![rule(conditions)])
}

fn condition(name: &str, given: &JsonCondition) -> Result<Condition, ProfileError> {
    let wrong = |problem| ProfileError::Condition { name: name.to_string(), index: given.index, problem };
    let index = u8::try_from(given.index).ok().filter(|index| *index < 6);
    let index = index.ok_or_else(|| wrong("a call has arguments 0 to 5"))?;
    let (compare, value) = match given.op.as_str() {
        "SCMP_CMP_NE" => (Compare::Ne, given.value),
        "SCMP_CMP_LT" => (Compare::Lt, given.value),
        "SCMP_CMP_LE" => (Compare::Le, given.value),
        "SCMP_CMP_EQ" => (Compare::Eq, given.value),
        "SCMP_CMP_GE" => (Compare::Ge, given.value),
        "SCMP_CMP_GT" => (Compare::Gt, given.value),
        "SCMP_CMP_MASKED_EQ" => (Compare::Masked(given.value), given.value_two),
        _ => return Err(wrong("the operator is unknown")),
    };
    Ok(Condition { index, compare, value, narrow: false })
}

fn when(includes: JsonWhen, excludes: JsonWhen) -> Result<When, ProfileError> {
    let set = |names: Option<Vec<String>>| {
        names.unwrap_or_default().iter().map(|name| Capability::parse(name)).collect::<Result<Set, _>>()
    };
    if excludes.min_kernel.is_some() {
        return Err(ProfileError::Kernel("excludes.minKernel".to_string()));
    }
    let kernel = match includes.min_kernel {
        None => (0, 0),
        Some(text) => kernel(&text).ok_or(ProfileError::Kernel(text))?,
    };
    Ok(When {
        with: set(includes.caps)?,
        without: set(excludes.caps)?,
        arches: includes.arches.unwrap_or_default(),
        not_arches: excludes.arches.unwrap_or_default(),
        kernel,
        any_of: Set::EMPTY,
    })
}

fn kernel(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
