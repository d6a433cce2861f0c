//! Runs the operations of a function in order, and drops each value after its last use.

use crate::call::{Args, Budget, Call, Fault, Node, Slot};
use crate::constant::{Spare, Unread};
use crate::error::Error;
use crate::grad::{Entry, Tape};
use crate::options::{Observer, Precision, RunOptions};
use crate::plan::{Block, Function, Id, Op, Source};
use crate::registry::Run;
use crate::session::State;
use crate::tensor::{Dtype, Tensor};
use crate::value::Value;
use palettizer_coreml::Model;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A run under way.
pub(crate) struct Execution<'a, 's> {
    pub model: &'a Model,
    pub function: &'a Function,
    pub options: RunOptions<'a>,
    pub state: &'s mut State,
    pub observer: Option<&'s mut dyn Observer>,
    pub keep_constants: bool,
    /// Memory for constants that are expanded.
    pub spare: Option<&'a Spare>,
    /// What was run, where gradients are to be taken.
    pub tape: Option<Tape<'a>>,
    values: Vec<Option<Slot>>,
    /// Where on the tape what was written to a state comes from.
    written: HashMap<Arc<str>, Option<Node>>,
    /// How many operations were run, by this one and those before it.
    pub steps: u64,
    used: u64,
}

impl<'a, 's> Execution<'a, 's> {
    /// A run that has not begun.
    pub(crate) fn new(
        model: &'a Model,
        function: &'a Function,
        options: RunOptions<'a>,
        state: &'s mut State,
    ) -> Self {
        Execution {
            model,
            function,
            options,
            state,
            observer: None,
            keep_constants: false,
            spare: None,
            tape: None,
            values: vec![None; function.values],
            written: HashMap::new(),
            steps: 0,
            used: 0,
        }
    }

    /// Runs the function on its inputs, in their order; gives its outputs in theirs.
    pub(crate) fn run(&mut self, inputs: Vec<Slot>) -> Result<Vec<Slot>, Error> {
        let function = self.function;
        for (input, slot) in function.inputs.iter().zip(inputs) {
            self.set(input.id, slot);
        }
        let outputs = self.block(&function.body)?;
        let rounded = outputs.into_iter().map(|slot| Slot {
            value: self.rounded(slot.value),
            node: slot.node,
        });
        Ok(rounded.collect())
    }

    /// Outputs are of the type that the program says, whatever the precision.
    fn rounded(&self, value: Value) -> Value {
        match value {
            Value::Tensor(tensor)
                if tensor.dtype() == Dtype::F16 && self.options.precision == Precision::Fast =>
            {
                Value::Tensor(tensor.with_float_type(Dtype::F16, true))
            }
            other => other,
        }
    }

    fn set(&mut self, id: Id, slot: Slot) {
        self.used += slot.value.bytes();
        self.values[id] = Some(slot);
    }

    fn free(&mut self, id: Id) {
        if let Some(slot) = self.values[id].take() {
            self.used = self.used.saturating_sub(slot.value.bytes());
        }
    }

    fn source(&self, source: Source) -> Result<Slot, Error> {
        match source {
            Source::Value(id) => self.values[id].clone().ok_or_else(|| Error::Program {
                function: self.function.name.clone(),
                what: format!("value {id} is used after its last use"),
            }),
            Source::Constant(at) => {
                let constants = &self.function.constants;
                let keep = self.keep_constants;
                let value = constants[at].value(self.model, constants, keep, self.spare)?;
                let node = self
                    .tape
                    .as_ref()
                    .and_then(|tape| tape.constants.get(&at).copied());
                Ok(Slot { value, node })
            }
        }
    }

    fn block(&mut self, block: &'a Block) -> Result<Vec<Slot>, Error> {
        for op in &block.ops {
            self.step(op)?;
        }
        let outputs: Result<Vec<Slot>, Error> = block
            .outputs
            .iter()
            .map(|&source| self.source(source))
            .collect();
        let own = block.inputs.iter().copied();
        let made = block
            .ops
            .iter()
            .flat_map(|op| op.outputs.iter().map(|output| output.id));
        for id in own.chain(made) {
            self.free(id);
        }
        outputs
    }

