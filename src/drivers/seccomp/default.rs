//! Berth's own profile, `RuntimeDefault`: an allow list, by purpose. What is not listed answers EPERM; what is newer than
//! the list answers ENOSYS. What does not live here: how it is compiled.
//!
//! Left out on purpose: io_uring, userfaultfd and keyrings (long lists of kernel holes, and keyrings are not namespaced),
//! AF_ALG and AF_VSOCK sockets (kernel crypto, and a way to the hypervisor), new user namespaces. i386's socketcall may not
//! make sockets, for a filter can't see which kind; its own call `socket` may.

use super::arch::Arch;
use super::profile::{Action, Compare, Condition, Profile, Rule, When};
use crate::capability::{Capability, Set};

/// Allowed to everybody.
const ALWAYS: [(&str, &str); 14] = [
    (
        "open, read, write and close",
        "read write open openat openat2 close close_range creat lseek _llseek pread64 pwrite64 readv writev \
         preadv pwritev preadv2 pwritev2 dup dup2 dup3 fcntl fcntl64 ioctl flock pipe pipe2 sendfile \
         sendfile64 splice tee vmsplice copy_file_range readahead fadvise64 fadvise64_64 arm_fadvise64_64 \
         fallocate truncate truncate64 ftruncate ftruncate64 fsync fdatasync sync syncfs sync_file_range \
         arm_sync_file_range memfd_create memfd_secret cachestat",
    ),
    (
        "names and attributes of files",
        "stat stat64 fstat fstat64 lstat lstat64 newfstatat fstatat64 statx statfs statfs64 fstatfs fstatfs64 \
         access faccessat faccessat2 chmod fchmod fchmodat fchmodat2 chown chown32 fchown fchown32 lchown \
         lchown32 fchownat umask utime utimes utimensat utimensat_time64 futimesat mkdir mkdirat rmdir rename \
         renameat renameat2 link linkat unlink unlinkat symlink symlinkat readlink readlinkat mknod mknodat \
         getcwd chdir fchdir getdents getdents64 name_to_handle_at file_getattr file_setattr statmount \
         listmount",
    ),
    (
        "extended attributes",
        "getxattr lgetxattr fgetxattr getxattrat setxattr lsetxattr fsetxattr setxattrat listxattr llistxattr \
         flistxattr listxattrat removexattr lremovexattr fremovexattr removexattrat",
    ),
    (
        "waiting for files",
        "select _newselect pselect6 pselect6_time64 poll ppoll ppoll_time64 epoll_create epoll_create1 \
         epoll_ctl epoll_ctl_old epoll_wait epoll_wait_old epoll_pwait epoll_pwait2 eventfd eventfd2 signalfd \
         signalfd4 inotify_init inotify_init1 inotify_add_watch inotify_rm_watch fanotify_mark io_setup \
         io_destroy io_submit io_cancel io_getevents io_pgetevents io_pgetevents_time64",
    ),
    (
        "memory",
        "brk mmap mmap2 munmap mremap mprotect pkey_alloc pkey_free pkey_mprotect madvise mincore msync mlock \
         mlock2 munlock mlockall munlockall remap_file_pages membarrier mseal map_shadow_stack",
    ),
    (
        "processes and threads",
        "fork vfork execve execveat exit exit_group wait4 waitid waitpid getpid getppid gettid getpgid \
         getpgrp setpgid getsid setsid set_tid_address set_robust_list get_robust_list set_thread_area \
         get_thread_area arch_prctl modify_ldt rseq prctl futex futex_time64 futex_waitv futex_wake \
         futex_wait futex_requeue pidfd_open pidfd_send_signal process_mrelease ptrace process_vm_readv \
         process_vm_writev uretprobe restart_syscall",
    ),
    ("32-bit ARM's own", "breakpoint cacheflush set_tls get_tls"),
    (
        "users, groups and capabilities",
        "getuid getuid32 geteuid geteuid32 getgid getgid32 getegid getegid32 getresuid getresuid32 getresgid \
         getresgid32 setuid setuid32 setgid setgid32 setreuid setreuid32 setregid setregid32 setresuid \
         setresuid32 setresgid setresgid32 setfsuid setfsuid32 setfsgid setfsgid32 getgroups getgroups32 \
         setgroups setgroups32 capget capset",
    ),
    (
        "confining oneself further",
        "seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self lsm_get_self_attr \
         lsm_set_self_attr lsm_list_modules",
    ),
    (
        "signals",
        "rt_sigaction rt_sigprocmask rt_sigpending rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 \
         rt_sigqueueinfo rt_tgsigqueueinfo rt_sigreturn sigaltstack kill tkill tgkill pause sigaction \
         sigprocmask sigpending sigsuspend sigreturn signal",
    ),
    (
        "time",
        "time gettimeofday nanosleep clock_gettime clock_gettime64 clock_getres clock_getres_time64 \
         clock_nanosleep clock_nanosleep_time64 clock_adjtime clock_adjtime64 adjtimex times alarm getitimer \
         setitimer timer_create timer_delete timer_settime timer_settime64 timer_gettime timer_gettime64 \
         timer_getoverrun timerfd_create timerfd_settime timerfd_settime64 timerfd_gettime timerfd_gettime64",
    ),
    (
        "sockets, once they exist",
        "socketpair bind connect listen accept accept4 getsockname getpeername getsockopt setsockopt shutdown \
         send sendto sendmsg sendmmsg recv recvfrom recvmsg recvmmsg recvmmsg_time64",
    ),
    (
        "messages, semaphores and shared memory",
        "ipc msgget msgctl msgsnd msgrcv semget semctl semop semtimedop semtimedop_time64 shmget shmctl shmat \
         shmdt mq_open mq_unlink mq_notify mq_getsetattr mq_timedsend mq_timedsend_time64 mq_timedreceive \
         mq_timedreceive_time64",
    ),
    (
        "the system, limits and scheduling",
        "uname sysinfo getcpu getrandom getrlimit ugetrlimit setrlimit prlimit64 getrusage getpriority \
         setpriority nice ioprio_get ioprio_set sched_yield sched_getparam sched_setparam sched_getscheduler \
         sched_setscheduler sched_get_priority_min sched_get_priority_max sched_rr_get_interval \
         sched_rr_get_interval_time64 sched_getaffinity sched_setaffinity sched_getattr sched_setattr",
    ),
];

