//! What becomes of a setting: rules by the names of settings, first hit wins.

use std::path::Path;

use toml::Value;

use super::setting::Setting;
use crate::config::duration;

/// What became of one.
pub(super) enum Fate {
    /// Section, key and value of Berth's.
    Set(&'static str, &'static str, Value),
    /// As `Set`, but not all of it, and why.
    Part(&'static str, &'static str, Value, String),
    /// Nothing of Berth's does that.
    Lost(String),
    /// It needs no equal.
    Moot(String),
    /// It says nothing.
    Unset,
}

/// What to do with the settings of a name.
#[derive(Clone, Copy)]
pub(super) enum Do {
    /// The same value.
    Copy(&'static str, &'static str),
    /// A list of the one value.
    List(&'static str, &'static str),
    /// Another spelling.
    With(&'static str, &'static str, fn(&Value) -> Option<Value>),
    /// The first of several directories with colons between.
    FirstPath(&'static str, &'static str),
    /// It needs no equal if it is one of these, else it has none.
    Only(&'static [&'static str], &'static str),
    /// It has no equal if there is a reason.
    Unless(fn(&Value) -> Option<String>),
    /// It has no equal if it is set.
    No(&'static str),
    /// It has no equal if the directory (or one of the directories) that it names holds files.
    NoFiles(&'static str),
    /// It needs no equal.
    Needless(&'static str),
}

/// A name (keys with dots between, `*` for any key, `**` at the end for any further ones), and what to do.
pub(super) struct Rule {
    pub name: &'static str,
    pub fate: Do,
}

/// A rule.
pub(super) const fn rule(name: &'static str, fate: Do) -> Rule {
    Rule { name, fate }
}

impl Rule {
    /// Whether it is about a setting at `path`.
    pub fn is_of(&self, path: &[String]) -> bool {
        let mut keys = path.iter();
        for part in self.name.split('.') {
            match (part, keys.next()) {
                ("**", _) => return true,
                ("*", Some(_)) => {}
                (part, Some(key)) if part == key => {}
                _ => return false,
            }
        }
        keys.next().is_none()
    }
}

impl Do {
    pub fn of(&self, setting: &Setting) -> Fate {
        let value = &setting.value;
        match *self {
            Self::Only(same, why) if same.contains(&plain(value).as_str()) => Fate::Moot(why.into()),
            Self::Only(_, why) if value.as_str() != Some("") => Fate::Lost(why.into()),
            _ if setting.is_unset() && !matches!(self, Self::With(..)) => Fate::Unset,
            Self::Needless(why) => Fate::Moot(why.into()),
            Self::FirstPath(section, key) => first_path(section, key, value),
            Self::Copy(section, key) => Fate::Set(section, key, value.clone()),
            Self::List(section, key) => Fate::Set(section, key, Value::Array(vec![value.clone()])),
            Self::With(section, key, spell) => match spell(value) {
                Some(value) => Fate::Set(section, key, value),
                None if setting.is_unset() => Fate::Unset,
                None => Fate::Lost(format!("[{section}] {key} takes no such value")),
            },
            Self::Only(_, why) | Self::No(why) => Fate::Lost(why.into()),
            Self::Unless(reason) => match reason(value) {
                Some(why) => Fate::Lost(why),
                None => Fate::Moot("berth does the same".into()),
            },
            Self::NoFiles(why) if holds_files(value) => Fate::Lost(why.into()),
            Self::NoFiles(why) => Fate::Moot(format!("there are no files; else: {why}")),
        }
    }
}

fn first_path(section: &'static str, key: &'static str, value: &Value) -> Fate {
    let text = plain(value);
    let mut paths = text.split(':').filter(|path| !path.is_empty());
    let Some(first) = paths.next() else { return Fate::Unset };
    let (first, others) = (Value::String(first.into()), paths.collect::<Vec<_>>().join(" and "));
    match others.is_empty() {
        true => Fate::Set(section, key, first),
        false => Fate::Part(
            section,
            key,
            first,
            format!("berth reads one directory: put what {others} has into it"),
        ),
    }
}

/// A text without its quotes.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), String::from)
}

fn holds_files(value: &Value) -> bool {
    let list = match value {
        Value::Array(list) => list.as_slice(),
        one => std::slice::from_ref(one),
    };
    let holds = |path: &str| Path::new(path).read_dir().is_ok_and(|mut entries| entries.next().is_some());
    list.iter().filter_map(Value::as_str).any(holds)
}

/// A duration as Go spells it (`5m0s`), in Berth's spelling; none if it is zero.
pub(super) fn go_duration(value: &Value) -> Option<Value> {
    let text = value.as_str()?;
    let parsed = duration::parse(text)?;
    (!parsed.is_zero()).then(|| Value::String(duration::format(parsed)))
}

/// A port, whether a number or a text.
pub(super) fn port(value: &Value) -> Option<Value> {
    let port: u16 = plain(value).parse().ok()?;
    (port > 0).then(|| Value::Integer(port.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_of(name: &'static str, path: &str) -> bool {
        let path: Vec<String> = path.split('/').map(String::from).collect();
        rule(name, Do::No("")).is_of(&path)
    }

    #[test]
    fn names_are_matched_key_by_key() {
        assert!(
            is_of("a.b", "a/b") && is_of("a.*.c", "a/x.y/c") && is_of("a.**", "a/b/c") && is_of("*", "a")
        );
        assert!(
            !is_of("a.b", "a") && !is_of("a.b", "a/b/c") && !is_of("a.*", "a/b/c") && !is_of("a.**", "b/c")
        );
    }

    #[test]
    fn values_of_others_are_spelled_as_berth_does() {
        let text = |text: &str| Value::String(text.into());
        assert_eq!(go_duration(&text("5m0s")), Some(text("5m")));
        assert_eq!((go_duration(&text("0s")), go_duration(&Value::Integer(5))), (None, None));
        assert_eq!((port(&text("10010")), port(&Value::Integer(0))), (Some(Value::Integer(10010)), None));
    }
}
