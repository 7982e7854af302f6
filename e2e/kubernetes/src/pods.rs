//! Pods of a few words: each is a spec as JSON, and what its container said or says.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::images::BUSYBOX;
use crate::scenario::Scenario;

/// A container called `main` that runs `script` in busybox's shell.
pub fn shell(script: &str) -> Value {
    json!({ "name": "main", "image": BUSYBOX, "command": ["sh", "-c", script] })
}

/// As [`shell`], but it waits.
pub fn sleeper() -> Value {
    shell("trap exit TERM; while :; do sleep 0.2; done")
}

/// A pod's spec of one container.
pub fn alone(container: Value) -> Value {
    json!({ "containers": [container] })
}

/// `object` with the fields of `more` added or replaced.
pub fn with(mut object: Value, more: Value) -> Value {
    if let (Some(fields), Value::Object(more)) = (object.as_object_mut(), more) {
        fields.extend(more);
    }
    object
}

/// A pod that is not restarted and not waited for when it is told to end, unless its spec says otherwise.
pub fn pod(name: &str, spec: Value) -> Value {
    let brief = json!({ "restartPolicy": "Never", "terminationGracePeriodSeconds": 1 });
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name }, "spec": with(brief, spec) })
}

impl Scenario {
    /// `kubectl apply` of a pod.
    pub fn create(&self, name: &str, spec: Value) -> Result<()> {
        self.apply(&pod(name, spec).to_string()).map(drop)
    }

    /// As [`Self::create`], until it is Ready.
    pub fn start(&self, name: &str, spec: Value) -> Result<()> {
        self.create(name, spec)?;
        self.wait(&format!("pod/{name}"), "condition=Ready").map(drop)
    }

    /// Runs a pod of one container to its end: what the container printed.
    pub fn said(&self, name: &str, spec: Value) -> Result<String> {
        self.create(name, spec)?;
        let ended = "jsonpath={.status.containerStatuses[0].state.terminated.exitCode}";
        self.wait(&format!("pod/{name}"), ended)?;
        self.kubectl(&["logs", name])
    }

    /// Standard output of a script in a running pod's first container.
    pub fn shell(&self, pod: &str, script: &str) -> Result<String> {
        self.kubectl(&["exec", pod, "--", "sh", "-c", script])
    }

    /// Waits until a pod's first container waits for one of these reasons: what `kubectl describe` says of it.
    pub fn waits(&self, pod: &str, reasons: &[&str]) -> Result<String> {
        let path = "{.status.containerStatuses[0].state.waiting}";
        let waiting = self.until(
            || self.field(&format!("pod/{pod}"), path),
            |waiting| reasons.iter().any(|reason| waiting.contains(&format!(r#""reason":"{reason}""#))),
        )?;
        let waiting: Value = serde_json::from_str(&waiting)?;
        Ok(waiting["message"].as_str().context("no message")?.to_owned())
    }

    /// Waits for an event of this reason: its message.
    pub fn event(&self, object: &str, reason: &str) -> Result<String> {
        let selector = format!("--field-selector=involvedObject.name={object},reason={reason}");
        let get = ["get", "events", &selector, "-o", "jsonpath={.items[*].message}"];
        self.until(|| self.kubectl(&get), |messages| !messages.is_empty())
    }
}
