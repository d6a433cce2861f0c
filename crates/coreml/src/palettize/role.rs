//! What a weight is to the model: an embedding, a head, a table of positions or a mask; found by following what is
//! computed from it.

use crate::program::graph::User;
use crate::program::mil::is_constexpr;
use crate::program::walk::functions;
use crate::proto::{Block, Model, Operation};
use palettizer_pipeline::config::Role;
use std::collections::{HashMap, HashSet};

/// Ops that only move elements, or change their type.
const MOVES: [&str; 13] = [
    "cast",
    "concat",
    "expand_dims",
    "gather",
    "gather_along_axis",
    "identity",
    "reshape",
    "slice_by_index",
    "slice_by_size",
    "split",
    "squeeze",
    "tile",
    "transpose",
];
/// Ops that take each element by itself, beside those of [`PAIRS`].
const SINGLES: [&str; 6] = [
    "clip",
    "log",
    "log_softmax",
    "scaled_tanh",
    "softmax",
    "tanh",
];
/// Ops that take two tensors element by element.
const PAIRS: [&str; 8] = [
    "add", "maximum", "minimum", "mul", "pow", "real_div", "select", "sub",
];
/// What chooses a token from the logits, in models that do so themselves.
const CHOICES: [&str; 2] = ["reduce_argmax", "topk"];

/// What becomes of each value of a model.
#[derive(Debug, Default)]
pub(crate) struct Flow<'a> {
    /// The function that an op stands in. Its names are its own.
    functions: HashMap<*const Operation, usize>,
    users: HashMap<(usize, &'a str), Vec<&'a Operation>>,
    constants: HashSet<(usize, &'a str)>,
    outputs: HashSet<(usize, &'a str)>,
}

impl<'a> Flow<'a> {
    pub(crate) fn of(model: &'a Model) -> Self {
        let mut flow = Flow::default();
        let blocks =
            functions(model).flat_map(|(_, function)| function.block_specializations.values());
        for (function, block) in blocks.enumerate() {
            flow.block(block, function);
            let outputs = block.outputs.iter();
            let outputs = outputs.map(|name| (function, name.as_str()));
            flow.outputs.extend(outputs);
        }
        flow
    }

    fn block(&mut self, block: &'a Block, function: usize) {
        for op in &block.operations {
            self.functions.insert(op, function);
            for binding in op.inputs.values().flat_map(|argument| &argument.arguments) {
                if binding.value.is_none() {
                    let users = self.users.entry((function, binding.name.as_str()));
                    users.or_default().push(op);
                }
            }
            if op.r#type == "const" || is_constexpr(op) {
                let outputs = op.outputs.iter();
                self.constants
                    .extend(outputs.map(|output| (function, output.name.as_str())));
            }
            for inner in &op.blocks {
                self.block(inner, function);
            }
        }
    }

    /// What a weight of this shape is, by its consumers.
    pub(crate) fn role(&self, shape: &[usize], consumers: &[&User<'a>]) -> Option<Role> {
        let looked_up = |user: &&&User<'a>| user.op.r#type == "gather" && user.param == "x";
        if let Some(lookup) = consumers.iter().find(looked_up) {
            let multiplies = |end: &Operation| end.r#type == "mul" && !self.by_constant(end);
            // Rotary tables are looked up too, and multiplied with activations; masks have more axes.
            let table = shape.len() != 2 || self.ends_in(lookup.op, multiplies);
            return Some(if table { Role::Table } else { Role::Embedding });
        }
        if consumers
            .iter()
            .any(|user| widens(shape, user) && self.reaches_output(user.op))
        {
            return Some(Role::Head);
        }
        let table = |user: &&User<'a>| {
            let pair = |end: &Operation| {
                let pairs = PAIRS.contains(&end.r#type.as_str());
                let mask =
                    end.r#type == "scaled_dot_product_attention" && user.param == "attn_mask";
                mask || pairs && (std::ptr::eq(end, user.op) || !self.by_constant(end))
            };
            self.ends_in(user.op, pair)
        };
        (!consumers.is_empty() && consumers.iter().all(table)).then_some(Role::Table)
    }

    /// Whether an op, or what becomes of what it moves, is all such.
    fn ends_in(&self, op: &'a Operation, such: impl Fn(&Operation) -> bool) -> bool {
        let moves = |op: &Operation| MOVES.contains(&op.r#type.as_str());
        if !moves(op) {
            return such(op);
        }
        let ends = self.followed(op, moves).ops;
        !ends.is_empty() && ends.into_iter().all(such)
    }

    /// Whether what an op gives leaves the function with nothing done to it that mixes channels.
    fn reaches_output(&self, op: &'a Operation) -> bool {
        let passes = |op: &'a Operation| {
            let kind = op.r#type.as_str();
            let single =
                MOVES.contains(&kind) || SINGLES.contains(&kind) || CHOICES.contains(&kind);
            single || PAIRS.contains(&kind) && self.by_constant(op)
        };
        self.followed(op, passes).leaves
    }

    /// Whether all but one of an op's tensors are constants.
    fn by_constant(&self, op: &Operation) -> bool {
        let Some(&function) = self.functions.get(&std::ptr::from_ref(op)) else {
            return false;
        };
        let bindings = op.inputs.values().flat_map(|argument| &argument.arguments);
        let computed = bindings.filter(|binding| {
            binding.value.is_none() && !self.constants.contains(&(function, binding.name.as_str()))
        });
        computed.count() < 2
    }

    /// Follows what an op gives, through the ops that let it pass.
    fn followed(&self, op: &'a Operation, passes: impl Fn(&'a Operation) -> bool) -> Reached<'a> {
        let mut reached = Reached::default();
        let Some(&function) = self.functions.get(&std::ptr::from_ref(op)) else {
            return reached;
        };
        let mut seen: HashSet<*const Operation> = HashSet::new();
        let mut waiting = vec![op];
        while let Some(op) = waiting.pop() {
            for output in &op.outputs {
                let name = (function, output.name.as_str());
                reached.leaves |= self.outputs.contains(&name);
                for &user in self.users.get(&name).into_iter().flatten() {
                    if !seen.insert(user) {
                        continue;
                    }
                    match passes(user) {
                        true => waiting.push(user),
                        false => reached.ops.push(user),
                    }
                }
            }
        }
        reached
    }
}

/// Where what an op gives comes to.
#[derive(Debug, Default)]
struct Reached<'a> {
    /// The first ops that do not let it pass.
    ops: Vec<&'a Operation>,
    /// Whether it leaves the function.
    leaves: bool,
}

/// Whether a projection gives more channels than it takes.
fn widens(shape: &[usize], user: &User<'_>) -> bool {
    let projects = ["conv", "linear", "matmul"].contains(&user.op.r#type.as_str());
    let Some(axis) = user.output_axis.filter(|_| projects) else {
        return false;
    };
    let others = shape.iter().enumerate().filter(|(at, _)| *at != axis);
    let taken = others.map(|(_, size)| size).product::<usize>();
    shape.get(axis).is_some_and(|&given| given > taken)
}
