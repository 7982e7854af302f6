//! Files with holes, which GNU tar leaves out of the archive in four ways (its manual, "Storing Sparse Files"): a map in the
//! header and blocks behind it, in two forms of extended records, or in front of the data. What does not live here: writing
//! such a file.
//!
//! A map says anew how long a file is and where its bytes are, so it must leave nothing to guess: in order, without overlap,
//! within the file, and with just as many bytes as the archive holds.

use std::io::BufRead;

use super::header::{BLOCK, number};
use super::{Reader, TarError};

type Problem = &'static str;

/// Pieces of data in a map of one file: what an extended header has room for, in whichever way the map comes.
const PIECES_MAX: usize = 65_536;
/// Of a number in a map.
const DIGITS_MAX: usize = 20;
/// Pairs in a header, and in a block behind it.
const IN_HEADER: usize = 4;
const IN_BLOCK: usize = 21;

/// Where a file has data; all else in it is holes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    /// Offset and length, ascending.
    pub pieces: Vec<(u64, u64)>,
    /// Of the whole file.
    pub size: u64,
}

impl Map {
    /// `stored` is how many bytes the archive holds of the file.
    fn new(pieces: Vec<(u64, u64)>, size: u64, stored: u64) -> Result<Self, Problem> {
        let mut end = 0_u64;
        let mut total = 0_u64;
        for (offset, length) in &pieces {
            let next = offset.checked_add(*length).filter(|next| *offset >= end && *next <= size);
            end = next.ok_or("a map of a sparse file that overlaps or goes beyond its end")?;
            total += length;
        }
        if total != stored {
            return Err("a map of a sparse file that is not what the archive holds of it");
        }
        Ok(Self { pieces, size })
    }
}

/// Records of an extended header.
#[derive(Debug, Default)]
pub struct Records {
    version: [Option<u64>; 2],
    /// The file's own name, where the header's is made up.
    pub name: Option<Vec<u8>>,
    size: Option<u64>,
    real_size: Option<u64>,
    blocks: Option<u64>,
    /// Offsets and lengths in turn.
    numbers: Vec<u64>,
}

impl Records {
    /// Takes `GNU.sparse.` KEY. The number has been read where it is one.
    pub fn take(&mut self, key: &[u8], text: &[u8], number: Option<u64>) -> Result<(), Problem> {
        let problem = "a record of a sparse file that is no number";
        let once = |slot: &mut Option<u64>| -> Result<(), Problem> {
            let twice = slot.replace(number.ok_or(problem)?).is_some();
            if twice { Err("a record of a sparse file twice") } else { Ok(()) }
        };
        let is_length = self.numbers.len() % 2 == 1;
        match key {
            b"major" => once(&mut self.version[0])?,
            b"minor" => once(&mut self.version[1])?,
            b"size" => once(&mut self.size)?,
            b"realsize" => once(&mut self.real_size)?,
            b"numblocks" => once(&mut self.blocks)?,
            b"name" if self.name.is_none() => self.name = Some(super::pax::path(text)?),
            b"offset" if !is_length => self.numbers.push(number.ok_or(problem)?),
            b"numbytes" if is_length => self.numbers.push(number.ok_or(problem)?),
            b"map" if self.numbers.is_empty() => {
                let numbers = text.split(|byte| *byte == b',').map(super::pax::decimal);
                self.numbers = numbers.collect::<Option<_>>().ok_or(problem)?;
            }
            _ => return Err("a record of a sparse file that is not known, or not expected there"),
        }
        Ok(())
    }

    fn map(self, stored: u64) -> Result<Map, Problem> {
        let (Some(size), Some(blocks), None) = (self.size, self.blocks, self.real_size) else {
            return Err("a sparse file without size or map");
        };
        let pieces = pairs(&self.numbers)?;
        if pieces.len() as u64 != blocks {
            return Err("a map of a sparse file of another length than it says");
        }
        Map::new(pieces, size, stored)
    }
}

fn pairs(numbers: &[u64]) -> Result<Vec<(u64, u64)>, Problem> {
    let (pairs, rest) = numbers.as_chunks::<2>();
    if !rest.is_empty() || pairs.len() > PIECES_MAX {
        return Err("a map of a sparse file that is too long, or cut off");
    }
    Ok(pairs.iter().map(|[offset, length]| (*offset, *length)).collect())
}

