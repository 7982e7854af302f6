//! The ways into a Linux kernel: names, audit tokens and system call numbers. What does not live here: verdicts.

/// One system call interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Arch {
    /// 64-bit x86.
    X86_64,
    /// 32-bit x86, by `int 0x80` also from 64-bit programs.
    X86,
    /// 32-bit pointers on 64-bit x86: numbers with bit 30.
    X32,
    /// 64-bit ARM.
    Aarch64,
    /// 32-bit ARM.
    Arm,
}

/// The bit that tells x32's numbers from those of x86_64 (asm/unistd.h).
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// Calls that x32 has for itself, from 512 (syscall_64.tbl, "x32"); other numbers are those of x86_64.
const X32_ONLY: [&str; 36] = [
    "rt_sigaction",
    "rt_sigreturn",
    "ioctl",
    "readv",
    "writev",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "execve",
    "ptrace",
    "rt_sigpending",
    "rt_sigtimedwait",
    "rt_sigqueueinfo",
    "sigaltstack",
    "timer_create",
    "mq_notify",
    "kexec_load",
    "waitid",
    "set_robust_list",
    "get_robust_list",
    "vmsplice",
    "move_pages",
    "preadv",
    "pwritev",
    "rt_tgsigqueueinfo",
    "recvmmsg",
    "sendmmsg",
    "process_vm_readv",
    "process_vm_writev",
    "setsockopt",
    "getsockopt",
    "io_setup",
    "io_submit",
    "execveat",
    "preadv2",
    "pwritev2",
];

/// Names that the table of 32-bit ARM lacks: one with two names, and calls above the ordinary ones (asm/unistd.h).
const ARM_ONLY: [(&str, u32); 7] = [
    ("sync_file_range2", 341),
    ("breakpoint", 0x0f_0001),
    ("cacheflush", 0x0f_0002),
    ("usr26", 0x0f_0003),
    ("usr32", 0x0f_0004),
    ("set_tls", 0x0f_0005),
    ("get_tls", 0x0f_0006),
];

impl Arch {
    /// The one this daemon is built for.
    pub const NATIVE: Self = if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 };

    /// The native one and what a kernel of it may also run.
    pub(super) fn family() -> &'static [Self] {
        match Self::NATIVE {
            Self::Aarch64 | Self::Arm => &[Self::Aarch64, Self::Arm],
            Self::X86_64 | Self::X86 | Self::X32 => &[Self::X86_64, Self::X86, Self::X32],
        }
    }

    /// AUDIT_ARCH_* as seccomp_data has it (linux/audit.h).
    pub(super) fn token(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// A name of the runtime spec, `SCMP_ARCH_*`. Some(None) is one that exists, but not on this machine.
    pub(super) fn from_scmp(name: &str) -> Option<Option<Self>> {
        let arch = match name {
            "SCMP_ARCH_X86_64" => Self::X86_64,
            "SCMP_ARCH_X86" => Self::X86,
            "SCMP_ARCH_X32" => Self::X32,
            "SCMP_ARCH_AARCH64" => Self::Aarch64,
            "SCMP_ARCH_ARM" => Self::Arm,
            "SCMP_ARCH_NATIVE" => Self::NATIVE,
            name => {
                let other = ["MIPS", "PPC", "S390", "PARISC", "RISCV", "LOONGARCH", "M68K", "SH"];
                let name = name.strip_prefix("SCMP_ARCH_")?;
                return other.iter().any(|other| name.starts_with(other)).then_some(None);
            }
        };
        Some(Self::family().contains(&arch).then_some(arch))
    }

    /// The name in `includes.arches` of profiles: that of the Go toolchain.
    pub(super) fn go_name(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::X86 => "x86",
            Self::X32 => "x32",
            Self::Aarch64 => "arm64",
            Self::Arm => "arm",
        }
    }

    /// The number by which this interface knows the call.
    pub(super) fn number(self, name: &str) -> Option<u32> {
        fn id(id: i32) -> Option<u32> {
            u32::try_from(id).ok()
        }
        match self {
            Self::X86_64 => name.parse::<syscalls::x86_64::Sysno>().ok().and_then(|call| id(call.id())),
            Self::X86 => name.parse::<syscalls::x86::Sysno>().ok().and_then(|call| id(call.id())),
            Self::Aarch64 => name.parse::<syscalls::aarch64::Sysno>().ok().and_then(|call| id(call.id())),
            Self::X32 => {
                let own =
                    X32_ONLY.iter().position(|own| *own == name).and_then(|index| u32::try_from(index).ok());
                let number = own.map(|index| 512 + index).or_else(|| Self::X86_64.number(name))?;
                Some(number | X32_BIT)
            }
            Self::Arm => {
                let own = ARM_ONLY.iter().find(|(own, _)| *own == name).map(|(_, number)| *number);
                own.or_else(|| name.parse::<syscalls::arm::Sysno>().ok().and_then(|call| id(call.id())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_kernels_tables() {
        let table = [
            (Arch::X86_64, "read", 0),
            (Arch::X86_64, "clone3", 435),
            (Arch::X86, "socketcall", 102),
            (Arch::X86, "socket", 359),
            (Arch::X32, "read", X32_BIT),
            (Arch::X32, "execve", X32_BIT | 520),
            (Arch::X32, "pwritev2", X32_BIT | 547),
            (Arch::Aarch64, "read", 63),
            (Arch::Arm, "open", 5),
            (Arch::Arm, "set_tls", 0x0f_0005),
        ];
        for (arch, name, number) in table {
            assert_eq!(arch.number(name), Some(number), "{arch:?} {name}");
        }
        assert_eq!(Arch::X86_64.number("socketcall"), None);
        assert_eq!(Arch::Aarch64.number("open"), None);
    }

    #[test]
    fn architectures_of_other_machines_are_known_and_useless() {
        assert_eq!(Arch::from_scmp("SCMP_ARCH_S390X"), Some(None));
        assert_eq!(Arch::from_scmp("SCMP_ARCH_NATIVE"), Some(Some(Arch::NATIVE)));
        for name in ["", "x86_64", "SCMP_ARCH_", "SCMP_ARCH_VAX"] {
            assert_eq!(Arch::from_scmp(name), None, "{name}");
        }
    }
}
