//! A one-node Kubernetes cluster on Berth (`cluster` brings it up), and what its users see of it through kubectl
//! (`tests/scenarios`, by subject, and `tests/disturbances`).
//!
//! # How a scenario is written
//! ```ignore
//! #[test]
//! fn a_job_completes() -> Result<()> {
//!     scenario("job", |s| {                         // a namespace of its own, deleted at the end
//!         s.apply(&format!("{{...YAML or JSON, with image: {BUSYBOX}...}}"))?;
//!         s.wait("job/pi", "condition=Complete")?;  // kubectl wait
//!         assert_eq!(s.kubectl(&["logs", "job/pi"])?, "3");
//!         Ok(())
//!     })
//! }
//! ```
//! Scenarios run at the same time. One that disturbs the node (restarts a daemon, fills the disk, cordons) belongs to
//! `tests/disturbances`, is written with `disturbance`, and runs alone. A failure prints the namespace's pods and events and the ends of the
//! logs of kubelet and runtime. Expect a slow machine: wait for what a user would see, never for a time.
//!
//! `pods` says pods in few words: `s.said("id", alone(shell("id -u")))?`.
//!
//! `Scenario::restart("kubelet" | "runtime", signal)` ends a daemon, which is started again at once, as systemd does.
//! Images (`images`): agnhost, busybox, nginx, httpd, pause. By hand, with kubectl and KUBECONFIG in place:
//! `make e2e-kubernetes K8S_COMMAND=bash`.

pub mod chart;
pub mod cluster;
pub mod control_plane;
pub mod credentials;
pub mod daemon;
pub mod directory;
pub mod images;
pub mod isolation;
pub mod kubelet;
pub mod machine;
pub mod pods;

pub mod scenario;
