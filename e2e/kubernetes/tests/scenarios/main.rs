//! Scenarios that run at the same time, each in a namespace of its own.

mod debug;
mod init;
mod logs;
mod metrics;
mod node;
mod restarts;
mod static_pods;
mod streams;
mod workloads;
