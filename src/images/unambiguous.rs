//! Documents that every reader understands in the same way. The tools that sign, scan and admit images are mostly Go's, and
//! Go's JSON ignores case in the names of fields and takes the last of two equal ones: what it would see in another way
//! than Berth does is refused. What does not live here: what the fields mean.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// An object whose fields somebody reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// A manifest or an index.
    Document,
    /// The config of an image.
    Config,
    Descriptor,
    Platform,
    RootFs,
    Execution,
    /// Its names are the author's: case counts.
    Names,
    /// A text, a number, a list of them.
    Plain,
}

use Object::{Config, Descriptor, Document, Execution, Names, Plain, Platform, RootFs};

impl Object {
    fn fields(self) -> &'static [(&'static str, Self)] {
        match self {
            Document => &[
                ("schemaVersion", Plain),
                ("mediaType", Plain),
                ("artifactType", Plain),
                ("config", Descriptor),
                ("layers", Descriptor),
                ("manifests", Descriptor),
                ("subject", Descriptor),
                ("annotations", Names),
            ],
            Descriptor => &[
                ("mediaType", Plain),
                ("digest", Plain),
                ("size", Plain),
                ("artifactType", Plain),
                ("urls", Plain),
                ("data", Plain),
                ("platform", Platform),
                ("annotations", Names),
            ],
            Platform => &[("architecture", Plain), ("os", Plain), ("variant", Plain)],
            Config => &[
                ("architecture", Plain),
                ("os", Plain),
                ("variant", Plain),
                ("config", Execution),
                ("rootfs", RootFs),
            ],
            RootFs => &[("type", Plain), ("diff_ids", Plain)],
            Execution => &[
                ("User", Plain),
                ("Env", Plain),
                ("Entrypoint", Plain),
                ("Cmd", Plain),
                ("WorkingDir", Plain),
                ("StopSignal", Plain),
                ("Volumes", Names),
                ("Labels", Names),
            ],
            Names | Plain => &[],
        }
    }
}

/// Checks a whole document; the error names the line.
pub fn check(object: Object, bytes: &[u8]) -> Result<(), serde_json::Error> {
    // What is ignored is not looked into by the parser.
    let text = std::str::from_utf8(bytes).map_err(serde_json::Error::custom)?;
    let mut json = serde_json::Deserializer::from_str(text);
    object.deserialize(&mut json)?;
    json.end()
}

/// As Go folds names: two letters beyond ASCII have one of ASCII as their other case.
fn fold(name: &str) -> String {
    let fold = |c: char| match c {
        'ſ' => 's',
        'K' => 'k',
        other => other.to_ascii_lowercase(),
    };
    name.chars().map(fold).collect()
}

impl<'de> DeserializeSeed<'de> for Object {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self {
            Plain => deserializer.deserialize_ignored_any(IgnoredAny).map(drop),
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Object {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JSON")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        let mut seen = BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let shown: String = key.chars().take(80).collect();
            let folded = fold(&key);
            let field = self.fields().iter().find(|(name, _)| fold(name) == folded);
            if let Some((name, _)) = field.filter(|(name, _)| *name != key) {
                return Err(M::Error::custom(format_args!(
                    "the field {shown:?} is {name:?} for readers that ignore case"
                )));
            }
            if (field.is_some() || self == Names) && !seen.insert(key) {
                return Err(M::Error::custom(format_args!("the field {shown:?} comes twice")));
            }
            map.next_value_seed(field.map_or(Plain, |(_, object)| *object))?;
        }
        Ok(())
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<(), S::Error> {
        while list.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    // What is none of both is for those to judge who read it.
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_go_would_take_for_others_are_refused() {
        for (object, good) in [
            (Document, r#"{"schemaVersion":2,"config":{"size":1},"layers":[{"digest":"x"},{"digest":"y"}]}"#),
            (Document, r#"{"annotations":{"a":"1","A":"2"},"Other":1,"other":2,"OTHER":{"x":1,"x":2}}"#),
            (Config, r#"{"Size":1,"size":2,"config":{"Labels":{"x":"","X":""},"Image":"","OnBuild":null}}"#),
            (Document, "null"),
        ] {
            assert!(check(object, good.as_bytes()).is_ok(), "{good}");
        }
        for (object, bad, word) in [
            (Document, r#"{"layers":[],"Layers":[]}"#, "Layers"),
            (Document, r#"{"Layers":[]}"#, "ignore case"),
            (Document, r#"{"layers":[],"layer\u017f":[]}"#, "layerſ"),
            (Document, r#"{"layers":[],"layers":[]}"#, "twice"),
            (Document, r#"{"layers":[{"digest":"a","DIGEST":"b"}]}"#, "DIGEST"),
            (Document, r#"{"manifests":[{"platform":{"os":"linux","OS":"plan9"}}]}"#, "OS"),
            (Document, r#"{"config":{"annotations":{"a":"1","a":"2"}}}"#, "twice"),
            (Config, r#"{"rootfs":{"diff_ids":[],"diff_IDs":[]}}"#, "diff_IDs"),
            (Config, r#"{"config":{"User":"1000","user":"0"}}"#, "user"),
            (Config, r#"{"config":{"Labels":{"a":"","a":""}}}"#, "twice"),
            (Document, r#"{} {}"#, "trailing"),
        ] {
            let error = check(object, bad.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(word) && error.contains("line 1"), "{bad}: {error}");
        }
        assert!(check(Document, b"{\"other\":\"\xff\"}").is_err());
        let deep = "[".repeat(100_000);
        assert!(check(Document, deep.as_bytes()).is_err());
    }
}
