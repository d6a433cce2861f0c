//! Who uses which constant: an index over a model's programs, built in one walk and read only.
//!
//! Names are resolved as MIL scopes them: an operation sees the inputs of its function and of the blocks
//! around it, and the outputs of the operations before it. A name that is used before it is defined (which
//! is also how a cycle shows) is an error.

use crate::Error;
use crate::opset::Opset as _;
use crate::program::axes::{conv_groups, output_axis};
use crate::program::mil::{is_constexpr, op_name};
use crate::program::walk::functions;
use crate::proto::{Block, Model, NamedValueType, Operation, Value};
use palettizer_pipeline::config::Target;
use std::collections::{HashMap, HashSet};

/// The constants of a model and their users.
#[derive(Debug, Default)]
pub(crate) struct Graph<'a> {
    /// Every `const` and `constexpr_` operation, in the order of the program.
    pub nodes: Vec<Node<'a>>,
}

/// A `const` or `constexpr_` operation.
#[derive(Debug)]
pub(crate) struct Node<'a> {
    /// The operation.
    pub op: &'a Operation,
    /// Its place in a walk over all operations of the model, an operation before those nested in it.
    pub ordinal: usize,
    /// The target of the opset that it is written in; `None` for an opset that we do not know.
    pub target: Option<Target>,
    /// Its users.
    pub users: Vec<User<'a>>,
    /// Whether a block gives it as an output.
    pub feeds_output: bool,
    /// Whether a block inside of an operation does: a branch, or the body of a loop.
    pub leaves_inner_block: bool,
}

impl Node<'_> {
    /// Whether something other than a `constexpr_` operation uses it.
    pub(crate) fn feeds_others(&self) -> bool {
        self.feeds_output || self.users.iter().any(|user| user.node.is_none())
    }
}

/// One use of a constant.
#[derive(Debug)]
pub(crate) struct User<'a> {
    /// The operation.
    pub op: &'a Operation,
    /// The parameter that takes the constant.
    pub param: &'a str,
    /// The axis of the constant that holds the operation's output channels.
    pub output_axis: Option<usize>,
    /// The groups of a convolution, else 1.
    pub groups: usize,
    /// The user's own node, if it is a `constexpr_` operation.
    pub node: Option<usize>,
}

impl<'a> Graph<'a> {
    /// Indexes a model.
    ///
    /// # Errors
    /// [`Error::UndefinedName`] for a name that nothing defines before it is used.
    pub(crate) fn build(model: &'a Model) -> Result<Self, Error> {
        let mut builder = Builder::default();
        for (name, function) in functions(model) {
            for (opset, block) in &function.block_specializations {
                builder.function = name;
                builder.target = Target::of_opset(opset);
                builder.scope.clear();
                for input in &function.inputs {
                    builder.define(&input.name, Definition::Other);
                }
                builder.block(block, false)?;
            }
        }
        Ok(builder.graph)
    }

    /// The users of a node at the end of any chain of `constexpr_` operations.
    pub(crate) fn consumers(&self, node: usize) -> Vec<&User<'a>> {
        let mut found = Vec::new();
        self.each_in_chain(node, |node| {
            found.extend(node.users.iter().filter(|user| user.node.is_none()));
        });
        found
    }

    /// Whether a node, or what a chain of `constexpr_` operations makes of it, leaves a block inside of an operation.
    pub(crate) fn leaves_inner_block(&self, node: usize) -> bool {
        let mut leaves = false;
        self.each_in_chain(node, |node| leaves |= node.leaves_inner_block);
        leaves
    }

    /// Visits a node and the `constexpr_` nodes that are made from it, each once.
    fn each_in_chain<'g>(&'g self, node: usize, mut visit: impl FnMut(&'g Node<'a>)) {
        let mut seen = HashSet::from([node]);
        let mut waiting = vec![node];
        while let Some(at) = waiting.pop() {
            let node = &self.nodes[at];
            visit(node);
            let next = node.users.iter().rev().filter_map(|user| user.node);
            waiting.extend(next.filter(|&next| seen.insert(next)));
        }
    }
}

#[derive(Clone, Copy)]
enum Definition {
    Node(usize),
    Other,
}

#[derive(Default)]
struct Builder<'a> {
    graph: Graph<'a>,
    /// Definitions by name, an inner block's after those around it.
    scope: HashMap<&'a str, Vec<Definition>>,
    function: &'a str,
    target: Option<Target>,
    ordinal: usize,
}

impl<'a> Builder<'a> {
    fn define(&mut self, name: &'a str, definition: Definition) {
        self.scope.entry(name).or_default().push(definition);
    }

    fn resolve(&self, name: &str, used_by: impl Fn() -> String) -> Result<Definition, Error> {
        self.scope
            .get(name)
            .and_then(|definitions| definitions.last())
            .copied()
            .ok_or_else(|| Error::UndefinedName {
                name: name.to_owned(),
                used_by: used_by(),
                function: self.function.to_owned(),
            })
    }

    fn constant(&self, name: &str) -> Option<&'a Value> {
        match self.scope.get(name)?.last()? {
            Definition::Node(node) => self.graph.nodes[*node].op.attributes.get("val"),
            Definition::Other => None,
        }
    }

    /// Indexes a block; `inner` if it is inside of an operation.
    fn block(&mut self, block: &'a Block, inner: bool) -> Result<(), Error> {
        let mut defined: Vec<&'a str> = Vec::new();
        for input in &block.inputs {
            self.define(&input.name, Definition::Other);
            defined.push(&input.name);
        }
        for op in &block.operations {
            let ordinal = self.ordinal;
            self.ordinal += 1;
            let holds_constant = op.r#type == "const" || is_constexpr(op);
            let node = holds_constant.then_some(self.graph.nodes.len());
            self.uses(op, node.filter(|_| is_constexpr(op)))?;
            for nested in &op.blocks {
                self.block(nested, true)?;
            }
            if holds_constant {
                self.graph.nodes.push(Node {
                    op,
                    ordinal,
                    target: self.target,
                    users: Vec::new(),
                    feeds_output: false,
                    leaves_inner_block: false,
                });
            }
            for output in &op.outputs {
                self.define(
                    &output.name,
                    node.map_or(Definition::Other, Definition::Node),
                );
                defined.push(&output.name);
            }
        }
        for name in &block.outputs {
            let used_by = || "the outputs of a block".to_owned();
            if let Definition::Node(node) = self.resolve(name, used_by)? {
                self.graph.nodes[node].feeds_output = true;
                self.graph.nodes[node].leaves_inner_block |= inner;
            }
        }
        for name in defined {
            if let Some(definitions) = self.scope.get_mut(name) {
                definitions.pop();
            }
        }
        Ok(())
    }

    fn uses(&mut self, op: &'a Operation, own_node: Option<usize>) -> Result<(), Error> {
        for (param, argument) in &op.inputs {
            for binding in argument.arguments.iter().filter(|b| b.value.is_none()) {
                let used_by = || format!("{} \"{}\" ({param})", op.r#type, op_name(op));
                let Definition::Node(node) = self.resolve(&binding.name, used_by)? else {
                    continue;
                };
                let constant = |name: &str| self.constant(name);
                let output = self.graph.nodes[node].op.outputs.first();
                let known = output.and_then(NamedValueType::known_tensor);
                let rank = known.map_or(0, |(_, shape)| shape.len());
                let user = User {
                    op,
                    param,
                    output_axis: output_axis(op, param, rank, &constant),
                    groups: conv_groups(op, &constant),
                    node: own_node,
                };
                self.graph.nodes[node].users.push(user);
            }
        }
        Ok(())
    }
}
