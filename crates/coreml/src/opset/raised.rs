//! What raising a model has done, for a log.

use palettizer_pipeline::config::Target;
use std::fmt;

/// What [`raise`](super::raise) has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Raised {
    /// The functions that were raised; empty if all were at the target or above.
    pub functions: Vec<RaisedFunction>,
    /// The ops that were rewritten.
    pub rewritten: Vec<Rewritten>,
}

impl Raised {
    /// Whether anything was raised: a function was below the target.
    pub fn changed(&self) -> bool {
        !self.functions.is_empty()
    }
}

/// A function that was raised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaisedFunction {
    /// The function's name.
    pub function: String,
    /// The target that it was written for.
    pub from: Target,
    /// The target that it is written for now.
    pub to: Target,
}

/// Ops of one type that were rewritten in one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// The ops' type, as it was.
    pub op_type: String,
    /// What was done, such as `indices made non-negative`.
    pub what: &'static str,
    /// How many they are.
    pub count: usize,
}

impl fmt::Display for Rewritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.count, self.op_type, self.what)
    }
}
