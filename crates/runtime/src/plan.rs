//! A function of a program made ready to run: names resolved, operations looked up, constants found, last uses known.
//!
//! Names are resolved as MIL scopes them: an operation sees the inputs of its function, the outputs of the operations before it,
//! and what the blocks around it define. Each value gets a number; nested blocks share the numbering of their function.

use crate::constant::Constant;
use crate::error::Error;
use crate::registry::{self, Def};
use crate::tensor::Dtype;
use palettizer_coreml::proto::view::type_view;
use palettizer_coreml::proto::{self, DataType};
use palettizer_coreml::{Model, is_constexpr, op_name};
use palettizer_pipeline::config::Target;
use std::collections::{BTreeSet, HashMap, HashSet};

/// The deepest nesting of blocks.
const MAX_DEPTH: usize = 64;

/// The number of a value in its function.
pub(crate) type Id = usize;

/// Where an argument comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source {
    /// An operation's output, or a block's or function's input.
    Value(Id),
    /// A constant, by its place in [`Function::constants`].
    Constant(usize),
}

/// A function, ready to run.
#[derive(Debug)]
pub(crate) struct Function {
    pub name: String,
    pub inputs: Vec<Input>,
    /// Names and where they come from.
    pub outputs: Vec<(String, Source)>,
    pub body: Block,
    pub constants: Vec<Constant>,
    /// How many values are numbered.
    pub values: usize,
    pub target: Target,
}

/// An input of a function.
#[derive(Debug)]
pub(crate) struct Input {
    pub name: String,
    pub id: Id,
    pub declared: Declared,
    /// Whether it is a state.
    pub state: bool,
}

/// What a program says about a tensor.
#[derive(Clone, Debug, Default)]
pub(crate) struct Declared {
    pub dtype: Option<Dtype>,
    /// A dimension that is not known is `None`; no shape where the rank is not known or it is no tensor.
    pub shape: Option<Vec<Option<usize>>>,
}

impl Declared {
    /// By a type.
    pub(crate) fn of(value_type: Option<&proto::ValueType>) -> Self {
        let Some(tensor) = value_type.and_then(|one| one.tensor_type.as_ref()) else {
            return Self::default();
        };
        let dims = tensor.dimensions.iter();
        let dims = dims.map(|dim| usize::try_from(dim.constant.as_ref()?.size).ok());
        let known = tensor.rank == tensor.dimensions.len() as i64;
        Declared {
            dtype: DataType::from_number(tensor.data_type).and_then(Dtype::of_program),
            shape: known.then(|| dims.collect()),
        }
    }

    /// Whether a shape is as declared.
    pub(crate) fn allows(&self, shape: &[usize]) -> bool {
        self.shape.as_ref().is_none_or(|declared| {
            declared.len() == shape.len()
                && declared
                    .iter()
                    .zip(shape)
                    .all(|(wanted, &dim)| wanted.is_none_or(|wanted| wanted == dim))
        })
    }

    /// The shape, with 1 for dimensions that are not known.
    pub(crate) fn least_shape(&self) -> Vec<usize> {
        let dims = self.shape.iter().flatten();
        dims.map(|dim| dim.unwrap_or(1)).collect()
    }

    /// The shape in words: `[1, ?, 8]`.
    pub(crate) fn shape_text(&self) -> String {
        let dims = self.shape.iter().flatten();
        let dims = dims.map(|dim| dim.map_or("?".to_owned(), |dim| dim.to_string()));
        format!("[{}]", dims.collect::<Vec<_>>().join(", "))
    }
}

/// A list of operations.
#[derive(Debug, Default)]
pub(crate) struct Block {
    pub inputs: Vec<Id>,
    pub outputs: Vec<Source>,
    pub ops: Vec<Op>,
}

/// An operation.
#[derive(Debug)]
pub(crate) struct Op {
    pub def: &'static Def,
    pub name: String,
    pub args: Vec<(String, Vec<Source>)>,
    pub outputs: Vec<Output>,
    pub blocks: Vec<Block>,
    /// Values that nothing needs after it.
    pub last_uses: Vec<Id>,
}

/// An output of an operation.
#[derive(Debug)]
pub(crate) struct Output {
    pub name: String,
    pub id: Id,
    pub declared: Declared,
}

struct Builder<'a> {
    function: &'a str,
    scope: HashMap<String, Vec<Source>>,
    constants: Vec<Constant>,
    values: usize,
    unknown: BTreeSet<String>,
    depth: usize,
}

