//! Every way to fail, and the code and beginning of the message that a client sees.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use tonic::Code;

use super::{Error, status};
use crate::capability::UnknownCapability;
use crate::containers::Cause as ContainerCause;
use crate::containers::filter::FilterError;
use crate::containers::oci::SpecError;
use crate::containers::user::UserError;
use crate::drivers::bundle::Bundles;
use crate::drivers::cgroup::CgroupError;
use crate::drivers::host::DeviceError;
use crate::drivers::layers::LayerError;
use crate::drivers::layers::tar::TarError;
use crate::drivers::network::{NetworkError, Subnet};
use crate::drivers::pod_files::PodFilesError;
use crate::drivers::quota::Quotas;
use crate::drivers::registry::{Outage, Refusal, RegistryError};
use crate::drivers::rootfs::RootfsError;
use crate::drivers::shim::ShimError;
use crate::drivers::store::StoreError;
use crate::drivers::trash::Trash;
use crate::ids::{ContainerId, Digest, PodId};
use crate::images::ImageError;
use crate::images::policy::PolicyError;
use crate::layout::Layout;
use crate::pods::Cause as PodCause;

fn full() -> io::Error {
    ErrorKind::StorageFull.into()
}

fn odd() -> io::Error {
    ErrorKind::Other.into()
}

#[track_caller]
fn check(table: Vec<(Error, Code)>) {
    for (error, code) in table {
        let answered = status(error);
        assert_eq!(answered.code(), code, "{answered}");
        assert!(answered.message().len() > 10, "{answered}");
    }
}

fn shim_errors(pod: &PodId) -> Vec<(ShimError, Code)> {
    let refused =
        |errno| ShimError::Refused { step: "exec".into(), errno, message: "cannot execute /x".into() };
    let pod = || pod.clone();
    vec![
        (refused(2), Code::InvalidArgument),
        (refused(5), Code::Internal),
        (ShimError::Gone { pod: pod() }, Code::Unavailable),
        (
            ShimError::Timeout { pod: pod(), verb: "start", after: Duration::from_secs(1) },
            Code::DeadlineExceeded,
        ),
        (ShimError::Protocol { pod: pod(), verb: "start" }, Code::Internal),
        (ShimError::Io { step: "open", path: "/x".into(), source: full() }, Code::ResourceExhausted),
    ]
}

fn cgroup_errors() -> Vec<(CgroupError, Code)> {
    let write =
        CgroupError::Write { resource: "memory limit", path: "/x".into(), value: "1".into(), source: odd() };
    let resource = CgroupError::Resource { resource: "cpu shares", value: "1".into(), reason: "is too low" };
    let unenforceable =
        CgroupError::Unenforceable { resource: "cpu shares", value: "1".into(), file: "cpu.weight".into() };
    vec![
        (CgroupError::NoHierarchy, Code::Internal),
        (CgroupError::Parent { parent: "..".into(), reason: "leaves its place" }, Code::InvalidArgument),
        (resource, Code::InvalidArgument),
        (unenforceable, Code::InvalidArgument),
        (write, Code::InvalidArgument),
        (CgroupError::Create { path: "/x".into(), source: full() }, Code::ResourceExhausted),
        (CgroupError::Read { path: "/x".into(), source: odd() }, Code::Internal),
        (CgroupError::Unkillable { path: "/x".into(), processes: Vec::new() }, Code::DeadlineExceeded),
    ]
}

#[test]
fn failures_of_pods_have_their_codes() {
    let id = PodId::generate();
    let container = ContainerCause::Unknown.of("c");
    let network = NetworkError::from(Subnet::parse("no subnet").unwrap_err());
    let files = PodFilesError::Io { verb: "write", path: "/x".into(), source: full() };
    let mut causes = vec![
        (PodCause::Unknown, Code::NotFound),
        (PodCause::Ambiguous, Code::InvalidArgument),
        (PodCause::Duplicate(id.clone()), Code::AlreadyExists),
        (PodCause::NotReady, Code::FailedPrecondition),
        (PodCause::NoHandler { handler: "kata".into(), known: "\"\"".into() }, Code::InvalidArgument),
        (PodCause::Network(Box::new(network)), Code::InvalidArgument),
        (PodCause::Files(files), Code::ResourceExhausted),
        (PodCause::Store(StoreError::Closed("/x".into())), Code::Internal),
        (PodCause::Container(container), Code::NotFound),
        (PodCause::Stopping, Code::Unavailable),
    ];
    causes.extend(shim_errors(&id).into_iter().map(|(error, code)| (error.into(), code)));
    causes.extend(cgroup_errors().into_iter().map(|(error, code)| (error.into(), code)));
    check(causes.into_iter().map(|(cause, code)| (cause.of("ns/pod").into(), code)).collect());
}

