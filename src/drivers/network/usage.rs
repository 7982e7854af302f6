//! What went through a pod's interfaces. What does not live here: connecting them.

use std::fs;

/// Counters of one interface since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceUsage {
    /// Its name inside the pod.
    pub name: String,
    /// Into the pod.
    pub received: Traffic,
    /// Out of it.
    pub transmitted: Traffic,
}

/// One direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Packets with an error.
    pub errors: u64,
    /// Packets dropped.
    pub dropped: u64,
}

/// The interfaces of the network namespace that a process lives in, without loopback. None once the process is gone.
/// Blocking, for some ten microseconds.
pub fn usage(pid: i32) -> Option<Vec<InterfaceUsage>> {
    Some(interfaces(&fs::read_to_string(format!("/proc/{pid}/net/dev")).ok()?))
}

/// proc_pid_net(5), `dev`: two lines of heads, then `name: ` and sixteen numbers, eight in each direction.
fn interfaces(text: &str) -> Vec<InterfaceUsage> {
    let interface = |line: &str| {
        // A name may hold a colon; a number may not.
        let (name, numbers) = line.trim_start().rsplit_once(':')?;
        let mut numbers = numbers.split_ascii_whitespace().map(|number| number.parse().unwrap_or(0));
        let mut direction = || -> Option<Traffic> {
            let traffic = Traffic {
                bytes: numbers.next()?,
                packets: numbers.next()?,
                errors: numbers.next()?,
                dropped: numbers.next()?,
            };
            numbers.nth(3)?;
            Some(traffic)
        };
        Some(InterfaceUsage { name: name.into(), received: direction()?, transmitted: direction()? })
    };
    text.lines().skip(2).filter_map(interface).filter(|interface| interface.name != "lo").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_an_interface_and_loopback_does_not_count() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
            lo: 10969017490  291770    0    0    0     0          0         0 10969017490  291770    0    0    0     0       0          0\n  \
            eth0: 1007874743   43608    1    2    3     4          5         6  3258536   32038    7    8    0     0       0          0\n\
            net:1:       1       2    0    0    0     0          0         0        3       4    0    0    0     0       0          0\n";
        let [eth0, second] = &interfaces(text)[..] else { panic!() };
        assert_eq!(eth0.name, "eth0");
        let received = Traffic { bytes: 1_007_874_743, packets: 43_608, errors: 1, dropped: 2 };
        let transmitted = Traffic { bytes: 3_258_536, packets: 32_038, errors: 7, dropped: 8 };
        assert_eq!((eth0.received, eth0.transmitted), (received, transmitted));
        assert_eq!(
            (second.name.as_str(), second.received.bytes, second.transmitted.packets),
            ("net:1", 1, 4)
        );
        assert_eq!(interfaces(""), []);
    }

    #[test]
    fn the_namespace_of_a_process_that_is_gone_is_unknown() {
        assert!(usage(i32::try_from(std::process::id()).unwrap()).is_some());
        assert_eq!(usage(i32::MAX), None);
    }
}
