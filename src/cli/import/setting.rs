//! One setting of another runtime: where it stands, and its value.

use std::fmt;

use toml::{Table, Value};

/// A key that holds no table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Setting {
    /// By which rules know it: its keys, split at their dots.
    pub path: Vec<String>,
    /// Its keys as they stand in the file.
    pub written: Vec<String>,
    pub value: Value,
}

impl Setting {
    /// As TOML spells it.
    pub fn name(&self) -> String {
        let bare = |key: &str| key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        let spell = |key: &String| if bare(key) { key.clone() } else { format!("'{key}'") };
        self.written.iter().map(spell).collect::<Vec<_>>().join(".")
    }

    /// Zero and emptiness are how others spell "not set".
    pub fn is_unset(&self) -> bool {
        match &self.value {
            Value::String(text) => text.is_empty() || text == "0" || is_zero_duration(text),
            Value::Integer(number) => *number == 0,
            Value::Boolean(on) => !on,
            Value::Array(list) => list.is_empty(),
            Value::Table(table) => table.is_empty(),
            _ => false,
        }
    }
}

fn is_zero_duration(text: &str) -> bool {
    crate::config::duration::parse(text).is_some_and(|duration| duration.is_zero())
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}", self.name(), self.value)
    }
}

/// Every leaf; lists of tables are leaves too, and so is a table without keys.
pub(super) fn flatten(table: &Table) -> Vec<Setting> {
    let mut found = Vec::new();
    walk(table, &mut Vec::new(), &mut found);
    found
}

fn walk(table: &Table, path: &mut Vec<String>, found: &mut Vec<Setting>) {
    for (key, value) in table {
        path.push(key.clone());
        match value {
            Value::Table(inner) if !inner.is_empty() => walk(inner, path, found),
            value => {
                let split = path.iter().flat_map(|key| key.split('.').map(String::from)).collect();
                found.push(Setting { path: split, written: path.clone(), value: value.clone() });
            }
        }
        path.pop();
    }
}
