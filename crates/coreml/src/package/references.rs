//! The weight files that a model refers to, found by walking its programs.

use crate::proto::{Argument, Block, Model, Operation, Program, Value};
use std::collections::BTreeSet;

/// The names of the weight files, each once, in order.
pub(super) fn weight_files(model: &Model) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    in_model(model, &mut names);
    names
}

fn in_model(model: &Model, names: &mut BTreeSet<String>) {
    if let Some(program) = &model.ml_program {
        in_program(program, names);
    }
    let typed = [&model.pipeline_classifier, &model.pipeline_regressor];
    let within = typed
        .into_iter()
        .flatten()
        .filter_map(|typed| typed.pipeline.as_ref());
    for pipeline in within.chain(&model.pipeline) {
        pipeline.models.iter().for_each(|m| in_model(m, names));
    }
}

fn in_program(program: &Program, names: &mut BTreeSet<String>) {
    for function in program.functions.values() {
        for block in function.block_specializations.values() {
            in_block(block, names);
        }
    }
}

fn in_block(block: &Block, names: &mut BTreeSet<String>) {
    for Operation {
        inputs,
        blocks,
        attributes,
        ..
    } in &block.operations
    {
        attributes.values().for_each(|value| in_value(value, names));
        inputs.values().for_each(|input| in_argument(input, names));
        blocks.iter().for_each(|block| in_block(block, names));
    }
}

fn in_argument(argument: &Argument, names: &mut BTreeSet<String>) {
    for value in argument.arguments.iter().filter_map(|b| b.value.as_ref()) {
        in_value(value, names);
    }
}

fn in_value(value: &Value, names: &mut BTreeSet<String>) {
    if let Some(blob) = &value.blob_file
        && !names.contains(&blob.file_name)
    {
        names.insert(blob.file_name.clone());
    }
}
