//! Berth, a Kubernetes container runtime: ARCHITECTURE.md has the picture.

pub mod activity;
pub mod api;
mod arrows;
pub mod calls;
pub mod capability;
pub mod channel;
pub mod cli;
pub mod clock;
pub mod config;
pub mod containers;
pub mod daemon;
pub mod drivers;
pub mod error;
pub mod events;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod health;
pub mod ids;
pub mod images;
pub mod layout;
pub mod looks;
pub mod node;
pub mod pods;
pub mod rollback;
pub mod spread;
pub mod telemetry;
