//! One program for all fuzz targets, so that one is linked and not ten. BERTH_FUZZ names the target; the arguments are
//! libFuzzer's.

#![no_main]

use std::sync::OnceLock;

use berth::fuzzing::TARGETS;
use libfuzzer_sys::fuzz_target;

fn target() -> fn(&[u8]) {
    static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();
    *TARGET.get_or_init(|| {
        let wanted = std::env::var("BERTH_FUZZ").unwrap_or_default();
        let found = TARGETS.iter().find(|(name, _)| *name == wanted);
        let names = || TARGETS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" ");
        found.map(|(_, run)| *run).unwrap_or_else(|| panic!("BERTH_FUZZ must be one of: {}", names()))
    })
}

fuzz_target!(|data: &[u8]| target()(data));
