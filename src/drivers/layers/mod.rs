//! The layer cache on disk: unpacking, whiteouts, overlay roots. What does not live here: which layers an image has.

use serde::Deserialize;

/// `[layers]` of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {}