    fn step(&mut self, op: &'a Op) -> Result<(), Error> {
        if self
            .options
            .stop
            .is_some_and(|stop| stop.load(Ordering::Relaxed))
        {
            return Err(Error::Stopped);
        }
        self.steps += 1;
        if self.steps > self.options.max_steps {
            return Err(Error::MaxSteps {
                limit: self.options.max_steps,
            });
        }
        let began = self.observer.is_some().then(Instant::now);
        let mut noted = None;
        let outputs: Vec<Slot> = match &op.def.run {
            Run::Op(run) => {
                let unread = self.unread(op);
                let mut call = Call {
                    args: self.args(op, unread.as_ref())?,
                    budget: self.budget(),
                    unread,
                };
                noted = self.noted(&call.args);
                let values = run(&mut call).map_err(|fault| fault_of(op, fault))?;
                if let Some(spare) = self.spare {
                    call.args.give_back(spare);
                }
                values
                    .into_iter()
                    .map(|value| Slot { value, node: None })
                    .collect()
            }
            Run::Cond => self.cond(op)?,
            Run::WhileLoop => self.while_loop(op)?,
            Run::ReadState => vec![self.read_state(op)?],
            Run::UpdateState => vec![self.update_state(op)?],
        };
        if outputs.len() < op.outputs.len() {
            let what = format!(
                "it gives {} outputs, the program expects {}",
                outputs.len(),
                op.outputs.len()
            );
            return Err(fault_of(op, what.into()));
        }
        let outputs = self.note(op, noted, outputs)?;
        let took = began.map(|began| began.elapsed());
        for (at, (output, slot)) in op.outputs.iter().zip(outputs).enumerate() {
            if let (Some(observer), Some(took)) = (&mut self.observer, took) {
                let took = if at == 0 { took } else { Duration::ZERO };
                observer.value(op.def.name, &output.name, &slot.value, took);
            }
            self.set(output.id, slot);
        }
        for &id in &op.last_uses {
            self.free(id);
        }
        Ok(())
    }

