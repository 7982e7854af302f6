//! The numbers: samples by runtime and figure, their medians as a table, all of them as JSON.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// What a number counts. For all but the rate less is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// ms
    Milliseconds,
    /// s
    Seconds,
    /// KiB
    Kibibytes,
    /// 1/s
    PerSecond,
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::Milliseconds => format!("{value:.1} ms"),
            Self::Seconds => format!("{value:.2} s"),
            Self::Kibibytes if value >= 10_240.0 => format!("{:.1} MiB", value / 1024.0),
            Self::Kibibytes => format!("{value:.0} KiB"),
            Self::PerSecond => format!("{value:.1} /s"),
        }
    }
}

struct Figure {
    name: String,
    unit: Unit,
    /// By runtime, in the order of the columns.
    samples: Vec<Vec<f64>>,
}

/// All samples of one run.
pub struct Results {
    runtimes: Vec<String>,
    figures: Vec<Figure>,
}

impl Results {
    /// Columns in order; ratios are against the first.
    pub fn new(runtimes: &[String]) -> Self {
        Self { runtimes: runtimes.to_vec(), figures: Vec::new() }
    }

    /// Adds one sample.
    pub fn add(&mut self, runtime: &str, name: &str, unit: Unit, value: f64) {
        let Some(column) = self.runtimes.iter().position(|other| other == runtime) else {
            return;
        };
        let row = self.figures.iter().position(|figure| figure.name == name).unwrap_or_else(|| {
            let samples = vec![Vec::new(); self.runtimes.len()];
            self.figures.push(Figure { name: name.into(), unit, samples });
            self.figures.len() - 1
        });
        self.figures[row].samples[column].push(value);
    }

    /// A Markdown table: median (p90), and how many times better than the first runtime.
    pub fn table(&self) -> String {
        let mut text = format!("| p50 (p90) | {} |\n", self.runtimes.join(" | "));
        let _ = writeln!(text, "|---|{}", "---|".repeat(self.runtimes.len()));
        for figure in &self.figures {
            let base = percentile(&figure.samples[0], 50.0);
            let cells = figure.samples.iter().enumerate().map(|(column, samples)| {
                let Some(median) = percentile(samples, 50.0) else {
                    return "-".to_owned();
                };
                let spread = match percentile(samples, 90.0) {
                    Some(p90) if samples.len() >= 10 => format!(" ({})", figure.unit.show(p90)),
                    _ => String::new(),
                };
                let better = match base {
                    Some(base) if column > 0 && figure.unit == Unit::PerSecond => times(median / base),
                    Some(base) if column > 0 => times(base / median),
                    _ => String::new(),
                };
                format!("{}{spread}{better}", figure.unit.show(median))
            });
            let _ = writeln!(text, "| {} | {} |", figure.name, cells.collect::<Vec<_>>().join(" | "));
        }
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let _ = write!(text, "\nload average at the end: {}", load.trim());
        text
    }

    /// Every sample.
    pub fn write(&self, path: &Path) -> Result<()> {
        let figures: Vec<Value> = self
            .figures
            .iter()
            .map(|figure| {
                let columns = self.runtimes.iter().zip(&figure.samples).map(|(runtime, samples)| {
                    let of = |p| percentile(samples, p);
                    let column =
                        json!({ "p50": of(50.0), "p90": of(90.0), "min": of(0.0), "samples": samples });
                    (runtime.clone(), column)
                });
                json!({
                    "name": figure.name,
                    "unit": format!("{:?}", figure.unit),
                    "runtimes": columns.collect::<serde_json::Map<_, _>>(),
                })
            })
            .collect();
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(path, serde_json::to_vec_pretty(&json!({ "figures": figures }))?)
            .with_context(|| format!("write {}", path.display()))
    }
}

fn times(ratio: f64) -> String {
    format!(", {ratio:.1}x")
}

/// The nearest rank; `None` without samples.
pub fn percentile(samples: &[f64], percent: f64) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn percentiles_are_samples() {
        let samples = [5.0, 1.0, 4.0, 2.0, 3.0];
        assert_eq!(percentile(&samples, 50.0), Some(3.0));
        assert_eq!(percentile(&samples, 90.0), Some(5.0));
        assert_eq!(percentile(&samples, 0.0), Some(1.0));
        assert_eq!(percentile(&[], 50.0), None);
    }
}
