//! Visiting every program, function, operation and value of a model, pipelines and nested blocks included.

use crate::proto::{Block, Function, Model, Operation, Program, Value};
use std::collections::BTreeSet;

/// The programs of a model, in order: its own, or those of a pipeline's members.
pub(crate) fn programs(model: &Model) -> Vec<&Program> {
    let mut found = Vec::new();
    collect(model, &mut found);
    found
}

fn collect<'a>(model: &'a Model, found: &mut Vec<&'a Program>) {
    found.extend(&model.ml_program);
    let typed = [&model.pipeline_classifier, &model.pipeline_regressor];
    let typed = typed.into_iter().flatten();
    let pipelines = typed.flat_map(|typed| &typed.pipeline);
    for pipeline in pipelines.chain(&model.pipeline) {
        pipeline
            .models
            .iter()
            .for_each(|member| collect(member, found));
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
    let typed = typed.into_iter().flatten();
    let pipelines = typed.flat_map(|typed| &mut typed.pipeline);
    for pipeline in pipelines.chain(&mut model.pipeline) {
        pipeline
            .models
            .iter_mut()
            .for_each(|member| collect_mut(member, found));
    }
}

/// The functions of a model, by name, in the order of the programs.
pub(crate) fn functions(model: &Model) -> impl Iterator<Item = (&String, &Function)> {
    programs(model)
        .into_iter()
        .flat_map(|program| &program.functions)
}

/// As [`functions`], to change them.
pub(crate) fn functions_mut(model: &mut Model) -> impl Iterator<Item = &mut Function> {
    programs_mut(model)
        .into_iter()
        .flat_map(|program| program.functions.values_mut())
}

/// Every operation of the model, one before those nested in it.
pub(crate) fn operations(model: &Model) -> Vec<&Operation> {
    fn of_block<'a>(block: &'a Block, found: &mut Vec<&'a Operation>) {
        for op in &block.operations {
            found.push(op);
            op.blocks.iter().for_each(|inner| of_block(inner, found));
        }
    }
    let mut found = Vec::new();
    for block in functions(model).flat_map(|(_, function)| function.block_specializations.values())
    {
        of_block(block, &mut found);
    }
    found
}

/// The values of one operation, attributes and inputs bound in place, without those of its nested blocks.
pub(crate) fn values(op: &Operation) -> impl Iterator<Item = &Value> {
    let bindings = op.inputs.values().flat_map(|argument| &argument.arguments);
    let in_place = bindings.filter_map(|binding| binding.value.as_ref());
    op.attributes.values().chain(in_place)
}

/// As [`values`], to change them.
pub(crate) fn values_mut(op: &mut Operation) -> impl Iterator<Item = &mut Value> {
    let arguments = op.inputs.values_mut();
    let bindings = arguments.flat_map(|argument| &mut argument.arguments);
    let in_place = bindings.filter_map(|binding| binding.value.as_mut());
    op.attributes.values_mut().chain(in_place)
}

/// The weight files that a model refers to, by name, each once, in order.
pub(crate) fn weight_files(model: &Model) -> BTreeSet<&str> {
    let values = operations(model).into_iter().flat_map(values);
    let places = values.filter_map(|value| value.blob_file.as_ref());
    places.map(|place| place.file_name.as_str()).collect()
}
