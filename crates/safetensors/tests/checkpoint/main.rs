//! Checkpoints on disk: opened, palettized, made dense, in parts, damaged.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "the lints know tests by their attribute, and these are their helpers"
)]

mod compress;
mod hostile;
mod parts;
mod round_trip;
mod sensitivities;
mod shards;
mod statistics;
mod support;
