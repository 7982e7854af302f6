//! What the kubelet sees: convert, validate, map errors. No decisions here.

pub mod admin;
pub mod cri;
pub mod metrics;
mod observe;
pub mod rpc;
pub mod server;
pub mod streaming;
