//! What a loss is differentiated by: inputs and constants, by their names, in a model of one stage or of several.

use crate::call::{Node, Slot};
use crate::constant::Spare;
use crate::error::Error;
use crate::grad::Tape;
use crate::pipeline::Stage;
use crate::plan::Function;
use crate::session::{Named, Slots, together};
use crate::tensor::{Dtype, Tensor, element_count};
use crate::value::Value;
use palettizer_coreml::Model;
use std::collections::BTreeMap;

/// What a loss is differentiated by, and the tape that all stages write to.
pub(crate) struct Sought<'a> {
    tape: Tape<'a>,
    /// Inputs of the model.
    inputs: BTreeMap<String, Node>,
    constants: Vec<Constant<'a>>,
    /// The shapes of inputs, as a program took them.
    shapes: BTreeMap<String, Vec<usize>>,
}

/// A constant of a function, by its place in it.
struct Constant<'a> {
    function: &'a Function,
    at: usize,
    node: Node,
}

impl<'a> Sought<'a> {
    /// What these names are: inputs of the model, or else constants, of the first stage that has one of the name.
    pub(crate) fn new(
        root: &'a Stage,
        function: Option<&str>,
        wrt: &[&str],
    ) -> Result<Self, Error> {
        let mut sought = Sought {
            tape: Tape::default(),
            inputs: BTreeMap::new(),
            constants: Vec::new(),
            shapes: BTreeMap::new(),
        };
        let inputs = root.input_names(function)?;
        let functions = root.functions(function)?;
        for &name in wrt {
            if inputs.contains(&name) {
                let node = sought.tape.node();
                sought.inputs.entry(name.to_owned()).or_insert(node);
                continue;
            }
            let place = functions.iter().find_map(|&function| {
                let mut constants = function.constants.iter();
                Some((function, constants.position(|one| one.name == name)?))
            });
            let (function, at) = place.ok_or_else(|| Error::Wrt {
                name: name.to_owned(),
            })?;
            if sought.node_of(function, at).is_none() {
                let node = sought.tape.node();
                sought.constants.push(Constant { function, at, node });
            }
        }
        Ok(sought)
    }

    fn node_of(&self, function: &Function, at: usize) -> Option<Node> {
        let mut own = self.of(function);
        own.find(|one| one.at == at).map(|one| one.node)
    }

    fn of(&self, function: &Function) -> impl Iterator<Item = &Constant<'a>> {
        self.constants
            .iter()
            .filter(move |one| std::ptr::eq(one.function, function))
    }

    /// The inputs of the model, each with its place on the tape.
    pub(crate) fn placed(&self, inputs: Named) -> Slots {
        together(inputs, |name| self.input(name))
    }

    /// The place of an input of the model.
    pub(crate) fn input(&self, name: &str) -> Option<Node> {
        self.inputs.get(name).copied()
    }

    /// Whether that is the place of an input of the model.
    pub(crate) fn is_input(&self, node: Node) -> bool {
        self.inputs.values().any(|&input| input == node)
    }

    /// The tape, for a function to be run with.
    pub(crate) fn lend(&mut self, function: &Function, given: &[Slot]) -> Tape<'a> {
        for slot in given {
            let named = self
                .inputs
                .iter()
                .find(|(_, node)| slot.node == Some(**node));
            if let (Some((name, _)), Some(tensor)) = (named, slot.value.tensor()) {
                let shape = || tensor.shape().to_vec();
                self.shapes.entry(name.clone()).or_insert_with(shape);
            }
        }
        let mut tape = std::mem::take(&mut self.tape);
        tape.constants = self.of(function).map(|one| (one.at, one.node)).collect();
        tape
    }

    /// Takes the tape back.
    pub(crate) fn give_back(&mut self, tape: Tape<'a>) {
        self.tape = tape;
    }

    /// The gradient with respect to each, from those of outputs.
    pub(crate) fn gradients(
        mut self,
        model: &Model,
        spare: &Spare,
        seeds: Vec<(Node, Vec<f32>)>,
    ) -> Result<BTreeMap<String, Tensor>, Error> {
        let mut flow = self.tape.backward(model, spare, seeds)?;
        let mut gradients = BTreeMap::new();
        let mut add = |name: &str, node: Node, shape: Option<Vec<usize>>| {
            let unknown = || Error::Wrt {
                name: name.to_owned(),
            };
            let shape = shape.ok_or_else(unknown)?;
            let count = element_count(&shape).unwrap_or(0);
            let gradient = flow.remove(&node).unwrap_or_else(|| vec![0.0; count]);
            let tensor = Tensor::new(Dtype::F32, &shape, gradient).ok_or_else(unknown)?;
            gradients.insert(name.to_owned(), tensor);
            Ok::<_, Error>(())
        };
        for (name, &node) in &self.inputs {
            add(name, node, self.shapes.remove(name))?;
        }
        for Constant { function, at, node } in self.constants {
            let constant = &function.constants[at];
            let shape = match constant.shape() {
                Some(shape) => Some(shape),
                None => {
                    let value: Value = constant.value(model, &function.constants, false, None)?;
                    value.tensor().map(|tensor| tensor.shape().to_vec())
                }
            };
            add(&constant.name, node, shape)?;
        }
        Ok(gradients)
    }
}

#[cfg(test)]
mod tests;
