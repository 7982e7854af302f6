//! Why a registry did not give what was asked. Nothing here ever holds a secret, a query string or a body's raw text.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::Kind;
use crate::ids::Digest;

/// A host's refusal of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What was asked for, as a user knows it: `docker.io/library/busybox:latest`.
    pub object: String,
    /// Who refused: host and optional port.
    pub host: String,
    /// The HTTP status.
    pub status: u16,
    /// Code and message of the answer's error document (distribution-spec, "Error Codes"), or empty.
    pub detail: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} answered {}", self.object, self.host, self.status)?;
        match self.detail.as_str() {
            "" => Ok(()),
            detail => write!(f, " ({detail})"),
        }
    }
}

/// Why a registry could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum Outage {
    /// DNS, TCP, TLS, or a connection that broke before an answer came.
    #[error("{0}")]
    Connection(String),
    /// The server is there, but says that it can't: 408 or 5xx.
    #[error("the server answered {0}")]
    Status(u16),
    /// A damaged or missing certificate, key or trust store of ours.
    #[error("cannot use {path}: {reason}")]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// Why an object could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No such repository, tag, manifest or blob.
    #[error("not found: {0}")]
    NotFound(Refusal),
    /// Credentials are missing or wrong, or the repository does not exist: registries do not tell which.
    #[error("authorization failed, or the repository does not exist: {0}")]
    Unauthorized(Refusal),
    /// The credentials are right, and do not suffice.
    #[error("access denied: {0}")]
    Denied(Refusal),
    /// The host allows no more requests for now.
    #[error("{host} limits the rate of requests for {object}{}", retry_text(*.retry_after))]
    RateLimited {
        /// What was asked for.
        object: String,
        /// Who refused.
        host: String,
        /// How long the host asked to wait.
        retry_after: Option<Duration>,
    },
    /// The host cannot be reached or fails; another try later may work. The kubelet knows this as RegistryUnavailable.
    #[error("registry {host} is unavailable for {object}")]
    Unavailable {
        /// What was asked for.
        object: String,
        /// Who failed.
        host: String,
        /// Why.
        #[source]
        cause: Outage,
    },
    /// Any other status that is no success.
    #[error("unexpected answer for {0}")]
    Unexpected(Refusal),
    /// The bytes are not what the digest promises.
    #[error("{object} from {host} has digest {actual}, expected {expected}")]
    DigestMismatch {
        /// What was asked for.
        object: String,
        /// Who sent it.
        host: String,
        /// What the descriptor or header promised.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// The bytes are more or fewer than the descriptor promises.
    #[error("{object} from {host} has {actual} bytes or more, expected {expected}")]
    SizeMismatch {
        /// What was asked for.
        object: String,
        /// Who sent it.
        host: String,
        /// Bytes that the descriptor promised.
        expected: u64,
        /// Bytes that came, or were announced.
        actual: u64,
    },
    /// More bytes than Berth takes for this kind of object.
    #[error("{object} is larger than the limit of {limit} bytes")]
    TooLarge {
        /// What was asked for.
        object: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// The host stopped sending, or sends so slowly that it would never end.
    #[error("{host} made no progress on {object} for {} s, after {bytes} bytes", .waited.as_secs())]
    NoProgress {
        /// What was asked for.
        object: String,
        /// Who stalled.
        host: String,
        /// Bytes that came before.
        bytes: u64,
        /// How long nothing came.
        waited: Duration,
    },
    /// The connection broke within a body, more often than retries allow.
    #[error("{host} broke the connection at byte {at} of {size} of {object}, again and again")]
    Cut {
        /// What was asked for.
        object: String,
        /// Who broke it.
        host: String,
        /// Bytes that came.
        at: u64,
        /// Bytes expected.
        size: u64,
    },
    /// An answer to a Range request that is not the range.
    #[error("{host} sent another range of {object} than was asked for (from byte {at})")]
    WrongRange {
        /// What was asked for.
        object: String,
        /// Who answered.
        host: String,
        /// First byte that was asked for.
        at: u64,
    },
    /// A manifest of a kind that Berth does not take, or whose document contradicts its Content-Type.
    #[error("{object} from {host} has media type {media_type:?}: {reason}")]
    BadMediaType {
        /// What was asked for.
        object: String,
        /// Who sent it.
        host: String,
        /// What the answer claims.
        media_type: String,
        /// Why that is refused.
        reason: &'static str,
    },
    /// A header or document that breaks the protocol.
    #[error("{host} sent a bad {what} for {object}")]
    BadAnswer {
        /// What was asked for.
        object: String,
        /// Who sent it.
        host: String,
        /// Which part of the answer.
        what: &'static str,
    },
    /// More redirects than anyone needs.
    #[error("{host} redirects {object} more than {limit} times")]
    TooManyRedirects {
        /// What was asked for.
        object: String,
        /// The last host.
        host: String,
        /// The limit.
        limit: usize,
    },
    /// A redirect from https to http, or to something that is neither.
    #[error("{host} redirects {object} to {target}, which is refused")]
    UnsafeRedirect {
        /// What was asked for.
        object: String,
        /// Who redirects.
        host: String,
        /// Scheme and host of the target.
        target: String,
    },
    /// A token server that must not see credentials: not https, or not where the registry may point.
    #[error("{host} asks to send credentials to {realm}, which is refused")]
    UnsafeRealm {
        /// Who asks.
        host: String,
        /// Scheme and host of the token server.
        realm: String,
    },
    /// Credentials that can't be understood. Never shows them.
    #[error("the credentials for {registry} are malformed: {reason}")]
    BadCredentials {
        /// For which registry.
        registry: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// A hosts.toml, registries.conf or auth.json that can't be read or understood. Never shows a secret.
    #[error("{path}{}: {reason}", line_text(*.line))]
    BadFile {
        /// The file.
        path: PathBuf,
        /// Line of the mistake, from 1.
        line: Option<usize>,
        /// What is wrong.
        reason: String,
    },
    /// registries.conf forbids it.
    #[error("{object} is blocked by {file}")]
    Blocked {
        /// What was asked for.
        object: String,
        /// The file of the entry.
        file: PathBuf,
    },
    /// A name without a registry, by which registries.conf means another image than Berth would take.
    #[error(
        "{name:?} names no registry, and {file} would look for {meant}: write the name with its registry"
    )]
    ShortName {
        /// As it was written, without tag and digest.
        name: String,
        /// Who means something else.
        file: PathBuf,
        /// What that is.
        meant: String,
    },
    /// Credentials that only a program could tell.
    #[error(
        "{file} leaves the credentials for {host} to the program {program}, and Berth runs none: use imagePullSecrets \
         or the kubelet's credential providers"
    )]
    CredentialProgram {
        /// The auth.json.
        file: PathBuf,
        /// Whose credentials.
        host: String,
        /// docker-credential-NAME.
        program: String,
    },
    /// hosts.toml leaves no host for this operation.
    #[error("no host of {registry} may {capability}: see {path}")]
    NoHost {
        /// Of which registry.
        registry: String,
        /// `pull` or `resolve`.
        capability: &'static str,
        /// The directory of configurations.
        path: PathBuf,
    },
}

