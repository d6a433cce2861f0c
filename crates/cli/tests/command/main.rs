//! Runs the `palettizer` binary on the demo package and looks at what it says, writes and returns.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "the lints know tests by their attribute, and these are their helpers"
)]

mod bad_input;
mod checkpoint;
mod compress;
mod config;
mod hostile;
mod inspect;
mod notes;
mod other_commands;
mod places;
mod support;
mod usage;
