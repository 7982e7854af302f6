//! The chart as Helm sees it: golden files (dist/tests/chart/NAME.yaml are values, NAME.golden.yaml what they make;
//! UPDATE=1 writes these anew), values that are refused, and what chart and program must agree on.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/chart")
}

fn helm(arguments: &[&str]) -> Result<Output> {
    let program = repository().join(".cache/tools/helm/helm");
    let home = tempfile::tempdir()?;
    let output = Command::new(&program)
        .args(arguments)
        .current_dir(repository())
        .env("HOME", home.path())
        .output()
        .with_context(|| format!("run {} (e2e/tools/build helm makes it)", program.display()))?;
    Ok(output)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn template(arguments: &[&str]) -> Result<Output> {
    helm(&[&["template", "node", "charts/berth", "--namespace", "berth"], arguments].concat())
}

/// What `--set` values say when they are refused.
fn refusal(sets: &[&str]) -> Result<String> {
    let mut arguments = vec!["--set", "image.repository=registry.invalid/berth"];
    for set in sets {
        arguments.extend(["--set", set]);
    }
    let output = template(&arguments)?;
    ensure!(!output.status.success(), "{sets:?} is taken");
    Ok(text(&output.stderr))
}

#[test]
fn lint_finds_nothing() -> Result<()> {
    for case in ["plain", "everything"] {
        let values = format!("dist/tests/chart/{case}.yaml");
        let output = helm(&["lint", "--strict", "charts/berth", "--values", &values])?;
        ensure!(output.status.success(), "{case}: {}{}", text(&output.stdout), text(&output.stderr));
    }
    Ok(())
}

#[test]
fn templates_make_what_the_golden_files_say() -> Result<()> {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for entry in fs::read_dir(cases())? {
        let values = entry?.path();
        let name = values.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(case) = name.strip_suffix(".yaml").filter(|case| !case.contains('.')) else {
            continue;
        };
        let output = template(&["--values", &values.to_string_lossy()])?;
        ensure!(output.status.success(), "{case}: {}", text(&output.stderr));
        let (made, golden) = (text(&output.stdout), cases().join(format!("{case}.golden.yaml")));
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&golden, &made)?;
        }
        let wanted = fs::read_to_string(&golden).unwrap_or_default();
        if let Some((number, (made, wanted))) =
            made.lines().zip(wanted.lines()).enumerate().find(|(_, (made, wanted))| made != wanted)
        {
            wrong.push(format!("{case}, line {}: {made:?} instead of {wanted:?}", number + 1));
        } else if made.len() != wanted.len() {
            wrong.push(format!("{case}: {} bytes instead of {}", made.len(), wanted.len()));
        }
        seen += 1;
    }
    ensure!(wrong.is_empty() && seen >= 4, "{seen} cases; UPDATE=1 takes what is made: {wrong:#?}");
    Ok(())
}

#[test]
fn wrong_values_are_refused_with_their_place() -> Result<()> {
    let refused: &[(&[&str], &str)] = &[
        (&["mode=other"], "at '/mode': value must be one of 'kubelet', 'sidecar'"),
        (&["moed=sidecar"], "additional properties 'moed' not allowed"),
        (&["kubelet.readyWithin=5"], "at '/kubelet/readyWithin': got number, want string"),
        (&["kubelet.readyWithin=5 minutes"], "at '/kubelet/readyWithin': '5 minutes' does not match"),
        (&["kubelet.unit=kubelet"], "at '/kubelet/unit'"),
        (&["directory=opt/berth"], "at '/directory'"),
        (&["directory=/"], "at '/directory'"),
        (&["config.cni.tmieout=5"], "at '/config/cni': additional properties 'tmieout' not allowed"),
        (&["config.network.mtu=100"], "at '/config/network/mtu'"),
        (&["config.cgroup.driver=systmed"], "at '/config/cgroup/driver': value must be one of"),
        (&["config.metrics.address=0.0.0.0:1"], "at '/config/metrics': additional properties 'address'"),
        (&["image.pullPolicy=Sometimes"], "at '/image/pullPolicy'"),
        (&["image.digest=sha256:12"], "at '/image/digest'"),
        (&["metrics.port=0"], "at '/metrics/port': minimum: got 0, want 1"),
        (&["updateStrategy.maxUnavailable=0"], "at '/updateStrategy/maxUnavailable'"),
        (&["uninstall=yes"], "at '/uninstall': value must be one of 'restore', 'keep'"),
        (&["runtimeClasses[0].name=gpu"], "at '/runtimeClasses/0': missing property 'handler'"),
        (
            &["runtimeClasses[0].name=gpu", "runtimeClasses[0].handler=nvidia"],
            "Berth would refuse pods of gpu, whose handler is nvidia: its handlers are berth, crun, runc",
        ),
        (
            &["runtimeClasses[0].name=a", "runtimeClasses[0].handler=runc", "config.pods.handlers={berth}"],
            "its handlers are berth (config.pods.handlers)",
        ),
        (&["config.pods.handlers={Kata}"], "at '/config/pods/handlers/0': 'Kata' does not match"),
        (&["nodeSelector.a=true"], "at '/nodeSelector/a': got boolean, want string"),
        (&["prometheusRule.disabled[0]=Nothing"], "at '/prometheusRule/disabled/0'"),
        (&["podMonitor.enabled=true"], "Prometheus can't reach metrics.address 127.0.0.1"),
        (&["image.repository="], "image.repository is empty: say where"),
    ];
    for (sets, message) in refused {
        let refusal = refusal(sets)?;
        ensure!(refusal.contains(message), "{sets:?}: {refusal}");
    }
    Ok(())
}

