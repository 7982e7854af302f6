//! Manual pages and completions, from the command line's own definition.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use berth::cli::Cli;
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

/// System administration commands and daemons (man-pages(7)).
const SECTION: &str = "8";

pub(super) fn write(directory: &Path) -> Result<()> {
    let directories = ["man", "bash", "zsh", "fish"].map(|name| directory.join(name));
    for directory in &directories {
        fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    }
    let [man, bash, zsh, fish] = &directories;
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    page(&command, man)?;
    for (shell, path) in [
        (Shell::Bash, bash.join("berth")),
        (Shell::Zsh, zsh.join("_berth")),
        (Shell::Fish, fish.join("berth.fish")),
    ] {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "berth", &mut text);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// One page for a command and each below it: `berth-image-pull.8`.
fn page(command: &Command, directory: &Path) -> Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).replace(' ', "-");
    let path = directory.join(format!("{name}.{SECTION}"));
    let mut text = Vec::new();
    let title = name.to_uppercase();
    // clap wants names that live as long as the program; it is about to end.
    let man = Man::new(command.clone().name(&*name.leak())).title(title).section(SECTION).manual("Berth");
    man.render(&mut text)?;
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        page(below, directory)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_and_every_shell_its_completions() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path()).unwrap();
        let read = |path: &str| fs::read_to_string(directory.path().join(path)).unwrap();
        let page = read("man/berth.8");
        assert!(page.contains(".TH BERTH 8"), "{page}");
        assert!(page.contains("berth\\-serve(8)"), "{page}");
        for (name, flag) in
            [("serve", "state"), ("image-pull", "password\\-stdin"), ("node-install", "kubelet\\-unit")]
        {
            let page = read(&format!("man/berth-{name}.8"));
            assert!(page.contains(&format!("\\-\\-{flag}")), "{name}: {page}");
        }
        for file in ["bash/berth", "zsh/_berth", "fish/berth.fish"] {
            let text = read(file);
            assert!(text.contains("serve") && text.contains("kubelet-unit"), "{file}");
        }
    }
}
