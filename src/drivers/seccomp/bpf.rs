//! Classic BPF as seccomp takes it: instructions, comparisons, search trees. What does not live here: profiles.

use super::profile::{Action, Compare, Condition};

/// `struct sock_filter` (linux/filter.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

/// BPF_LD | BPF_W | BPF_ABS: loads a word of seccomp_data.
pub(super) const LOAD: u16 = 0x20;
/// BPF_ALU | BPF_AND | BPF_K
pub(super) const AND: u16 = 0x54;
/// BPF_JMP | BPF_JA
pub(super) const JUMP: u16 = 0x05;
/// BPF_JMP | BPF_JEQ | BPF_K
pub(super) const EQUAL: u16 = 0x15;
/// BPF_JMP | BPF_JGT | BPF_K
pub(super) const GREATER: u16 = 0x25;
/// BPF_JMP | BPF_JGE | BPF_K
pub(super) const AT_LEAST: u16 = 0x35;
/// BPF_RET | BPF_K
pub(super) const RETURN: u16 = 0x06;

/// Offset of the call's number in seccomp_data.
pub(super) const NUMBER: u32 = 0;
/// Offset of the audit token.
pub(super) const ARCH: u32 = 4;

/// Offset of an argument's low half; both families of machines are little-endian.
fn low(index: u8) -> u32 {
    16 + 8 * u32::from(index)
}

fn high(index: u8) -> u32 {
    low(index) + 4
}

pub(super) fn plain(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

/// SECCOMP_RET_* (linux/seccomp.h).
pub(super) fn verdict(action: Action) -> u32 {
    match action {
        Action::KillThread => 0,
        Action::KillProcess => 0x8000_0000,
        Action::Trap => 0x0003_0000,
        Action::Errno(errno) => 0x0005_0000 | u32::from(errno),
        Action::Trace(value) => 0x7ff0_0000 | u32::from(value),
        Action::Log => 0x7ffc_0000,
        Action::Allow => 0x7fff_0000,
    }
}

pub(super) fn give(action: Action) -> Instruction {
    plain(RETURN, verdict(action))
}

/// What an interval of numbers leads to.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Leaf {
    /// One verdict.
    Always(Action),
    /// The verdict of the first clause that holds, else the last.
    Depends(Vec<(Vec<Condition>, Action)>, Action),
}

/// Code for numbers in the accumulator: a binary search over intervals, each from its number to the next one's.
pub(super) fn tree(intervals: &[(u32, Leaf)]) -> Vec<Instruction> {
    match intervals {
        [] => Vec::new(),
        [(_, leaf)] => leaf_code(leaf),
        intervals => {
            let (left, right) = intervals.split_at(intervals.len() / 2);
            let (pivot, left, right) = (right[0].0, tree(left), tree(right));
            let mut code = over(AT_LEAST, pivot, left.len());
            code.extend(left);
            code.extend(right);
            code
        }
    }
}

/// Code that jumps over the next `distance` instructions where the comparison holds.
pub(super) fn over(code: u16, k: u32, distance: usize) -> Vec<Instruction> {
    match u8::try_from(distance) {
        Ok(jt) => vec![Instruction { code, jt, jf: 0, k }],
        Err(_) => {
            let far = u32::try_from(distance).unwrap_or(u32::MAX);
            vec![Instruction { code, jt: 0, jf: 1, k }, plain(JUMP, far)]
        }
    }
}

fn leaf_code(leaf: &Leaf) -> Vec<Instruction> {
    match leaf {
        Leaf::Always(action) => vec![give(*action)],
        Leaf::Depends(clauses, otherwise) => {
            let mut code: Vec<_> = clauses.iter().flat_map(|(all, action)| clause(all, *action)).collect();
            code.push(give(*otherwise));
            code
        }
    }
}

/// Where a comparison goes on.
#[derive(Clone, Copy)]
enum To {
    /// The next instruction.
    Next,
    /// The condition holds: the instruction after its code.
    Holds,
    /// It does not: the instruction after the whole clause.
    Fails,
}

type Step = (u16, u32, To, To);

/// Code that returns the action where all conditions hold, and else goes on behind itself.
fn clause(conditions: &[Condition], action: Action) -> Vec<Instruction> {
    let parts: Vec<Vec<Step>> = conditions.iter().map(condition).collect();
    let total = parts.iter().map(Vec::len).sum::<usize>() + 1;
    let mut code = Vec::with_capacity(total);
    for part in parts {
        let end = code.len() + part.len();
        for (opcode, k, jt, jf) in part {
            let here = code.len();
            // A clause has at most 6 conditions of at most 5 instructions: every distance fits.
            let to = |to| match to {
                To::Next => 0,
                To::Holds => (end - here - 1) as u8,
                To::Fails => (total - here - 1) as u8,
            };
            code.push(Instruction { code: opcode, jt: to(jt), jf: to(jf), k });
        }
    }
    code.push(give(action));
    code
}

/// A condition in steps; the last step that holds falls out at the end.
fn condition(condition: &Condition) -> Vec<Step> {
    use To::{Fails, Holds, Next};
    let (high_value, low_value) = ((condition.value >> 32) as u32, condition.value as u32);
    let load_high = (LOAD, high(condition.index), Next, Next);
    let load_low = (LOAD, low(condition.index), Next, Next);
    let low_steps = match condition.compare {
        Compare::Eq => vec![load_low, (EQUAL, low_value, Holds, Fails)],
        Compare::Ne => vec![load_low, (EQUAL, low_value, Fails, Holds)],
        Compare::Gt => vec![load_low, (GREATER, low_value, Holds, Fails)],
        Compare::Ge => vec![load_low, (AT_LEAST, low_value, Holds, Fails)],
        Compare::Lt => vec![load_low, (AT_LEAST, low_value, Fails, Holds)],
        Compare::Le => vec![load_low, (GREATER, low_value, Fails, Holds)],
        Compare::Masked(mask) => {
            vec![load_low, (AND, mask as u32, Next, Next), (EQUAL, low_value, Holds, Fails)]
        }
    };
    if condition.narrow {
        return low_steps;
    }
    let mut steps = vec![load_high];
    steps.extend(match condition.compare {
        Compare::Eq => vec![(EQUAL, high_value, Next, Fails)],
        Compare::Ne => vec![(EQUAL, high_value, Next, Holds)],
        Compare::Gt | Compare::Ge => {
            vec![(GREATER, high_value, Holds, Next), (EQUAL, high_value, Next, Fails)]
        }
        Compare::Lt | Compare::Le => {
            vec![(GREATER, high_value, Fails, Next), (EQUAL, high_value, Next, Holds)]
        }
        Compare::Masked(mask) => {
            vec![(AND, (mask >> 32) as u32, Next, Next), (EQUAL, high_value, Next, Fails)]
        }
    });
    steps.extend(low_steps);
    steps
}

/// The records as the kernel reads them.
pub(super) fn bytes(code: &[Instruction]) -> Vec<u8> {
    let record = |instruction: &Instruction| {
        let mut record = [0; 8];
        record[..2].copy_from_slice(&instruction.code.to_ne_bytes());
        (record[2], record[3]) = (instruction.jt, instruction.jf);
        record[4..].copy_from_slice(&instruction.k.to_ne_bytes());
        record
    };
    code.iter().flat_map(record).collect()
}
