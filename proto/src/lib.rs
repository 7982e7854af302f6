//! The wire formats of Berth, and nothing else: CRI v1 (`cri`), the command line's own service (`admin`)
//! and the daemon's talk with its shims (`shim`).

#[cfg(feature = "admin")]
pub mod admin;
#[cfg(feature = "cri")]
pub mod cri;
#[cfg(feature = "shim")]
pub mod shim;
