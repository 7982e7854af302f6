//! `berth debug dump`: what is going on, as text or JSON. What does not live here: finding it out (api/admin/dump.rs).

use std::fmt::Write;
use std::path::PathBuf;

use berth_proto::admin::v1::{
    DumpRequest, DumpResponse, DumpedCall, DumpedContainer, DumpedPod, DumpedProcess, DumpedPull,
};
use clap::{Args, Subcommand};
use indicatif::HumanBytes;

use super::age::of_millis;
use super::bars::short;
use super::client::{Client, said};
use super::print;
use super::table::table;
use crate::{clock, layout};

/// `berth debug`
#[derive(Args)]
pub(super) struct DebugArgs {
    /// Socket of the daemon
    #[arg(long, value_name = "PATH", global = true, env = "BERTH_SOCKET", default_value = layout::DEFAULT_SOCKET)]
    socket: PathBuf,
    #[command(subcommand)]
    command: DebugCommand,
}

#[derive(Subcommand)]
enum DebugCommand {
    /// Print what every pod, container and pull is doing right now, and what it waits for
    Dump {
        /// Print JSON; ages are in milliseconds
        #[arg(long)]
        json: bool,
    },
}

impl DebugArgs {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut client = Client::connect(&self.socket).await?;
            let DebugCommand::Dump { json } = self.command;
            let dump = client.admin.dump(DumpRequest {}).await.map_err(said)?.into_inner();
            let text = if json { serde_json::to_string_pretty(&dump)? + "\n" } else { text(&dump) };
            print(&text)
        })
    }
}

fn text(dump: &DumpResponse) -> String {
    let mut text = String::new();
    let _ =
        writeln!(text, "berth {} up {} at {}", dump.version, of_millis(dump.age), clock::rfc3339(dump.at));
    for wrong in dump.conditions.iter().filter(|one| !one.status) {
        let since = clock::rfc3339(wrong.since);
        let _ = writeln!(text, "{} is false since {since}: {}: {}", wrong.name, wrong.reason, wrong.message);
    }
    let _ = writeln!(text, "\nPODS");
    dump.pods.iter().for_each(|pod| write_pod(&mut text, pod));
    let _ = writeln!(text, "\nOTHER CALLS");
    dump.calls.iter().for_each(|call| write_call(&mut text, "  ", call, Some(&call.subject)));
    let _ = writeln!(text, "\nPULLS");
    dump.pulls.iter().for_each(|pull| write_pull(&mut text, pull));
    let _ = writeln!(text, "\nQUEUES");
    let queue = |queue: &berth_proto::admin::v1::DumpedQueue| {
        vec![queue.name.clone(), queue.length.to_string(), queue.meaning.clone()]
    };
    let queues = table(&dump.queues.iter().map(queue).collect::<Vec<_>>(), &[]);
    text + &queues.lines().map(|line| format!("  {line}\n")).collect::<String>()
}

fn since(state: &str, age: i64) -> String {
    if age == 0 { state.to_string() } else { format!("{state} for {}", of_millis(age)) }
}

fn write_pod(text: &mut String, pod: &DumpedPod) {
    let state = since(&pod.state, pod.age);
    let shim = pod.shim.as_ref().map(|shim| format!(", shim {}", process(shim))).unwrap_or_default();
    let _ = writeln!(text, "{}/{} {}: {state}{shim}", pod.namespace, pod.name, short(&pod.id));
    pod.calls.iter().for_each(|call| write_call(text, "  > ", call, None));
    for container in &pod.containers {
        let _ =
            writeln!(text, "  {} {}: {}", container.name, short(&container.id), container_state(container));
        container.calls.iter().for_each(|call| write_call(text, "    > ", call, None));
    }
}

fn container_state(container: &DumpedContainer) -> String {
    let state = since(&container.state, container.age);
    match (&container.process, container.reason.as_str()) {
        (Some(found), _) => format!("{state}, process {}", process(found)),
        (None, "") => state,
        (None, reason) => format!("{state}, code {}, {reason}", container.exit_code),
    }
}

