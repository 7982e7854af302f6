//! CRI's Signal, an enumeration of its own order, and Linux's signal numbers.

use berth_proto::cri::v1::Signal;

use super::Invalid;
use crate::containers::signal;

/// SIGNAL_RUNTIME_DEFAULT is None.
pub(in crate::api::cri) fn from_cri(value: i32) -> Result<Option<i32>, Invalid> {
    let unknown = || Invalid::new("config.stop_signal", format!("{value} is no signal"));
    match Signal::try_from(value).map_err(|_| unknown())? {
        Signal::RuntimeDefault => Ok(None),
        named => {
            let name = named.as_str_name().trim_start_matches("SIGNAL_");
            let name = name.replace("PLUS", "+").replace("MINUS", "-");
            signal::from_name(&name).map(Some).ok_or_else(unknown)
        }
    }
}

/// The CRI name of a Linux signal number; several names of one number give the first.
pub(in crate::api::cri) fn to_cri(number: i32) -> Signal {
    let all = (1..=65).filter_map(|value| Signal::try_from(value).ok());
    let mut matching = all.filter(|named| from_cri(*named as i32) == Ok(Some(number)));
    matching.next().unwrap_or(Signal::RuntimeDefault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_of_cri_is_one_of_linux() {
        for value in 1..=65 {
            let number = from_cri(value).unwrap().expect("a number");
            assert!((1..=64).contains(&number), "{value}: {number}");
        }
        assert_eq!(from_cri(0), Ok(None));
        assert!(from_cri(66).is_err() && from_cri(-1).is_err());
    }

    #[test]
    fn numbers_are_those_of_linux_on_x86_and_arm() {
        for (signal, number) in [
            (Signal::Sighup, 1),
            (Signal::Sigkill, 9),
            (Signal::Sigterm, 15),
            (Signal::Sigchld, 17),
            (Signal::Sigrtmin, 34),
            (Signal::Sigrtminplus3, 37),
            (Signal::Sigrtmaxminus14, 50),
            (Signal::Sigrtmax, 64),
        ] {
            assert_eq!(from_cri(signal as i32), Ok(Some(number)), "{signal:?}");
            assert_eq!(to_cri(number), signal);
        }
    }
}
