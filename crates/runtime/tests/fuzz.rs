//! Damaged programs, by the thousand, run: see `fuzz/readers`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

#[path = "../../../fuzz/readers/damage.rs"]
mod damage;
#[path = "../../../fuzz/readers/harness.rs"]
mod harness;
#[path = "../../../fuzz/readers/run.rs"]
mod run;
#[path = "../../coreml/tests/support/mod.rs"]
mod support;

use harness::{bounded, fuzz};

#[test]
fn the_run() {
    if bounded("the_run") {
        fuzz("run", &run::seeds(), 50_000, 200, run::read);
    }
}
