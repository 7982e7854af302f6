//! Filters are run by a small interpreter of BPF and compared with a plain reading of the profile.

use super::arch::{Arch, X32_BIT};
use super::bpf::{self, Instruction};
use super::profile::{Action, Compare, Condition, Profile, Rule, When};
use super::*;
use crate::capability::Capability;

mod json_profiles;
mod properties;

/// `struct seccomp_data`, without the instruction pointer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    number: u32,
    arch: u32,
    args: [u64; 6],
}

pub(super) fn call(arch: Arch, name: &str, args: &[u64]) -> Call {
    let number = arch.number(name).unwrap_or_else(|| panic!("{name} on {arch:?}"));
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    Call { number, arch: arch.token(), args: all }
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.arch,
            offset if (16..64).contains(&offset) && offset % 4 == 0 => {
                let arg = self.args[(offset as usize - 16) / 8];
                if offset % 8 == 0 { arg as u32 } else { (arg >> 32) as u32 }
            }
            offset => panic!("load at {offset}"),
        }
    }
}

/// Runs a filter as the kernel does: jumps go forward only, and it ends with a verdict.
fn run(code: &[Instruction], call: &Call) -> u32 {
    let (mut at, mut accumulator) = (0, 0_u32);
    loop {
        let Instruction { code: opcode, jt, jf, k } = code[at];
        let branch = |holds: bool| usize::from(if holds { jt } else { jf });
        at += 1;
        match opcode {
            bpf::LOAD => accumulator = call.word(k),
            bpf::AND => accumulator &= k,
            bpf::JUMP => at += k as usize,
            bpf::EQUAL => at += branch(accumulator == k),
            bpf::GREATER => at += branch(accumulator > k),
            bpf::AT_LEAST => at += branch(accumulator >= k),
            bpf::RETURN => return k,
            opcode => panic!("opcode {opcode:#x}"),
        }
    }
}

fn holds(condition: &Condition, args: &[u64; 6]) -> bool {
    let narrow = |value: u64| {
        if condition.narrow { value & 0xffff_ffff } else { value }
    };
    let (arg, value) = (narrow(args[usize::from(condition.index)]), narrow(condition.value));
    match condition.compare {
        Compare::Ne => arg != value,
        Compare::Lt => arg < value,
        Compare::Le => arg <= value,
        Compare::Eq => arg == value,
        Compare::Ge => arg >= value,
        Compare::Gt => arg > value,
        Compare::Masked(mask) => arg & narrow(mask) == value,
    }
}

/// The verdict by reading the profile rule by rule.
fn expected(profile: &Profile, capabilities: Set, call: &Call) -> Action {
    // With bit 31 a number is negative to the kernel, and no call of either interface.
    let x32 = call.arch == Arch::X86_64.token() && call.number >= X32_BIT;
    let all = [Arch::X86_64, Arch::X86, Arch::X32, Arch::Aarch64, Arch::Arm];
    let arch = all.into_iter().find(|arch| arch.token() == call.arch && (*arch == Arch::X32) == x32);
    let Some(arch) = arch else {
        return Action::KillProcess;
    };
    if !profile.arches.contains(&arch) {
        return if x32 { Action::Errno(38) } else { Action::KillProcess };
    }
    let is_call = |rule: &&Rule| rule.names.iter().any(|name| arch.number(name) == Some(call.number));
    let rules: Vec<_> =
        profile.rules.iter().filter(|rule| rule.when.holds(capabilities, (6, 18))).filter(is_call).collect();
    let hit = |rule: &&&Rule| rule.conditions.iter().all(|condition| holds(condition, &call.args));
    let conditional = rules.iter().filter(|rule| !rule.conditions.is_empty()).find(hit);
    let found = conditional.or_else(|| rules.iter().find(|rule| rule.conditions.is_empty()));
    let highest =
        profile.rules.iter().flat_map(|rule| &rule.names).filter_map(|name| arch.number(name)).max();
    let newer = highest.is_some_and(|highest| call.number > highest);
    let refuses = !matches!(profile.default, Action::Allow | Action::Log | Action::Trace(_));
    match found {
        Some(rule) => rule.action,
        None if newer && refuses => Action::Errno(38),
        None => profile.default,
    }
}

