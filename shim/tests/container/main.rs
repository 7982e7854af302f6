//! Containers against the real kernel, as root: what `src/container` makes is looked at from inside and from the host.
//! One thread only, because it forks: hence a runner of our own. Arguments select tests by parts of their names.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::panic::{AssertUnwindSafe, catch_unwind};

#[path = "../../src/container/mod.rs"]
#[allow(dead_code, reason = "the shim uses all of it")]
mod container;

mod attacks;
mod executing;
mod fixture;
mod identity;
mod image;
mod mounting;
mod running;
mod speed;
mod users;

type Test = (&'static str, fn());

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let all: Vec<Test> = [
        running::TESTS,
        executing::TESTS,
        identity::TESTS,
        mounting::TESTS,
        attacks::TESTS,
        users::TESTS,
        speed::TESTS,
    ]
    .concat();
    image::set_up();
    let runner = std::process::id();
    let before = fixture::mount_table();
    let mut failed = Vec::new();
    for (name, test) in all {
        if !wanted.is_empty() && !wanted.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        let result = catch_unwind(AssertUnwindSafe(test));
        if std::process::id() != runner {
            // A forked child panicked; the shim would abort.
            berth_sys::process::exit_now(134);
        }
        println!("test {name} ... {}", if result.is_ok() { "ok" } else { "FAILED" });
        if result.is_err() {
            failed.push(name);
        }
    }
    image::tear_down();
    assert_eq!(before, fixture::mount_table(), "the host's mount table has changed");
    assert!(failed.is_empty(), "failed: {failed:?}");
}
