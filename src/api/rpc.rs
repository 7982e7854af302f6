//! Every RPC by its name: its span, and whether it changes anything. What does not live here: what it does.

use std::collections::HashMap;
use std::sync::LazyLock;

use tracing::{Span, error_span, field};

use crate::telemetry::subject::CALL;

/// One RPC.
#[derive(Clone, Copy, Debug)]
pub struct Rpc {
    /// Without its package.
    pub service: &'static str,
    /// Its name.
    pub method: &'static str,
    /// Whether it does something, or only answers a question.
    pub changes: bool,
    span: fn() -> Span,
}

impl Rpc {
    /// The RPC that an HTTP path names; None: there is no such RPC, and nothing is to be counted under its name.
    pub fn of(path: &str) -> Option<Self> {
        static BY_PATH: LazyLock<HashMap<&str, Rpc>> = LazyLock::new(|| RPCS.iter().copied().collect());
        BY_PATH.get(path).copied()
    }

    /// A span for one call; its fields are filled in as the call finds out whom it concerns (telemetry/subject.rs).
    pub fn span(self) -> Span {
        (self.span)()
    }
}

/// Whether a span of this name may begin a trace: the kubelet's questions would make thousands an hour.
pub fn begins_trace(span: &str) -> bool {
    RPCS.iter().any(|(_, rpc)| rpc.changes && rpc.method == span)
}

macro_rules! rpcs {
    ($($package:literal $service:literal {
        changes: $($verb:literal)*;
        asks: $($question:literal)*;
    })*) => {
        &[$(
            $((concat!("/", $package, ".", $service, "/", $verb), rpc!($service $verb true)),)*
            $((concat!("/", $package, ".", $service, "/", $question), rpc!($service $question false)),)*
        )*]
    };
}

macro_rules! rpc {
    ($service:literal $method:literal $changes:literal) => {
        Rpc {
            service: $service,
            method: $method,
            changes: $changes,
            span: || {
                error_span!(
                    target: CALL,
                    $method,
                    pod = field::Empty,
                    pod_id = field::Empty,
                    container = field::Empty,
                    container_id = field::Empty,
                    image = field::Empty,
                )
            },
        }
    };
}

/// By path.
const RPCS: &[(&str, Rpc)] = rpcs! {
    "runtime.v1" "RuntimeService" {
        changes:
            "RunPodSandbox" "StopPodSandbox" "RemovePodSandbox" "UpdatePodSandboxResources"
            "CreateContainer" "StartContainer" "StopContainer" "RemoveContainer" "UpdateContainerResources"
            "ReopenContainerLog" "CheckpointContainer" "CheckpointPod" "RestorePod" "ExecSync" "Exec" "Attach" "PortForward"
            "UpdateRuntimeConfig";
        asks:
            "Version" "Status" "RuntimeConfig" "PodSandboxStatus" "ListPodSandbox" "StreamPodSandboxes"
            "ContainerStatus" "ListContainers" "StreamContainers" "GetContainerEvents"
            "ContainerStats" "ListContainerStats" "StreamContainerStats"
            "PodSandboxStats" "ListPodSandboxStats" "StreamPodSandboxStats"
            "ListMetricDescriptors" "ListPodSandboxMetrics" "StreamPodSandboxMetrics";
    }
    "runtime.v1" "ImageService" {
        changes: "PullImage" "RemoveImage";
        asks: "ImageStatus" "ListImages" "StreamImages" "ImageFsInfo";
    }
    "berth.admin.v1" "Admin" {
        changes: "Pull" "Import" "Verify" "Collect";
        asks: "Dump";
    }
};

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// `/PACKAGE.SERVICE/METHOD` of each RPC in a protocol's text.
    fn declared(proto: &str) -> BTreeSet<String> {
        let (mut package, mut service) = ("", "");
        let mut found = BTreeSet::new();
        for line in proto.lines() {
            let words: Vec<_> = line.split([' ', '(', ';', '{']).filter(|word| !word.is_empty()).collect();
            match words.as_slice() {
                ["package", name, ..] => package = name,
                ["service", name, ..] => service = name,
                ["rpc", name, ..] => drop(found.insert(format!("/{package}.{service}/{name}"))),
                _ => {}
            }
        }
        found
    }

    #[test]
    fn every_rpc_is_known_and_no_other() {
        let mut expected = declared(include_str!("../../proto/cri/api.proto"));
        expected.extend(declared(include_str!("../../proto/admin/admin.proto")));
        assert!(expected.len() > 40, "{expected:?}");
        let known: BTreeSet<_> = RPCS.iter().map(|(path, _)| (*path).to_string()).collect();
        assert_eq!(known, expected);
        assert_eq!(known.len(), RPCS.len(), "one is there twice");
        assert!(Rpc::of("/runtime.v1.RuntimeService/Nothing").is_none());
    }

    #[test]
    fn a_span_has_the_name_of_its_rpc_and_room_for_its_subject() {
        tracing::subscriber::with_default(tracing_subscriber::registry(), || {
            for (path, rpc) in RPCS {
                assert!(path.ends_with(rpc.method));
                let span = rpc.span();
                let metadata = span.metadata().unwrap();
                assert_eq!((metadata.name(), metadata.target()), (rpc.method, CALL));
                for field in ["pod", "pod_id", "container", "container_id", "image"] {
                    assert!(metadata.fields().field(field).is_some(), "{field}");
                }
            }
        });
    }

    #[test]
    fn questions_begin_no_trace() {
        assert!(begins_trace("RunPodSandbox") && begins_trace("PullImage"));
        assert!(!begins_trace("ListContainers") && !begins_trace("network") && !begins_trace("pod"));
    }
}
