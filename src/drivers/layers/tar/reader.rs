//! From a stream of bytes to entries, in order, in one pass. What does not live here: paths' meaning.

use std::collections::BTreeMap;
use std::io::{BufRead, ErrorKind};

use super::header::{BLOCK, Flag, Header, Kind};
use super::pax::{Extension, check_global};
use super::sparse::Map;
use super::{EXTENSION_MAX, PATH_MAX, TARGET_MAX, TarError};

/// One file, directory, link or device; its data follows in `Reader::data`.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// As written: may be absolute, may hold `.` and `..`.
    pub path: Vec<u8>,
    /// Target of a symbolic or hard link, as written.
    pub link: Vec<u8>,
    /// What it makes.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of data in the archive.
    pub size: u64,
    /// Where they belong in a file with holes.
    pub sparse: Option<Map>,
    /// Seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Values by name.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// The extensions before an entry, each at most once.
#[derive(Default)]
struct Pending {
    extension: Option<Extension>,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

/// Reads an archive from any buffered source.
pub struct Reader<R> {
    input: R,
    offset: u64,
    header: u64,
    data: u64,
    padding: u64,
}

impl<R: BufRead> Reader<R> {
    /// At the first byte of the archive.
    pub fn new(input: R) -> Self {
        Self { input, offset: 0, header: 0, data: 0, padding: 0 }
    }

    /// Bytes from the start of the archive to what is read next.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next entry; what is left of the last one's data is skipped.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut pending = Pending::default();
        loop {
            self.skip_rest()?;
            self.header = self.offset;
            let Some(block) = self.block()? else {
                return self.end(&pending);
            };
            if block.iter().all(|byte| *byte == 0) {
                return self.trailer(&pending);
            }
            let header = Header::parse(&block).map_err(|problem| self.invalid(problem))?;
            match header.flag().map_err(|problem| self.invalid(problem))? {
                Flag::Entry(kind) => return self.entry(&header, kind, pending).map(Some),
                flag => self.extend(&header, flag, &mut pending)?,
            }
        }
    }

    /// More of the current entry's data; empty at its end. `consume` what was used.
    pub fn data(&mut self) -> Result<&[u8], TarError> {
        if self.data == 0 {
            return Ok(&[]);
        }
        let (offset, left) = (self.offset, self.data);
        let bytes = fill(&mut self.input).map_err(|source| TarError::Read { offset, source })?;
        if bytes.is_empty() {
            return Err(TarError::Truncated(offset));
        }
        let len = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        Ok(&bytes[..len])
    }

    /// Takes bytes that `data` returned.
    pub fn consume(&mut self, len: usize) {
        self.input.consume(len);
        self.offset += len as u64;
        self.data -= len as u64;
    }

    /// Reads whatever follows the archive, so that checksums over the whole stream hold.
    pub fn finish(mut self) -> Result<R, TarError> {
        loop {
            let offset = self.offset;
            let len = fill(&mut self.input).map_err(|source| TarError::Read { offset, source })?.len();
            if len == 0 {
                return Ok(self.input);
            }
            self.input.consume(len);
            self.offset += len as u64;
        }
    }

    fn end(&self, pending: &Pending) -> Result<Option<Entry>, TarError> {
        if pending.extension.is_some() || pending.name.is_some() || pending.link.is_some() {
            return Err(self.invalid("an extended header but no entry behind it"));
        }
        Ok(None)
    }

    /// The archive ends with two blocks of zeros; a lone one at the very end is common enough.
    fn trailer(&mut self, pending: &Pending) -> Result<Option<Entry>, TarError> {
        match self.block()? {
            Some(block) if block.iter().any(|byte| *byte != 0) => {
                Err(self.invalid("a lone block of zeros before it"))
            }
            _ => self.end(pending),
        }
    }

    fn extend(&mut self, header: &Header<'_>, flag: Flag, pending: &mut Pending) -> Result<(), TarError> {
        let size = header.size().map_err(|problem| self.invalid(problem))?;
        let body = self.body(size)?;
        let first = match flag {
            Flag::Extended => {
                let extension = Extension::parse(&body).map_err(|problem| self.invalid(problem))?;
                pending.extension.replace(extension).is_none()
            }
            Flag::LongName => pending.name.replace(self.long(body)?).is_none(),
            Flag::LongLink => pending.link.replace(self.long(body)?).is_none(),
            Flag::Global => {
                check_global(&body).map_err(|problem| self.invalid(problem))?;
                true
            }
            Flag::Entry(_) => true,
        };
        if first { Ok(()) } else { Err(self.invalid("two extended headers of the same kind")) }
    }

    fn long(&self, body: Vec<u8>) -> Result<Vec<u8>, TarError> {
        let end = body.iter().position(|byte| *byte == 0).unwrap_or(body.len());
        if end > PATH_MAX {
            return Err(TarError::TooLong { offset: self.header, what: "a path", limit: PATH_MAX as u64 });
        }
        Ok(body[..end].to_vec())
    }

