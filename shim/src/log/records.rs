//! Cutting a stream into records of at most 16 KiB text, ended by a newline. Pure; no file and no clock here.

/// Most bytes of text in one record, as kubelet's and containerd's.
pub const MAX_TEXT: usize = 16 * 1024;

/// An emptied buffer larger than this is given back.
const KEEP_CAPACITY: usize = 256;

/// `F`: the line's end. `P`: more of the same line follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    Full,
    Part,
}

/// The text of one record is `head` and then `tail`, without the newline.
#[derive(Debug, PartialEq, Eq)]
pub struct Record<'a> {
    pub tag: Tag,
    pub head: &'a [u8],
    pub tail: &'a [u8],
}

/// The first record that `bytes` completes, and what is after it; `None` where a line's rest is yet to come.
pub fn next(bytes: &[u8]) -> Option<(Record<'_>, &[u8])> {
    cut(&[], bytes)
}

fn cut<'head, 'bytes: 'head>(
    head: &'head [u8],
    bytes: &'bytes [u8],
) -> Option<(Record<'head>, &'bytes [u8])> {
    let room = MAX_TEXT - head.len();
    // One byte more than fits: a line of exactly 16 KiB is one full record, and a part always has a successor.
    let seen = &bytes[..bytes.len().min(room + 1)];
    match seen.iter().position(|byte| *byte == b'\n') {
        Some(at) => Some((Record { tag: Tag::Full, head, tail: &bytes[..at] }, &bytes[at + 1..])),
        None if seen.len() > room => {
            Some((Record { tag: Tag::Part, head, tail: &bytes[..room] }, &bytes[room..]))
        }
        None => None,
    }
}

/// The start of a stream's unfinished line.
#[derive(Debug, Default)]
pub struct Lines {
    start: Vec<u8>,
}

impl Lines {
    /// Joins `chunk` to the unfinished line. `None` = still unfinished, all of it is kept. Otherwise the record, and
    /// the rest of the chunk; the caller then calls [`Self::clear`], [`next`] for more records, [`Self::keep`] for what
    /// remains.
    pub fn complete<'own, 'chunk: 'own>(
        &'own mut self,
        chunk: &'chunk [u8],
    ) -> Option<(Record<'own>, &'chunk [u8])> {
        if cut(&self.start, chunk).is_none() {
            self.start.extend_from_slice(chunk);
            return None;
        }
        cut(&self.start, chunk)
    }

    /// Forgets the unfinished line: it is written.
    pub fn clear(&mut self) {
        self.start.clear();
        if self.start.capacity() > KEEP_CAPACITY {
            self.start = Vec::new();
        }
    }

    /// Keeps the start of a line for later.
    pub fn keep(&mut self, rest: &[u8]) {
        self.start.extend_from_slice(rest);
    }

    /// What is left when the stream has ended. A part, as no newline was written: the kubelet puts one behind a full
    /// record, and would show it in termination messages that are taken from the log.
    pub fn unfinished(&self) -> Option<Record<'_>> {
        (!self.start.is_empty()).then_some(Record { tag: Tag::Part, head: &self.start, tail: &[] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a reader gets: the texts, each with its tag.
    fn records(chunks: &[&[u8]]) -> Vec<(Tag, Vec<u8>)> {
        let mut lines = Lines::default();
        let mut all = Vec::new();
        for chunk in chunks {
            let mut rest = match lines.complete(chunk) {
                None => continue,
                Some((record, rest)) => {
                    all.push((record.tag, [record.head, record.tail].concat()));
                    rest
                }
            };
            lines.clear();
            while let Some((record, after)) = next(rest) {
                assert!(record.head.is_empty());
                all.push((record.tag, record.tail.to_vec()));
                rest = after;
            }
            lines.keep(rest);
            assert!(lines.start.len() <= MAX_TEXT);
        }
        all.extend(lines.unfinished().map(|record| (record.tag, record.head.to_vec())));
        all
    }

    fn joined(records: &[(Tag, Vec<u8>)]) -> Vec<u8> {
        let mut text = Vec::new();
        for (tag, part) in records {
            text.extend_from_slice(part);
            text.extend((*tag == Tag::Full).then_some(b'\n'));
        }
        text
    }

    #[test]
    fn lines_at_the_limit_are_one_record_and_longer_ones_are_parts() {
        for (length, expected) in [(MAX_TEXT, 1), (MAX_TEXT + 1, 2), (2 * MAX_TEXT, 2), (2 * MAX_TEXT + 1, 3)]
        {
            let mut line = vec![b'x'; length];
            line.push(b'\n');
            for size in [1, 4096, MAX_TEXT, length + 1] {
                let got = records(&line.chunks(size).collect::<Vec<_>>());
                assert_eq!(got.len(), expected, "{length} bytes in chunks of {size}");
                assert_eq!(got.iter().filter(|(tag, _)| *tag == Tag::Full).count(), 1);
                assert_eq!(joined(&got), line);
            }
        }
    }

    #[test]
    fn empty_lines_are_records_and_an_unfinished_line_is_a_part_at_the_end() {
        assert_eq!(
            records(&[b"a\n\nb", b"c\nd"]),
            [
                (Tag::Full, b"a".to_vec()),
                (Tag::Full, b"".to_vec()),
                (Tag::Full, b"bc".to_vec()),
                (Tag::Part, b"d".to_vec())
            ]
        );
        assert_eq!(records(&[b""]), []);
    }

    proptest::proptest! {
        #[test]
        fn joined_records_are_the_input_for_any_chunking(
            text in proptest::collection::vec(proptest::prop_oneof![8 => proptest::num::u8::ANY, 1 => proptest::strategy::Just(b'\n')], 0..300),
            long in 0_usize..70_000, at in 0_usize..300, sizes in proptest::collection::vec(1_usize..20_000, 1..20),
        ) {
            let mut input = text.clone();
            let at = at.min(input.len());
            input.splice(at..at, std::iter::repeat_n(b'-', long));
            let mut chunks = Vec::new();
            let mut rest = &input[..];
            for size in sizes.iter().cycle() {
                if rest.is_empty() { break; }
                let (chunk, after) = rest.split_at((*size).min(rest.len()));
                chunks.push(chunk);
                rest = after;
            }
            let got = records(&chunks);
            proptest::prop_assert_eq!(&joined(&got), &input);
            proptest::prop_assert!(got.iter().all(|(_, text)| text.len() <= MAX_TEXT && !text.contains(&b'\n')));
            let mut but_the_last = got.iter().take(got.len().saturating_sub(1));
            let parts_are_full = but_the_last.all(|(tag, text)| *tag == Tag::Full || text.len() == MAX_TEXT);
            proptest::prop_assert!(parts_are_full);
            let alone = records(&[&input[..]]);
            proptest::prop_assert_eq!(got, alone);
        }
    }
}
