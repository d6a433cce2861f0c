//! The new operations put in the place of the old ones, and every reference moved along.
//!
//! One walk over the program: a constant that is palettized gives way to the operations of its palette, its
//! name to theirs wherever it is used, and every blob that stays is copied to the new weight file. A constant that
//! a function gives as an output hands its name on: the model's users know the output by it.

use crate::Error;
use crate::palettize::emit::Stored;
use crate::program::mil::{bind_name, in_place};
use crate::program::names::Names;
use crate::program::walk::{functions_mut, values_mut};
use crate::proto::{Block, Model, Operation};
use crate::rewrite::Rewriter;
use std::collections::HashMap;
use std::io::{Seek, Write};

/// What takes the place of an operation, or of one parameter of it.
pub(crate) struct Replacement<'a> {
    /// The weight's name.
    pub name: &'a str,
    /// The parameter of the operation that the palette feeds; `None` if it replaces the whole operation.
    pub data_param: Option<&'static str>,
    /// Whether the weight's data must go by the name that it had.
    pub keeps_name: bool,
    /// The palette.
    pub stored: &'a Stored,
}

impl Replacement<'_> {
    /// Takes the data that are palettized away from the operation that stays.
    pub(crate) fn take_data(&self, op: &mut Operation) {
        if let Some(data) = self.data_param {
            op.inputs.remove(data);
            op.attributes.remove(data);
        }
    }

    /// The palette's operations before `op`, which takes its data from them.
    pub(crate) fn feed(&self, op: &mut Operation, names: &mut Names) -> Vec<Operation> {
        if let Some([scaled, looked_up]) = self.stored.on_lut(op, self.name, names) {
            *op = looked_up;
            return vec![scaled];
        }
        let mask = in_place(op, "mask");
        let ops = self.stored.operations(self.name, mask, names);
        let outputs = ops.last().map_or(&[][..], |op| &op.outputs);
        if let (Some(data), Some(output)) = (self.data_param, outputs.last()) {
            op.inputs.insert(data.to_owned(), bind_name(&output.name));
        }
        // A sparse op gives the mask first: the op behind it takes that one.
        if let [mask, _] = outputs {
            op.inputs.insert("mask".to_owned(), bind_name(&mask.name));
        }
        ops
    }
}

/// Puts `replacements`, by the ordinal of the operation, into `model`, and copies all other blobs.
pub(crate) fn splice<W: Write + Seek>(
    model: &mut Model,
    replacements: &HashMap<usize, Replacement<'_>>,
    rewriter: &mut Rewriter<'_, W>,
) -> Result<(), Error> {
    let mut splicer = Splicer {
        replacements,
        rewriter,
        names: Names::default(),
        renamed: HashMap::new(),
        ordinal: 0,
    };
    for function in functions_mut(model) {
        // Names are a function's own: the same weight has the same name in each.
        splicer.names = Names::of(&function.inputs, function.block_specializations.values());
        for block in function.block_specializations.values_mut() {
            splicer.block(block)?;
        }
    }
    Ok(())
}

struct Splicer<'r, 'a, 'w, W> {
    replacements: &'r HashMap<usize, Replacement<'a>>,
    rewriter: &'r mut Rewriter<'w, W>,
    names: Names,
    /// New names by old ones, an inner block's after those around it; `None` where an inner block gives an
    /// old name a meaning of its own.
    renamed: HashMap<String, Vec<Option<String>>>,
    ordinal: usize,
}

impl<W: Write + Seek> Splicer<'_, '_, '_, W> {
    fn block(&mut self, block: &mut Block) -> Result<(), Error> {
        let mut defined = Vec::new();
        for input in &block.inputs {
            self.define(&input.name, None, &mut defined);
        }
        for mut op in std::mem::take(&mut block.operations) {
            let replacement = self.replacements.get(&self.ordinal);
            self.ordinal += 1;
            self.rename_inputs(&mut op);
            match replacement {
                Some(replacement) if replacement.data_param.is_none() => {
                    let (name, names) = (replacement.name, &mut self.names);
                    let mut ops = replacement.stored.operations(name, None, names);
                    let new = ops.last_mut().and_then(|op| op.outputs.last_mut());
                    if let (Some(new), Some(old)) = (new, op.outputs.last()) {
                        if replacement.keeps_name {
                            new.name.clone_from(&old.name);
                        }
                        let renamed = (new.name != old.name).then(|| new.name.clone());
                        self.define(&old.name, renamed, &mut defined);
                    }
                    block.operations.extend(ops);
                    continue;
                }
                Some(replacement) => {
                    let ops = self.feed(&mut op, replacement)?;
                    block.operations.extend(ops);
                }
                None => self.copy_values(&mut op)?,
            }
            for inner in &mut op.blocks {
                self.block(inner)?;
            }
            for output in &op.outputs {
                self.define(&output.name, None, &mut defined);
            }
            block.operations.push(op);
        }
        for name in defined {
            if let Some(names) = self.renamed.get_mut(&name) {
                names.pop();
            }
        }
        Ok(())
    }

    /// The palette's operations before `op`, which stays and takes its data from them.
    fn feed(
        &mut self,
        op: &mut Operation,
        replacement: &Replacement<'_>,
    ) -> Result<Vec<Operation>, Error> {
        replacement.take_data(op);
        self.copy_values(op)?;
        Ok(replacement.feed(op, &mut self.names))
    }

    fn copy_values(&mut self, op: &mut Operation) -> Result<(), Error> {
        values_mut(op).try_for_each(|value| self.rewriter.copy(value))
    }

    fn rename_inputs(&self, op: &mut Operation) {
        for argument in op.inputs.values_mut() {
            for binding in &mut argument.arguments {
                if let Some(new) = self.new_name(&binding.name) {
                    binding.name = new;
                }
            }
        }
    }

    fn new_name(&self, name: &str) -> Option<String> {
        self.renamed.get(name)?.last()?.clone()
    }

    /// A definition of `name`: renamed to `new`, or hiding any renaming of that name around it.
    fn define(&mut self, name: &str, new: Option<String>, defined: &mut Vec<String>) {
        if new.is_none() && !self.renamed.contains_key(name) {
            return;
        }
        self.renamed.entry(name.to_owned()).or_default().push(new);
        defined.push(name.to_owned());
    }
}
