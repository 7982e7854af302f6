//! `figures`: how long pods take to start as kubelet and API see it, and what a runtime costs that has nothing to do.
//! `measure` runs inside of a cluster (e2e/kubernetes/figures), `table` puts what several runs have found side by side.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::runtime::Runtime;
use berth_e2e_kubernetes::images::PAUSE;
use berth_e2e_kubernetes::isolation::NODE;
use berth_e2e_kubernetes::scenario::{Scenario, disturbance};
use clap::Parser;
use nix::unistd::{SysconfVar, sysconf};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Pods that start one after another.
const SINGLE: usize = 20;
/// Pods that start at once.
const AT_ONCE: usize = 100;
/// Pods of the idle node.
const FULL: usize = 110;
/// What starts have left to do on a node before it counts as idle.
const SETTLE: Duration = Duration::from_secs(60);
/// How long all of a step may take.
const PATIENCE: Duration = Duration::from_secs(900);
const HOUR: f64 = 3600.0;
/// The kubelet's own figure: from a pod's creation, which the API tells in whole seconds, without pulls.
const SLI: &str = "kubelet_pod_start_sli_duration_seconds";

#[derive(Parser)]
enum Command {
    /// Measures the runtime of the cluster in which this runs
    Measure {
        /// Where to
        out: PathBuf,
        /// Seconds of doing nothing
        #[arg(long, default_value = "300", env = "IDLE")]
        idle: u64,
    },
    /// Prints the table of what was measured
    Table {
        /// Files of `measure`, a column each
        files: Vec<PathBuf>,
    },
}

#[derive(Serialize, Deserialize)]
struct Measured {
    runtime: String,
    /// Name with unit, and value.
    figures: Vec<(String, f64)>,
}

fn main() -> Result<()> {
    match Command::parse() {
        Command::Measure { out, idle } => disturbance("figures", |s| measure(s, &out, idle)),
        Command::Table { files } => table(&files),
    }
}

fn measure(s: &Scenario, out: &Path, idle: u64) -> Result<()> {
    let mut figures = Vec::new();
    let watch = Watch::start(s)?;
    // Whatever comes with the first pod, as its image, is none of the others'.
    apply(s, "first", 1)?;
    watch.until_ready("first", 1)?;
    let before = counted(s, 1)?;
    for number in 0..SINGLE {
        let name = format!("single-{number}");
        apply(s, &name, 1)?;
        watch.until_ready(&name, 1)?;
    }
    let single = watch.starts("single");
    ensure!(single.len() == SINGLE, "{} starts were seen", single.len());
    figures.push((format!("creation to Ready, median of {SINGLE}, s"), quantile(&single, 50)));
    figures.push((format!("creation to Ready, p95 of {SINGLE}, s"), quantile(&single, 95)));
    figures.push((format!("{SLI}, mean of {SINGLE}, s"), mean(before, counted(s, 1 + SINGLE)?)));
    s.kubectl(&["delete", "deployment", "--all", "--cascade=foreground", "--timeout=300s"])?;

    let before = histogram(s)?;
    apply(s, "crowd", AT_ONCE)?;
    figures.push((format!("{AT_ONCE} pods at once, all Ready, s"), watch.until_ready("crowd", AT_ONCE)?));
    figures.push((
        format!("{SLI}, mean of these {AT_ONCE}, s"),
        mean(before, counted(s, 1 + SINGLE + AT_ONCE)?),
    ));

    s.kubectl(&["scale", "deployment/crowd", &format!("--replicas={FULL}")])?;
    watch.until_ready("crowd", FULL)?;
    drop(watch);
    std::thread::sleep(SETTLE);
    let (start, before) = (Instant::now(), cpu_seconds()?);
    std::thread::sleep(Duration::from_secs(idle));
    let per_second = (cpu_seconds()? - before) / start.elapsed().as_secs_f64();
    figures.push((format!("CPU in an idle hour of {FULL} pods (of {idle} s), s"), per_second * HOUR));
    let measured = Measured { runtime: format!("{:?}", Runtime::from_env()?).to_lowercase(), figures };
    Ok(std::fs::write(out, serde_json::to_vec_pretty(&measured)?)?)
}

fn apply(s: &Scenario, name: &str, replicas: usize) -> Result<()> {
    let pod = json!({
        "containers": [{ "name": "pause", "image": PAUSE }],
        "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 1,
    });
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name },
        "spec": {
            "replicas": replicas, "selector": { "matchLabels": { "app": name } },
            "template": { "metadata": { "labels": { "app": name } }, "spec": pod },
        },
    });
    s.apply(&deployment.to_string()).map(drop)
}

/// When a pod was first seen, and when it was Ready.
#[derive(Clone, Copy)]
struct Seen {
    created: Instant,
    ready: Option<Instant>,
}

/// A kubectl that tells of each change as the API server does, so that its own start does not count.
struct Watch {
    kubectl: Child,
    seen: Arc<Mutex<BTreeMap<String, Seen>>>,
}

