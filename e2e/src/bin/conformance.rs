//! `make conformance`: runs critest against one runtime with images of our own, and judges the result: a failure
//! that e2e/conformance/known.txt does not list is an error, a listed spec that passed is told.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use berth_e2e::images::catalog;
use berth_e2e::node::{Node, Options};
use berth_e2e::registry::Registry;
use berth_e2e::runtime::{Runtime, tool};
use clap::Parser;
use serde_json::Value;

/// Runs critest and compares with the known failures.
#[derive(Parser)]
struct Flags {
    /// `berth` or `containerd`.
    #[arg(long, env = "RUNTIME", default_value = "berth")]
    runtime: String,
    /// Use CNI plugins instead of the built-in network.
    #[arg(long, env = "CNI", value_parser = clap::builder::BoolishValueParser::new(), default_value = "false")]
    cni: bool,
    /// Only specs whose name matches this regular expression.
    #[arg(long, env = "FOCUS", default_value = "")]
    focus: String,
    /// Exec, attach and port-forward over WebSocket instead of SPDY.
    #[arg(long, env = "WEBSOCKET", value_parser = clap::builder::BoolishValueParser::new(), default_value = "false")]
    websocket: bool,
    /// Keeps critest's report here.
    #[arg(long, env = "REPORT")]
    report: Option<std::path::PathBuf>,
    /// One more file of specs that may fail, beside e2e/conformance/known.txt.
    #[arg(long, env = "KNOWN")]
    known: Option<std::path::PathBuf>,
    /// Puts the images into the cache and runs nothing.
    #[arg(long)]
    prepare: bool,
    /// Prints critest's own output.
    #[arg(long, env = "VERBOSE", value_parser = clap::builder::BoolishValueParser::new(), default_value = "false")]
    verbose: bool,
}

const WEBSOCKET: [&str; 3] = ["-websocket-exec", "-websocket-attach", "-websocket-portforward"];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    let flags = Flags::parse();
    let runtime = match flags.runtime.as_str() {
        "berth" => Runtime::Berth,
        "containerd" => Runtime::Containerd,
        other => bail!("--runtime {other}: neither berth nor containerd"),
    };
    if flags.prepare {
        return prepare();
    }
    let registry = Registry::start()?;
    for (repository, tag, image) in catalog::conformance()? {
        registry.storage().publish(&repository, tag, &image.build()?)?;
    }
    let options = Options { cni: flags.cni, mirror: Some(registry.host()), ..Options::default() };
    let node = Node::start_as(runtime, &options).await?;

    let report = node.scratch().join("report.json");
    run_critest(&node, &report, &flags)?;
    if let Some(keep) = &flags.report {
        fs::copy(&report, keep).with_context(|| format!("copy the report to {}", keep.display()))?;
        fs::copy(node.log_file(), keep.with_extension("daemon.log"))?;
    }
    let outcomes = read_report(&report)?;
    let mut known = read_known(&berth_e2e::repository().join("e2e/conformance/known.txt"))?;
    if let Some(more) = &flags.known {
        known.extend(read_known(more)?);
    }
    Ok(judge(&flags, &outcomes, &known))
}

