//! Visiting every program, block and value of a model, pipelines and nested blocks included.

use crate::proto::{Block, Model, Operation, Program, Value};

/// The programs of a model, in order: its own, or those of a pipeline's members.
pub(crate) fn programs(model: &Model) -> Vec<&Program> {
    let mut found = Vec::new();
    collect(model, &mut found);
    found
}

fn collect<'a>(model: &'a Model, found: &mut Vec<&'a Program>) {
    found.extend(&model.ml_program);
    let typed = [&model.pipeline_classifier, &model.pipeline_regressor];
    let pipelines = typed
        .into_iter()
        .flatten()
        .filter_map(|typed| typed.pipeline.as_ref())
        .chain(&model.pipeline);
    for member in pipelines.flat_map(|pipeline| &pipeline.models) {
        collect(member, found);
    }
}

/// As [`programs`], to change them.
pub(crate) fn programs_mut(model: &mut Model) -> Vec<&mut Program> {
    let mut found = Vec::new();
    collect_mut(model, &mut found);
    found
}

fn collect_mut<'a>(model: &'a mut Model, found: &mut Vec<&'a mut Program>) {
    found.extend(&mut model.ml_program);
    let typed = [
        &mut model.pipeline_classifier,
        &mut model.pipeline_regressor,
    ];
    let pipelines = typed
        .into_iter()
        .flatten()
        .filter_map(|typed| typed.pipeline.as_mut())
        .chain(&mut model.pipeline);
    for member in pipelines.flat_map(|pipeline| &mut pipeline.models) {
        collect_mut(member, found);
    }
}

/// Calls `visit` with every value of the model's operations: attributes, and inputs bound in place.
pub(crate) fn each_value(model: &Model, visit: &mut impl FnMut(&Value)) {
    for program in programs(model) {
        for function in program.functions.values() {
            for block in function.block_specializations.values() {
                each_value_of_block(block, visit);
            }
        }
    }
}

fn each_value_of_block(block: &Block, visit: &mut impl FnMut(&Value)) {
    for op in &block.operations {
        each_value_of_op(op, visit);
        for inner in &op.blocks {
            each_value_of_block(inner, visit);
        }
    }
}

/// Calls `visit` with every value of one operation, without those of its nested blocks.
pub(crate) fn each_value_of_op(op: &Operation, visit: &mut impl FnMut(&Value)) {
    op.attributes.values().for_each(&mut *visit);
    for argument in op.inputs.values() {
        for value in argument.arguments.iter().filter_map(|b| b.value.as_ref()) {
            visit(value);
        }
    }
}

/// Calls `change` with every value of one operation, without those of its nested blocks.
pub(crate) fn each_value_of_op_mut<E>(
    op: &mut Operation,
    change: &mut impl FnMut(&mut Value) -> Result<(), E>,
) -> Result<(), E> {
    for value in op.attributes.values_mut() {
        change(value)?;
    }
    for argument in op.inputs.values_mut() {
        for binding in &mut argument.arguments {
            if let Some(value) = &mut binding.value {
                change(value)?;
            }
        }
    }
    Ok(())
}
