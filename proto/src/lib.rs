//! The wire formats of Berth, and nothing else: CRI v1 (`cri`) and the daemon's talk with its shims (`shim`).

#[cfg(feature = "cri")]
pub mod cri;
#[cfg(feature = "shim")]
pub mod shim;