fn caps(names: &[&str]) -> Set {
    names.iter().map(|name| Capability::parse(name).unwrap()).collect()
}

fn verdict(profile: &Profile, capabilities: Set, call: &Call) -> u32 {
    run(&compile::compile(profile, capabilities, (6, 18)).unwrap(), call)
}

const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;
const KILL: u32 = 0x8000_0000;

const NEWUSER: u64 = 0x1000_0000;

/// For a container without capabilities, on x86_64.
const VERDICTS: [(Arch, &str, &[u64], u32); 40] = [
    (Arch::X86_64, "read", &[], ALLOW),
    (Arch::X86_64, "execve", &[], ALLOW),
    (Arch::X86_64, "uretprobe", &[], ALLOW),
    (Arch::X86_64, "file_setattr", &[], ALLOW),
    (Arch::X86_64, "socket", &[2, 1, 0], ALLOW),
    (Arch::X86_64, "socket", &[16, 3, 0], ALLOW),
    (Arch::X86_64, "socket", &[38, 5, 0], EPERM),
    (Arch::X86_64, "socket", &[0x1_0000_0026, 5, 0], EPERM),
    (Arch::X86_64, "socket", &[40, 1, 0], EPERM),
    (Arch::X86_64, "socket", &[0xdead_0000_0028, 1, 0], EPERM),
    (Arch::X86, "socket", &[38, 5, 0], EPERM),
    (Arch::X86, "socket", &[2, 1, 0], ALLOW),
    (Arch::X86, "socketcall", &[1], EPERM),
    (Arch::X86, "socketcall", &[3], ALLOW),
    (Arch::X86_64, "clone", &[0x11], ALLOW),
    (Arch::X86_64, "clone", &[0x003d_0f00], ALLOW),
    (Arch::X86_64, "clone", &[NEWUSER | 0x11], EPERM),
    (Arch::X86_64, "clone", &[0x2_0000], EPERM),
    (Arch::X86, "clone", &[NEWUSER], EPERM),
    (Arch::X86_64, "clone3", &[], ENOSYS),
    (Arch::X86, "clone3", &[], ENOSYS),
    (Arch::X86_64, "unshare", &[NEWUSER], EPERM),
    (Arch::X86, "unshare", &[NEWUSER], EPERM),
    (Arch::X86_64, "setns", &[], EPERM),
    (Arch::X86_64, "mount", &[], EPERM),
    (Arch::X86_64, "open_tree", &[], EPERM),
    (Arch::X86_64, "userfaultfd", &[], EPERM),
    (Arch::X86, "userfaultfd", &[], EPERM),
    (Arch::X86_64, "io_uring_setup", &[], EPERM),
    (Arch::X86, "io_uring_setup", &[], EPERM),
    (Arch::X86_64, "bpf", &[], EPERM),
    (Arch::X86_64, "perf_event_open", &[], EPERM),
    (Arch::X86_64, "add_key", &[], EPERM),
    (Arch::X86_64, "keyctl", &[], EPERM),
    (Arch::X86_64, "kexec_load", &[], EPERM),
    (Arch::X86_64, "personality", &[0xffff_ffff_ffff_ffff], ALLOW),
    (Arch::X86_64, "personality", &[0x4_0000], EPERM),
    (Arch::X86_64, "open_by_handle_at", &[], EPERM),
    (Arch::X32, "read", &[], ENOSYS),
    (Arch::Aarch64, "read", &[], KILL),
];

#[test]
fn the_default_profile_gives_these_verdicts() {
    if Arch::NATIVE != Arch::X86_64 {
        eprintln!("not checked: the table is for x86_64");
        return;
    }
    let profile = default::profile();
    let code = compile::compile(&profile, Set::EMPTY, (6, 18)).unwrap();
    for (arch, name, args, verdict) in VERDICTS {
        assert_eq!(run(&code, &call(arch, name, args)), verdict, "{arch:?} {name} {args:x?}");
    }
    for number in [470, 511, 512, 520, 547, X32_BIT | 512, X32_BIT - 1, u32::MAX] {
        let call = Call { number, arch: Arch::X86_64.token(), args: [0; 6] };
        assert_eq!(run(&code, &call), ENOSYS, "{number}");
    }
}