/// Makes a function ready.
///
/// # Errors
/// [`Error::UnknownOps`] with all of them, [`Error::Program`] for a program that no converter makes.
pub(crate) fn plan(
    model: &Model,
    name: &str,
    function: &proto::Function,
) -> Result<Function, Error> {
    let damaged = |what: String| Error::Program {
        function: name.to_owned(),
        what,
    };
    let mut blocks = function.block_specializations.iter();
    let chosen = blocks.clone().find(|(opset, _)| **opset == function.opset);
    let (opset, block) = chosen
        .or_else(|| blocks.next())
        .ok_or_else(|| damaged("it has no body".to_owned()))?;
    let target = <Target as palettizer_coreml::opset::Opset>::of_opset(opset);
    let target = target.ok_or_else(|| {
        damaged(format!(
            "opset {opset} is not known; expected CoreML5 to CoreML9"
        ))
    })?;
    let mut builder = Builder {
        function: name,
        scope: HashMap::new(),
        constants: Vec::new(),
        values: 0,
        unknown: BTreeSet::new(),
        depth: 0,
    };
    let mut inputs = Vec::new();
    for input in &function.inputs {
        let view = input.r#type.as_ref().map(type_view).transpose();
        let view = view
            .map_err(|error| damaged(format!("the type of input \"{}\": {error}", input.name)))?;
        let state = view.and_then(|view| view.state);
        let declared = match &state {
            Some(state) => Declared::of(state.wrapped.as_ref()),
            None => Declared::of(input.r#type.as_ref()),
        };
        inputs.push(Input {
            name: input.name.clone(),
            id: builder.define(&input.name),
            declared,
            state: state.is_some(),
        });
    }
    let mut body = builder.block(model, block)?;
    if !builder.unknown.is_empty() {
        return Err(Error::UnknownOps {
            function: name.to_owned(),
            ops: builder.unknown.into_iter().collect(),
        });
    }
    mark_last_uses(&mut body);
    let outputs = block
        .outputs
        .iter()
        .cloned()
        .zip(body.outputs.iter().copied());
    Ok(Function {
        name: name.to_owned(),
        inputs,
        outputs: outputs.collect(),
        body,
        constants: builder.constants,
        values: builder.values,
        target,
    })
}

impl Builder<'_> {
    fn damaged(&self, what: String) -> Error {
        Error::Program {
            function: self.function.to_owned(),
            what,
        }
    }

    fn define(&mut self, name: &str) -> Id {
        let id = self.values;
        self.values += 1;
        self.bind(name, Source::Value(id));
        id
    }

    fn bind(&mut self, name: &str, source: Source) {
        self.scope.entry(name.to_owned()).or_default().push(source);
    }

    fn resolve(&self, name: &str, used_by: &str) -> Result<Source, Error> {
        let found = self.scope.get(name).and_then(|found| found.last());
        found.copied().ok_or_else(|| {
            self.damaged(format!(
                "{used_by} uses \"{name}\", which nothing before it defines"
            ))
        })
    }

    fn block(&mut self, model: &Model, block: &proto::Block) -> Result<Block, Error> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.damaged(format!("blocks are nested more than {MAX_DEPTH} deep")));
        }
        let mut bound: Vec<&str> = Vec::new();
        let mut made = Block::default();
        for input in &block.inputs {
            made.inputs.push(self.define(&input.name));
            bound.push(&input.name);
        }
        for op in &block.operations {
            if op.r#type == "const" {
                let value = op.attributes.get("val").or_else(|| in_place(op, "val"));
                let value = value.ok_or_else(|| {
                    self.damaged(format!("const \"{}\" has no value", op_name(op)))
                })?;
                let constant = Constant::stored(model, op_name(op), value)?;
                self.constants.push(constant);
                let source = Source::Constant(self.constants.len() - 1);
                op.outputs
                    .iter()
                    .for_each(|output| self.bind(&output.name, source));
            } else if is_constexpr(op) {
                self.constexpr(op)?;
            } else {
                let op = self.operation(model, op)?;
                made.ops.extend(op);
            }
            bound.extend(op.outputs.iter().map(|output| output.name.as_str()));
        }
        for name in &block.outputs {
            made.outputs
                .push(self.resolve(name, "the output of a block")?);
        }
        for name in bound {
            if let Some(found) = self.scope.get_mut(name) {
                found.pop();
            }
        }
        self.depth -= 1;
        Ok(made)
    }

    fn constexpr(&mut self, op: &proto::Operation) -> Result<(), Error> {
        let mut from = HashMap::new();
        for argument in op.inputs.values() {
            for binding in argument
                .arguments
                .iter()
                .filter(|binding| binding.value.is_none())
            {
                match self.resolve(&binding.name, op_name(op))? {
                    Source::Constant(at) => from.insert(binding.name.clone(), at),
                    Source::Value(_) => {
                        let what = format!(
                            "{} \"{}\" needs \"{}\", which is no constant",
                            op.r#type,
                            op_name(op),
                            binding.name
                        );
                        return Err(self.damaged(what));
                    }
                };
            }
        }
        for (at, output) in op.outputs.iter().enumerate() {
            let name = if at == 0 { op_name(op) } else { &output.name };
            self.constants
                .push(Constant::expression(name, op.clone(), at, from.clone()));
            self.bind(&output.name, Source::Constant(self.constants.len() - 1));
        }
        Ok(())
    }

    fn operation(&mut self, model: &Model, op: &proto::Operation) -> Result<Option<Op>, Error> {
        let def = registry::find(&op.r#type);
        if def.is_none() {
            self.unknown.insert(op.r#type.clone());
        }
        let mut args = Vec::new();
        for (param, argument) in &op.inputs {
            let mut sources = Vec::new();
            for binding in &argument.arguments {
                sources.push(match &binding.value {
                    None => self.resolve(&binding.name, op_name(op))?,
                    Some(value) => {
                        self.constants
                            .push(Constant::stored(model, op_name(op), value)?);
                        Source::Constant(self.constants.len() - 1)
                    }
                });
            }
            args.push((param.clone(), sources));
        }
        // some writers keep parameters as attributes
        for (param, value) in op.attributes.iter().filter(|(param, _)| *param != "name") {
            if def.is_some() && !op.inputs.contains_key(param) {
                self.constants
                    .push(Constant::stored(model, op_name(op), value)?);
                args.push((
                    param.clone(),
                    vec![Source::Constant(self.constants.len() - 1)],
                ));
            }
        }
        let blocks = op
            .blocks
            .iter()
            .map(|inner| self.block(model, inner))
            .collect::<Result<Vec<_>, _>>()?;
        let outputs = op.outputs.iter().map(|output| Output {
            name: output.name.clone(),
            id: self.define(&output.name),
            declared: Declared::of(output.r#type.as_ref()),
        });
        let outputs = outputs.collect();
        Ok(def.map(|def| Op {
            def,
            name: op_name(op).to_owned(),
            args,
            outputs,
            blocks,
            last_uses: Vec::new(),
        }))
    }
}

fn in_place<'a>(op: &'a proto::Operation, param: &str) -> Option<&'a proto::Value> {
    op.inputs.get(param)?.arguments.first()?.value.as_ref()
}