fn process(process: &DumpedProcess) -> String {
    let pid = process.pid;
    match process.state.as_str() {
        "" => format!("{pid} is gone"),
        "T" | "t" => format!("{pid} is stopped by a signal"),
        "D" => format!("{pid} waits for a device, in {}", process.wchan),
        "Z" | "X" => format!("{pid} is dead"),
        _ => pid.to_string(),
    }
}

fn write_call(text: &mut String, indent: &str, call: &DumpedCall, subject: Option<&str>) {
    let of = subject.map(|subject| format!(" of {subject}")).unwrap_or_default();
    let _ = write!(text, "{indent}{}{of} for {}", call.verb, of_millis(call.age));
    if !call.step.is_empty() {
        let _ = write!(text, ", at step {} for {}", call.step, of_millis(call.step_age));
    }
    for wait in &call.waits {
        let _ = write!(text, ", waiting {} for {}", of_millis(wait.age), wait.what);
    }
    text.push('\n');
}

fn write_pull(text: &mut String, pull: &DumpedPull) {
    let waiting = if pull.layers.is_empty() { ", its manifest is awaited" } else { "" };
    let _ = writeln!(text, "  {} for {}{waiting}", pull.image, of_millis(pull.age));
    for layer in &pull.layers {
        let (done, all) = (HumanBytes(layer.downloaded), HumanBytes(layer.total));
        let _ = write!(text, "    {} {}, {done} of {all}", short(&layer.digest), layer.phase);
        if layer.quiet >= 1000 {
            let _ = write!(text, ", nothing new for {}", of_millis(layer.quiet));
        }
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use berth_proto::admin::v1::{DumpedCondition, DumpedLayer, DumpedQueue, DumpedWait};

    use super::*;

    fn call(verb: &str, wait: &str) -> DumpedCall {
        let waits = vec![DumpedWait { what: wait.into(), age: 61_000 }];
        let (verb, subject, step) = (verb.into(), "a/b".into(), "network".into());
        DumpedCall { verb, subject, step, age: 62_000, step_age: 61_500, waits, ..Default::default() }
    }

    #[test]
    fn what_hangs_is_told_where_it_hangs() {
        let shim = DumpedProcess { pid: 7, state: "T".into(), wchan: String::new() };
        let pod = DumpedPod {
            id: "0123456789abcdef".into(),
            namespace: "a".into(),
            name: "b".into(),
            state: "ready".into(),
            age: 5000,
            shim: Some(shim),
            calls: vec![call("StopPodSandbox", "the shim to answer shutdown")],
            containers: vec![DumpedContainer {
                name: "main".into(),
                state: "exited".into(),
                exit_code: 137,
                reason: "OOMKilled".into(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let layer =
            DumpedLayer { phase: "downloading".into(), total: 1 << 20, quiet: 9000, ..Default::default() };
        let text = text(&DumpResponse {
            version: "1".into(),
            pods: vec![pod],
            calls: vec![call("RunPodSandbox", "CNI plugin x")],
            pulls: vec![DumpedPull { image: "i".into(), layers: vec![layer], age: 10_000 }],
            queues: vec![DumpedQueue { name: "tasks".into(), length: 3, meaning: "m".into() }],
            conditions: vec![DumpedCondition { name: "NetworkReady".into(), ..Default::default() }],
            ..Default::default()
        });
        for line in [
            "a/b 0123456789ab: ready for 5s, shim 7 is stopped by a signal",
            "  > StopPodSandbox for 1m2s, at step network for 1m1s, waiting 1m1s for the shim to answer shutdown",
            "  main : exited, code 137, OOMKilled",
            "  RunPodSandbox of a/b for 1m2s, at step network for 1m1s, waiting 1m1s for CNI plugin x",
            "     downloading, 0 B of 1.00 MiB, nothing new for 9s",
            "NetworkReady is false since 1970-01-01T00:00:00Z: : ",
        ] {
            assert!(text.lines().any(|told| told.trim_end() == line.trim_end()), "{line}\n{text}");
        }
    }
}
