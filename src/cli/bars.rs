//! Showing how far a pull or an import is, on standard error: bars on a terminal, plain lines anywhere else.
//! What does not live here: how that is found out.

use std::collections::HashMap;
use std::io::IsTerminal;

use berth_proto::admin::v1::{Layer, Phase};
use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressStyle};

const LAYER: &str = "{prefix}  {msg:15}  {bar:30}  {bytes:>10} / {total_bytes}";
const BYTES: &str = "{prefix}  {bar:30}  {bytes} / {total_bytes}  {bytes_per_sec}";
const UNKNOWN: &str = "{prefix}  {spinner}  {bytes}  {bytes_per_sec}";

/// Whether bars can be drawn.
fn drawn() -> bool {
    std::io::stderr().is_terminal()
}

fn style(template: &str) -> ProgressStyle {
    // A template that does not parse is seen in the test below; here the default shows the same less nicely.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Twelve digits of a digest, as people know it from other tools.
pub(super) fn short(digest: &str) -> &str {
    let digits = digest.strip_prefix("sha256:").unwrap_or(digest);
    digits.get(..12).unwrap_or(digits)
}

fn words(phase: Phase) -> &'static str {
    match phase {
        Phase::Waiting => "waiting",
        Phase::Downloading => "downloading",
        Phase::Unpacking => "unpacking",
        Phase::Done => "done",
        Phase::Present => "already present",
    }
}

/// The layers of a pull.
pub(super) struct Layers {
    screen: Option<MultiProgress>,
    bars: HashMap<String, ProgressBar>,
    told: HashMap<String, Phase>,
}

impl Layers {
    /// Nothing yet.
    pub fn new() -> Self {
        Self { screen: drawn().then(MultiProgress::new), bars: HashMap::new(), told: HashMap::new() }
    }

    /// Shows the newest state.
    pub fn show(&mut self, layers: &[Layer]) {
        match self.screen.clone() {
            Some(screen) => layers.iter().for_each(|layer| self.draw(&screen, layer)),
            None => self.lines(layers).iter().for_each(|line| eprintln!("{line}")),
        }
    }

    fn draw(&mut self, screen: &MultiProgress, layer: &Layer) {
        let bar = self.bars.entry(layer.digest.clone()).or_insert_with(|| {
            let bar = ProgressBar::new(layer.total).with_style(style(LAYER));
            screen.add(bar).with_prefix(short(&layer.digest).to_string())
        });
        let whole = matches!(layer.phase(), Phase::Done | Phase::Present);
        bar.set_message(words(layer.phase()));
        bar.set_position(if whole { layer.total } else { layer.downloaded });
        if whole && !bar.is_finished() {
            bar.abandon();
        }
    }

    /// One line for each layer that has come further since the last time.
    fn lines(&mut self, layers: &[Layer]) -> Vec<String> {
        let mut lines = Vec::new();
        for layer in layers {
            let phase = layer.phase();
            if self.told.insert(layer.digest.clone(), phase) == Some(phase) {
                continue;
            }
            let size = HumanBytes(layer.total);
            lines.push(format!("{}: {}, {size}", short(&layer.digest), words(phase)));
        }
        lines
    }
}

/// The bytes of an archive; silent where there is no terminal.
pub(super) fn bytes(name: &str, total: Option<u64>) -> ProgressBar {
    let bar = match total {
        _ if !drawn() => ProgressBar::hidden(),
        Some(total) => ProgressBar::new(total).with_style(style(BYTES)),
        None => ProgressBar::no_length().with_style(style(UNKNOWN)),
    };
    bar.with_prefix(name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_parse() {
        for template in [LAYER, BYTES, UNKNOWN] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn without_a_terminal_each_step_is_one_line() {
        let layer = |phase: Phase, downloaded| Layer {
            digest: format!("sha256:{}", "ab".repeat(32)),
            phase: phase.into(),
            downloaded,
            total: 2048,
        };
        let mut layers = Layers { screen: None, bars: HashMap::new(), told: HashMap::new() };
        assert_eq!(layers.lines(&[layer(Phase::Downloading, 1)]), ["abababababab: downloading, 2.00 KiB"]);
        assert!(layers.lines(&[layer(Phase::Downloading, 2000)]).is_empty());
        assert_eq!(layers.lines(&[layer(Phase::Done, 2048)]), ["abababababab: done, 2.00 KiB"]);
    }
}
