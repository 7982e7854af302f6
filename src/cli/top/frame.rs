//! What `berth top` shows, as lines of text. What does not live here: the terminal (screen).

use super::Order;
use super::usage::{PodUsage, Usage};
use crate::cli::age::age;
use crate::cli::table;
use crate::drivers::host;

const HEADS: [&str; 7] = ["CPU", "MEMORY", "DISK", "RESTARTS", "RUNNING", "AGE", ""];
/// Of all columns but the name, which takes the rest.
const WIDTHS: [usize; 6] = [7, 8, 8, 9, 8, 7];
/// Narrower than this the name makes no sense.
const NAME_MIN: usize = 12;
/// Lines above and below the pods.
pub(super) const FURNITURE: usize = 3;
const KEYS: &str = "q quit  sort: c cpu  m memory  d disk  r restarts  n name  scroll: arrows, page keys";

/// What is looked at.
pub(super) struct View {
    pub usage: Usage,
    pub order: Order,
    /// The first pod on the screen.
    pub top: usize,
}

fn sorted(usage: &Usage, order: Order) -> Vec<&PodUsage> {
    let mut pods: Vec<_> = usage.pods.iter().collect();
    let name = |pod: &PodUsage| (pod.namespace.clone(), pod.name.clone());
    pods.sort_by_key(|pod| {
        let most = match order {
            Order::Cpu => pod.nano_cores.unwrap_or(0),
            Order::Memory => pod.memory,
            Order::Disk => pod.disk,
            Order::Restarts => pod.restarts,
            Order::Name => 0,
        };
        (std::cmp::Reverse(most), name(pod))
    });
    pods
}

/// Thousandths of a core, as Kubernetes writes them.
fn millicores(nano_cores: Option<u64>) -> String {
    nano_cores.map_or_else(|| "-".to_string(), |nano| format!("{}m", nano.div_ceil(1_000_000)))
}