/// Allowed to those who have one of the capabilities; without it the kernel would refuse most of them anyway.
const BY_CAPABILITY: [(&[&str], &str); 14] = [
    (
        &["SYS_ADMIN"],
        "clone clone3 unshare setns mount umount umount2 mount_setattr move_mount open_tree open_tree_attr \
         fsopen fsconfig fsmount fspick fanotify_init quotactl quotactl_fd sethostname setdomainname \
         lookup_dcookie",
    ),
    (&["SYS_ADMIN", "BPF"], "bpf"),
    (&["SYS_ADMIN", "PERFMON"], "perf_event_open"),
    (&["SYS_ADMIN", "SYSLOG"], "syslog"),
    (&["DAC_READ_SEARCH"], "open_by_handle_at"),
    (&["SYS_BOOT"], "reboot kexec_load kexec_file_load"),
    (&["SYS_CHROOT"], "chroot"),
    (&["SYS_MODULE"], "init_module finit_module delete_module"),
    (&["SYS_PACCT"], "acct"),
    (&["SYS_PTRACE"], "kcmp pidfd_getfd process_madvise"),
    (&["SYS_RAWIO"], "iopl ioperm"),
    (&["SYS_TIME"], "settimeofday stime clock_settime clock_settime64"),
    (&["SYS_TTY_CONFIG"], "vhangup"),
    (&["SYS_NICE"], "get_mempolicy set_mempolicy set_mempolicy_home_node mbind migrate_pages move_pages"),
];

/// CLONE_NEW* of clone(2): mount, cgroup, UTS, IPC, user, PID and network namespaces.
const NAMESPACES: u64 = 0x7e02_0000;
const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;
/// SYS_SOCKET of socketcall(2).
const SOCKETCALL_SOCKET: u64 = 1;
/// PER_LINUX, PER_LINUX32, each with and without UNAME26, and the question for the current one (personality(2)).
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
const EPERM: Action = Action::Errno(1);
const ENOSYS: Action = Action::Errno(38);

/// The profile, for any set of capabilities.
pub(super) fn profile() -> Profile {
    let mut rules: Vec<Rule> =
        ALWAYS.iter().map(|(_, names)| rule(names, Action::Allow, vec![], When::default())).collect();
    for (capabilities, names) in BY_CAPABILITY {
        rules.push(rule(names, Action::Allow, vec![], When { any_of: set(capabilities), ..When::default() }));
    }
    let unprivileged = When { without: set(&["SYS_ADMIN"]), ..When::default() };
    let no_namespaces = Condition { index: 0, compare: Compare::Masked(NAMESPACES), value: 0, narrow: false };
    rules.push(rule("clone", Action::Allow, vec![no_namespaces], unprivileged.clone()));
    // Its flags are in memory, out of a filter's sight; libraries take ENOSYS for an old kernel and use clone.
    rules.push(rule("clone3", ENOSYS, vec![], unprivileged));
    let families = vec![narrow(Compare::Ne, AF_ALG), narrow(Compare::Ne, AF_VSOCK)];
    rules.push(rule("socket", Action::Allow, families, When::default()));
    let old = vec![narrow(Compare::Ne, SOCKETCALL_SOCKET)];
    rules.push(rule("socketcall", Action::Allow, old, When::default()));
    for persona in PERSONALITIES {
        let known = vec![narrow(Compare::Eq, persona)];
        rules.push(rule("personality", Action::Allow, known, When::default()));
    }
    let arches = match Arch::NATIVE {
        Arch::Aarch64 | Arch::Arm => vec![Arch::Aarch64, Arch::Arm],
        Arch::X86_64 | Arch::X86 | Arch::X32 => vec![Arch::X86_64, Arch::X86],
    };
    Profile { default: EPERM, arches, rules, flags: Vec::new() }
}

fn rule(names: &str, action: Action, conditions: Vec<Condition>, when: When) -> Rule {
    Rule { names: names.split_whitespace().map(String::from).collect(), action, conditions, when }
}

fn narrow(compare: Compare, value: u64) -> Condition {
    Condition { index: 0, compare, value, narrow: true }
}

fn set(names: &[&str]) -> Set {
    names.iter().filter_map(|name| Capability::parse(name).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_a_call_somewhere_and_listed_once() {
        let arches = [Arch::X86_64, Arch::X86, Arch::X32, Arch::Aarch64, Arch::Arm];
        let unconditional = ALWAYS.iter().flat_map(|(_, names)| names.split_whitespace());
        let by_capability = BY_CAPABILITY.iter().flat_map(|(_, names)| names.split_whitespace());
        let mut names: Vec<_> = unconditional.chain(by_capability).collect();
        let unknown: Vec<_> =
            names.iter().filter(|name| arches.iter().all(|arch| arch.number(name).is_none())).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        let capabilities = BY_CAPABILITY.iter().flat_map(|(capabilities, _)| *capabilities);
        assert!(capabilities.into_iter().all(|name| Capability::parse(name).is_ok()));
    }
}
