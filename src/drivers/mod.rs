//! One effect each, no policy: how a thing is done on Linux, on disk or on the wire.

pub mod cgroup;
pub mod host;
pub mod layers;
pub mod network;
pub mod registry;
pub mod rootfs;
pub mod seccomp;
pub mod store;
