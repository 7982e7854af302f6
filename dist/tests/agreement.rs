//! What chart and program must agree on, and what is seen without helm, by `make unit`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn the_schema_knows_every_key_of_the_configuration() -> Result<()> {
    let schema: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(repository().join("charts/berth/values.schema.json"))?)?;
    let mut section = String::new();
    let mut known = BTreeSet::new();
    for line in berth::config::DEFAULT.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name.into();
        } else if let Some((key, _)) = line.strip_prefix("# ").and_then(|line| line.split_once(" = "))
            && key.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_')
        {
            known.insert((section.clone(), key.to_owned()));
        }
    }
    // The chart has a value of its own for it.
    known.remove(&("metrics".into(), "address".into()));
    ensure!(known.len() > 20, "{known:?}");
    for (section, key) in known {
        let place = format!("/properties/config/properties/{section}/properties/{key}");
        ensure!(schema.pointer(&place).is_some(), "values.schema.json has no {place}");
    }
    Ok(())
}

#[test]
fn the_program_takes_the_configuration_that_the_chart_writes() -> Result<()> {
    let golden = fs::read_to_string(repository().join("dist/tests/chart/configured.golden.yaml"))?;
    let config = golden.split("  config.toml: |\n").nth(1).context("no configuration")?;
    let config: Vec<_> = config.lines().take_while(|line| !line.starts_with("  hosts")).collect();
    let config = config.join("\n").replace("\n    ", "\n");
    let config = berth::config::Config::parse(config.trim(), Path::new("golden"))?;
    ensure!(config.image.policy.rules.len() == 2, "{:?}", config.image);
    ensure!(config.network.subnets.len() == 2, "{:?}", config.network);
    Ok(())
}

#[test]
fn chart_and_program_have_one_version() -> Result<()> {
    let chart = fs::read_to_string(repository().join("charts/berth/Chart.yaml"))?;
    for key in ["version", "appVersion"] {
        let line = format!("\n{key}: {}\n", env!("CARGO_PKG_VERSION"));
        ensure!(chart.contains(&line), "Chart.yaml lacks {line:?}");
    }
    Ok(())
}
