//! The network by CNI plugins (spec 1.1): ADD, DEL, CHECK, STATUS and GC of the configured network.
//! What does not live here: records, and what happens where nothing is configured.

mod capabilities;
mod config;
mod plugin;
mod result;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value, json};

pub use self::config::NetworkList;
use self::config::plugin_type;
use self::plugin::Invocation;
use super::{CniConfig, Interface, PodNetwork, Subnet};
use crate::ids::PodId;

const INTERFACE: &str = "eth0";
/// Done natively: the pod's namespace is born with its loopback up.
const LOOPBACK: &str = "loopback";

/// Why plugins do not connect a pod.
#[derive(Debug, thiserror::Error)]
pub enum CniError {
    /// A configuration can't be read.
    #[error("cannot read CNI configuration {path}")]
    Read {
        /// File or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A configuration is not JSON.
    #[error("CNI configuration {path} is not valid JSON")]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// A configuration breaks the specification.
    #[error("CNI configuration {path} is not valid: {problem}")]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// There is no such program.
    #[error("CNI plugin {plugin} is in none of {directories}")]
    Missing {
        /// Its type.
        plugin: String,
        /// With commas between.
        directories: String,
    },
    /// A program can't be run.
    #[error("cannot execute CNI plugin {plugin} ({verb})")]
    Execute {
        /// Its type.
        plugin: String,
        /// ADD, DEL ...
        verb: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It took too long and was killed.
    #[error("CNI plugin {plugin} ({verb}) did not end within {seconds} s and was killed")]
    Timeout {
        /// Its type.
        plugin: String,
        /// ADD, DEL ...
        verb: &'static str,
        /// What it had.
        seconds: f32,
    },
    /// It failed.
    #[error("CNI plugin {plugin} ({verb}) failed with {status}: {message}")]
    Plugin {
        /// Its type.
        plugin: String,
        /// ADD, DEL ...
        verb: &'static str,
        /// How it ended.
        status: String,
        /// Error code of the specification.
        code: Option<u64>,
        /// What it said, at most 1 KiB.
        message: String,
    },
    /// It succeeded, but what it printed is no result.
    #[error("CNI plugin {plugin} ({verb}) gave no valid result: {problem}")]
    Garbage {
        /// Its type.
        plugin: String,
        /// ADD, DEL ...
        verb: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// A name of the pod can't be told to plugins.
    #[error("{key} {value:?} has a character that CNI_ARGS cannot carry")]
    Argument {
        /// Which.
        key: &'static str,
        /// As given, shortened.
        value: String,
    },
    /// A bandwidth annotation is none.
    #[error("annotation {key} has {value:?}, which is not a bandwidth between 1k and 1P bits a second")]
    Bandwidth {
        /// The annotation.
        key: String,
        /// As given, shortened.
        value: String,
    },
}

/// What plugins made.
#[derive(Clone, Debug, PartialEq)]
pub struct Added {
    /// The pod's addresses, never empty.
    pub ips: Vec<IpAddr>,
    /// Links.
    pub interfaces: Vec<Interface>,
    /// What the last plugin printed.
    pub result: Value,
}

/// How plugins are found and run.
pub struct Cni {
    config: CniConfig,
}

impl Cni {
    /// Reads nothing yet.
    pub fn new(config: CniConfig) -> Self {
        Self { config }
    }

    /// The network that serves now: read anew each time, so that a new file serves at once.
    pub fn configured(&self) -> Result<Option<NetworkList>, CniError> {
        config::load(&self.config.conf_dir)
    }

    /// What the plugins of a network learn of a pod; a bad annotation or name is refused before anything runs.
    pub fn describe(&self, pod: &PodNetwork, subnets: &[Subnet]) -> Result<Told, CniError> {
        let netns = pod.netns.display().to_string();
        let id = pod.id.clone();
        Ok(Told {
            id,
            netns,
            arguments: capabilities::arguments(pod)?,
            runtime: capabilities::all(pod, subnets)?,
        })
    }

    /// Runs ADD of each plugin in order. On failure the caller runs `del`.
    pub async fn add(&self, list: &NetworkList, told: &Told) -> Result<Added, CniError> {
        let mut previous: Option<Value> = None;
        let mut last = "";
        for plugin in list.plugins.iter().filter(|plugin| plugin_type(plugin) != LOOPBACK) {
            last = plugin_type(plugin);
            let output = self.run(list, plugin, "ADD", (told, previous.as_ref())).await?;
            let result: Value = serde_json::from_slice(&output)
                .map_err(|error| garbage(last, format!("{error}: {}", excerpt(&output))))?;
            if !result.is_object() {
                return Err(garbage(last, "it is not a JSON object".into()));
            }
            previous = Some(result);
        }
        let result = previous.unwrap_or_else(|| json!({}));
        let ips = result::addresses(&result).map_err(|problem| garbage(last, problem))?;
        Ok(Added { ips, interfaces: result::interfaces(&result), result })
    }

    /// Runs DEL of each plugin in reverse order, all of them even if some fail; the first failure.
    pub async fn del(&self, list: &NetworkList, told: &Told, result: Option<&Value>) -> Result<(), CniError> {
        let mut failure = None;
        for plugin in list.plugins.iter().rev().filter(|plugin| plugin_type(plugin) != LOOPBACK) {
            if let Err(error) = self.run(list, plugin, "DEL", (told, result)).await {
                failure.get_or_insert(error);
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Runs CHECK of each plugin, where the specification of the configuration has it.
    pub async fn check(&self, list: &NetworkList, told: &Told, result: &Value) -> Result<(), CniError> {
        if list.disable_check || !list.speaks("0.4.0") {
            return Ok(());
        }
        for plugin in list.plugins.iter().filter(|plugin| plugin_type(plugin) != LOOPBACK) {
            self.run(list, plugin, "CHECK", (told, Some(result))).await?;
        }
        Ok(())
    }

    /// Whether every plugin is there, and by its own STATUS (since 1.1) could serve.
    pub async fn status(&self, list: &NetworkList) -> Result<(), CniError> {
        for plugin in list.plugins.iter().filter(|plugin| plugin_type(plugin) != LOOPBACK) {
            let program = plugin::find(plugin_type(plugin), &self.config.bin_dirs)?;
            if list.speaks("1.1.0") {
                let config = derive(list, plugin, &Map::new(), None);
                self.execute(&program, plugin, "STATUS", (&config, &[])).await?;
            }
        }
        Ok(())
    }

    /// Tells every plugin (since 1.1) which pods live; it removes what others left.
    pub async fn collect(&self, list: &NetworkList, live: &[PodId]) -> Result<(), CniError> {
        if list.disable_gc || !list.speaks("1.1.0") {
            return Ok(());
        }
        let valid: Vec<Value> =
            live.iter().map(|pod| json!({"containerID": pod.as_str(), "ifname": INTERFACE})).collect();
        let mut failure = None;
        for plugin in list.plugins.iter().filter(|plugin| plugin_type(plugin) != LOOPBACK) {
            let program = plugin::find(plugin_type(plugin), &self.config.bin_dirs)?;
            let mut config = derive(list, plugin, &Map::new(), None);
            config["cni.dev/valid-attachments"] = valid.clone().into();
            if let Err(error) = self.execute(&program, plugin, "GC", (&config, &[])).await {
                failure.get_or_insert(error);
            }
        }
        failure.map_or(Ok(()), Err)
    }

    async fn run(
        &self,
        list: &NetworkList,
        plugin: &Map<String, Value>,
        verb: &'static str,
        (told, previous): (&Told, Option<&Value>),
    ) -> Result<Vec<u8>, CniError> {
        let program = plugin::find(plugin_type(plugin), &self.config.bin_dirs)?;
        // Before 0.3 plugins were not chained; DEL and CHECK get the result since 0.4.
        let since = if verb == "ADD" { "0.3.0" } else { "0.4.0" };
        let config = derive(list, plugin, &told.runtime, previous.filter(|_| list.speaks(since)));
        let environment = [
            ("CNI_CONTAINERID", told.id.as_str().to_string()),
            ("CNI_NETNS", told.netns.clone()),
            ("CNI_IFNAME", INTERFACE.to_string()),
            ("CNI_ARGS", told.arguments.clone()),
        ];
        self.execute(&program, plugin, verb, (&config, &environment)).await
    }

    async fn execute(
        &self,
        program: &std::path::Path,
        plugin: &Map<String, Value>,
        verb: &'static str,
        (config, variables): (&Value, &[(&'static str, String)]),
    ) -> Result<Vec<u8>, CniError> {
        let path =
            self.config.bin_dirs.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(":");
        let environment = [variables, &[("CNI_PATH", path)]].concat();
        let timeout = Duration::from_secs(self.config.timeout);
        let invocation =
            Invocation { plugin: plugin_type(plugin), verb, environment: &environment, config, timeout };
        plugin::run(program, &invocation).await
    }
}

/// What every plugin of a pod is told.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Told {
    id: PodId,
    /// Empty if it is gone: DEL then gives back what lies outside of it.
    netns: String,
    arguments: String,
    runtime: Map<String, Value>,
}

impl Told {
    /// The same, without the namespace if it is gone.
    pub fn with_living_netns(mut self) -> Self {
        if !is_namespace(&self.netns) {
            self.netns.clear();
        }
        self
    }
}

/// A pin that lost its mount is an empty file.
fn is_namespace(path: &str) -> bool {
    use std::os::linux::fs::MetadataExt;
    let device = |path: &str| std::fs::metadata(path).map(|metadata| metadata.st_dev()).ok();
    device(path).is_some_and(|found| Some(found) == device("/proc/self/ns/net"))
}

/// The configuration that a plugin reads (spec, section 3 "Deriving request configuration").
fn derive(
    list: &NetworkList,
    plugin: &Map<String, Value>,
    runtime: &Map<String, Value>,
    previous: Option<&Value>,
) -> Value {
    let mut config = plugin.clone();
    config.insert("name".into(), list.name.clone().into());
    config.insert("cniVersion".into(), list.version.clone().into());
    let declared = config.remove("capabilities");
    let wants =
        |key: &str| declared.as_ref().and_then(|declared| declared.get(key)) == Some(&Value::Bool(true));
    let given: Map<String, Value> = runtime
        .iter()
        .filter(|(key, _)| wants(key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    if !given.is_empty() {
        config.insert("runtimeConfig".into(), given.into());
    }
    if let Some(previous) = previous {
        config.insert("prevResult".into(), previous.clone());
    }
    config.into()
}

fn garbage(plugin: &str, problem: String) -> CniError {
    CniError::Garbage { plugin: plugin.to_string(), verb: "ADD", problem }
}

fn excerpt(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(&output[..output.len().min(200)]).into_owned();
    format!("{text:?}")
}
