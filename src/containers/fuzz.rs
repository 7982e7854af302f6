//! What fuzzers give as an image's USER and account files, and what must hold whatever it is. What does not live here: who
//! calls this (src/fuzzing.rs).

use super::spec::{GroupsPolicy, RunAs};
use super::user::{Request, UserFiles, resolve};

/// USER, passwd and group, with zero bytes between them. A number is never a name, and root is who is called so.
pub fn user(data: &[u8]) {
    let mut parts = data.splitn(3, |byte| *byte == 0);
    let mut next = || parts.next().unwrap_or_default();
    let (user, passwd, group) = (next(), next(), next());
    let Ok(user) = std::str::from_utf8(user) else { return };
    let request = Request {
        run_as: &RunAs::Image,
        image: "x",
        image_user: user,
        supplemental: &[],
        policy: GroupsPolicy::Merge,
    };
    let files = UserFiles { passwd: Some(Box::new(passwd)), group: Some(Box::new(group)) };
    let Ok(found) = resolve(&request, files) else { return };
    assert!(found.groups.is_sorted() && found.groups.contains(&found.gid));
    let name = user.split(':').next().unwrap_or_default();
    if name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_digit())
    {
        assert_eq!(name, found.uid.to_string());
    }
    if found.uid == 0 && !matches!(name, "" | "0") {
        // Some line of passwd says so, of this very name.
        let line = |line: &[u8]| {
            let mut fields = line.split(|byte| *byte == b':');
            let uid = |field: &[u8]| field.iter().all(|byte| *byte == b'0');
            fields.next() == Some(name.as_bytes()) && fields.nth(1).is_some_and(uid)
        };
        assert!(passwd.split(|byte| *byte == b'\n').any(line), "{user:?} is root");
    }
}