#[test]
fn failures_of_containers_have_their_codes() {
    let (pod, id) = (PodId::generate(), ContainerId::generate());
    let volume = ContainerCause::NoVolumeSource { path: "/x".into(), target: "/y".into() };
    let wrong_state = ContainerCause::State { is: "exited", wanted: "running" };
    let immortal = ContainerCause::Immortal { pid: 7, seconds: 20, wchan: "nfs".into() };
    let late = ContainerCause::ExecTimeout { command: "sh".into(), seconds: 1 };
    let nobody = UserError::NoUser { name: "ann".into(), image: "x".into() };
    let pipe = RootfsError::NotRegular { path: "/etc/passwd".into() };
    let layers = LayerError::Io { verb: "make", path: "/x".into(), source: full() };
    let empty = tempfile::tempdir().unwrap();
    let layout = Layout::new(empty.path(), empty.path());
    let bundles = Bundles::new(layout.clone(), Trash::new(&layout), Quotas::open(&layout, 0));
    let bundle = bundles.read_config(&id).unwrap_err();
    let mut causes = vec![
        (ContainerCause::Unknown, Code::NotFound),
        (ContainerCause::Ambiguous, Code::InvalidArgument),
        (ContainerCause::Duplicate { pod: pod.clone(), id }, Code::AlreadyExists),
        (ContainerCause::SandboxNotReady(pod.clone()), Code::FailedPrecondition),
        (ContainerCause::NoImage("x".into()), Code::NotFound),
        (wrong_state, Code::FailedPrecondition),
        (volume, Code::InvalidArgument),
        (DeviceError::NotDevice { path: "/x".into() }.into(), Code::InvalidArgument),
        (SpecError::OomScoreAdj { value: 1001 }.into(), Code::InvalidArgument),
        (nobody.into(), Code::InvalidArgument),
        (pipe.into(), Code::InvalidArgument),
        (FilterError::from(UnknownCapability("X".into())).into(), Code::InvalidArgument),
        (layers.into(), Code::ResourceExhausted),
        (bundle.into(), Code::Internal),
        (StoreError::Closed("/x".into()).into(), Code::Internal),
        (immortal, Code::DeadlineExceeded),
        (late, Code::DeadlineExceeded),
        (ContainerCause::Io { step: "make a pipe", source: odd() }, Code::Internal),
        (ContainerCause::NoLog, Code::FailedPrecondition),
        (ContainerCause::NoCommand, Code::InvalidArgument),
        (ContainerCause::Stopping, Code::Unavailable),
    ];
    causes.extend(shim_errors(&pod).into_iter().map(|(error, code)| (error.into(), code)));
    causes.extend(cgroup_errors().into_iter().map(|(error, code)| (error.into(), code)));
    check(causes.into_iter().map(|(cause, code)| (cause.of("main").into(), code)).collect());
}

