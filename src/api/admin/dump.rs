//! What is going on right now, for `berth debug dump`. Nothing here waits for a lock that a verb may hold: what is changing
//! at this moment is told as such.

use std::time::Duration;

use berth_proto::admin::v1;

use crate::activity::{self, Doing};
use crate::api::cri::Services;
use crate::clock;
use crate::containers::Container;
use crate::containers::state::Phase;
use crate::drivers::host;
use crate::health::Condition;
use crate::images::progress::{self, LayerProgress, Pulling};
use crate::pods::{Filter, Pod};

pub(super) async fn dump(services: &Services) -> v1::DumpResponse {
    let conditions = services.conditions().await;
    let mut calls = activity::list();
    let mut pods: Vec<_> =
        services.pods.list(&Filter::default()).iter().map(|found| pod(found, &mut calls)).collect();
    for container in services.containers.list(&Default::default()) {
        let of_pod = pods.iter_mut().find(|pod| pod.id == container.sandbox.id.as_str());
        if let Some(pod) = of_pod {
            pod.containers.push(dumped(&container, &mut calls));
        }
    }
    v1::DumpResponse {
        at: clock::now(),
        version: env!("CARGO_PKG_VERSION").into(),
        age: millis(services.started.elapsed().unwrap_or_default()),
        pods,
        pulls: services.images.pulls().iter().map(pull).collect(),
        calls: calls.iter().map(call).collect(),
        queues: queues(services),
        conditions: conditions.iter().map(condition).collect(),
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Of a moment in nanoseconds since the epoch; 0: it is not known.
fn age(moment: i64) -> i64 {
    if moment == 0 { 0 } else { (clock::now() - moment).max(0) / 1_000_000 }
}

/// Takes those that concern this object.
fn take(calls: &mut Vec<Doing>, id: &str) -> Vec<v1::DumpedCall> {
    let (taken, left) = std::mem::take(calls).into_iter().partition(|doing: &Doing| doing.id == id);
    *calls = left;
    taken.iter().map(call).collect()
}

fn pod(pod: &Pod, calls: &mut Vec<Doing>) -> v1::DumpedPod {
    let metadata = &pod.sandbox.spec.metadata;
    v1::DumpedPod {
        id: pod.id().to_string(),
        namespace: metadata.namespace.clone(),
        name: metadata.name.clone(),
        attempt: metadata.attempt,
        state: if pod.is_ready() { "ready" } else { "not ready" }.into(),
        age: age(pod.since()),
        shim: pod.sandbox.shim().map(|shim| process(shim.pid())),
        calls: take(calls, pod.id().as_str()),
        containers: Vec::new(),
    }
}

fn dumped(container: &Container, calls: &mut Vec<Doing>) -> v1::DumpedContainer {
    let metadata = &container.spec.metadata;
    let mut told = v1::DumpedContainer {
        id: container.id.to_string(),
        name: metadata.name.clone(),
        attempt: metadata.attempt,
        calls: take(calls, container.id.as_str()),
        ..Default::default()
    };
    match container.settled_phase() {
        None => told.state = "changing".into(),
        Some(phase) => {
            told.state = phase.describe().into();
            set_phase(&mut told, container, phase);
        }
    }
    told
}

fn set_phase(told: &mut v1::DumpedContainer, container: &Container, phase: Phase) {
    match phase {
        Phase::Created => told.age = age(container.created_at),
        Phase::Running(run) => {
            told.age = age(run.started_at);
            told.process = Some(process(run.pid));
        }
        Phase::Exited(exited) => {
            told.age = age(exited.exit.finished_at);
            told.exit_code = exited.exit.code;
            told.reason = exited.reason.as_str().into();
        }
    }
}

fn process(pid: i32) -> v1::DumpedProcess {
    let state = host::process_state(pid).map(String::from).unwrap_or_default();
    v1::DumpedProcess { pid, state, wchan: host::wchan(pid) }
}

fn call(doing: &Doing) -> v1::DumpedCall {
    let (step, step_age) = doing.step.clone().unwrap_or_default();
    let wait = |(what, age): &(String, Duration)| v1::DumpedWait { what: what.clone(), age: millis(*age) };
    v1::DumpedCall {
        verb: format!("{:?}", doing.verb),
        subject: doing.subject.clone(),
        id: doing.id.clone(),
        age: millis(doing.age),
        step,
        step_age: millis(step_age),
        waits: doing.waits.iter().map(wait).collect(),
    }
}

fn pull(pull: &Pulling) -> v1::DumpedPull {
    v1::DumpedPull {
        image: pull.image.to_string(),
        age: millis(pull.age),
        layers: pull.layers.iter().map(layer).collect(),
    }
}

fn layer((layer, quiet): &(LayerProgress, Duration)) -> v1::DumpedLayer {
    let over = matches!(layer.phase, progress::Phase::Done | progress::Phase::Present);
    v1::DumpedLayer {
        digest: layer.digest.to_string(),
        phase: format!("{:?}", layer.phase).to_lowercase(),
        downloaded: layer.downloaded,
        total: layer.total,
        quiet: if over { 0 } else { millis(*quiet) },
    }
}

fn queues(services: &Services) -> Vec<v1::DumpedQueue> {
    let runtime = tokio::runtime::Handle::current().metrics();
    let queue = |name: &str, length: usize, meaning: &str| v1::DumpedQueue {
        name: name.into(),
        length: length as u64,
        meaning: meaning.into(),
    };
    vec![
        queue("tasks", runtime.num_alive_tasks(), "of the daemon, most of them idle"),
        queue("runnable tasks", runtime.global_queue_depth(), "ready, and no thread is free for them"),
        queue("background jobs", services.drivers.background.waiting(), "looks at writable layers"),
        queue(
            "free unpack slots",
            services.images.free_permits(),
            "0: layers wait for others to be unpacked",
        ),
    ]
}

fn condition(condition: &Condition) -> v1::DumpedCondition {
    let (reason, message) = match &condition.wrong {
        None => (String::new(), String::new()),
        Some(wrong) => (wrong.reason.to_string(), wrong.message.clone()),
    };
    let name = condition.name.into();
    v1::DumpedCondition { name, status: condition.wrong.is_none(), reason, message, since: condition.since }
}
