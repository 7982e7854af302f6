//! The real binary, driven over its socket. Needs root.
#![allow(clippy::unwrap_used, reason = "a test that can not go on ends")]

mod attached;
mod client;
mod containers;
mod execs;
mod hostile;
mod pod;
