//! Damaged configurations, by the thousand: see `fuzz/readers`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

#[path = "../../../fuzz/readers/config.rs"]
mod config;
#[path = "../../../fuzz/readers/damage.rs"]
mod damage;
#[path = "../../../fuzz/readers/harness.rs"]
mod harness;

use harness::{bounded, fuzz};

#[test]
fn the_configuration() {
    if bounded("the_configuration") {
        fuzz("config", &config::seeds(), 100_000, 1_000, config::read);
    }
}
