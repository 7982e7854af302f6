//! Reads container logs in the CRI format: `TIME STREAM TAG TEXT`.

use std::path::Path;

use anyhow::{Context, Result, bail};

/// One line of a log file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// RFC 3339 with nanoseconds.
    pub time: String,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// `F` for a whole line, `P` for a part that goes on.
    pub tag: String,
    /// Without the newline.
    pub text: String,
}

/// Every line; fails if one is not of the format.
pub fn lines(path: impl AsRef<Path>) -> Result<Vec<Line>> {
    let path = path.as_ref();
    let bytes = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    if !bytes.is_empty() && bytes.last() != Some(&b'\n') {
        bail!("{}: the last line does not end", path.display());
    }
    String::from_utf8_lossy(&bytes).split_terminator('\n').map(parse).collect()
}

fn parse(line: &str) -> Result<Line> {
    let mut parts = line.splitn(4, ' ').map(str::to_owned);
    let mut next = || parts.next().with_context(|| format!("not of the CRI log format: {line:?}"));
    let line = Line { time: next()?, stream: next()?, tag: next()?, text: next()? };
    let time_ok = line.time.len() >= 20 && line.time.as_bytes()[10] == b'T';
    let known = ["stdout", "stderr"].contains(&&*line.stream) && ["F", "P"].contains(&&*line.tag);
    if !time_ok || !known {
        bail!("not of the CRI log format: {line:?}");
    }
    Ok(line)
}

/// What the container wrote, streams mixed as they came.
pub fn text(path: impl AsRef<Path>) -> Result<String> {
    let mut text = String::new();
    for line in lines(path)? {
        text += &line.text;
        if line.tag == "F" {
            text.push('\n');
        }
    }
    Ok(text)
}