/// Pairs in a block up to the first empty one; whether all of them are used.
fn packed(block: &[u8; BLOCK], at: usize, count: usize, into: &mut Vec<u64>) -> Result<bool, Problem> {
    for pair in block[at..at + count * 24].chunks_exact(24) {
        if pair[12] == 0 {
            return Ok(false);
        }
        for field in pair.chunks_exact(12) {
            let value = number(field).and_then(|value| u64::try_from(value).ok());
            into.push(value.ok_or("a map of a sparse file that is no number")?);
        }
    }
    Ok(true)
}

impl<R: BufRead> Reader<R> {
    /// The oldest form: a header of its own type.
    pub(super) fn map_of_header(&mut self, header: &[u8; BLOCK], stored: u64) -> Result<Map, TarError> {
        let mut numbers = Vec::new();
        let mut full =
            packed(header, 386, IN_HEADER, &mut numbers).map_err(|problem| self.invalid(problem))?;
        let mut more = header[482] != 0;
        while more {
            if !full || numbers.len() > PIECES_MAX * 2 {
                return Err(
                    self.invalid("a map of a sparse file that is too long, or goes on behind its end")
                );
            }
            let block = self.block()?.ok_or(TarError::Truncated(self.offset()))?;
            full = packed(&block, 0, IN_BLOCK, &mut numbers).map_err(|problem| self.invalid(problem))?;
            more = block[504] != 0;
        }
        let size = number(&header[483..495]).and_then(|size| u64::try_from(size).ok());
        let size = size.ok_or_else(|| self.invalid("a sparse file whose size is no number"))?;
        let map = pairs(&numbers).and_then(|pieces| Map::new(pieces, size, stored));
        map.map_err(|problem| self.invalid(problem))
    }

    /// What extended records say; the last of the forms has its map in front of the data, of which `stored` is left then.
    pub(super) fn map_of_records(&mut self, records: Records, stored: &mut u64) -> Result<Map, TarError> {
        match records.version {
            [None, None] => records.map(*stored).map_err(|problem| self.invalid(problem)),
            [Some(1), Some(0)] => {
                let Records {
                    real_size: Some(size), name: Some(_), size: None, blocks: None, numbers, ..
                } = records
                else {
                    return Err(self.invalid("a sparse file without size or name"));
                };
                if !numbers.is_empty() {
                    return Err(self.invalid("a sparse file with two maps"));
                }
                let pieces = self.map_before_data(stored)?;
                Map::new(pieces, size, *stored).map_err(|problem| self.invalid(problem))
            }
            _ => Err(self.invalid("a sparse file of an unknown version")),
        }
    }

    /// Lines of decimal numbers, the first their count, in whole blocks.
    fn map_before_data(&mut self, stored: &mut u64) -> Result<Vec<(u64, u64)>, TarError> {
        let cut = "a map of a sparse file that is too long, or cut off";
        let (mut text, mut numbers, mut wanted) = (Vec::new(), Vec::new(), None);
        while wanted.is_none_or(|wanted| numbers.len() < wanted) {
            // What is left of the block before is the beginning of a number.
            if *stored < BLOCK as u64 || text.len() > DIGITS_MAX {
                return Err(self.invalid(cut));
            }
            let block = self.block()?.ok_or(TarError::Truncated(self.offset()))?;
            *stored -= BLOCK as u64;
            text.extend_from_slice(&block);
            while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let number = super::pax::decimal(&text[..end]);
                let number =
                    number.ok_or_else(|| self.invalid("a map of a sparse file that is no number"))?;
                text.drain(..=end);
                match wanted {
                    None => match usize::try_from(number) {
                        Ok(pieces @ ..=PIECES_MAX) => wanted = Some(pieces * 2),
                        _ => return Err(self.invalid(cut)),
                    },
                    Some(wanted) if numbers.len() < wanted => numbers.push(number),
                    Some(_) => return Err(self.invalid("a map of a sparse file that goes on behind its end")),
                }
            }
        }
        pairs(&numbers).map_err(|problem| self.invalid(problem))
    }
}
