//! `berth config import`: the configuration of another runtime as one of Berth's. Whatever has no equal is named with the
//! reason, and so is what needs none. What does not live here: what each setting means (containerd, crio, registries).

mod containerd;
mod crio;
mod files;
mod registries;
mod rule;
mod setting;

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;

use super::print;
use crate::config::Config;
use files::{File, Files};
use rule::{Fate, Rule};
use setting::Setting;

/// The exit code when something has no equal: the configuration is usable, but not the same.
const LOSSY: u8 = 2;

/// `berth config import`
#[derive(Args)]
pub(super) struct Import {
    /// containerd's config.toml, CRI-O's crio.conf, or registries.conf; files that they name (imports, crio.conf.d) are
    /// read too
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Name what needs no equal, too
    #[arg(long, short)]
    verbose: bool,
}

/// What has been made of the settings.
#[derive(Default)]
struct Report {
    /// Section, key, value, and the setting that it comes from.
    set: Vec<(&'static str, &'static str, toml::Value, String)>,
    /// What has no equal, and why.
    lost: Vec<(String, String)>,
    /// What needs no equal, and why.
    moot: Vec<(String, String)>,
    /// Lines for files that belong beside the configuration.
    beside: Vec<String>,
}

impl Import {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let mut report = Report::default();
        let mut files = Files::read(&self.files)?;
        for file in &mut files.0 {
            report.take(file)?;
        }
        let names: Vec<_> = files.0.iter().map(|file| file.path.display().to_string()).collect();
        print(&report.configuration(&names.join(", "))?)?;
        report.tell(self.verbose);
        Ok(if report.lost.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(LOSSY) })
    }
}

impl Report {
    fn take(&mut self, file: &File) -> anyhow::Result<()> {
        let table = &file.table;
        if registries::is(table) {
            registries::take(table, self);
            return Ok(());
        }
        let (rules, settings) = if crio::is(table) {
            (crio::RULES, setting::flatten(table))
        } else if containerd::is(table) {
            (containerd::RULES, containerd::settings(table))
        } else {
            bail!("{}: neither of containerd, nor of CRI-O, nor registries.conf", file.path.display());
        };
        for setting in &settings {
            self.settle(setting, rules);
        }
        Ok(())
    }

    fn settle(&mut self, setting: &Setting, rules: &[Rule]) {
        let told = setting.to_string();
        let Some(rule) = rules.iter().find(|rule| rule.is_of(&setting.path)) else {
            return match setting.is_unset() {
                true => {}
                false => self.lost.push((told, "berth does not know this setting".into())),
            };
        };
        match rule.fate.of(setting) {
            Fate::Set(section, key, value) => self.set(section, key, value, setting),
            Fate::Part(section, key, value, why) => {
                self.set(section, key, value, setting);
                self.lost.push((told, why));
            }
            Fate::Lost(why) => self.lost.push((told, why)),
            Fate::Moot(why) => self.moot.push((told, why)),
            Fate::Unset => {}
        }
    }

    /// A value that Berth refuses is lost; lists from several settings are one.
    fn set(&mut self, section: &'static str, key: &'static str, value: toml::Value, setting: &Setting) {
        let mut wanted = value;
        let known = self.set.iter_mut().find(|known| (known.0, known.1) == (section, key));
        if let (Some((_, _, toml::Value::Array(old), _)), toml::Value::Array(new)) = (&known, &wanted) {
            let more = new.iter().filter(|one| !old.contains(one));
            wanted = toml::Value::Array(old.iter().chain(more).cloned().collect());
        }
        let text = format!("[{section}]\n{key} = {wanted}\n");
        match (Config::parse(&text, "".as_ref()), known) {
            (Err(error), _) => self.lost.push((setting.to_string(), format!("berth refuses it: {error}"))),
            (Ok(_), Some(known)) => {
                known.2 = wanted;
                known.3 = format!("{}, {}", known.3, setting.name());
            }
            (Ok(_), None) => self.set.push((section, key, wanted, setting.name())),
        }
    }

    /// What was set, by section, each key below the name of the setting that it comes from.
    fn configuration(&self, names: &str) -> anyhow::Result<String> {
        let mut text = format!("# Made by `berth config import` of {names}\n");
        let mut sections: Vec<_> = self.set.iter().map(|set| set.0).collect();
        sections.sort_unstable();
        sections.dedup();
        for section in sections {
            let _ = writeln!(text, "\n[{section}]");
            for (_, key, value, from) in self.set.iter().filter(|set| set.0 == section) {
                let _ = writeln!(text, "# {from}\n{key} = {value}");
            }
        }
        for line in &self.beside {
            let _ = writeln!(text, "{}", format!("# {line}").trim_end());
        }
        Config::parse(&text, "the configuration that was made".as_ref())
            .context("this is a mistake of berth's own")?;
        Ok(text)
    }

    fn tell(&self, verbose: bool) {
        let list = |title: &str, all: &[(String, String)]| {
            if !all.is_empty() {
                eprintln!("{title}");
                all.iter().for_each(|(setting, why)| eprintln!("  {setting}\n    {why}"));
            }
        };
        list("Without an equal:", &self.lost);
        match (verbose, self.moot.len()) {
            (_, 0) => {}
            (true, _) => list("Need no equal:", &self.moot),
            (false, count) => eprintln!("{count} settings need no equal: --verbose names them"),
        }
    }
}

#[cfg(test)]
mod tests;
