//! The real binary, driven over its socket. Needs root.

mod client;
mod containers;
mod hostile;
mod pod;
