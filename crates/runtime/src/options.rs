//! How a program is run.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// When values that a program calls fp16 are rounded to it; all are computed in fp32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// After every operation.
    #[default]
    Exact,
    /// At casts and outputs alone: faster, and mostly closer to the float model than the device is.
    Fast,
}

/// Operations that a run may take, if nothing else is said.
pub const DEFAULT_MAX_STEPS: u64 = 100_000_000;

/// Bytes that the values of a run may take, if nothing else is said: 64 GB.
pub const DEFAULT_MAX_MEMORY: u64 = 64 << 30;

/// How a program is run, and what it may take.
#[derive(Clone, Copy, Debug)]
pub struct RunOptions<'a> {
    /// When values are rounded to fp16.
    pub precision: Precision,
    /// Operations that are run at most; those of loops count each time.
    pub max_steps: u64,
    /// Bytes that values may take together.
    pub max_memory: u64,
    /// Set from outside to end the run.
    pub stop: Option<&'a AtomicBool>,
}

impl Default for RunOptions<'_> {
    fn default() -> Self {
        RunOptions {
            precision: Precision::default(),
            max_steps: DEFAULT_MAX_STEPS,
            max_memory: DEFAULT_MAX_MEMORY,
            stop: None,
        }
    }
}

/// Is told what a run does.
pub trait Observer {
    /// An operation gave a value, after so long; those with several outputs come once for each, the time with the first.
    fn value(&mut self, op_type: &str, name: &str, value: &crate::Value, took: Duration);
}
