//! Scenarios that run at the same time, each in a namespace of its own.

mod confinement;
mod debug;
mod host;
mod host_paths;
mod init;
mod logs;
mod metrics;
mod names;
mod node;
mod pulls;
mod resources;
mod restarts;
mod runtime_classes;
mod security;
mod static_pods;
mod streams;
mod user_namespaces;
mod volumes;
mod workloads;
