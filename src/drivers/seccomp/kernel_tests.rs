//! The default filter in the kernel. Python installs it: the calls that install filters and make raw system calls are
//! unsafe in Rust, and belong to berth-sys.

use std::process::Command;

use super::*;

/// Installs the filter from the file named in argv[1] and prints the errno of each probe, 0 for none.
const PROBE: &str = r#"
import ctypes, mmap, os, sys
libc = ctypes.CDLL(None, use_errno=True)
data = open(sys.argv[1], "rb").read()
buffer = ctypes.create_string_buffer(data, len(data))
class Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
program = Program(len(data) // 8, ctypes.cast(buffer, ctypes.c_void_p))
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
# int fn(nr, a, b): push rbx; mov eax, edi; mov ebx, esi; mov ecx, edx; int 0x80; pop rbx; ret
code.write(bytes([0x53, 0x89, 0xF8, 0x89, 0xF3, 0x89, 0xD1, 0xCD, 0x80, 0x5B, 0xC3]))
address = ctypes.addressof(ctypes.c_char.from_buffer(code))
i386 = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_uint, ctypes.c_uint, ctypes.c_uint)(address)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.syscall(317, 1, 0, ctypes.byref(program)) == 0, os.strerror(ctypes.get_errno())
def native(number, *args):
    ctypes.set_errno(0)
    return ctypes.get_errno() if libc.syscall(number, *[ctypes.c_ulong(arg) for arg in args]) < 0 else 0
old = lambda number, *args: max(0, -i386(number, *(list(args) + [0, 0])[:2]))
print("status", [line.split()[1] for line in open("/proc/self/status") if line.startswith("Seccomp:")][0])
print("fork", os.waitpid(os.fork() or os._exit(0), 0)[1])
print("getpid", native(39))
print("unshare_user", native(272, 0x10000000))
print("socket_inet", native(41, 2, 1, 0))
print("socket_alg", native(41, 38, 5, 0))
print("socket_alg_wide", native(41, 0x100000026, 5, 0))
print("socket_vsock", native(41, 40, 1, 0))
print("io_uring_setup", native(425, 1, 0))
print("bpf", native(321, 0, 0, 0))
print("add_key", native(248, 0, 0, 0, 0, 0))
print("userfaultfd", native(323, 0))
print("clone3", native(435, 0, 0))
print("newer", native(511))
print("x32_getpid", native(0x40000000 + 39))
print("x32_unshare", native(0x40000000 + 272, 0x10000000))
print("i386_getpid", old(20))
print("i386_unshare_user", old(310, 0x10000000))
print("i386_socket_alg", old(359, 38, 5))
print("i386_socketcall", old(102, 1))
print("i386_io_uring_setup", old(425, 1))
print("i386_bpf", old(357))
print("i386_add_key", old(286))
"#;

/// 1 is EPERM, 38 is ENOSYS.
const EXPECTED: [&str; 23] = [
    "status 2",
    "fork 0",
    "getpid 0",
    "unshare_user 1",
    "socket_inet 0",
    "socket_alg 1",
    "socket_alg_wide 1",
    "socket_vsock 1",
    "io_uring_setup 1",
    "bpf 1",
    "add_key 1",
    "userfaultfd 1",
    "clone3 38",
    "newer 38",
    "x32_getpid 38",
    "x32_unshare 38",
    "i386_getpid 0",
    "i386_unshare_user 1",
    "i386_socket_alg 1",
    "i386_socketcall 1",
    "i386_io_uring_setup 1",
    "i386_bpf 1",
    "i386_add_key 1",
];

#[test]
fn the_kernel_enforces_the_default_filter_on_every_way_in() {
    let python = Command::new("python3").arg("--version").output();
    if !cfg!(target_arch = "x86_64") || !python.is_ok_and(|output| output.status.success()) {
        eprintln!("not run: it needs python3 on x86_64");
        return;
    }
    let filter = SeccompCache::new((6, 18)).filter(&Source::RuntimeDefault, Set::EMPTY).unwrap();
    let path = format!("/proc/{}/fd/{}", std::process::id(), filter.fd.as_raw_fd());
    let output = Command::new("python3").args(["-c", PROBE, &path]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<&str> = lines.lines().collect();
    let mut expected = EXPECTED.to_vec();
    // A kernel without 32-bit entry has nothing to protect there: the probe then dies at its first call.
    if !output.status.success() && lines.len() == 16 && !lines.iter().any(|line| line.starts_with("i386")) {
        eprintln!("not checked: this kernel has no int 0x80 ({errors})");
        expected.truncate(16);
    }
    lines.truncate(expected.len());
    assert_eq!(lines, expected, "{errors}");
}
