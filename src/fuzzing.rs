//! Fuzz targets: whatever comes from outside and is parsed. `make fuzz` runs them under libFuzzer; the tests run every input
//! of fuzz/corpus once more, and what is near to it. What does not live here: what must hold, which is beside the code.

use crate::{api, containers, drivers, images};

/// A name, which is also that of its folder in fuzz/corpus, and what takes the input. It panics if something does not hold.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("layer", drivers::layers::fuzz::archive),
    ("compressed", drivers::layers::fuzz::compressed),
    ("documents", images::fuzz::documents),
    ("reference", images::fuzz::reference),
    ("import", images::fuzz::archive),
    ("hosts", drivers::registry::fuzz::hosts_file),
    ("headers", drivers::registry::fuzz::headers),
    ("signature", drivers::signatures::fuzz::signature),
    ("user", containers::fuzz::user),
    ("spdy", api::streaming::fuzz::spdy),
    ("websocket", api::streaming::fuzz::websocket),
];

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn corpus(name: &str) -> Vec<PathBuf> {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let inputs =
            std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut inputs: Vec<_> = inputs.map(|input| input.unwrap().path()).collect();
        inputs.sort();
        inputs
    }

    /// The input, cut short, and with single bits flipped: the same each time.
    fn near(input: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
        let cut = (0..4).map(|part| input[..input.len() * part / 4].to_vec());
        let flipped = (0..12).filter(|_| !input.is_empty()).map(|number| {
            let mut flipped = input.to_vec();
            let bit = (number * 2_654_435_761_usize + input.len()) % (input.len() * 8);
            flipped[bit / 8] ^= 1 << (bit % 8);
            flipped
        });
        [input.to_vec()].into_iter().chain(cut).chain(flipped)
    }

    #[test]
    fn every_input_that_was_worth_keeping_still_does_no_harm() {
        for (name, run) in TARGETS {
            let inputs = corpus(name);
            assert!(inputs.len() >= 3, "{name} has only {} inputs", inputs.len());
            for path in inputs {
                println!("{}", path.display());
                near(&std::fs::read(&path).unwrap()).for_each(|input| run(&input));
            }
        }
    }
}