/// What else the tests need, too.
fn prepare() -> Result<ExitCode> {
    for (_, _, image) in catalog::conformance()? {
        image.build()?;
    }
    for name in ["sctp", "hugepages"] {
        catalog::with_program(name)?.build()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// critest's own exit code says nothing that the report does not; without a report it failed to run at all.
fn run_critest(node: &Node, report: &Path, flags: &Flags) -> Result<()> {
    let program = tool("cri-tools", "critest")?;
    let endpoint = format!("unix://{}", node.socket().display());
    let output = || {
        if flags.verbose { Stdio::inherit() } else { Stdio::null() }
    };
    let websocket: &[&str] = match flags.websocket {
        true => &["-websocket-exec", "-websocket-attach", "-websocket-portforward"],
        false => &[],
    };
    let status = Command::new(&program)
        .current_dir(node.scratch())
        .args(["-runtime-endpoint", &endpoint, "-image-endpoint", &endpoint, "-config", "/dev/null"])
        .args(websocket)
        .args(["-ginkgo.no-color", "-ginkgo.seed=1", "-ginkgo.timeout=40m", "-ginkgo.poll-progress-after=0"])
        .arg(format!("-ginkgo.focus={}", flags.focus))
        .arg(format!("-ginkgo.json-report={}", report.display()))
        .args(if flags.websocket { &WEBSOCKET[..] } else { &[] })
        .stdin(Stdio::null())
        .stdout(output())
        .stderr(output())
        .status()
        .with_context(|| format!("run {}", program.display()))?;
    if !report.exists() {
        bail!("{} ended with {status} and wrote no report", program.display());
    }
    Ok(())
}

fn read_report(path: &Path) -> Result<BTreeMap<String, Outcome>> {
    let report: Value = serde_json::from_slice(&fs::read(path)?).context("critest's report")?;
    let specs = report[0]["SpecReports"].as_array().context("critest's report holds no specs")?;
    let mut outcomes = BTreeMap::new();
    for spec in specs.iter().filter(|spec| spec["LeafNodeType"] == "It") {
        let containers = spec["ContainerHierarchyTexts"].as_array().into_iter().flatten();
        let words = containers.chain([&spec["LeafNodeText"]]).filter_map(Value::as_str);
        let name = words.collect::<Vec<_>>().join(" ");
        let message = spec["Failure"]["Message"].as_str().unwrap_or_default().to_owned();
        let outcome = match spec["State"].as_str().unwrap_or_default() {
            "passed" => Outcome::Passed,
            "skipped" | "pending" => Outcome::Skipped(message),
            _ => Outcome::Failed(message),
        };
        // Specs that the focus leaves out are reported as skipped without a word.
        if outcome != Outcome::Skipped(String::new()) {
            outcomes.insert(name, outcome);
        }
    }
    Ok(outcomes)
}

/// Lines of `NAME # REASON`; a name that ends in `*` stands for all that begin with it.
fn read_known(path: &Path) -> Result<Vec<(String, String)>> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let mut known = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (name, reason) = line.split_once(" # ").with_context(|| format!("{line:?} holds no reason"))?;
        known.push((name.trim().to_owned(), reason.trim().to_owned()));
    }
    Ok(known)
}

fn reason<'a>(known: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let matches = |pattern: &str| match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    };
    known.iter().find(|(pattern, _)| matches(pattern)).map(|(_, reason)| reason.as_str())
}

fn judge(flags: &Flags, outcomes: &BTreeMap<String, Outcome>, known: &[(String, String)]) -> ExitCode {
    let (mut passed, mut skipped, mut expected, mut unexpected) = (0, 0, 0, 0);
    for (name, outcome) in outcomes {
        match (outcome, reason(known, name)) {
            (Outcome::Passed, Some(why)) if flags.runtime == "berth" => {
                passed += 1;
                println!("PASSED ALTHOUGH LISTED  {name}\n    listed because: {why}");
            }
            (Outcome::Passed, _) => passed += 1,
            (Outcome::Skipped(message), _) => {
                skipped += 1;
                println!("skipped  {name}\n    {}", first_line(message));
            }
            (Outcome::Failed(_), Some(why)) => {
                expected += 1;
                println!("failed, known  {name}\n    {why}");
            }
            (Outcome::Failed(message), None) => {
                unexpected += 1;
                println!("FAILED  {name}\n    {}", first_line(message));
            }
        }
    }
    println!(
        "critest on {}: {} specs, {passed} passed, {} failed ({expected} known, {unexpected} not), {skipped} skipped",
        flags.runtime,
        outcomes.len(),
        expected + unexpected
    );
    if unexpected > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Of the message's many lines the first few tell what went wrong.
fn first_line(message: &str) -> String {
    let lines: Vec<_> = message.lines().map(str::trim).filter(|line| !line.is_empty()).take(4).collect();
    lines.join(" | ").chars().take(400).collect()
}