    fn entry(&mut self, header: &Header<'_>, kind: Kind, pending: Pending) -> Result<Entry, TarError> {
        let offset = self.header;
        let invalid = |problem| TarError::Invalid { offset, problem };
        let mut extension = pending.extension.unwrap_or_default();
        let one = |long: Option<Vec<u8>>, extended: Option<Vec<u8>>| match (long, extended) {
            (Some(_), Some(_)) => Err(invalid("its name in two extended headers")),
            (long, extended) => Ok(long.or(extended)),
        };
        let mut path = one(pending.name, extension.path)?.unwrap_or_else(|| header.name());
        let link = one(pending.link, extension.link)?.unwrap_or_else(|| header.link().to_vec());
        let mut size = extension.size.map_or_else(|| header.size(), Ok).map_err(invalid)?;
        if let Some(name) = extension.sparse.as_mut().and_then(|records| records.name.clone()) {
            path = name;
        }
        let kind = if kind == Kind::File { header.file_or_directory(&path).map_err(invalid)? } else { kind };
        if kind == Kind::Symlink {
            self.check_target(&link)?;
        }
        if size != 0 && kind != Kind::File {
            return Err(invalid("data, and is no file"));
        }
        let sparse = match (header.is_sparse().map_err(invalid)?, extension.sparse) {
            (false, None) => None,
            (true, None) if kind == Kind::File => Some(self.map_of_header(header.block(), size)?),
            (false, Some(records)) if kind == Kind::File => Some(self.map_of_records(records, &mut size)?),
            _ => return Err(invalid("a map of a sparse file, and is none, or two of them")),
        };
        let (uid, gid) = header.owner().map_err(invalid)?;
        let device = match kind {
            Kind::CharDevice | Kind::BlockDevice => header.device().map_err(invalid)?,
            _ => (0, 0),
        };
        let entry = Entry {
            path,
            link,
            kind,
            mode: header.mode().map_err(invalid)?,
            uid: id(extension.uid.unwrap_or(uid)).map_err(invalid)?,
            gid: id(extension.gid.unwrap_or(gid)).map_err(invalid)?,
            size,
            sparse,
            mtime: extension.mtime.map_or_else(|| header.mtime().map(|s| (s, 0)), Ok).map_err(invalid)?,
            device,
            xattrs: extension.xattrs,
        };
        self.expect_data(size)?;
        Ok(entry)
    }

    /// Linux makes no link to nothing, nor to more than this.
    fn check_target(&self, target: &[u8]) -> Result<(), TarError> {
        match target.len() {
            0 => Err(self.invalid("a symbolic link to nothing")),
            1..=TARGET_MAX => Ok(()),
            _ => {
                let (what, limit) = ("a symbolic link's target", TARGET_MAX as u64);
                Err(TarError::TooLong { offset: self.header, what, limit })
            }
        }
    }

    fn expect_data(&mut self, size: u64) -> Result<(), TarError> {
        let padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
        // Past this no offset can be counted; no such archive exists.
        if size > u64::MAX / 4 {
            return Err(self.invalid("an impossible size"));
        }
        (self.data, self.padding) = (size, padding);
        Ok(())
    }

    fn body(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > EXTENSION_MAX {
            let what = "an extended header";
            return Err(TarError::TooLong { offset: self.header, what, limit: EXTENSION_MAX });
        }
        self.expect_data(size)?;
        let mut body = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
        loop {
            let data = self.data()?;
            if data.is_empty() {
                return Ok(body);
            }
            body.extend_from_slice(data);
            let len = data.len();
            self.consume(len);
        }
    }

    fn skip_rest(&mut self) -> Result<(), TarError> {
        self.data += std::mem::take(&mut self.padding);
        loop {
            let len = self.data()?.len();
            if len == 0 {
                return Ok(());
            }
            self.consume(len);
        }
    }

    /// A whole block, or none at the end of the stream.
    pub(super) fn block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        let mut have = 0;
        while have < BLOCK {
            let offset = self.offset;
            let bytes = fill(&mut self.input).map_err(|source| TarError::Read { offset, source })?;
            if bytes.is_empty() {
                return if have == 0 { Ok(None) } else { Err(TarError::Truncated(offset)) };
            }
            let len = bytes.len().min(BLOCK - have);
            block[have..have + len].copy_from_slice(&bytes[..len]);
            self.input.consume(len);
            have += len;
            self.offset += len as u64;
        }
        Ok(Some(block))
    }

    pub(super) fn invalid(&self, problem: &'static str) -> TarError {
        TarError::Invalid { offset: self.header, problem }
    }
}

/// The highest number means nobody in system calls.
fn id(id: i64) -> Result<u32, &'static str> {
    u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or("an owner out of range")
}

fn fill<R: BufRead>(input: &mut R) -> std::io::Result<&[u8]> {
    loop {
        match input.fill_buf() {
            Ok(_) => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    input.fill_buf()
}
