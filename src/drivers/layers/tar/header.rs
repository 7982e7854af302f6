//! One header block of 512 bytes: numbers, names, checksum. What does not live here: extensions that span blocks.

/// Size of a block.
pub const BLOCK: usize = 512;

/// What an entry makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// Another name of a file.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// What the type flag says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flag {
    Entry(Kind),
    Extended,
    Global,
    LongName,
    LongLink,
}

/// The type of a file before POSIX.
const OLD_FILE: u8 = 0;
/// GNU's type of a file with a map of its holes.
const SPARSE: u8 = b'S';

/// A header with a good checksum.
#[derive(Debug)]
pub struct Header<'a>(&'a [u8; BLOCK]);

type Problem = &'static str;

impl<'a> Header<'a> {
    /// Checks the checksum: the sum of all bytes, with the field itself as blanks; old writers added signed bytes.
    pub fn parse(block: &'a [u8; BLOCK]) -> Result<Self, Problem> {
        let header = Self(block);
        let wanted = octal(header.field(148, 8)).ok_or("a checksum that is no number")?;
        let blanked = |(at, byte): (usize, &u8)| if (148..156).contains(&at) { b' ' } else { *byte };
        let bytes = || block.iter().enumerate().map(blanked);
        let unsigned: u64 = bytes().map(u64::from).sum();
        let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
        if wanted == unsigned || i64::try_from(wanted) == Ok(signed) {
            Ok(header)
        } else {
            Err("a wrong checksum")
        }
    }

    /// All of it.
    pub fn block(&self) -> &'a [u8; BLOCK] {
        self.0
    }

    fn field(&self, at: usize, len: usize) -> &'a [u8] {
        &self.0[at..at + len]
    }

    fn text(&self, at: usize, len: usize) -> &'a [u8] {
        let field = self.field(at, len);
        let end = field.iter().position(|byte| *byte == 0).unwrap_or(len);
        &field[..end]
    }

    fn number(&self, at: usize, len: usize, problem: Problem) -> Result<i64, Problem> {
        number(self.field(at, len)).ok_or(problem)
    }

    /// Whether it is of GNU's oldest form of sparse files.
    pub fn is_sparse(&self) -> Result<bool, Problem> {
        match (self.0[156], self.field(257, 8)) {
            (SPARSE, b"ustar  \0") => Ok(true),
            (SPARSE, _) => Err("the type of GNU's sparse files, and is none of GNU's"),
            _ => Ok(false),
        }
    }

    pub fn flag(&self) -> Result<Flag, Problem> {
        Ok(match self.0[156] {
            OLD_FILE | b'0' | b'7' | SPARSE => Flag::Entry(Kind::File),
            b'1' => Flag::Entry(Kind::HardLink),
            b'2' => Flag::Entry(Kind::Symlink),
            b'3' => Flag::Entry(Kind::CharDevice),
            b'4' => Flag::Entry(Kind::BlockDevice),
            b'5' => Flag::Entry(Kind::Directory),
            b'6' => Flag::Entry(Kind::Fifo),
            b'x' => Flag::Extended,
            b'g' => Flag::Global,
            b'L' => Flag::LongName,
            b'K' => Flag::LongLink,
            _ => return Err("an unknown type"),
        })
    }

    /// What a file of this whole name is. Before POSIX a directory was a file whose name ends in a slash; since then some
    /// readers still see a directory there, and others a file.
    pub fn file_or_directory(&self, name: &[u8]) -> Result<Kind, Problem> {
        match (name.ends_with(b"/"), self.0[156]) {
            (false, _) => Ok(Kind::File),
            (true, OLD_FILE) => Ok(Kind::Directory),
            (true, _) => Err("a file's type and a directory's name"),
        }
    }

    /// The prefix field exists in POSIX headers only; GNU keeps times there, and star in the last bytes of it.
    pub fn name(&self) -> Vec<u8> {
        let name = self.text(0, 100);
        let length = if self.field(508, 4) == b"tar\0" { 131 } else { 155 };
        let prefix = if self.field(257, 6) == b"ustar\0" { self.text(345, length) } else { b"" };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    pub fn link(&self) -> &'a [u8] {
        self.text(157, 100)
    }

    pub fn size(&self) -> Result<u64, Problem> {
        let size = self.number(124, 12, "a size that is no number")?;
        u64::try_from(size).map_err(|_| "a negative size")
    }

    pub fn mode(&self) -> Result<u32, Problem> {
        let mode = self.number(100, 8, "a mode that is no number")?;
        Ok((mode & 0o7777) as u32)
    }

    pub fn owner(&self) -> Result<(i64, i64), Problem> {
        Ok((
            self.number(108, 8, "a user id that is no number")?,
            self.number(116, 8, "a group id that is no number")?,
        ))
    }

    pub fn mtime(&self) -> Result<i64, Problem> {
        self.number(136, 12, "a time that is no number")
    }

    pub fn device(&self) -> Result<(u32, u32), Problem> {
        let number = |at, bits: u32| {
            let value = self.number(at, 8, "a device that is no number")?;
            let value = u32::try_from(value).ok().filter(|value| value >> bits == 0);
            value.ok_or("a device number out of range")
        };
        // What Linux takes: more would be cut off, and become another device.
        Ok((number(329, 12)?, number(337, 20)?))
    }
}

/// A field of a header: octal, or GNU's binary form.
pub fn number(field: &[u8]) -> Option<i64> {
    if field[0] & 0x80 != 0 { base256(field) } else { octal(field).and_then(|value| value.try_into().ok()) }
}

/// Octal digits, blanks or zeros around them; nothing at all is zero.
fn octal(field: &[u8]) -> Option<u64> {
    let text = field.split(|byte| *byte == 0).next()?;
    let text = text.trim_ascii();
    text.iter().try_fold(0_u64, |value, byte| match byte {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

/// GNU's form of large and negative numbers: two's complement, big-endian, the first bit set as a mark.
fn base256(field: &[u8]) -> Option<i64> {
    let negative = field[0] & 0x40 != 0;
    let first = i128::from(field[0] & 0x7f) - if negative { 0x80 } else { 0 };
    let mut value = first;
    for byte in &field[1..] {
        value = value.checked_mul(256)?.checked_add(i128::from(*byte))?;
    }
    value.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        assert_eq!(octal(b"0000644\0"), Some(0o644));
        assert_eq!(octal(b"   644 \0"), Some(0o644));
        assert_eq!(octal(b"\0\0\0"), Some(0));
        assert_eq!(octal(b"0009"), None);
        assert_eq!(octal(b"-1"), None);
        assert_eq!(octal(&[b'7'; 30]), None);
        assert_eq!(base256(&[0x80, 0, 1, 0]), Some(256));
        assert_eq!(base256(&[0xff; 12]), Some(-1));
        assert_eq!(base256(&[0x80, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), None);
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        let mut block = [0_u8; BLOCK];
        block[0] = b'a';
        let sum = u32::from(b'a') + 8 * u32::from(b' ');
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        assert_eq!(Header::parse(&block).unwrap().name(), b"a");
        block[0] = b'b';
        assert_eq!(Header::parse(&block).unwrap_err(), "a wrong checksum");
    }
}
