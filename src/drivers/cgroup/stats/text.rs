//! The formats of cgroup files: flat keyed, pressure, io.stat, blkio. What does not live here: which file says what.

use super::{DeviceIo, Pressure, Stall};

/// The lines of a flat keyed file, `name number`; others are skipped.
pub(super) fn fields(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (name, value) = line.split_once(' ')?;
        Some((name, value.trim_ascii().parse().ok()?))
    })
}

/// One field of a flat keyed file.
pub(super) fn field(text: &str, name: &str) -> Option<u64> {
    fields(text).find(|(found, _)| *found == name).map(|(_, value)| value)
}

/// A pressure file. The `full` line of cpu.pressure is missing on kernels before 5.13.
pub(super) fn pressure(text: &str) -> Option<Pressure> {
    let line = |kind: &str| text.lines().find_map(|line| stall(line.strip_prefix(kind)?));
    Some(Pressure { some: line("some ")?, full: line("full ").unwrap_or_default() })
}

fn stall(line: &str) -> Option<Stall> {
    let mut stall = Stall::default();
    for (key, value) in line.split_ascii_whitespace().filter_map(|word| word.split_once('=')) {
        match key {
            "avg10" => stall.avg10 = value.parse().ok()?,
            "avg60" => stall.avg60 = value.parse().ok()?,
            "avg300" => stall.avg300 = value.parse().ok()?,
            "total" => stall.total = value.parse::<u64>().ok()?.saturating_mul(1000),
            _ => {}
        }
    }
    Some(stall)
}

/// io.stat of version 2: `8:0 rbytes=1 wbytes=2 rios=3 wios=4 ...`. The kernel writes lines without numbers, too.
pub(super) fn io_stat(text: &str) -> Vec<DeviceIo> {
    let mut devices = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(mut device) = words.next().and_then(device) else { continue };
        let mut any = false;
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let Ok(value) = value.parse() else { continue };
            let field = match key {
                "rbytes" => &mut device.read_bytes,
                "wbytes" => &mut device.write_bytes,
                "rios" => &mut device.reads,
                "wios" => &mut device.writes,
                _ => continue,
            };
            *field = value;
            any = true;
        }
        if any {
            devices.push(device);
        }
    }
    devices
}

/// The two blkio files of version 1: `8:0 Read 1`, for bytes and for requests. A last line has the total.
pub(super) fn blkio(bytes: &str, requests: &str) -> Vec<DeviceIo> {
    let mut devices: Vec<DeviceIo> = Vec::new();
    for (text, counts_bytes) in [(bytes, true), (requests, false)] {
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let parts =
                (words.next().and_then(device), words.next(), words.next().and_then(|n| n.parse().ok()));
            let (Some(new), Some(operation), Some(value)) = parts else { continue };
            let known = devices.iter().position(|d| (d.major, d.minor) == (new.major, new.minor));
            let index = known.unwrap_or_else(|| {
                devices.push(new);
                devices.len() - 1
            });
            let device = &mut devices[index];
            match (operation, counts_bytes) {
                ("Read", true) => device.read_bytes = value,
                ("Write", true) => device.write_bytes = value,
                ("Read", false) => device.reads = value,
                ("Write", false) => device.writes = value,
                _ => {}
            }
        }
    }
    devices
}

fn device(number: &str) -> Option<DeviceIo> {
    let (major, minor) = number.split_once(':')?;
    Some(DeviceIo { major: major.parse().ok()?, minor: minor.parse().ok()?, ..DeviceIo::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "inactive_file 4096\nfile 8192\nbroken\nhuge x\n";
        assert_eq!(field(text, "file"), Some(8192));
        assert_eq!(field(text, "inactive"), None);
        assert_eq!(field(text, "huge"), None);
    }

    #[test]
    fn pressure_has_two_lines_and_old_kernels_one() {
        let text = "some avg10=43.34 avg60=23.48 avg300=20.84 total=3321458467\n\
                    full avg10=0.50 avg60=0.00 avg300=0.00 total=12\n";
        let read = pressure(text).unwrap();
        assert_eq!(read.some, Stall { total: 3_321_458_467_000, avg10: 43.34, avg60: 23.48, avg300: 20.84 });
        assert_eq!((read.full.total, read.full.avg10), (12_000, 0.5));
        let first = text.lines().next().unwrap();
        assert_eq!(pressure(first).unwrap().full, Stall::default());
        assert_eq!(pressure(""), None);
    }

    #[test]
    fn devices_of_version_2_are_lines_of_pairs() {
        let text = "8:16 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n253:0\n\
                    259:0 rbytes=1 wbytes=18446744073709551615 rios=3 wios=4 cost.usage=5\nnonsense\n";
        let [first, second] = &io_stat(text)[..] else { panic!("{:?}", io_stat(text)) };
        assert_eq!(
            *first,
            DeviceIo { major: 8, minor: 16, read_bytes: 4096, reads: 1, ..DeviceIo::default() }
        );
        assert_eq!((second.major, second.write_bytes, second.writes), (259, u64::MAX, 4));
    }

    #[test]
    fn devices_of_version_1_come_from_two_files() {
        let bytes = "254:0 Read 409600\n254:0 Write 8192\n254:0 Sync 417792\n254:0 Total 417792\n\
                     7:1 Read 512\nTotal 418304\n";
        let requests = "254:0 Read 10\n254:0 Write 2\nTotal 12\n";
        let [disk, image] = &blkio(bytes, requests)[..] else { panic!() };
        let expected = (254, 0, 409_600, 8192, 10, 2);
        let found = (disk.major, disk.minor, disk.read_bytes, disk.write_bytes, disk.reads, disk.writes);
        assert_eq!(found, expected);
        assert_eq!((image.major, image.minor, image.read_bytes, image.reads), (7, 1, 512, 0));
        assert_eq!(blkio("Total 0\n", "Total 0\n"), []);
    }
}
