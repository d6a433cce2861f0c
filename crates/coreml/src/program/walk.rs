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

/// Calls `visit` with every operation of the model, one before those nested in it.
pub(crate) fn each_op<'a, E>(
    model: &'a Model,
    visit: &mut impl FnMut(&'a Operation) -> Result<(), E>,
) -> Result<(), E> {
    for program in programs(model) {
        for function in program.functions.values() {
            for block in function.block_specializations.values() {
                each_op_of_block(block, visit)?;
            }
        }
    }
    Ok(())
}

fn each_op_of_block<'a, E>(
    block: &'a Block,
    visit: &mut impl FnMut(&'a Operation) -> Result<(), E>,
) -> Result<(), E> {
    for op in &block.operations {
        visit(op)?;
        for inner in &op.blocks {
            each_op_of_block(inner, visit)?;
        }
    }
    Ok(())
}

/// The values of one operation, attributes and inputs bound in place, without those of its nested blocks.
pub(crate) fn values(op: &Operation) -> impl Iterator<Item = &Value> {
    let bindings = op.inputs.values().flat_map(|argument| &argument.arguments);
    let in_place = bindings.filter_map(|binding| binding.value.as_ref());
    op.attributes.values().chain(in_place)
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
