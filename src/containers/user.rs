//! Who runs a container: the request, the image's USER and the image's passwd and group become numbers.
//! What does not live here: reading files of the image (drivers/rootfs.rs).

use std::io::BufRead;

use crate::containers::spec::{GroupsPolicy, RunAs};

/// The user of a container's processes, resolved.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All groups, the primary one among them, ascending: what setgroups(2) is to be given.
    pub groups: Vec<u32>,
    /// Home directory by the image's passwd.
    pub home: Option<String>,
}

/// What decides who runs.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The container's security context.
    pub run_as: &'a RunAs,
    /// The image as the request named it: for messages.
    pub image: &'a str,
    /// USER of the image's config, as written.
    pub image_user: &'a str,
    /// The pod's groups.
    pub supplemental: &'a [u32],
    /// Whether the image's group file counts.
    pub policy: GroupsPolicy,
}

/// The image's account files; None where it has none. Each is read once, line by line.
#[derive(Default)]
pub struct UserFiles<'a> {
    /// /etc/passwd.
    pub passwd: Option<Box<dyn BufRead + 'a>>,
    /// /etc/group.
    pub group: Option<Box<dyn BufRead + 'a>>,
}

/// Why nobody can run the container.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// No such name.
    #[error("unable to find user {name:?}: no such entry in /etc/passwd of image {image}")]
    NoUser {
        /// The name.
        name: String,
        /// The image.
        image: String,
    },
    /// No such name.
    #[error("unable to find group {name:?}: no such entry in /etc/group of image {image}")]
    NoGroup {
        /// The name.
        name: String,
        /// The image.
        image: String,
    },
    /// Neither an id nor a name.
    #[error("user {text:?} of {owner} is neither a number from 0 to 4294967294 nor a user name")]
    Invalid {
        /// As written.
        text: String,
        /// The image or the security context.
        owner: String,
    },
    /// An account file can't be read to its end.
    #[error("cannot read {file} of image {image}")]
    Read {
        /// `/etc/passwd` or `/etc/group`.
        file: &'static str,
        /// The image.
        image: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// A user or a group as written.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Account {
    Id(u32),
    Name(String),
}

/// A user in either form of CRI's `run_as_username` and of the image's USER (image-spec, config.md "User").
fn account(text: &str) -> Option<Account> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // Digits never name an entry of passwd, and a second way to write 0 would slip past checks for non-root.
        let canonical = text == "0" || !text.starts_with('0');
        let id = text.parse().ok().filter(|id| *id != u32::MAX);
        return if canonical { id.map(Account::Id) } else { None };
    }
    let odd = |c: char| c.is_control() || c.is_whitespace() || matches!(c, ':' | ',' | '/');
    let named = !text.is_empty() && text.len() <= 256 && !text.starts_with(['-', '+']) && !text.contains(odd);
    named.then(|| Account::Name(text.to_string()))
}

/// The first account of an image's USER as CRI's ImageStatus reports it: a number, or else a name. An image that says
/// nothing runs as root. What can be neither is reported as a name, as written: the kubelet takes silence for root, and
/// asks for the name, which is then refused.
pub fn image_user(user: &str) -> (Option<u32>, String) {
    let first = user.split(':').next().unwrap_or_default();
    match account(first) {
        _ if first.is_empty() => (Some(0), String::new()),
        Some(Account::Id(uid)) => (Some(uid), String::new()),
        _ => (None, first.to_string()),
    }
}

struct Wanted {
    user: Account,
    group: Option<Account>,
}

fn wanted(request: &Request<'_>) -> Result<Wanted, UserError> {
    let image = || format!("image {}", request.image);
    let context = || "the security context".to_string();
    let parse = |text: &str, owner: &dyn Fn() -> String| {
        let invalid = || UserError::Invalid { text: text.chars().take(80).collect(), owner: owner() };
        account(text).ok_or_else(invalid)
    };
    match request.run_as {
        RunAs::Uid(uid, gid) => Ok(Wanted { user: Account::Id(*uid), group: gid.map(Account::Id) }),
        RunAs::Name(name, gid) => Ok(Wanted { user: parse(name, &context)?, group: gid.map(Account::Id) }),
        RunAs::Image => match request.image_user.split_once(':') {
            None if request.image_user.is_empty() => Ok(Wanted { user: Account::Id(0), group: None }),
            None => Ok(Wanted { user: parse(request.image_user, &image)?, group: None }),
            Some((user, "")) => Ok(Wanted { user: parse(user, &image)?, group: None }),
            Some((user, group)) => {
                Ok(Wanted { user: parse(user, &image)?, group: Some(parse(group, &image)?) })
            }
        },
    }
}

