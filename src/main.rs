//! The command line: flags, configuration, logging, and then the daemon or a command. Nothing else.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    berth_sys::malloc::keep_little();
    match berth::cli::Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("berth: {error:#}");
            ExitCode::FAILURE
        }
    }
}
