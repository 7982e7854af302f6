//! What was installed on a host and what was there before: DIRECTORY/receipt.json. What does not live here: doing it.

use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Kubelet, Mode, NodeError, place};
use crate::layout::host::HostLayout;

/// All that an uninstallation has to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Receipt {
    /// Names the directory of the programs in force.
    pub(super) version: String,
    /// The one in force before it.
    pub(super) previous: Option<String>,
    /// What Berth is for.
    pub(super) mode: Mode,
    /// Everything that was asked for, as a digest.
    pub(super) settings: String,
    /// Files and directories that Berth wrote, in that order.
    pub(super) placed: Vec<Placed>,
    /// The installation came to its end.
    pub(super) complete: bool,
    /// Who has come to that end last; None: nobody that has a name, or a release before there were names.
    #[serde(default)]
    pub(super) installer: Option<String>,
    /// The daemon's data was made since.
    pub(super) data: bool,
    /// How far the kubelet is.
    pub(super) kubelet: Switch,
}

/// A file that Berth wrote, or a directory that it made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Placed {
    /// As the host sees it.
    pub(super) path: PathBuf,
    /// What was there.
    pub(super) before: Before,
}

/// What was at a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Before {
    /// Nothing, and now there is a file.
    Nothing,
    /// Nothing, and now there is a directory.
    NoDirectory,
    /// A file.
    Text {
        /// Its content.
        content: String,
        /// Its permission bits.
        mode: u32,
    },
}

/// How far the kubelet is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "state")]
pub(super) enum Switch {
    /// It has its own runtime.
    Untouched,
    /// On its way to Berth.
    Begun {
        /// How.
        how: Kubelet,
        /// The socket of the old runtime; None: no kubelet was running.
        old: Option<PathBuf>,
        /// When the kubelet had last spoken of its node.
        heartbeat: Option<String>,
    },
    /// It uses Berth.
    Done {
        /// How.
        how: Kubelet,
        /// The socket of the old runtime.
        old: Option<PathBuf>,
    },
    /// It did not work, and was undone.
    Failed {
        /// For which settings.
        settings: String,
        /// Why.
        reason: String,
    },
}

impl Receipt {
    /// None: nothing is installed.
    pub(super) fn read(host: &HostLayout) -> Result<Option<Self>, NodeError> {
        let path = host.receipt();
        match fs::read(&path) {
            Ok(bytes) => {
                let parsed = serde_json::from_slice(&bytes);
                parsed.map(Some).map_err(|source| NodeError::Garbled { path, source })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(NodeError::File { what: "read", path, source }),
        }
    }

    /// Durable when it returns.
    pub(super) fn write(&self, host: &HostLayout) -> Result<(), NodeError> {
        let path = host.receipt();
        let text = serde_json::to_string_pretty(self)
            .map_err(|source| NodeError::Garbled { path: path.clone(), source })?;
        place::write(&path, text.as_bytes(), 0o600)
    }
}
