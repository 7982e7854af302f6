//! bpf(2) for device filters of control groups. What does not live here: what the program says.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const PROG_QUERY: libc::c_long = 16;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 1 << 1;

/// One instruction in the kernel's own layout (`struct bpf_insn`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u8,
    /// Destination register in the low four bits, source register in the high four.
    pub registers: u8,
    /// Signed jump distance or memory offset.
    pub offset: i16,
    /// Signed constant.
    pub immediate: i32,
}

#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

#[repr(C)]
#[derive(Default)]
struct AttachAttr {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_count: u32,
    padding: u32,
}

/// Calls bpf(2) with an attribute block.
///
/// # Safety
/// `attr` must be the block that `command` expects, and every address in it must be valid for what the command does with it.
unsafe fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is a live, exclusively borrowed block whose true size is passed; its contents are the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

/// Loads a device filter (`BPF_PROG_TYPE_CGROUP_DEVICE`); the kernel verifies it first. Needs CAP_BPF or CAP_SYS_ADMIN.
pub fn load_device_filter(program: &[Instruction]) -> io::Result<OwnedFd> {
    // The program calls no helper, so the kernel asks for no particular license.
    let license = c"Apache-2.0";
    let mut attr = LoadAttr {
        prog_type: TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?,
        insns: program.as_ptr().addr() as u64,
        license: license.as_ptr().addr() as u64,
        prog_name: *b"berth_devices\0\0\0",
        ..LoadAttr::default()
    };
    // SAFETY: PROG_LOAD reads `insn_cnt` instructions and a C string; both outlive the call and are only read.
    let fd = unsafe { bpf(PROG_LOAD, &mut attr) }?;
    let fd = i32::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
    // SAFETY: the kernel has just made this descriptor for us (close-on-exec), nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a filter to a cgroup v2 directory beside those that are there: an access must then pass all of them.
/// The filter lives as long as the cgroup.
pub fn attach_device_filter(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = AttachAttr {
        target_fd: raw(cgroup),
        attach_bpf_fd: raw(program),
        attach_type: ATTACH_CGROUP_DEVICE,
        attach_flags: ALLOW_MULTI,
    };
    // SAFETY: PROG_ATTACH takes numbers only; both descriptors are borrowed for the call.
    unsafe { bpf(PROG_ATTACH, &mut attr) }.map(drop)
}

/// How many device filters are attached to this cgroup itself.
pub fn count_device_filters(cgroup: BorrowedFd<'_>) -> io::Result<u32> {
    let mut attr =
        QueryAttr { target_fd: raw(cgroup), attach_type: ATTACH_CGROUP_DEVICE, ..QueryAttr::default() };
    // SAFETY: with no room for ids (`prog_ids` 0, `prog_count` 0) PROG_QUERY writes into the block only.
    unsafe { bpf(PROG_QUERY, &mut attr) }?;
    Ok(attr.prog_count)
}
