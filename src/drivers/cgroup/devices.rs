//! Which devices a container may use: everything that is not listed is denied. Version 2 takes a BPF program, version 1 a list.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use berth_sys::bpf::{self, Instruction};
use cgroups_rs::fs::devices::{DevicePermissions, DeviceType, DevicesController};
use serde::{Deserialize, Serialize};

use super::error::CgroupError;
use super::setting;

/// Kind of a device node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DeviceKind {
    /// Block device.
    Block,
    /// Character device.
    Char,
}

/// One allowed device, or many of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeviceRule {
    /// Kind.
    pub kind: DeviceKind,
    /// None = every number.
    pub major: Option<u32>,
    /// None = every number.
    pub minor: Option<u32>,
    /// May be read.
    pub read: bool,
    /// May be written.
    pub write: bool,
    /// May be made (mknod).
    pub mknod: bool,
}

impl DeviceRule {
    /// A rule with access in the letters r, w, m (others count for nothing).
    pub fn new(kind: DeviceKind, major: Option<u32>, minor: Option<u32>, access: &str) -> Self {
        let has = |letter| access.contains(letter);
        Self { kind, major, minor, read: has('r'), write: has('w'), mknod: has('m') }
    }
}

/// What a container may use.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DeviceRules {
    /// These and nothing else; an empty list denies every device.
    Only(Vec<DeviceRule>),
    /// What the parent cgroup may use; for privileged containers.
    All,
}

/// Restricts a version 1 cgroup, then reads the kernel's list back: an empty or misread list must never mean "all".
pub(super) fn restrict_v1(dir: &Path, rules: &DeviceRules) -> Result<(), CgroupError> {
    let DeviceRules::Only(rules) = rules else {
        return Ok(());
    };
    let write = |file: &str, value: &str| {
        let path = dir.join(file);
        setting::write(&path, value).map_err(|source| CgroupError::Write {
            resource: "allowed devices",
            path,
            value: value.into(),
            source,
        })
    };
    write("devices.deny", "a")?;
    for rule in rules {
        write("devices.allow", &line(rule))?;
    }
    verify_v1(dir, rules)
}

fn line(rule: &DeviceRule) -> String {
    let kind = if rule.kind == DeviceKind::Block { 'b' } else { 'c' };
    let number = |n: Option<u32>| n.map_or_else(|| "*".to_string(), |n| n.to_string());
    let access: String = [(rule.read, 'r'), (rule.write, 'w'), (rule.mknod, 'm')]
        .iter()
        .filter(|(has, _)| *has)
        .map(|(_, c)| c)
        .collect();
    format!("{kind} {}:{} {access}", number(rule.major), number(rule.minor))
}

fn verify_v1(dir: &Path, rules: &[DeviceRule]) -> Result<(), CgroupError> {
    let unreadable = |error: cgroups_rs::fs::error::Error| CgroupError::Read {
        path: dir.join("devices.list"),
        source: std::io::Error::other(error),
    };
    let listed = DevicesController::new(dir.into(), "/".into()).allowed_devices().map_err(unreadable)?;
    for entry in listed {
        // The kernel merges rules of one device, so each letter is looked up by itself.
        let number = |n: i64| u32::try_from(n).ok();
        let same = |rule: &&DeviceRule| {
            let kind = match entry.devtype {
                DeviceType::All => return false,
                DeviceType::Char => DeviceKind::Char,
                DeviceType::Block => DeviceKind::Block,
            };
            rule.kind == kind && rule.major == number(entry.major) && rule.minor == number(entry.minor)
        };
        let granted = |access: &DevicePermissions| {
            rules.iter().filter(same).any(|rule| match access {
                DevicePermissions::Read => rule.read,
                DevicePermissions::Write => rule.write,
                DevicePermissions::MkNod => rule.mknod,
            })
        };
        if !entry.access.iter().all(granted) {
            return Err(CgroupError::DeviceList { path: dir.into(), entry: format!("{entry:?}") });
        }
    }
    Ok(())
}

/// Loaded programs by what they allow. Most containers share one set of rules, and the kernel shares the program.
#[derive(Debug, Default)]
pub(super) struct Filters(Mutex<HashMap<Vec<DeviceRule>, Arc<OwnedFd>>>);

/// Kept programs; more sets of rules than this are rare, and then loading again is cheap.
const KEPT: usize = 32;

impl Filters {
    /// Restricts a version 2 cgroup. A filter that is attached already (by an earlier attempt) counts.
    pub fn restrict(&self, dir: &Path, rules: &DeviceRules) -> Result<(), CgroupError> {
        let DeviceRules::Only(rules) = rules else {
            return Ok(());
        };
        self.attach(dir, rules).map_err(|source| CgroupError::DeviceFilter { path: dir.into(), source })
    }

    fn attach(&self, dir: &Path, rules: &[DeviceRule]) -> std::io::Result<()> {
        let cgroup = std::fs::File::open(dir)?;
        let program = self.program(rules)?;
        match bpf::attach_device_filter(cgroup.as_fd(), program.as_fd()) {
            // The kernel's answer to attaching one program twice.
            Err(error)
                if error.kind() == std::io::ErrorKind::InvalidInput
                    && bpf::count_device_filters(cgroup.as_fd())? > 0 =>
            {
                Ok(())
            }
            result => result,
        }
    }