impl Watch {
    fn start(s: &Scenario) -> Result<Self> {
        let path = r#"jsonpath={.metadata.name} {.status.conditions[?(@.type=="Ready")].status}{"\n"}"#;
        let mut command = s.command(&["get", "pods", "--watch-only", "-o", path])?;
        let mut kubectl = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let lines = BufReader::new(kubectl.stdout.take().context("no stdout")?).lines();
        let seen = Arc::new(Mutex::new(BTreeMap::new()));
        let table = seen.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let (now, mut words) = (Instant::now(), line.split(' '));
                let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
                let name = words.next().unwrap_or_default().to_owned();
                let pod = table.entry(name).or_insert(Seen { created: now, ready: None });
                if words.next() == Some("True") {
                    pod.ready.get_or_insert(now);
                }
            }
        });
        // Until it watches.
        std::thread::sleep(Duration::from_secs(3));
        Ok(Self { kubectl, seen })
    }

    fn of(&self, app: &str) -> Vec<Seen> {
        let table = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        table.iter().filter(|(name, _)| name.starts_with(app)).map(|(_, seen)| *seen).collect()
    }

    /// Seconds that pods took.
    fn starts(&self, app: &str) -> Vec<f64> {
        let took = |seen: Seen| Some((seen.ready? - seen.created).as_secs_f64());
        self.of(app).into_iter().filter_map(took).collect()
    }

    /// Seconds from the creation of the first to the last one's being Ready.
    fn until_ready(&self, app: &str, count: usize) -> Result<f64> {
        let end = Instant::now() + berth_e2e::bound(PATIENCE);
        loop {
            let pods = self.of(app);
            let ready: Vec<_> = pods.iter().filter_map(|seen| seen.ready).collect();
            if let (true, Some(last)) = (ready.len() >= count, ready.iter().max())
                && let Some(first) = pods.iter().map(|seen| seen.created).min()
            {
                return Ok((*last - first).as_secs_f64());
            }
            ensure!(Instant::now() < end, "{} of {count} pods of {app} are Ready", ready.len());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
    }
}

/// Sum and count of the kubelet's figure, which is not there before the first start.
fn histogram(s: &Scenario) -> Result<(f64, u32)> {
    let page = s.kubectl(&["get", "--raw", &format!("/api/v1/nodes/{NODE}/proxy/metrics")])?;
    let line = |end: &str| {
        let name = format!("{SLI}{end} ");
        page.lines().find_map(|line| line.strip_prefix(&name).map(str::trim))
    };
    Ok((line("_sum").map_or(Ok(0.0), str::parse)?, line("_count").map_or(Ok(0), str::parse)?))
}

/// The same once so many starts have been counted, which is somewhat after pods are Ready.
fn counted(s: &Scenario, starts: usize) -> Result<(f64, u32)> {
    s.until(|| histogram(s), |(_, count)| *count as usize >= starts)
}

fn mean(before: (f64, u32), after: (f64, u32)) -> f64 {
    (after.0 - before.0) / f64::from(after.1 - before.1)
}

/// Of what is sorted here.
fn quantile(samples: &[f64], percent: usize) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() - 1) * percent / 100]
}

/// CPU seconds of the runtime's programs so far: the daemon, what it has run and waited for, and its shims.
fn cpu_seconds() -> Result<f64> {
    let ticks = sysconf(SysconfVar::CLK_TCK)?.context("no clock tick")?;
    let mut spent = 0;
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((name, fields)) = stat.rsplit_once(')') else { continue };
        let name = name.split_once('(').map_or("", |(_, name)| name);
        // Of a name, /proc has 15 letters.
        let fields: Vec<_> = match name {
            "berth" | "containerd" => fields.split_whitespace().skip(11).take(4).collect(),
            "berth-shim" | "containerd-shim" | "runc" => fields.split_whitespace().skip(11).take(2).collect(),
            _ => continue,
        };
        spent += fields.iter().filter_map(|field| field.parse::<u32>().ok()).sum::<u32>();
    }
    ensure!(spent > 0, "no process of the runtime was found");
    Ok(f64::from(spent) / f64::from(u32::try_from(ticks)?))
}

fn table(files: &[PathBuf]) -> Result<()> {
    let read = |path: &PathBuf| -> Result<Measured> {
        let text = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
        Ok(serde_json::from_slice(&text)?)
    };
    let columns: Vec<Measured> = files.iter().map(read).collect::<Result<_>>()?;
    let first = columns.first().context("no files")?;
    let names: Vec<_> = columns.iter().map(|column| column.runtime.as_str()).collect();
    println!("| | {} |\n|---|{}", names.join(" | "), "---|".repeat(names.len()));
    for (name, _) in &first.figures {
        let value = |column: &Measured| {
            let found = column.figures.iter().find(|(other, _)| other == name);
            found.map_or("".into(), |(_, value)| format!("{value:.2}"))
        };
        println!("| {name} | {} |", columns.iter().map(value).collect::<Vec<_>>().join(" | "));
    }
    Ok(())
}
