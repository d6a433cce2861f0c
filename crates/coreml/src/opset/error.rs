//! What can be wrong with a program's opset, and which ops keep it from being raised.

use palettizer_pipeline::config::Target;
use std::fmt;

/// Why a program's opset cannot be told or raised.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpsetError {
    /// A function names an opset that we do not know.
    #[error(
        "function \"{function}\" is written in opset \"{found}\": expected one of CoreML5, CoreML6, CoreML7, CoreML8, CoreML9"
    )]
    UnknownOpset {
        /// The function.
        function: String,
        /// The opset's name.
        found: String,
    },
    /// A function has no block for the opset that it names.
    #[error("function \"{function}\" names opset \"{opset}\" but has no block for it")]
    NoBlock {
        /// The function.
        function: String,
        /// The opset's name.
        opset: String,
    },
    /// A program without a function.
    #[error("the ML Program has no function")]
    NoFunction,
    /// Ops that would not mean the same in the newer opset.
    #[error("{}", in_the_way(*target, ops))]
    OpsInTheWay {
        /// The target asked for.
        target: Target,
        /// The ops, by type and reason.
        ops: Vec<OpInTheWay>,
    },
}

/// Ops of one type that cannot be raised, for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpInTheWay {
    /// The ops' type.
    pub op_type: String,
    /// The name of the first of them.
    pub first: String,
    /// How many they are.
    pub count: usize,
    /// What is in the way.
    pub reason: String,
}

impl fmt::Display for OpInTheWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            op_type,
            first,
            count,
            reason,
        } = self;
        match count {
            1 => write!(f, "{op_type} \"{first}\": {reason}"),
            _ => write!(f, "{count} {op_type}, the first \"{first}\": {reason}"),
        }
    }
}

fn in_the_way(target: Target, ops: &[OpInTheWay]) -> String {
    let mut text = format!(
        "the program cannot be raised to {target}: these ops would not mean the same there"
    );
    for op in ops {
        text += &format!("\n  {op}");
    }
    text + &format!(
        "\nconvert the model again from its source with minimum_deployment_target=coremltools.target.{target}"
    )
}
