//! The option strings of an OCI mount, parsed once. What they are applied to lives in `sources` and `filesystem`.

use rustix::mount::{MountAttrFlags, MountPropagationFlags};

use super::failure::{Result, SpawnError};

/// What the options of one mount ask for.
pub(super) struct Options {
    /// Attributes of the mount itself.
    pub set: MountAttrFlags,
    pub clear: MountAttrFlags,
    /// Attributes of the mount and all beneath it.
    pub set_all: MountAttrFlags,
    pub clear_all: MountAttrFlags,
    /// Propagation and whether of all beneath it too.
    pub propagation: Option<(MountPropagationFlags, bool)>,
    pub bind: Option<Bind>,
    pub id_map: Option<Bind>,
    /// "rw" was written down.
    pub writable: bool,
    /// What only the file system knows: key, and value where there is one.
    pub data: Vec<(String, Option<String>)>,
}

/// How much of a tree of mounts is meant.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Bind {
    One,
    Tree,
}

impl Options {
    pub(super) fn parse(options: &[String]) -> Self {
        let mut parsed = Self {
            set: MountAttrFlags::empty(),
            clear: MountAttrFlags::empty(),
            set_all: MountAttrFlags::empty(),
            clear_all: MountAttrFlags::empty(),
            propagation: None,
            bind: None,
            id_map: None,
            writable: false,
            data: Vec::new(),
        };
        for option in options {
            if !parsed.known(option) {
                parsed.data.push(match option.split_once('=') {
                    Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                    None => (option.clone(), None),
                });
            }
        }
        parsed
    }

    fn known(&mut self, option: &str) -> bool {
        if self.attribute(option) {
            return true;
        }
        match option {
            "bind" => self.bind = self.bind.or(Some(Bind::One)),
            "rbind" => self.bind = Some(Bind::Tree),
            "idmap" => self.id_map = Some(Bind::One),
            "ridmap" => self.id_map = Some(Bind::Tree),
            "defaults" | "async" | "loud" | "nostrictatime" | "noiversion" => {}
            _ => match propagation(option) {
                Some(propagation) => self.propagation = Some(propagation),
                None => return false,
            },
        }
        true
    }

    /// Takes `ro`, `nosuid` ..., their opposites, and both with an `r` before them for the whole tree.
    fn attribute(&mut self, option: &str) -> bool {
        self.writable |= option == "rw";
        let (found, all) = match attribute(option) {
            Some(found) => (found, false),
            None => match option.strip_prefix('r').and_then(attribute) {
                Some(found) => (found, true),
                None => return false,
            },
        };
        let (set, clear) = match all {
            true => (&mut self.set_all, &mut self.clear_all),
            false => (&mut self.set, &mut self.clear),
        };
        let (flag, on) = found;
        set.set(flag, on);
        clear.set(flag, !on);
        true
    }
}

fn attribute(option: &str) -> Option<(MountAttrFlags, bool)> {
    Some(match option {
        "ro" => (MountAttrFlags::MOUNT_ATTR_RDONLY, true),
        "rw" => (MountAttrFlags::MOUNT_ATTR_RDONLY, false),
        "nosuid" => (MountAttrFlags::MOUNT_ATTR_NOSUID, true),
        "suid" => (MountAttrFlags::MOUNT_ATTR_NOSUID, false),
        "nodev" => (MountAttrFlags::MOUNT_ATTR_NODEV, true),
        "dev" => (MountAttrFlags::MOUNT_ATTR_NODEV, false),
        "noexec" => (MountAttrFlags::MOUNT_ATTR_NOEXEC, true),
        "exec" => (MountAttrFlags::MOUNT_ATTR_NOEXEC, false),
        "nodiratime" => (MountAttrFlags::MOUNT_ATTR_NODIRATIME, true),
        "diratime" => (MountAttrFlags::MOUNT_ATTR_NODIRATIME, false),
        "nosymfollow" => (MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW, true),
        "symfollow" => (MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW, false),
        "noatime" => (MountAttrFlags::MOUNT_ATTR_NOATIME, true),
        "strictatime" => (MountAttrFlags::MOUNT_ATTR_STRICTATIME, true),
        // Relatime is the value 0 of a field: to clear the field is to set it.
        "relatime" | "atime" | "norelatime" => (MountAttrFlags::MOUNT_ATTR__ATIME, false),
        _ => return None,
    })
}

fn propagation(option: &str) -> Option<(MountPropagationFlags, bool)> {
    Some(match option {
        "private" => (MountPropagationFlags::PRIVATE, false),
        "rprivate" => (MountPropagationFlags::PRIVATE, true),
        "slave" => (MountPropagationFlags::DOWNSTREAM, false),
        "rslave" => (MountPropagationFlags::DOWNSTREAM, true),
        "shared" => (MountPropagationFlags::SHARED, false),
        "rshared" => (MountPropagationFlags::SHARED, true),
        "unbindable" => (MountPropagationFlags::UNBINDABLE, false),
        "runbindable" => (MountPropagationFlags::UNBINDABLE, true),
        _ => return None,
    })
}

/// Parses `linux.rootfsPropagation`; None where it is empty.
pub(super) fn root_propagation(name: &str) -> Result<Option<MountPropagationFlags>> {
    if name.is_empty() {
        return Ok(None);
    }
    let unknown =
        || SpawnError::refused("set the root's propagation", format!("unknown rootfsPropagation {name:?}"));
    propagation(name).map(|(propagation, _)| Some(propagation)).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> Options {
        Options::parse(&options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn attributes_their_opposites_and_their_recursive_forms_are_told_apart() {
        let options = parse(&["rbind", "rro", "nosuid", "exec", "rslave"]);
        assert_eq!(options.set_all, MountAttrFlags::MOUNT_ATTR_RDONLY);
        assert_eq!(options.set, MountAttrFlags::MOUNT_ATTR_NOSUID);
        assert_eq!(options.clear, MountAttrFlags::MOUNT_ATTR_NOEXEC);
        assert!(options.bind == Some(Bind::Tree));
        assert!(options.propagation == Some((MountPropagationFlags::DOWNSTREAM, true)));
        assert!(options.data.is_empty());
    }

    #[test]
    fn the_later_of_two_opposites_wins() {
        let options = parse(&["ro", "rw"]);
        assert_eq!(options.set, MountAttrFlags::empty());
        assert_eq!(options.clear, MountAttrFlags::MOUNT_ATTR_RDONLY);
        assert!(options.writable);
    }

    #[test]
    fn what_only_the_file_system_knows_is_kept() {
        let options = parse(&["mode=755", "newinstance", "size=65536k", "strictatime"]);
        let expected = [("mode", Some("755")), ("newinstance", None), ("size", Some("65536k"))];
        assert_eq!(options.data, expected.map(|(key, value)| (key.to_owned(), value.map(str::to_owned))));
    }
}
