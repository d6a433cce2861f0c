//! Raises a model to a newer opset: the walk over functions, blocks and ops.

use super::Opset;
use super::definitions::definitions;
use super::redefinitions::{Verdict, redefinition};
use super::scope::Scope;
use super::{OpInTheWay, OpsetError};
use crate::program::mil::op_name;
use crate::program::names::Names;
use crate::program::walk::{programs, programs_mut};
use crate::proto::{Block, Model, Operation, Program};
use palettizer_pipeline::config::Target;
use std::collections::BTreeMap;

/// Raises every function of a model, or of every model of a pipeline, to a target, and the
/// specification versions with it; gives whether any function was below it.
///
/// Only the block of the opset in use is raised; a function's blocks for other opsets are left as
/// they are, and where one of them already is for the target, it comes into use as it is. What is
/// at the target or above stays unchanged. The module's documentation says what a changed
/// value type means for its blob.
///
/// ```
/// use palettizer_coreml::opset::raise;
/// use palettizer_pipeline::config::Target;
/// use palettizer_coreml::proto::{Block, Function, Model, Program};
/// let function = Function {
///     opset: "CoreML5".into(),
///     block_specializations: [("CoreML5".into(), Block::default())].into(),
///     ..Function::default()
/// };
/// let program = Program { functions: [("main".into(), function)].into(), ..Program::default() };
/// let mut model = Model { specification_version: 6, ml_program: Some(program), ..Model::default() };
/// assert!(raise(&mut model, Target::IOS18)?);
/// assert_eq!(model.specification_version, 9);
/// # Ok::<(), palettizer_coreml::opset::OpsetError>(())
/// ```
///
/// # Errors
/// Every [`OpsetError`]; the model is unchanged then.
pub fn raise(model: &mut Model, target: Target) -> Result<bool, OpsetError> {
    let mut in_the_way = InTheWay::default();
    let mut changes = Vec::new();
    for program in programs(model) {
        changes.push(raised_blocks(program, target, &mut in_the_way)?);
    }
    if !in_the_way.0.is_empty() {
        let ops = in_the_way.0.into_values().collect();
        return Err(OpsetError::OpsInTheWay { target, ops });
    }
    let changed = changes.iter().any(|blocks| !blocks.is_empty());
    for (program, blocks) in programs_mut(model).into_iter().zip(changes) {
        apply(program, target, blocks);
    }
    raise_version(model, target);
    Ok(changed)
}

/// A program's new blocks, by function.
type Blocks = BTreeMap<String, Block>;

/// The ops that cannot be raised, by type and reason.
#[derive(Default)]
struct InTheWay(BTreeMap<(String, String), OpInTheWay>);

