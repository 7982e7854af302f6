//! How long a start and an exec of `true` take, to be read by people: the numbers are printed, not checked.

use std::time::{Duration, Instant};

use crate::Test;
use crate::fixture::{Case, process};

pub const TESTS: &[Test] = &[("start_and_exec_of_true_are_measured", measure)];

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: usize| times[times.len() * share / 100].as_micros();
    println!("  {what}: min {} us, median {} us, p90 {} us", times[0].as_micros(), at(50), at(90));
}

fn measure() {
    let case = Case::new(&["/bin/true"]);
    let mut executing = Vec::new();
    let times = (0..200).map(|_| {
        let root = case.root();
        let begin = Instant::now();
        let running = case.start_with(root).unwrap();
        executing.push(begin.elapsed());
        running.finish();
        begin.elapsed()
    });
    let times = times.collect();
    report("start to executing", executing);
    report("start to reaped", times);
    let (_case, running) = Case::sleeping();
    let process = process(&["/bin/true"]);
    let times = (0..200).map(|_| {
        let begin = Instant::now();
        running.exec(&process, &[]).unwrap().finish();
        begin.elapsed()
    });
    report("exec to reaped", times.collect());
    running.kill();
}
