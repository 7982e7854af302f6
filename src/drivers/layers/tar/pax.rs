//! POSIX extended headers: records of `LENGTH KEY=VALUE\n`. What does not live here: where they stand in the archive.

use std::collections::BTreeMap;

use super::sparse;
use super::{PATH_MAX, XATTR_MAX};

type Problem = &'static str;

/// What an extended header says of the entry behind it.
#[derive(Debug, Default)]
pub struct Extension {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<i64>,
    pub gid: Option<i64>,
    /// Seconds and nanoseconds.
    pub mtime: Option<(i64, u32)>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Of a file with holes.
    pub sparse: Option<sparse::Records>,
}

impl Extension {
    /// Reads the body of an `x` header. Anything malformed is refused: a record skipped by one reader and honoured
    /// by another is how an archive shows different files to each.
    pub fn parse(body: &[u8]) -> Result<Self, Problem> {
        let mut extension = Self::default();
        for record in Records(body) {
            let (key, value) = record?;
            extension.take(key, value)?;
        }
        Ok(extension)
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), Problem> {
        match key {
            b"path" => self.path = Some(path(value)?),
            b"linkpath" => self.link = Some(path(value)?),
            b"size" => self.size = Some(number(value, "an extended size that is no number")?),
            b"uid" => self.uid = Some(number(value, "an extended user id that is no number")?),
            b"gid" => self.gid = Some(number(value, "an extended group id that is no number")?),
            b"mtime" => self.mtime = Some(time(value).ok_or("an extended time that is no number")?),
            key => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.take_xattr(name, value)?;
                } else if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.get_or_insert_default().take(key, value, decimal(value))?;
                }
            }
        }
        Ok(())
    }

    fn take_xattr(&mut self, name: &[u8], value: &[u8]) -> Result<(), Problem> {
        if name.is_empty() || name.len() > super::NAME_MAX || name.contains(&0) {
            return Err("an extended attribute with an impossible name");
        }
        if value.len() > XATTR_MAX {
            return Err("an extended attribute larger than 64 KiB");
        }
        self.xattrs.insert(name.to_vec(), value.to_vec());
        Ok(())
    }
}

/// Checks the body of a `g` header. Other readers disagree about global records, so none may change what is made.
pub fn check_global(body: &[u8]) -> Result<(), Problem> {
    for record in Records(body) {
        let (key, _) = record?;
        let known = matches!(key, b"path" | b"linkpath" | b"size" | b"uid" | b"gid" | b"mtime");
        if known || key.starts_with(b"GNU.sparse.") || key.starts_with(b"SCHILY.xattr.") {
            return Err("a global header that describes files");
        }
    }
    Ok(())
}

struct Records<'a>(&'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), Problem>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let record = split(self.0);
        match record {
            Some((key, value, rest)) => {
                self.0 = rest;
                Some(Ok((key, value)))
            }
            None => {
                self.0 = &[];
                Some(Err("a malformed extended header"))
            }
        }
    }
}

fn split(body: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = body.iter().take(10).position(|byte| *byte == b' ')?;
    let length: usize = decimal(&body[..blank])?.try_into().ok()?;
    if length > body.len() || length <= blank + 1 {
        return None;
    }
    let (record, rest) = body.split_at(length);
    let record = record[blank + 1..].strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    let key = &record[..equals];
    if key.is_empty() || key.contains(&0) {
        return None;
    }
    Some((key, &record[equals + 1..], rest))
}

/// An empty value should take an older record back; some readers see an empty path instead.
pub(super) fn path(value: &[u8]) -> Result<Vec<u8>, Problem> {
    if value.is_empty() {
        return Err("an empty path in an extended header");
    }
    if value.contains(&0) {
        return Err("a path with a zero byte");
    }
    if value.len() > PATH_MAX {
        return Err("a path longer than 4096 bytes");
    }
    Ok(value.to_vec())
}

fn number<N: TryFrom<u64>>(value: &[u8], problem: Problem) -> Result<N, Problem> {
    decimal(value).and_then(|number| N::try_from(number).ok()).ok_or(problem)
}

pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |value, byte| match byte {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

/// `[-]seconds[.fraction]`; what is finer than a nanosecond is cut off.
fn time(value: &[u8]) -> Option<(i64, u32)> {
    let (negative, value) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let mut parts = value.splitn(2, |byte| *byte == b'.');
    let seconds = i64::try_from(decimal(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let nanoseconds = digits.fold(0_u32, |value, byte| value * 10 + u32::from(byte - b'0'));
    Some(match (negative, nanoseconds) {
        (false, nanoseconds) => (seconds, nanoseconds),
        (true, 0) => (-seconds, 0),
        (true, nanoseconds) => (-seconds - 1, 1_000_000_000 - nanoseconds),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &[u8]) -> Vec<u8> {
        let rest = 3 + key.len() + value.len();
        let length = (rest..).find(|length| length.to_string().len() + rest == *length).unwrap();
        [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
    }

    #[test]
    fn records_say_path_size_time_and_attributes() {
        let body = [
            record("path", b"a/b"),
            record("size", b"12345678901"),
            record("mtime", b"-1.25"),
            record("SCHILY.xattr.user.x", b"\0=\n"),
            record("comment", b"ignored"),
        ]
        .concat();
        let extension = Extension::parse(&body).unwrap();
        assert_eq!(extension.path.unwrap(), b"a/b");
        assert_eq!(extension.size, Some(12_345_678_901));
        assert_eq!(extension.mtime, Some((-2, 750_000_000)));
        assert_eq!(extension.xattrs, [(b"user.x".to_vec(), b"\0=\n".to_vec())].into());
    }

    #[test]
    fn what_is_malformed_is_refused_not_skipped() {
        for body in [
            &b"9 path=a\n"[..],
            b"99 path=a\n",
            b"11 path=a\n",
            b"9 path=ab",
            b"x path=a\n",
            b" 9 path=a\n",
            b"+9 path=a\n",
            b"6 =aa\n",
            b"5 abc\n",
            b"10 path=\0\0\n",
            b"10 size=-1\n",
            b"10 size=0x\n",
            b"0 \n",
        ] {
            let text = String::from_utf8_lossy(body).into_owned();
            if text == "9 path=a\n" {
                assert!(Extension::parse(body).is_ok(), "{text:?}");
            } else {
                assert!(Extension::parse(body).is_err(), "{text:?}");
            }
        }
        assert!(check_global(&record("path", b"x")).is_err());
        assert!(check_global(&record("comment", b"x")).is_ok());
        for known in ["path", "linkpath", "size", "uid", "gid", "mtime"] {
            assert!(Extension::parse(&record(known, b"")).is_err(), "{known}");
            assert!(check_global(&record(known, b"1")).is_err(), "{known}");
        }
    }
}
