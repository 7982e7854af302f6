//! Signals by name, as images and users write them. What does not live here: sending them.

/// The signal a container is asked to stop with where nothing else is said.
pub const SIGTERM: i32 = 15;

const NAMES: [(&str, i32); 36] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
    ("RTMIN", 34),
    ("RTMAX", 64),
];

/// The Linux number, 1..=64, of `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3` or `RTMAX-2`, in any case; None for anything else.
///
/// RTMIN is 34, as in every libc that keeps 32 and 33 for its threads.
pub fn from_name(text: &str) -> Option<i32> {
    if text.bytes().next()?.is_ascii_digit() {
        return number(text, 1..=64);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = name.strip_prefix("RTMIN+") {
        return number(offset, 0..=30).map(|offset| 34 + offset);
    }
    if let Some(offset) = name.strip_prefix("RTMAX-") {
        return number(offset, 0..=30).map(|offset| 64 - offset);
    }
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// What an image's STOPSIGNAL means: SIGTERM where it is empty or no signal, for an image must not decide that its
/// container can't be stopped.
pub fn of_image(stop_signal: &str) -> i32 {
    from_name(stop_signal).unwrap_or(SIGTERM)
}

fn number(digits: &str, range: std::ops::RangeInclusive<i32>) -> Option<i32> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|number| range.contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_numbers_and_realtime_offsets_are_signals() {
        let table = [
            ("SIGTERM", 15),
            ("TERM", 15),
            ("sigquit", 3),
            ("15", 15),
            ("64", 64),
            ("SIGRTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMIN+30", 64),
            ("RTMAX-2", 62),
            ("SIGRTMAX-30", 34),
        ];
        for (text, number) in table {
            assert_eq!(from_name(text), Some(number), "{text}");
        }
    }

    #[test]
    fn anything_else_is_none_and_stops_with_sigterm() {
        let bad = [
            "",
            "-1",
            "0",
            "65",
            "+9",
            " 9",
            "9 ",
            "SIG",
            "SIGRTMAX+99",
            "RTMIN+31",
            "RTMAX--1",
            "RTMIN+",
            "RTMAX-31",
            "$(x)",
            "99999999999999999999",
            "SIGSIGTERM",
            "TERM\0",
            "\u{661}",
        ];
        for text in bad {
            assert_eq!(from_name(text), None, "{text:?}");
            assert_eq!(of_image(text), 15);
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_written_is_in_range_or_refused(text in ".{0,12}") {
            proptest::prop_assert!(from_name(&text).is_none_or(|number| (1..=64).contains(&number)));
        }
    }
}