#[test]
fn runtime_classes_can_have_the_handlers_that_the_program_has() -> Result<()> {
    for handler in berth::config::Config::default().pods.handlers {
        let class = format!("runtimeClasses[0].handler={handler}");
        let sets = ["--set", "image.repository=x", "--set", "runtimeClasses[0].name=a", "--set", &class];
        let output = template(&sets)?;
        ensure!(output.status.success(), "{handler}: {}", text(&output.stderr));
        ensure!(text(&output.stdout).contains(&format!("\nhandler: {handler}\n")), "no class for {handler}");
    }
    Ok(())
}

#[test]
fn pods_are_started_with_flags_that_the_program_has() -> Result<()> {
    use clap::CommandFactory;
    let mut seen = 0;
    for case in ["plain", "everything", "sidecar"] {
        let golden = fs::read_to_string(cases().join(format!("{case}.golden.yaml")))?;
        for list in ["args:", "command:"] {
            for part in golden.split(&format!(" {list}\n")).skip(1) {
                let words = part.lines().map_while(|line| line.trim_start().strip_prefix("- "));
                let words: Vec<_> = words.filter(|word| *word != "/usr/bin/berth").collect();
                seen += 1;
                let parsed =
                    berth::cli::Cli::command().try_get_matches_from([vec!["berth"], words.clone()].concat());
                ensure!(
                    parsed.is_ok(),
                    "{case}: {words:?}: {}",
                    parsed.err().map(|error| error.to_string()).unwrap_or_default()
                );
            }
        }
    }
    // An installer and its probe in each, and two hooks.
    ensure!(seen == 8, "{seen} command lines");
    Ok(())
}

/// All alerts, as Prometheus would read them from the rule's `spec`.
fn rules() -> Result<String> {
    let made = template(&["--set", "image.repository=x", "--set", "prometheusRule.enabled=true"])?;
    let made = text(&made.stdout);
    let rule = made.split("\n---\n").find(|part| part.contains("kind: PrometheusRule")).context("no rule")?;
    let (_, spec) = rule.split_once("\nspec:\n").context("no spec")?;
    Ok(spec.lines().map(|line| format!("{}\n", line.strip_prefix("  ").unwrap_or(line))).collect())
}

#[test]
fn alerts_fire_where_something_is_wrong_and_nowhere_else() -> Result<()> {
    let directory = tempfile::tempdir()?;
    fs::write(directory.path().join("rules.yaml"), rules()?)?;
    fs::copy(cases().join("alerts.test.yaml"), directory.path().join("test.yaml"))?;
    let program = repository().join(".cache/promtool/promtool");
    let output = Command::new(&program)
        .args(["test", "rules", "test.yaml"])
        .current_dir(directory.path())
        .output()
        .with_context(|| format!("run {} (dist/promtool makes it)", program.display()))?;
    ensure!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    Ok(())
}

/// Names of metrics in a text.
fn metrics(text: &str) -> BTreeSet<String> {
    text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'))
        .filter(|word| word.starts_with("berth_"))
        .map(|word| {
            ["_bucket", "_sum", "_count"].iter().fold(word, |word, end| word.trim_end_matches(end)).to_owned()
        })
        .collect()
}

#[test]
fn the_dashboard_is_whole_and_shows_what_alerts_speak_of() -> Result<()> {
    let text = fs::read_to_string(repository().join("charts/berth/files/dashboard.json"))?;
    let dashboard: serde_json::Value = serde_json::from_str(&text)?;
    let panels = dashboard["panels"].as_array().context("no panels")?;
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let targets = panel["targets"].as_array().map_or(0, Vec::len);
        ensure!(targets > 0 && panel["title"].is_string(), "{panel}");
    }
    let alerts = fs::read_to_string(cases().join("everything.golden.yaml"))?;
    let alerts = alerts.lines().filter(|line| line.trim_start().starts_with("expr:")).collect::<String>();
    let missing: Vec<_> = metrics(&alerts).difference(&metrics(&text)).cloned().collect();
    ensure!(missing == ["berth_start_time_seconds"], "alerts without a panel: {missing:?}");
    Ok(())
}
