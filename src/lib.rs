//! Berth, a Kubernetes container runtime: ARCHITECTURE.md has the picture.

pub mod capability;
pub mod config;
pub mod containers;
pub mod drivers;
pub mod ids;
pub mod images;
pub mod layout;
pub mod pods;
