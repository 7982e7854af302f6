//! Builds tar archives byte by byte, also ones that no honest program writes.

/// An archive that grows.
#[derive(Clone, Default)]
pub struct Tar(Vec<u8>);

/// One entry.
#[derive(Clone, Copy)]
pub struct Head<'a> {
    pub path: &'a str,
    pub kind: u8,
    pub link: &'a str,
    pub mode: u32,
    pub uid: u32,
    pub mtime: u64,
    pub device: (u32, u32),
    pub xattr: Option<(&'a str, &'a [u8])>,
    /// What the header says, if not the truth.
    pub size: Option<u64>,
}

pub fn head<'a>(path: &'a str, kind: u8) -> Head<'a> {
    Head { path, kind, link: "", mode: 0o644, uid: 0, mtime: 1, device: (0, 0), xattr: None, size: None }
}

impl Tar {
    /// With an extended header where the entry needs one.
    pub fn add(&mut self, entry: &Head<'_>, data: &[u8]) -> &mut Self {
        let mut records = Vec::new();
        if let Some((name, value)) = entry.xattr {
            records.extend(record(&format!("SCHILY.xattr.{name}"), value));
        }
        if entry.path.len() > 100 {
            records.extend(record("path", entry.path.as_bytes()));
        }
        if entry.link.len() > 100 {
            records.extend(record("linkpath", entry.link.as_bytes()));
        }
        if !records.is_empty() {
            self.raw(&head("pax", b'x'), &records);
        }
        self.raw(entry, data)
    }

    /// One header and its data, cut off where it does not fit.
    pub fn raw(&mut self, entry: &Head<'_>, data: &[u8]) -> &mut Self {
        let mut block = [0_u8; 512];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &entry.path.as_bytes()[..entry.path.len().min(100)]);
        put(100, format!("{:07o}", entry.mode).as_bytes());
        put(108, format!("{:07o}", entry.uid).as_bytes());
        put(116, format!("{:07o}", entry.uid).as_bytes());
        put(124, &size(entry.size.unwrap_or(data.len() as u64)));
        put(136, format!("{:011o}", entry.mtime).as_bytes());
        put(156, &[entry.kind]);
        put(157, &entry.link.as_bytes()[..entry.link.len().min(100)]);
        put(257, b"ustar\x0000");
        put(329, format!("{:07o}", entry.device.0).as_bytes());
        put(337, format!("{:07o}", entry.device.1).as_bytes());
        self.0.extend(seal(block));
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// An extended header of these records.
    pub fn pax(&mut self, records: &[(&str, &[u8])]) -> &mut Self {
        let body: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
        self.raw(&head("pax", b'x'), &body)
    }

    pub fn file(&mut self, path: &str, text: &str) -> &mut Self {
        self.add(&head(path, b'0'), text.as_bytes())
    }

    pub fn dir(&mut self, path: &str, mode: u32) -> &mut Self {
        self.add(&Head { mode, ..head(path, b'5') }, b"")
    }

    pub fn link(&mut self, path: &str, kind: u8, link: &str) -> &mut Self {
        self.add(&Head { link, ..head(path, kind) }, b"")
    }

    /// The whole archive.
    pub fn bytes(&self) -> Vec<u8> {
        [self.0.as_slice(), &[0; 1024]].concat()
    }
}

/// Octal where that holds it, else GNU's binary form.
fn size(size: u64) -> [u8; 12] {
    let mut field = [0_u8; 12];
    if size >> 33 == 0 {
        field[..11].copy_from_slice(format!("{size:011o}").as_bytes());
    } else {
        field[0] = 0x80;
        field[4..].copy_from_slice(&size.to_be_bytes());
    }
    field
}

/// A header with its checksum.
pub fn seal(mut block: [u8; 512]) -> [u8; 512] {
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

pub fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = 3 + key.len() + value.len();
    let length = (rest..).find(|length| length.to_string().len() + rest == *length).unwrap();
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}
