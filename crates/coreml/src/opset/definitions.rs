//! The op definitions: which ops an opset has, and which inputs they take.
//!
//! **Source.** `definitions.tsv`, made from coremltools 9.0 by `scripts/opset_table.py`, which says
//! how a line is to be read; and one op that a file may hold but the registry lacks ([`FILE_ONLY`]).

use palettizer_pipeline::config::Target;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// The table, as the script writes it.
pub(super) const TABLE: &str = include_str!("definitions.tsv");

/// What the table lacks, in its form: coremltools writes its own `coreml_update_state` as this op.
pub(super) const FILE_ONLY: &str = "write_state\tiOS18\tinput:state data:tensor\t-";

/// An op's definition, valid from an opset until the next definition.
#[derive(Debug)]
pub(super) struct Definition {
    /// The first target with this definition.
    pub(super) since: Target,
    /// The inputs, as they are in the table.
    pub(super) inputs: Vec<&'static str>,
    /// The methods whose code differs from the definition before.
    #[cfg(test)]
    pub(super) methods: &'static str,
}

impl Definition {
    /// Whether the op takes an input of this name.
    pub(super) fn takes(&self, input: &str) -> bool {
        self.inputs.iter().any(|known| input_name(known) == input)
    }
}

/// The name at the start of an input of the table.
pub(super) fn input_name(input: &str) -> &str {
    input.split(['?', '!', ':']).next().unwrap_or(input)
}

/// The op's definitions, the oldest first; `None` for an op that is not in the table.
pub(super) fn definitions(op_type: &str) -> Option<&'static [Definition]> {
    DEFINITIONS.get(op_type).map(Vec::as_slice)
}

/// Every op's definitions.
pub(super) static DEFINITIONS: LazyLock<BTreeMap<&'static str, Vec<Definition>>> =
    LazyLock::new(|| {
        let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for line in TABLE.lines().chain([FILE_ONLY]) {
            // The first two lines are a remark and a heading: they name no target. A test sees to
            // it that every other line does.
            if let Some((op, definition)) = parse(line) {
                all.entry(op).or_default().push(definition);
            }
        }
        all
    });

fn parse(line: &'static str) -> Option<(&'static str, Definition)> {
    let mut columns = line.split('\t');
    let (op, since, inputs, methods) = (
        columns.next()?,
        columns.next()?.parse().ok()?,
        columns.next()?,
        columns.next()?,
    );
    let definition = Definition {
        since,
        inputs: inputs.split(' ').filter(|input| *input != "-").collect(),
        #[cfg(test)]
        methods,
    };
    #[cfg(not(test))]
    let _ = methods;
    Some((op, definition))
}
