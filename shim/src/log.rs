//! A container's log in the CRI format: `TIMESTAMP STREAM TAG TEXT\n` (kubelet's pkg/kubelet/kuberuntime/logs).
//! What lives here: one container's log, from bytes of its streams to records in its file. What does not: reading
//! the streams (stdio.rs).

mod file;
mod records;
mod timestamp;

use std::io::{self, IoSlice};
use std::path::PathBuf;

pub use file::LogFile;
use records::{Lines, Record, Tag};

/// Slices given to one writev, three a record; the kernel takes at most 1024.
const BATCH: usize = 192;

/// Which stream of the container a record is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// The log of one container. Without a file, everything is discarded.
#[derive(Debug)]
pub struct Log {
    file: Option<LogFile>,
    stdout: Lines,
    stderr: Lines,
    last: timestamp::Timestamp,
}

impl Log {
    /// Opens `path` for appending; empty = discard.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let file = if path.as_os_str().is_empty() { None } else { Some(LogFile::open(path)?) };
        Ok(Self {
            file,
            stdout: Lines::default(),
            stderr: Lines::default(),
            last: timestamp::Timestamp::default(),
        })
    }

    /// Opens the path anew. On an error the old file stays in use and no new file exists.
    pub fn reopen(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), LogFile::reopen)
    }

    /// Takes what a stream produced. Whole lines, and parts of lines that are too long, go to the file at once; the
    /// start of a line waits for the rest.
    pub fn append(&mut self, stream: Stream, chunk: &[u8]) {
        let Some(file) = &mut self.file else { return };
        self.last = self.last.later(timestamp::Timestamp::now());
        let prefixes = Prefixes::new(self.last, stream);
        let lines = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let mut rest = match lines.complete(chunk) {
            None => return,
            Some((record, rest)) => {
                file.write(&prefixes.slices(&record), 4);
                rest
            }
        };
        lines.clear();
        let mut slices = [IoSlice::new(&[]); BATCH];
        let mut used = 0;
        while let Some((record, after)) = records::next(rest) {
            slices[used..used + 3].copy_from_slice(&prefixes.parts(&record));
            (used, rest) = (used + 3, after);
            if used == BATCH {
                file.write(&slices, 3);
                used = 0;
            }
        }
        file.write(&slices[..used], 3);
        lines.keep(rest);
    }

    /// The stream has ended: a line without its newline is written as a last part.
    pub fn end(&mut self, stream: Stream) {
        let Some(file) = &mut self.file else { return };
        let lines = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        if let Some(record) = lines.unfinished() {
            self.last = self.last.later(timestamp::Timestamp::now());
            file.write(&Prefixes::new(self.last, stream).slices(&record), 4);
        }
        lines.clear();
    }

    /// Bytes of records that could not be written (no space, directory gone) since the start.
    pub fn dropped(&self) -> u64 {
        self.file.as_ref().map_or(0, LogFile::dropped)
    }
}

/// What stands before the text of a full record and of a part.
struct Prefixes {
    full: String,
    part: String,
}

impl Prefixes {
    fn new(at: timestamp::Timestamp, stream: Stream) -> Self {
        let name = stream.name();
        Self { full: format!("{at} {name} F "), part: format!("{at} {name} P ") }
    }

    fn of(&self, tag: Tag) -> &[u8] {
        match tag {
            Tag::Full => self.full.as_bytes(),
            Tag::Part => self.part.as_bytes(),
        }
    }

    fn slices<'a>(&'a self, record: &Record<'a>) -> [IoSlice<'a>; 4] {
        [self.of(record.tag), record.head, record.tail, b"\n"].map(IoSlice::new)
    }

    /// A record whose head is empty.
    fn parts<'a>(&'a self, record: &Record<'a>) -> [IoSlice<'a>; 3] {
        [self.of(record.tag), record.tail, b"\n"].map(IoSlice::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_short_lines_of_two_streams_is_written_in_order_and_byte_exact() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut log = Log::open(path.clone()).unwrap();
        let mut flood = Vec::new();
        for number in 0..5000_u32 {
            flood.extend_from_slice(format!("line {number}\n").as_bytes());
        }
        for chunk in flood.chunks(4096) {
            log.append(Stream::Stdout, chunk);
            log.append(Stream::Stderr, b"\0\xff\n");
        }
        log.append(Stream::Stdout, b"no newline");
        log.end(Stream::Stdout);
        log.end(Stream::Stderr);
        let written = std::fs::read(&path).unwrap();
        let mut stdout = Vec::new();
        let mut last = Vec::new();
        for line in written.strip_suffix(b"\n").unwrap().split(|byte| *byte == b'\n') {
            let mut fields = line.splitn(4, |byte| *byte == b' ');
            let at = fields.next().unwrap().to_vec();
            assert!(at.len() == 30 && at.ends_with(b"Z") && at >= last);
            last = at;
            let stream = fields.next().unwrap();
            let end: &[u8] = if fields.next() == Some(b"F") { b"\n" } else { b"" };
            match stream {
                b"stdout" => stdout.extend_from_slice(&[fields.next().unwrap(), end].concat()),
                _ => assert_eq!(fields.next(), Some(&b"\0\xff"[..])),
            }
        }
        assert_eq!(stdout, [&flood[..], b"no newline"].concat());
        assert_eq!(log.dropped(), 0);
    }

    #[test]
    fn reopening_continues_in_a_new_file_and_keeps_an_unfinished_line_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut log = Log::open(path.clone()).unwrap();
        log.append(Stream::Stdout, b"one\ntw");
        std::fs::rename(&path, dir.path().join("0.log.1")).unwrap();
        log.reopen().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"");
        log.append(Stream::Stdout, b"o\n");
        assert!(std::fs::read_to_string(&path).unwrap().ends_with(" stdout F two\n"));
        assert!(std::fs::read_to_string(dir.path().join("0.log.1")).unwrap().ends_with(" stdout F one\n"));
    }

    #[test]
    fn a_reopen_that_fails_leaves_the_old_file_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut log = Log::open(path.clone()).unwrap();
        let old = dir.path().join("0.log.1");
        std::fs::rename(&path, &old).unwrap();
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        assert!(log.reopen().is_err());
        log.append(Stream::Stderr, b"x\n");
        assert!(std::fs::read_to_string(&old).unwrap().ends_with(" stderr F x\n"));
    }
}
