//! Linux calls that rustix and nix do not make safe, each behind a safe function.
//! What lives here: one thin wrapper a system call, with its errno as `std::io::Error`; and `sha256`, for processors'
//! instructions are unsafe too. What does not: policy.

pub mod bpf;
pub mod capability;
pub mod clone;
pub mod fork;
pub mod inherit;
pub mod malloc;
pub mod mount;
pub mod path;
pub mod process;
pub mod quota;
pub mod seccomp;
pub mod sha256;
pub mod socket;
pub mod user_namespace;
pub mod writeback;