/// Says who runs the container.
///
/// The groups are the primary one, those of the pod, and with `Merge` those of which the image's group file says that
/// the user is a member (KEP-3619).
pub fn resolve(request: &Request<'_>, files: UserFiles<'_>) -> Result<User, UserError> {
    let wanted = wanted(request)?;
    let entry = match files.passwd {
        Some(passwd) => {
            find_user(passwd, &wanted.user).map_err(|source| unreadable("/etc/passwd", request, source))?
        }
        None => None,
    };
    let uid = match (&wanted.user, &entry) {
        (Account::Id(uid), _) => *uid,
        (Account::Name(_), Some(entry)) => entry.uid,
        (Account::Name(name), None) => {
            return Err(UserError::NoUser { name: name.clone(), image: request.image.to_string() });
        }
    };
    let member = entry.as_ref().map(|entry| entry.name.as_str());
    let found = match files.group {
        Some(group) => {
            let name = wanted.group.as_ref().and_then(Account::name);
            find_groups(group, name, member).map_err(|source| unreadable("/etc/group", request, source))?
        }
        None => Groups::default(),
    };
    let gid = match wanted.group {
        Some(Account::Id(gid)) => gid,
        Some(Account::Name(name)) => {
            found.named.ok_or_else(|| UserError::NoGroup { name, image: request.image.to_string() })?
        }
        None => entry.as_ref().map_or(0, |entry| entry.gid),
    };
    let mut groups = vec![gid];
    groups.extend(request.supplemental);
    if request.policy == GroupsPolicy::Merge {
        groups.extend(found.memberships);
    }
    groups.sort_unstable();
    groups.dedup();
    Ok(User { uid, gid, groups, home: entry.and_then(|entry| entry.home) })
}

fn unreadable(file: &'static str, request: &Request<'_>, source: std::io::Error) -> UserError {
    UserError::Read { file, image: request.image.to_string(), source }
}

impl Account {
    fn name(&self) -> Option<&str> {
        match self {
            Self::Id(_) => None,
            Self::Name(name) => Some(name),
        }
    }
}

struct Entry {
    name: String,
    uid: u32,
    gid: u32,
    home: Option<String>,
}

/// Hands each line without its end to `take`, until that returns a value. One line is in memory at a time.
fn lines<T>(
    mut file: Box<dyn BufRead + '_>,
    mut take: impl FnMut(&str) -> Option<T>,
) -> std::io::Result<Option<T>> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if file.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        let bytes = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = std::str::from_utf8(bytes).ok().filter(|text| !text.contains(char::is_control));
        if let Some(found) = text.and_then(&mut take) {
            return Ok(Some(found));
        }
    }
}

fn id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok().filter(|id| *id != u32::MAX) } else { None }
}

/// The first entry of passwd(5) for the user; lines that are no entry do not count.
fn find_user(passwd: Box<dyn BufRead + '_>, user: &Account) -> std::io::Result<Option<Entry>> {
    lines(passwd, |line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let (uid, gid) = (id(fields.nth(1)?)?, id(fields.next()?)?);
        let home = fields.nth(1).filter(|home| home.starts_with('/'));
        let same = match user {
            Account::Id(wanted) => uid == *wanted,
            Account::Name(wanted) => name == wanted,
        };
        same.then(|| Entry { name: name.to_string(), uid, gid, home: home.map(str::to_string) })
    })
}

#[derive(Default)]
struct Groups {
    named: Option<u32>,
    memberships: Vec<u32>,
}

/// From group(5): the id of the group called `name`, and the ids of all groups that list `member`.
fn find_groups(
    group: Box<dyn BufRead + '_>,
    name: Option<&str>,
    member: Option<&str>,
) -> std::io::Result<Groups> {
    let mut found = Groups::default();
    lines(group, |line| {
        let mut fields = line.split(':');
        let (own, gid) = (fields.next()?, id(fields.nth(1)?)?);
        if found.named.is_none() && name == Some(own) {
            found.named = Some(gid);
        }
        let mut members = fields.next().unwrap_or_default().split(',');
        if member.is_some_and(|member| members.any(|listed| listed == member))
            && found.memberships.len() < MOST_GROUPS
        {
            found.memberships.push(gid);
        }
        None::<()>
    })?;
    Ok(found)
}

/// NGROUPS_MAX of Linux: setgroups(2) takes no more.
const MOST_GROUPS: usize = 65_536;

#[cfg(test)]
#[path = "user_tests.rs"]
mod tests;
