//! What can go wrong when a program is run.

/// What can go wrong when a program is run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The program has operations that are not known.
    #[error("function \"{function}\" has operations that cannot be run here: {}; docs/runtime.md lists those that can", ops.join(", "))]
    UnknownOps {
        /// The function.
        function: String,
        /// Their types, each once.
        ops: Vec<String>,
    },
    /// The model has no function of this name.
    #[error("no function is called \"{name}\"; the model has: {}", known.join(", "))]
    NoFunction {
        /// The name.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// The program is damaged.
    #[error("function \"{function}\": {what}; the program is damaged, convert the model again")]
    Program {
        /// The function.
        function: String,
        /// What is wrong.
        what: String,
    },
    /// An input is missing, unknown, or not what the model expects.
    #[error("input \"{name}\" {what}")]
    Input {
        /// The input.
        name: String,
        /// What was found, and what was expected.
        what: String,
    },
    /// A loss does not fit an output.
    #[error("output \"{name}\" {what}")]
    Output {
        /// The output.
        name: String,
        /// What was found, and what was expected.
        what: String,
    },
    /// There is nothing of this name to differentiate by.
    #[error(
        "\"{name}\" is neither an input nor a constant of the function; `palettizer inspect` lists the weights' names"
    )]
    Wrt {
        /// The name.
        name: String,
    },
    /// An operation cannot do what it is asked to.
    #[error("{op_type} \"{name}\": {what}")]
    Op {
        /// The operation's type.
        op_type: String,
        /// Its name.
        name: String,
        /// What was found, and what was expected.
        what: String,
    },
    /// More operations were run than allowed.
    #[error(
        "the program did not end within {limit} operations: a loop that never ends? Raise max_steps (--max-steps) if it is meant to run longer"
    )]
    MaxSteps {
        /// The limit.
        limit: u64,
    },
    /// More memory was asked for than allowed.
    #[error(
        "{op_type} \"{name}\" asks for {asked} bytes where {used} of {limit} are in use; raise max_memory (--max-memory) if the machine has more"
    )]
    MaxMemory {
        /// The operation's type.
        op_type: String,
        /// Its name.
        name: String,
        /// Bytes asked for.
        asked: u64,
        /// Bytes in use.
        used: u64,
        /// The limit.
        limit: u64,
    },
    /// A stage of a pipeline is no ML Program.
    #[error(
        "stage {stage} of the pipeline is a {kind}, which cannot be run here; expected ML Programs"
    )]
    Stage {
        /// Its number, from 0.
        stage: usize,
        /// What it is.
        kind: String,
    },
    /// The description of an input or output makes no sense.
    #[error("\"{name}\" is described wrongly: {what}; the model is damaged, convert it again")]
    Interface {
        /// The input or output.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// The run was stopped.
    #[error("stopped")]
    Stopped,
    /// The model cannot be read.
    #[error(transparent)]
    Model(#[from] palettizer_coreml::Error),
}