impl InTheWay {
    fn add(&mut self, op: &Operation, reason: String) {
        let key = (op.r#type.clone(), reason);
        let entry = self.0.entry(key.clone());
        let found = entry.or_insert_with(|| OpInTheWay {
            op_type: key.0,
            first: op_name(op).to_owned(),
            count: 0,
            reason: key.1,
        });
        found.count += 1;
    }
}

/// Puts a program's new blocks in place.
fn apply(program: &mut Program, target: Target, blocks: Blocks) {
    for (name, block) in blocks {
        if let Some(function) = program.functions.get_mut(&name) {
            function.block_specializations.remove(&function.opset);
            function.opset = target.opset().to_owned();
            function
                .block_specializations
                .insert(function.opset.clone(), block);
        }
    }
}

/// Raises the specification version of a model with an ML Program in it, and of such models within.
fn raise_version(model: &mut Model, target: Target) {
    if !programs(model).is_empty() {
        let version = target.specification_version();
        model.specification_version = model.specification_version.max(version);
    }
    let typed = [
        &mut model.pipeline_classifier,
        &mut model.pipeline_regressor,
    ];
    let typed = typed
        .into_iter()
        .flatten()
        .flat_map(|typed| &mut typed.pipeline);
    for pipeline in model.pipeline.iter_mut().chain(typed) {
        for inner in &mut pipeline.models {
            raise_version(inner, target);
        }
    }
}

/// The blocks of the functions that are below the target, raised.
fn raised_blocks(
    program: &Program,
    target: Target,
    in_the_way: &mut InTheWay,
) -> Result<Blocks, OpsetError> {
    let mut blocks = Blocks::new();
    if program.functions.is_empty() {
        return Err(OpsetError::NoFunction);
    }
    for (name, function) in &program.functions {
        let from = Target::of_opset(&function.opset).ok_or_else(|| OpsetError::UnknownOpset {
            function: name.clone(),
            found: function.opset.clone(),
        })?;
        let block = function.block_specializations.get(&function.opset);
        let block = block.ok_or_else(|| OpsetError::NoBlock {
            function: name.clone(),
            opset: function.opset.clone(),
        })?;
        if from >= target {
            continue;
        }
        let raised = match function.block_specializations.get(target.opset()) {
            Some(ready) => ready.clone(),
            None => {
                let mut scope = Scope::default();
                for input in &function.inputs {
                    scope.declare(&input.name, input.r#type.as_ref());
                }
                let names = Names::of(&function.inputs, [block]);
                Walk {
                    from,
                    to: target,
                    names,
                    in_the_way,
                }
                .block(block, &scope)
            }
        };
        blocks.insert(name.clone(), raised);
    }
    Ok(blocks)
}

/// The walk over one function.
struct Walk<'w> {
    from: Target,
    to: Target,
    names: Names,
    in_the_way: &'w mut InTheWay,
}

impl Walk<'_> {
    fn block<'p>(&mut self, block: &'p Block, outer: &Scope<'_, 'p>) -> Block {
        let mut scope = outer.inner();
        for input in &block.inputs {
            scope.declare(&input.name, input.r#type.as_ref());
        }
        let mut operations = Vec::with_capacity(block.operations.len());
        for op in &block.operations {
            operations.extend(self.op(op, &scope));
            scope.declare_outputs(op);
        }
        Block {
            inputs: block.inputs.clone(),
            outputs: block.outputs.clone(),
            operations,
            unknown: block.unknown.clone(),
        }
    }

    /// An op's raised form. An op in the way is noted, and stays as it is.
    fn op<'p>(&mut self, op: &'p Operation, scope: &Scope<'_, 'p>) -> Vec<Operation> {
        let mut raised = Operation {
            r#type: op.r#type.clone(),
            inputs: op.inputs.clone(),
            outputs: op.outputs.clone(),
            blocks: Vec::new(),
            attributes: op.attributes.clone(),
            unknown: op.unknown.clone(),
        };
        raised.blocks = op
            .blocks
            .iter()
            .map(|block| self.block(block, scope))
            .collect();
        if let Err(reason) = self.check(op) {
            self.in_the_way.add(op, reason);
            return vec![raised];
        }
        let mut before = Vec::new();
        let steps = Target::ALL
            .into_iter()
            .filter(|step| *step > self.from && *step <= self.to);
        for redefined in steps.filter_map(|step| redefinition(&op.r#type, step)) {
            match redefined.verdict {
                Verdict::Keeps => {}
                Verdict::InTheWay => self.in_the_way.add(op, redefined.reason.to_owned()),
                Verdict::Rule(rule) => match rule(&raised, scope, &mut self.names) {
                    Ok(None) => {}
                    Ok(Some(mut ops)) => {
                        if let Some(last) = ops.pop() {
                            raised = last;
                            before.extend(ops);
                        }
                    }
                    Err(reason) => self.in_the_way.add(op, reason),
                },
            }
        }
        before.push(raised);
        before
    }

    /// Whether the op is one of the opset that it is written in.
    fn check(&self, op: &Operation) -> Result<(), String> {
        let Some(all) = definitions(&op.r#type) else {
            return Err("an unknown op: a custom one, or newer than the table of ops".to_owned());
        };
        let Some(definition) = all.iter().rfind(|definition| definition.since <= self.from) else {
            let opset = self.from.opset();
            return Err(format!(
                "opset {opset}, which the program is in, has no such op"
            ));
        };
        match op.inputs.keys().find(|input| !definition.takes(input)) {
            Some(input) => Err(format!("its input `{input}` is unknown")),
            None => Ok(()),
        }
    }
}