    fn program(&self, rules: &[DeviceRule]) -> std::io::Result<Arc<OwnedFd>> {
        if let Some(kept) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(rules) {
            return Ok(Arc::clone(kept));
        }
        let program = Arc::new(bpf::load_device_filter(&compile(rules))?);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(rules.to_vec(), Arc::clone(&program));
        Ok(program)
    }
}

/// Accesses of `struct bpf_cgroup_dev_ctx`, in the high half of its first word.
const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;

/// `r<to> = *(u32 *)(r1 + offset)`
fn load(to: u8, offset: i16) -> Instruction {
    Instruction { code: 0x61, registers: 0x10 | to, offset, immediate: 0 }
}

/// An operation with a constant.
fn constant(code: u8, register: u8, immediate: i32) -> Instruction {
    Instruction { code, registers: register, offset: 0, immediate }
}

const AND32: u8 = 0x54;
const SHIFT_RIGHT32: u8 = 0x74;
const MOVE64: u8 = 0xb7;
const COPY32: u8 = 0xbc;
const JUMP_UNLESS_EQUAL32: u8 = 0x56;
const EXIT: Instruction = Instruction { code: 0x95, registers: 0, offset: 0, immediate: 0 };

/// The program: r2 = kind, r3 = access, r4 = major, r5 = minor; each rule either returns 1 or falls through to the next; at
/// the end stands 0.
fn compile(rules: &[DeviceRule]) -> Vec<Instruction> {
    let mut program = vec![
        load(2, 0),
        load(3, 0),
        load(4, 4),
        load(5, 8),
        constant(AND32, 2, 0xffff),
        constant(SHIFT_RIGHT32, 3, 16),
    ];
    for rule in rules {
        let kind = if rule.kind == DeviceKind::Block { 1 } else { 2 };
        let mut body = vec![constant(JUMP_UNLESS_EQUAL32, 2, kind)];
        for (register, number) in [(4, rule.major), (5, rule.minor)] {
            if let Some(number) = number {
                body.push(constant(JUMP_UNLESS_EQUAL32, register, number.cast_signed()));
            }
        }
        let denied = !((i32::from(rule.mknod) * MKNOD)
            | (i32::from(rule.read) * READ)
            | (i32::from(rule.write) * WRITE));
        body.push(Instruction { code: COPY32, registers: 0x31, offset: 0, immediate: 0 });
        body.push(constant(AND32, 1, denied));
        body.push(constant(JUMP_UNLESS_EQUAL32, 1, 0));
        body.push(constant(MOVE64, 0, 1));
        body.push(EXIT);
        let length = body.len();
        for (at, instruction) in body.iter_mut().enumerate() {
            if instruction.code == JUMP_UNLESS_EQUAL32 {
                // A rule has at most eight instructions.
                instruction.offset = i16::try_from(length - at - 1).unwrap_or(i16::MAX);
            }
        }
        program.extend(body);
    }
    program.extend([constant(MOVE64, 0, 0), EXIT]);
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would do with the few instructions that are used.
    fn run(program: &[Instruction], kind: u32, access: u32, major: u32, minor: u32) -> u32 {
        let context = [(access << 16) | kind, major, minor];
        let mut registers = [0_u32; 11];
        let mut at = 0;
        loop {
            let i = program[at];
            let (to, from) = (usize::from(i.registers & 0xf), usize::from(i.registers >> 4));
            at += 1;
            match i.code {
                0x61 => registers[to] = context[usize::try_from(i.offset).unwrap() / 4],
                AND32 => registers[to] &= i.immediate.cast_unsigned(),
                SHIFT_RIGHT32 => registers[to] >>= i.immediate,
                MOVE64 => registers[to] = i.immediate.cast_unsigned(),
                COPY32 => registers[to] = registers[from],
                JUMP_UNLESS_EQUAL32 => {
                    if registers[to] != i.immediate.cast_unsigned() {
                        at += usize::try_from(i.offset).unwrap();
                    }
                }
                0x95 => return registers[0],
                code => panic!("{code:#x}"),
            }
        }
    }

    #[test]
    fn a_filter_allows_what_is_listed_and_nothing_else() {
        let rules = [
            DeviceRule::new(DeviceKind::Char, Some(1), Some(3), "rw"),
            DeviceRule::new(DeviceKind::Char, Some(136), None, "rwm"),
            DeviceRule::new(DeviceKind::Block, None, None, "m"),
        ];
        let program = compile(&rules);
        let allows = |kind, access, major, minor| run(&program, kind, access, major, minor) == 1;
        assert!(allows(2, 2, 1, 3) && allows(2, 6, 1, 3) && allows(2, 7, 136, 99) && allows(1, 1, 8, 0));
        assert!(!allows(2, 7, 1, 3) && !allows(2, 2, 1, 5) && !allows(1, 2, 1, 3) && !allows(2, 1, 8, 0));
        assert!(!allows(1, 2, 8, 0) && !allows(2, 2, 5, 2));
        assert_eq!(run(&compile(&[]), 2, 2, 1, 3), 0);
    }
}