/// Notes after which operation of its block a value is no longer needed.
fn mark_last_uses(block: &mut Block) {
    let mut needed: HashSet<Id> = block.outputs.iter().filter_map(id_of).collect();
    let own = block
        .ops
        .iter()
        .flat_map(|op| op.outputs.iter().map(|output| output.id));
    let own: HashSet<Id> = own.chain(block.inputs.iter().copied()).collect();
    for op in block.ops.iter_mut().rev() {
        let mut used = HashSet::new();
        uses(op, &mut used);
        used.extend(op.outputs.iter().map(|output| output.id));
        let mut last: Vec<Id> = used.into_iter().filter(|id| needed.insert(*id)).collect();
        last.retain(|id| own.contains(id));
        last.sort_unstable();
        op.last_uses = last;
        op.blocks.iter_mut().for_each(mark_last_uses);
    }
}

fn id_of(source: &Source) -> Option<Id> {
    match source {
        Source::Value(id) => Some(*id),
        Source::Constant(_) => None,
    }
}

/// The values that an operation and its blocks use.
fn uses(op: &Op, found: &mut HashSet<Id>) {
    found.extend(
        op.args
            .iter()
            .flat_map(|(_, sources)| sources.iter().filter_map(id_of)),
    );
    for block in &op.blocks {
        found.extend(block.outputs.iter().filter_map(id_of));
        block.ops.iter().for_each(|inner| uses(inner, found));
    }
}
