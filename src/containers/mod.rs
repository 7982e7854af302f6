//! Containers: what was asked for (`spec`), and one verb a file. No system calls, no CRI types.

pub mod filter;
pub mod oci;
pub mod signal;
pub mod spec;
pub mod user;
