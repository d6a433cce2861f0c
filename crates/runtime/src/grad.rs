//! Gradients in reverse: operations that a gradient flows through are noted while a program runs, and gone through backwards.
//!
//! What is noted is an operation that was run, with its arguments and outputs; so loops and branches need nothing of their own.
//! Of these, elements are kept that its gradients are made of, but for constants that were expanded, which are expanded again; and
//! what an operation noted goes as soon as it was differentiated.
//! Rounding counts as the identity: to fp16, and to the levels of a quantized activation, within their range. A state passes on the gradient of what was written to it in the same run; lists pass
//! none on.

use crate::call::{Args, Fault, Node, Slot};
use crate::constant::{Constant, Spare};
use crate::error::Error;
use crate::plan::{Function, Source};
use crate::tensor::Tensor;
use crate::value::Value;
use palettizer_coreml::Model;
use std::collections::HashMap;
use std::ops::Deref;

/// Gradients of arguments: the parameter, which of its values, and an element for each of its own.
pub(crate) type Gradients = Vec<(&'static str, usize, Vec<f32>)>;

/// An operation that was run, to be differentiated.
pub(crate) struct Backward<'a> {
    args: &'a Args<'a>,
    outputs: &'a [Value],
    upstream: &'a [Option<Vec<f32>>],
}

impl<'a> Deref for Backward<'a> {
    type Target = Args<'a>;

    fn deref(&self) -> &Args<'a> {
        self.args
    }
}

impl<'a> Backward<'a> {
    /// The gradient of the only output.
    pub(crate) fn upstream(&self) -> Result<&'a [f32], Fault> {
        self.upstream_of(0)
            .ok_or_else(|| "its first output has no gradient".into())
    }

    /// The gradient of an output, if one flows into it.
    pub(crate) fn upstream_of(&self, output: usize) -> Option<&'a [f32]> {
        self.upstream.get(output)?.as_deref()
    }

    /// What it gave.
    pub(crate) fn output(&self, output: usize) -> Result<&'a crate::Tensor, Fault> {
        let tensor = self.outputs.get(output).and_then(Value::tensor);
        tensor.ok_or_else(|| "its output is no tensor".into())
    }

    /// The floats that it gave.
    pub(crate) fn output_floats(&self, output: usize) -> Result<&'a [f32], Fault> {
        self.output(output)?
            .floats()
            .ok_or_else(|| "its output is no tensor of floats".into())
    }
}

/// An operation that was run.
pub(crate) struct Entry<'a> {
    pub function: &'a Function,
    pub args: Args<'a>,
    pub outputs: Vec<Slot>,
}

impl Entry<'_> {
    /// The gradients that flow into its arguments. What it noted is let go.
    fn differentiated(
        self,
        model: &Model,
        spare: &Spare,
        upstream: &[Option<Vec<f32>>],
    ) -> Result<Vec<(Node, Vec<f32>)>, Error> {
        let mut args = self.args;
        let constants = &self.function.constants;
        let op = args.op;
        let bad = |what: String| Error::Op {
            op_type: op.def.name.to_owned(),
            name: op.name.clone(),
            what,
        };
        let Some(backward) = op.def.backward else {
            return Err(bad(
                "it cannot be differentiated; docs/runtime.md lists the operations that can"
                    .to_owned(),
            ));
        };
        expand_again(&mut args, model, constants, spare)?;
        let outputs: Vec<Value> = self.outputs.into_iter().map(|slot| slot.value).collect();
        let call = Backward {
            args: &args,
            outputs: &outputs,
            upstream,
        };
        let gradients = backward(&call).map_err(|fault| match fault {
            Fault::Said(what) => bad(what),
            Fault::Constant(error) => *error,
            Fault::Memory { asked, .. } => bad(format!("its gradient asks for {asked} bytes")),
        })?;
        let flows = placed(&args, gradients).map_err(bad)?;
        args.give_back(spare);
        Ok(flows)
    }
}

/// Expands the constants that gradients are made of, and that were not kept since the operation was run.
fn expand_again(
    args: &mut Args<'_>,
    model: &Model,
    constants: &[Constant],
    spare: &Spare,
) -> Result<(), Error> {
    let params = args.items.iter().map(|(param, _)| *param);
    let needed: Vec<&str> = params.filter(|param| args.needs(param)).collect();
    for (param, source, slot) in args.sources() {
        let hollow = slot.value.tensor().is_some_and(Tensor::is_hollow);
        if let Source::Constant(at) = source
            && hollow
            && needed.contains(&param)
        {
            slot.value = constants[at].value(model, constants, false, Some(spare))?;
        }
    }
    Ok(())
}

/// The gradients of arguments that a gradient is needed of, by their places on the tape.
fn placed(args: &Args<'_>, gradients: Gradients) -> Result<Vec<(Node, Vec<f32>)>, String> {
    let mut flows = Vec::with_capacity(gradients.len());
    for (param, at, gradient) in gradients {
        let slots = args.items.iter().find(|(name, _)| *name == param);
        let Some(slot) = slots.and_then(|(_, slots)| slots.get(at)) else {
            continue;
        };
        let elements = slot.value.tensor().map(|tensor| tensor.len());
        if elements != Some(gradient.len()) {
            return Err(format!(
                "the gradient of {param} has {} elements, {param} {elements:?}",
                gradient.len()
            ));
        }
        flows.extend(slot.node.map(|node| (node, gradient)));
    }
    Ok(flows)
}

/// What was run so far that a gradient flows through.
#[derive(Default)]
pub(crate) struct Tape<'a> {
    pub entries: Vec<Entry<'a>>,
    /// Constants to differentiate by.
    pub constants: HashMap<usize, Node>,
    /// How many nodes there are.
    pub nodes: Node,
}

impl Tape<'_> {
    /// A new node.
    pub(crate) fn node(&mut self) -> Node {
        self.nodes += 1;
        self.nodes - 1
    }

    /// From the gradients of outputs, those of all nodes that nothing was made of: what was differentiated by.
    pub(crate) fn backward(
        &mut self,
        model: &Model,
        spare: &Spare,
        seeds: Vec<(Node, Vec<f32>)>,
    ) -> Result<HashMap<Node, Vec<f32>>, Error> {
        let mut flow: HashMap<Node, Vec<f32>> = HashMap::new();
        for (node, gradient) in seeds {
            add(&mut flow, node, gradient);
        }
        while let Some(entry) = self.entries.pop() {
            let upstream = entry.outputs.iter().map(|slot| flow.remove(&slot.node?));
            let upstream: Vec<Option<Vec<f32>>> = upstream.collect();
            if upstream.iter().all(Option::is_none) {
                continue;
            }
            for (node, gradient) in entry.differentiated(model, spare, &upstream)? {
                add(&mut flow, node, gradient);
            }
        }
        Ok(flow)
    }
}

fn add(flow: &mut HashMap<Node, Vec<f32>>, node: Node, gradient: Vec<f32>) {
    match flow.get_mut(&node) {
        Some(sum) => sum
            .iter_mut()
            .zip(gradient)
            .for_each(|(sum, more)| *sum += more),
        None => {
            flow.insert(node, gradient);
        }
    }
}