    /// A copy of the arguments for the tape, if a gradient flows through them: of what their gradients are made of alone, and without
    /// constants that were expanded, which are expanded again when they are needed.
    fn noted(&self, args: &Args<'a>) -> Option<Args<'a>> {
        self.tape.as_ref()?;
        let mut slots = args.items.iter().flat_map(|(_, slots)| slots);
        if !slots.any(|slot| slot.node.is_some()) {
            return None;
        }
        let mut noted = args.clone();
        for (param, slots) in &mut noted.items {
            if !args.needs(param) {
                slots.iter_mut().for_each(Slot::let_floats_go);
            }
        }
        for (_, source, slot) in noted.sources() {
            let tensor = slot.value.tensor();
            if let Source::Constant(at) = source
                && self.function.constants[at].small().is_none()
                && tensor.is_some_and(Tensor::holds_floats)
            {
                slot.let_floats_go();
            }
        }
        Some(noted)
    }

    /// The outputs as the program declares them, and on the tape if the arguments are.
    fn note(
        &mut self,
        op: &Op,
        noted: Option<Args<'a>>,
        outputs: Vec<Slot>,
    ) -> Result<Vec<Slot>, Error> {
        let outputs = outputs.into_iter().take(op.outputs.len()).enumerate();
        let mut outputs = outputs
            .map(|(at, slot)| self.as_declared(op, at, slot))
            .collect::<Result<Vec<_>, _>>()?;
        // the probabilities of a classifier are those that it is given
        if let (true, Some(args)) = (op.def.name == "classify", &noted) {
            let node = args
                .items
                .iter()
                .find(|(param, _)| *param == "probabilities");
            let node = node.and_then(|(_, slots)| slots.first()?.node);
            for slot in &mut outputs {
                slot.node = node.filter(|_| matches!(slot.value, Value::Dictionary(_)));
            }
            return Ok(outputs);
        }
        if let (Some(tape), Some(args)) = (&mut self.tape, noted) {
            for slot in &mut outputs {
                let floats = slot
                    .value
                    .tensor()
                    .is_some_and(|tensor| tensor.floats().is_some());
                // the levels of a quantized activation pass the gradient straight through
                let levels = op.def.name == "quantize";
                slot.node = (floats || levels).then(|| tape.node());
            }
            let mut noted = outputs.clone();
            if !op.def.keeps.outputs {
                noted.iter_mut().for_each(Slot::let_floats_go);
            }
            tape.entries.push(Entry {
                function: self.function,
                args,
                outputs: noted,
            });
        }
        Ok(outputs)
    }

    fn budget(&self) -> Budget {
        Budget {
            used: self.used,
            limit: self.options.max_memory,
        }
    }

    /// A value as the program declares it: fp16 is rounded, and its shape is the one that was promised.
    fn as_declared(&self, op: &Op, output: usize, slot: Slot) -> Result<Slot, Error> {
        let declared = &op.outputs[output].declared;
        let Value::Tensor(tensor) = slot.value else {
            return Ok(slot);
        };
        if !declared.allows(tensor.shape()) {
            let what = format!(
                "output \"{}\" has the shape {:?}, the program says {}",
                op.outputs[output].name,
                tensor.shape(),
                declared.shape_text()
            );
            return Err(fault_of(op, what.into()));
        }
        let tensor = match declared.dtype {
            Some(dtype) => {
                let round = match self.options.precision {
                    Precision::Exact => !op.def.moves,
                    Precision::Fast => op.def.name == "cast",
                };
                tensor.with_float_type(dtype, round)
            }
            None => tensor,
        };
        Ok(Slot {
            value: Value::Tensor(tensor),
            node: slot.node,
        })
    }

    /// The large constant that an operation takes rows of.
    fn unread(&self, op: &'a Op) -> Option<Unread<'a>> {
        let param = op.def.reads_rows?;
        let constants = &self.function.constants;
        match op_source(op, param) {
            Ok(Source::Constant(at)) if !self.keep_constants => {
                // a factor is needed for the gradient of the other, and one that is read as it lies needs no blocks
                let factor = op.def.keeps.factors.is_some();
                let whole = factor && (self.tape.is_some() || !constants[at].is_made());
                (!whole).then(|| Unread::new(self.model, constants, self.spare, at))?
            }
            _ => None,
        }
    }

    /// The arguments; what nothing else will need is handed over, so that its memory can be used again. One that is unread is hollow.
    fn args(&mut self, op: &'a Op, unread: Option<&Unread<'_>>) -> Result<Args<'a>, Error> {
        let mut items = Vec::with_capacity(op.args.len());
        for (param, sources) in &op.args {
            if let Some(unread) = unread.filter(|_| op.def.reads_rows == Some(param)) {
                let value = Value::Tensor(unread.hollow.clone());
                let tape = self.tape.as_ref();
                let node = tape.and_then(|tape| tape.constants.get(&unread.at).copied());
                items.push((param.as_str(), vec![Slot { value, node }]));
                continue;
            }
            let slots = sources.iter().map(|&source| self.source(source));
            items.push((param.as_str(), slots.collect::<Result<Vec<_>, _>>()?));
        }
        for &id in &op.last_uses {
            self.free(id);
        }
        Ok(Args {
            op,
            target: self.function.target,
            items,
        })
    }

    fn cond(&mut self, op: &'a Op) -> Result<Vec<Slot>, Error> {
        let pred = self.predicate(op, &op_source(op, "pred")?)?;
        let block = op.blocks.get(usize::from(!pred));
        let block = block.ok_or_else(|| fault_of(op, "it has less than two blocks".into()))?;
        self.block(block)
    }

    fn predicate(&self, op: &Op, source: &Source) -> Result<bool, Error> {
        let slot = self.source(*source)?;
        boolean(op, &slot.value)
    }

    fn while_loop(&mut self, op: &'a Op) -> Result<Vec<Slot>, Error> {
        let [test, body] = op.blocks.as_slice() else {
            return Err(fault_of(op, "it must have two blocks".into()));
        };
        let vars = op.args.iter().find(|(param, _)| param == "loop_vars");
        let (_, sources) =
            vars.ok_or_else(|| fault_of(op, "parameter loop_vars is missing".into()))?;
        let mut vars = sources
            .iter()
            .map(|&source| self.source(source))
            .collect::<Result<Vec<_>, _>>()?;
        loop {
            let outcome = self.with_inputs(op, test, vars.clone())?;
            let first = outcome
                .first()
                .ok_or_else(|| fault_of(op, "its condition gives nothing".into()))?;
            if !boolean(op, &first.value)? {
                return Ok(vars);
            }
            vars = self.with_inputs(op, body, vars)?;
        }
    }

    fn with_inputs(
        &mut self,
        op: &Op,
        block: &'a Block,
        vars: Vec<Slot>,
    ) -> Result<Vec<Slot>, Error> {
        if block.inputs.len() != vars.len() {
            let what = format!(
                "a block takes {} values, {} are given",
                block.inputs.len(),
                vars.len()
            );
            return Err(fault_of(op, what.into()));
        }
        for (&id, slot) in block.inputs.iter().zip(vars) {
            self.set(id, slot);
        }
        self.block(block)
    }

    fn state_name(&self, op: &Op, param: &str) -> Result<Arc<str>, Error> {
        match self.source(op_source(op, param)?)?.value {
            Value::State(name) => Ok(name),
            other => Err(fault_of(
                op,
                format!("{param} is {}; expected a state", other.kind()).into(),
            )),
        }
    }

    fn read_state(&mut self, op: &Op) -> Result<Slot, Error> {
        let name = self.state_name(op, "input")?;
        let tensor = self.state.get(&name);
        let tensor = tensor
            .ok_or_else(|| fault_of(op, format!("the state \"{name}\" is not known").into()))?;
        Ok(Slot {
            value: Value::Tensor(tensor.clone()),
            node: self.written.get(&name).copied().flatten(),
        })
    }

    /// `write_state` calls its parameters otherwise, and has no output.
    fn update_state(&mut self, op: &Op) -> Result<Slot, Error> {
        let (state, value) = match op.def.name {
            "write_state" => ("input", "data"),
            _ => ("state", "value"),
        };
        let name = self.state_name(op, state)?;
        let slot = self.source(op_source(op, value)?)?;
        let Value::Tensor(tensor) = &slot.value else {
            return Err(fault_of(
                op,
                format!("{value} is {}; expected a tensor", slot.value.kind()).into(),
            ));
        };
        let held = self.state.get(&name).map(|held| held.shape().to_vec());
        if held.as_deref() != Some(tensor.shape()) {
            let what = format!(
                "{value} has the shape {:?}, the state \"{name}\" {held:?}",
                tensor.shape()
            );
            return Err(fault_of(op, what.into()));
        }
        let tensor = match self.rounded(Value::Tensor(tensor.clone())) {
            Value::Tensor(tensor) => tensor,
            _ => tensor.clone(),
        };
        self.state.put(&name, tensor);
        self.written.insert(name, slot.node);
        Ok(slot)
    }
}

fn boolean(op: &Op, value: &Value) -> Result<bool, Error> {
    match value.tensor().and_then(|tensor| tensor.bools()) {
        Some([value]) => Ok(*value),
        _ => Err(fault_of(
            op,
            format!("its condition is {}; expected one bool", value.kind()).into(),
        )),
    }
}

fn op_source(op: &Op, param: &str) -> Result<Source, Error> {
    let found = op.args.iter().find(|(name, _)| name == param);
    let source = found.and_then(|(_, sources)| sources.first());
    source
        .copied()
        .ok_or_else(|| fault_of(op, format!("parameter {param} is missing").into()))
}

fn fault_of(op: &Op, fault: Fault) -> Error {
    let (op_type, name) = (op.def.name.to_owned(), op.name.clone());
    match fault {
        Fault::Said(what) => Error::Op {
            op_type,
            name,
            what,
        },
        Fault::Constant(error) => *error,
        Fault::Memory { asked, used, limit } => Error::MaxMemory {
            op_type,
            name,
            asked,
            used,
            limit,
        },
    }
}