fn registry_errors() -> Vec<(RegistryError, Code)> {
    let (object, host) = ("manifest".to_string(), "host".to_string());
    let refusal =
        || Refusal { object: object.clone(), host: host.clone(), status: 400, detail: String::new() };
    let down = |cause| RegistryError::Unavailable { object: object.clone(), host: host.clone(), cause };
    let certificates = Outage::Certificates { path: "/x".into(), reason: "it is empty".into() };
    let slow = RegistryError::NoProgress {
        object: object.clone(),
        host: host.clone(),
        bytes: 1,
        waited: Duration::from_secs(1),
    };
    let wrong = RegistryError::DigestMismatch {
        object: object.clone(),
        host: host.clone(),
        expected: Digest::of(b"a"),
        actual: Digest::of(b"b"),
    };
    let limited =
        RegistryError::RateLimited { object: object.clone(), host: host.clone(), retry_after: None };
    vec![
        (RegistryError::NotFound(refusal()), Code::NotFound),
        (RegistryError::Unauthorized(refusal()), Code::PermissionDenied),
        (RegistryError::Denied(refusal()), Code::PermissionDenied),
        (RegistryError::Unexpected(refusal()), Code::Unavailable),
        (limited, Code::Unavailable),
        (down(Outage::Connection("connection refused".into())), Code::Unknown),
        (down(Outage::Status(503)), Code::Unknown),
        (down(certificates), Code::FailedPrecondition),
        (RegistryError::Cut { object: object.clone(), host: host.clone(), at: 1, size: 2 }, Code::Unknown),
        (slow, Code::DeadlineExceeded),
        (wrong, Code::DataLoss),
        (
            RegistryError::SizeMismatch {
                object: object.clone(),
                host: host.clone(),
                expected: 1,
                actual: 2,
            },
            Code::DataLoss,
        ),
        (RegistryError::WrongRange { object: object.clone(), host: host.clone(), at: 1 }, Code::DataLoss),
        (
            RegistryError::BadAnswer { object: object.clone(), host: host.clone(), what: "token" },
            Code::DataLoss,
        ),
        (RegistryError::TooLarge { object: object.clone(), limit: 1 }, Code::ResourceExhausted),
        (RegistryError::TooManyRedirects { object, host: host.clone(), limit: 1 }, Code::FailedPrecondition),
        (RegistryError::UnsafeRealm { host, realm: "file:".into() }, Code::PermissionDenied),
    ]
}

#[test]
fn failures_of_images_have_their_codes() {
    let image = || "registry/app:v1".to_string();
    let digest = || Digest::of(b"");
    let full = || Arc::new(LayerError::DiskFull { path: "/x".into(), free: 0 });
    let wrong = ImageError::DigestMismatch { image: image(), expected: digest(), actual: digest() };
    let short = ImageError::SizeMismatch { image: image(), blob: digest(), expected: 1, actual: 2 };
    let other =
        ImageError::DiffIdMismatch { image: image(), layer: digest(), expected: digest(), actual: digest() };
    let foreign =
        ImageError::NoPlatform { image: image(), wanted: "linux/amd64".into(), offered: "s390x".into() };
    let mut table = vec![
        (foreign, Code::NotFound),
        (ImageError::Layer { image: image(), layer: digest(), source: full() }, Code::ResourceExhausted),
        (ImageError::Cache { image: image(), source: full() }, Code::ResourceExhausted),
        (ImageError::Upload(full()), Code::ResourceExhausted),
        (wrong, Code::DataLoss),
        (short, Code::DataLoss),
        (other, Code::DataLoss),
        (
            ImageError::Store { image: image(), source: Arc::new(StoreError::Closed("/x".into())) },
            Code::Internal,
        ),
        (ImageError::Archive(Arc::new(TarError::Read { offset: 1, source: odd() })), Code::InvalidArgument),
        (ImageError::ReadArchive(Arc::new(odd())), Code::Internal),
        (ImageError::ArchiveLacks("index.json".into()), Code::InvalidArgument),
        (ImageError::ArchiveTooLarge(1), Code::ResourceExhausted),
        (ImageError::Interrupted { image: image() }, Code::Unavailable),
        (unsigned(), Code::Unknown),
    ];
    table.extend(
        registry_errors()
            .into_iter()
            .map(|(source, code)| (ImageError::Registry { image: image(), source: Arc::new(source) }, code)),
    );
    check(table.into_iter().map(|(error, code)| (error.into(), code)).collect());
}

fn unsigned() -> ImageError {
    let (scope, digest) = ("quay.io/team".to_string(), Digest::of(b""));
    let source = Arc::new(PolicyError::Unsigned { scope, digest });
    ImageError::NotAdmitted { image: "x".into(), source }
}

#[test]
fn the_kubelet_finds_the_words_that_it_looks_for() {
    let answered = status(unsigned());
    assert!(
        answered.message().starts_with("SignatureValidationFailed: image \"x\" is not admitted: "),
        "{answered}"
    );
    for (source, code) in registry_errors() {
        let answered = status(ImageError::Registry { image: "x".into(), source: Arc::new(source) });
        let named = answered.message().starts_with("RegistryUnavailable: ");
        assert_eq!(named, code == Code::Unknown, "{answered}");
    }
}