#[test]
fn capabilities_open_their_calls() {
    let profile = default::profile();
    let table: [(&str, &str, &[u64]); 10] = [
        ("SYS_ADMIN", "unshare", &[0x1000_0000]),
        ("SYS_ADMIN", "clone", &[0x1000_0000]),
        ("SYS_ADMIN", "clone3", &[]),
        ("SYS_ADMIN", "bpf", &[]),
        ("BPF", "bpf", &[]),
        ("PERFMON", "perf_event_open", &[]),
        ("SYS_CHROOT", "chroot", &[]),
        ("SYS_MODULE", "finit_module", &[]),
        ("SYSLOG", "syslog", &[]),
        ("DAC_READ_SEARCH", "open_by_handle_at", &[]),
    ];
    for (capability, name, args) in table {
        let call = call(Arch::NATIVE, name, args);
        assert_eq!(verdict(&profile, caps(&[capability]), &call), ALLOW, "{capability} {name}");
        assert_ne!(verdict(&profile, caps(&["NET_RAW"]), &call), ALLOW, "{name}");
    }
    for never in ["io_uring_setup", "userfaultfd", "add_key"] {
        assert_eq!(verdict(&profile, Set::ALL, &call(Arch::NATIVE, never, &[])), EPERM);
    }
    assert_eq!(verdict(&profile, Set::ALL, &call(Arch::NATIVE, "socket", &[38])), EPERM);
}

/// The most instructions that any call runs through.
fn longest_path(code: &[Instruction]) -> usize {
    let mut steps = vec![0; code.len()];
    for (at, instruction) in code.iter().enumerate().rev() {
        let after = |skipped: usize| steps[at + 1 + skipped];
        let rest = match instruction.code {
            bpf::RETURN => 0,
            bpf::JUMP => after(instruction.k as usize),
            _ => after(usize::from(instruction.jt)).max(after(usize::from(instruction.jf))),
        };
        steps[at] = 1 + rest;
    }
    steps[0]
}

#[test]
fn the_default_filter_is_short_and_a_call_takes_few_steps() {
    let start = std::time::Instant::now();
    let code = compile::compile(&default::profile(), Set::EMPTY, (6, 18)).unwrap();
    let longest = longest_path(&code);
    println!("{} instructions, at most {longest} steps, {:?}", code.len(), start.elapsed());
    assert!(code.len() < 700, "{} instructions", code.len());
    assert!(longest < 25, "{longest} steps");
}

#[test]
fn a_localhost_profile_fails_closed() {
    let dir = tempfile::tempdir().unwrap();
    let cache = SeccompCache::new((6, 18));
    let path = |name: &str, content: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    nix::unistd::mkfifo(&dir.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let bad = [
        PathBuf::new(),
        PathBuf::from("relative.json"),
        dir.path().join("missing"),
        dir.path().join("fifo"),
        dir.path().to_path_buf(),
        path("empty", b""),
        path("garbled", b"\xff{"),
        path("huge", &vec![b' '; (1 << 20) + 1]),
    ];
    for path in bad {
        assert!(cache.filter(&Source::Localhost(path.clone()), Set::EMPTY).is_err(), "{path:?}");
    }
    let good = path("good", br#"{"defaultAction":"SCMP_ACT_ALLOW"}"#);
    assert!(cache.filter(&Source::Localhost(good), Set::EMPTY).is_ok());
}

#[test]
fn a_filter_is_compiled_once_for_equal_profiles_and_each_caller_reads_it_from_the_start() {
    let cache = SeccompCache::new((6, 18));
    let content = |held: Set| {
        let mut text = Vec::new();
        let mut file = File::from(cache.filter(&Source::RuntimeDefault, held).unwrap().fd);
        file.read_to_end(&mut text).unwrap();
        assert!(file.write_all(b"x").is_err(), "the filter can be written");
        text
    };
    let first = content(Set::EMPTY);
    assert!(!first.is_empty() && first.len() % 8 == 0);
    assert_eq!(first, content(caps(&["NET_RAW", "CHOWN"])));
    assert_eq!(cache.kept.lock().unwrap().len(), 1);
    assert_ne!(first, content(caps(&["SYS_ADMIN"])));
    assert_eq!(cache.kept.lock().unwrap().len(), 2);
}
