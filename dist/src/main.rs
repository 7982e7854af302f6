//! `berth-dist`: makes what is shipped beside the programs. What does not live here: packages (dist/packages) and the chart.

mod image;
mod manual;

use std::path::PathBuf;

use clap::Parser;

/// Makes manual pages, completions and the image.
#[derive(Parser)]
enum Command {
    /// Manual pages and completions, in man, bash, zsh and fish
    Manual {
        /// Where to
        directory: PathBuf,
    },
    /// The OCI image, as a tar of an OCI layout
    Image {
        /// The daemon's program
        berth: PathBuf,
        /// The shim's program
        shim: PathBuf,
        /// Where to
        tar: PathBuf,
        /// What the archive calls it
        #[arg(long, env = "IMAGE", default_value = concat!("berth:", env!("CARGO_PKG_VERSION")))]
        name: String,
    },
}

fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Manual { directory } => manual::write(&directory),
        Command::Image { berth, shim, tar, name } => image::write(&berth, &shim, &tar, &name),
    }
}