impl RegistryError {
    /// Whether the same request to the same host may work soon.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::RateLimited { .. } => true,
            Self::Unavailable { cause, .. } => {
                !matches!(cause, Outage::Certificates { .. } | Outage::Status(501 | 505))
            }
            _ => false,
        }
    }

    /// Whether an operator should look at a mirror that failed so; a mirror that lacks an image is nothing special.
    pub(super) fn is_worth_a_warning(&self) -> bool {
        !matches!(self, Self::NotFound(_))
    }
}

fn retry_text(after: Option<Duration>) -> String {
    after.map(|after| format!("; it asks to wait {} s", after.as_secs())).unwrap_or_default()
}

fn line_text(line: Option<usize>) -> String {
    line.map(|line| format!(" line {line}")).unwrap_or_default()
}

/// What broke, down the chain of causes, without the URL: its query may hold a secret.
pub(super) fn connection(error: reqwest::Error) -> Outage {
    let error = error.without_url();
    let mut parts = vec![error.to_string()];
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        let text = cause.to_string();
        if !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
        source = cause.source();
    }
    Outage::Connection(parts.join(": "))
}

impl RegistryError {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NotFound(_) => Kind::NotFound,
            Self::Unauthorized(_)
            | Self::Denied(_)
            | Self::UnsafeRealm { .. }
            | Self::UnsafeRedirect { .. }
            | Self::Blocked { .. }
            | Self::BadCredentials { .. } => Kind::PermissionDenied,
            Self::Unavailable { cause: Outage::Certificates { .. }, .. } => Kind::FailedPrecondition,
            Self::Unavailable { .. } | Self::Cut { .. } => Kind::RegistryUnavailable,
            Self::RateLimited { .. } | Self::Unexpected(_) => Kind::Unavailable,
            Self::NoProgress { .. } => Kind::DeadlineExceeded,
            Self::DigestMismatch { .. }
            | Self::SizeMismatch { .. }
            | Self::WrongRange { .. }
            | Self::BadMediaType { .. }
            | Self::BadAnswer { .. } => Kind::DataLoss,
            Self::TooLarge { .. } => Kind::ResourceExhausted,
            Self::TooManyRedirects { .. }
            | Self::BadFile { .. }
            | Self::ShortName { .. }
            | Self::CredentialProgram { .. }
            | Self::NoHost { .. } => Kind::FailedPrecondition,
        }
    }
}