/// With two digits at least, in the units of Kubernetes.
fn size(bytes: u64) -> String {
    let units = ["B", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let power = (0..units.len() - 1).find(|power| bytes >> (10 * power) < 1024).unwrap_or(units.len() - 1);
    let tenths = (u128::from(bytes) * 10) >> (10 * power);
    match (power, tenths) {
        (1.., ..100) => format!("{}.{}{}", tenths / 10, tenths % 10, units[power]),
        _ => format!("{}{}", tenths / 10, units[power]),
    }
}

fn cells(pod: &PodUsage) -> [String; 6] {
    [
        millicores(pod.nano_cores),
        size(pod.memory),
        size(pod.disk),
        pod.restarts.to_string(),
        pod.containers.to_string(),
        age(pod.age),
    ]
}

/// For a pipe.
pub(super) fn table(usage: &Usage, order: Order) -> String {
    let heads = std::iter::once("POD").chain(HEADS[..6].iter().copied());
    let mut rows = vec![heads.map(String::from).collect::<Vec<_>>()];
    for pod in sorted(usage, order) {
        let name = format!("{}/{}", pod.namespace, pod.name);
        rows.push(std::iter::once(name).chain(cells(pod)).collect());
    }
    table::table(&rows, &[])
}

impl View {
    /// At most `height` lines of at most `width` characters; puts `top` where there is something to see.
    pub fn lines(&mut self, width: usize, height: usize) -> Vec<String> {
        let pods = sorted(&self.usage, self.order);
        let room = height.saturating_sub(FURNITURE);
        self.top = self.top.min(pods.len().saturating_sub(room));
        let mut lines = vec![self.summary(pods.len(), room), row("POD", &HEADS[..6], width)];
        for pod in pods.iter().skip(self.top).take(room) {
            lines.push(row(&format!("{}/{}", pod.namespace, pod.name), &cells(pod), width));
        }
        lines.resize(height.saturating_sub(1).max(2), String::new());
        lines.push(KEYS.to_string());
        lines.truncate(height);
        lines.iter().map(|line| cut(line, width)).collect()
    }

    fn summary(&self, count: usize, room: usize) -> String {
        let pods = &self.usage.pods;
        let cores: u64 = pods.iter().filter_map(|pod| pod.nano_cores).sum();
        let memory = size(pods.iter().map(|pod| pod.memory).sum());
        let disk = size(pods.iter().map(|pod| pod.disk).sum());
        let shown = match count > room {
            true => format!(" ({}-{})", self.top + 1, (self.top + room).min(count)),
            false => String::new(),
        };
        let (node, order) = (host::hostname(), format!("{:?}", self.order).to_lowercase());
        format!(
            "{node}: {count} pods{shown} by {order}, cpu {}, memory {memory}, disk {disk}",
            millicores(Some(cores))
        )
    }
}

/// The name to the left, numbers to the right.
fn row(name: &str, cells: &[impl AsRef<str>], width: usize) -> String {
    let rest = width.saturating_sub(WIDTHS.iter().sum::<usize>()).max(NAME_MIN);
    let mut line = format!("{:rest$}", shorten(name, rest - 1));
    for (cell, width) in cells.iter().zip(WIDTHS) {
        line.push_str(&format!("{:>width$}", cell.as_ref()));
    }
    line
}

/// Of a name that is too long the middle goes: pods of one Deployment differ at the end.
fn shorten(name: &str, width: usize) -> String {
    let count = name.chars().count();
    if count <= width {
        return name.to_string();
    }
    let last = width.saturating_sub(1) * 2 / 3;
    let first = width.saturating_sub(1 + last);
    name.chars().take(first).chain(['…']).chain(name.chars().skip(count - last)).collect()
}

/// A text that is too long ends in `…`.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_string();
    }
    let mut text: String = text.chars().take(width.saturating_sub(1)).collect();
    text.push('…');
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn pod(number: u64) -> PodUsage {
        PodUsage {
            namespace: "default".into(),
            name: format!("a-deployment-with-a-long-name-{number:03}"),
            nano_cores: (number > 0).then_some(number * 1_000_000),
            memory: (500 - number) << 20,
            disk: number << 10,
            restarts: number % 3,
            containers: 1,
            age: Duration::from_secs(number * 61),
        }
    }

    fn view(order: Order) -> View {
        View { usage: Usage { pods: (0..110).map(pod).collect() }, order, top: 0 }
    }

    #[test]
    fn every_line_fits_eighty_columns_and_keeps_its_numbers() {
        let mut view = view(Order::Cpu);
        let lines = view.lines(80, 24);
        assert_eq!(lines.len(), 24);
        assert!(lines.iter().all(|line| line.chars().count() <= 80), "{lines:#?}");
        assert!(lines[0].contains("110 pods (1-21) by cpu, cpu 5995m"), "{}", lines[0]);
        assert_eq!(
            lines[2],
            "default/a-d…with-a-long-name-109    109m   391Mi   109Ki        1       1  1h50m"
        );
        assert_eq!(lines[23], KEYS[..79].to_string() + "…");
    }

    #[test]
    fn one_scrolls_to_the_last_pod_and_no_further() {
        let mut view = view(Order::Name);
        view.top = usize::MAX;
        let lines = view.lines(120, 13);
        assert_eq!(view.top, 100);
        assert!(lines[2].contains("name-100") && lines[11].contains("name-109"), "{lines:#?}");
        assert!(lines[0].contains("(101-110)"), "{}", lines[0]);
        assert!(view.lines(10, 2).len() == 2 && view.lines(0, 0).is_empty());
    }

    #[test]
    fn sizes_have_two_digits_at_least() {
        for (bytes, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.0Ki"),
            (592 << 10, "592Ki"),
            ((3 << 20) + (8 << 10), "3.0Mi"),
            ((9 << 20) + (1023 << 10), "9.9Mi"),
            (10 << 20, "10Mi"),
            (1023 << 20, "1023Mi"),
            (u64::MAX, "15Ei"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn the_order_is_what_was_asked_for() {
        let usage = view(Order::Cpu).usage;
        let first = |order| sorted(&usage, order)[0].name.clone();
        assert!(first(Order::Cpu).ends_with("109") && first(Order::Memory).ends_with("000"));
        assert!(first(Order::Disk).ends_with("109") && first(Order::Restarts).ends_with("002"));
        let text = table(&usage, Order::Memory);
        let line = text.lines().nth(1).unwrap();
        assert!(line.starts_with("default/a-deployment-with-a-long-name-000  -  "), "{line}");
    }
}
