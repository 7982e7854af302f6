//! The environment of a container's process. What does not live here: the command.

use std::collections::HashMap;

use super::{Inputs, SpecError};

/// Where commands are found when nobody says.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The kernel takes no longer string (MAX_ARG_STRLEN, its NUL included).
const LONGEST: usize = 128 << 10;

/// Variables in the order of their first mention; a later value replaces an earlier one.
#[derive(Default)]
struct Environment {
    variables: Vec<(String, String)>,
    /// Where each name is: a hostile image has a million of them.
    places: HashMap<String, usize>,
}

impl Environment {
    fn set(&mut self, name: &str, value: &str) {
        match self.places.get(name) {
            Some(place) => self.variables[*place].1 = value.to_string(),
            None => {
                self.places.insert(name.to_string(), self.variables.len());
                self.variables.push((name.to_string(), value.to_string()));
            }
        }
    }

    fn set_default(&mut self, name: &str, value: &str) {
        if !self.places.contains_key(name) {
            self.set(name, value);
        }
    }

    fn into_strings(self) -> Vec<String> {
        self.variables.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
    }
}

/// Defaults, then the image's variables, then the container's.
pub(super) fn env(inputs: &Inputs<'_>) -> Result<Vec<String>, SpecError> {
    let mut env = Environment::default();
    env.set("PATH", PATH);
    let hostname = match inputs.pod.hostname.as_str() {
        "" => inputs.host.hostname.as_str(),
        hostname => hostname,
    };
    env.set("HOSTNAME", hostname);
    if inputs.container.tty {
        env.set("TERM", "xterm");
    }
    for variable in &inputs.image.env {
        // Builders have let `NAME` without a value and `=value` through; neither can be set.
        if let Some((name, value)) = variable.split_once('=').filter(|(name, _)| !name.is_empty()) {
            env.set(check_name(name)?, check_value(name, value.as_bytes())?);
        }
    }
    for (name, value) in &inputs.container.envs {
        env.set(check_name(name)?, check_value(name, value)?);
    }
    let home = inputs.user.home.as_deref().unwrap_or("/");
    env.set_default("HOME", home);
    Ok(env.into_strings())
}

/// For an exec on a terminal in a container that has none.
pub(super) fn with_terminal(mut env: Vec<String>) -> Vec<String> {
    if !env.iter().any(|variable| variable.starts_with("TERM=")) {
        env.push("TERM=xterm".to_string());
    }
    env
}

fn check_name(name: &str) -> Result<&str, SpecError> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(SpecError::VariableName { name: name.chars().take(80).collect() });
    }
    Ok(name)
}

/// The OCI runtime spec is JSON, and JSON is text: bytes that are not UTF-8 can't be handed on as they are.
fn check_value<'a>(name: &str, value: &'a [u8]) -> Result<&'a str, SpecError> {
    let wrong = |problem| SpecError::VariableValue { name: name.chars().take(80).collect(), problem };
    if value.contains(&0) {
        return Err(wrong("contains a NUL byte"));
    }
    if name.len() + value.len() + 2 > LONGEST {
        return Err(wrong("is longer than the 128 KiB that the kernel takes"));
    }
    std::str::from_utf8(value).map_err(|_| wrong("is not UTF-8"))
}
