//! One operation about to be run: its arguments, and what it may ask of the run.
//!
//! Operations find their parameters by name ([`Args`]), make their outputs by [`Call::output`], and say in a [`Fault`] what they
//! cannot do; where it was is added by the executor. The defaults of parameters that a program leaves out are the operation's.

use crate::constant::{Spare, Unread};
use crate::element::Element;
use crate::error::Error;
use crate::plan::{Declared, Op, Source};
use crate::tensor::{Dtype, Elements, Tensor, element_count};
use crate::value::Value;
use palettizer_pipeline::config::Target;
use std::ops::Deref;

/// The number of a value on the tape.
pub(crate) type Node = usize;

/// A value, and its place on the tape if a gradient flows through it.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub value: Value,
    pub node: Option<Node>,
}

impl Slot {
    /// Keeps of a tensor of floats its type and shape alone; one element, which says how an operation works, stays.
    pub(crate) fn let_floats_go(&mut self) {
        if let Value::Tensor(tensor) = &mut self.value
            && tensor.len() > 1
        {
            *tensor = tensor.without_floats();
        }
    }
}

/// What an operation cannot do.
#[derive(Debug)]
pub(crate) enum Fault {
    /// In words: what was found, and what was expected.
    Said(String),
    /// A constant that cannot be read.
    Constant(Box<Error>),
    /// It asks for more memory than there may be.
    Memory { asked: u64, used: u64, limit: u64 },
}

impl From<String> for Fault {
    fn from(what: String) -> Self {
        Fault::Said(what)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Fault::Constant(Box::new(error))
    }
}

impl From<&str> for Fault {
    fn from(what: &str) -> Self {
        Fault::Said(what.to_owned())
    }
}

/// What an operation gives: its outputs in order.
pub(crate) type Outcome = Result<Vec<Value>, Fault>;

/// The bytes that may still be asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    pub used: u64,
    pub limit: u64,
}

impl Budget {
    /// Passes what fits.
    pub(crate) fn ask(self, bytes: u64) -> Result<(), Fault> {
        match self.used.checked_add(bytes) {
            Some(sum) if sum <= self.limit => Ok(()),
            _ => Err(Fault::Memory {
                asked: bytes,
                used: self.used,
                limit: self.limit,
            }),
        }
    }
}

/// The arguments of an operation, by parameter.
#[derive(Clone, Debug)]
pub(crate) struct Args<'a> {
    pub op: &'a Op,
    pub target: Target,
    pub items: Vec<(&'a str, Vec<Slot>)>,
}

impl Args<'_> {
    /// Whether the gradient of a parameter is needed, of any of its values.
    pub(crate) fn wants(&self, param: &str) -> bool {
        let mut items = self.items.iter();
        items.any(|(name, slots)| *name == param && slots.iter().any(|slot| slot.node.is_some()))
    }

    /// Whether the gradients that are needed are made of the elements of a parameter.
    pub(crate) fn needs(&self, param: &str) -> bool {
        let keeps = self.op.def.keeps;
        let other = keeps.factors.iter().find_map(|&[a, b]| match param {
            _ if param == a => Some(b),
            _ if param == b => Some(a),
            _ => None,
        });
        keeps.arguments && other.is_none_or(|other| self.wants(other))
    }

    /// Each value with its parameter and where it comes from.
    pub(crate) fn sources(&mut self) -> impl Iterator<Item = (&str, Source, &mut Slot)> {
        let all = self.op.args.iter().zip(&mut self.items);
        all.flat_map(|((_, sources), (param, slots))| {
            let both = sources.iter().zip(slots);
            both.map(|(&source, slot)| (&**param, source, slot))
        })
    }

    /// Gives the memory back that constants were expanded in.
    pub(crate) fn give_back(mut self, spare: &Spare) {
        for (_, source, slot) in self.sources() {
            if let (Source::Constant(_), Value::Tensor(tensor)) = (source, &mut slot.value) {
                let hollow = tensor.without_floats();
                spare.give(std::mem::replace(tensor, hollow));
            }
        }
    }

    fn slots(&self, param: &str) -> Option<&[Slot]> {
        let mut items = self.items.iter();
        let found = items.find(|(name, _)| *name == param)?;
        (!found.1.is_empty()).then_some(found.1.as_slice())
    }

    /// Whether the parameter was given.
    pub(crate) fn has(&self, param: &str) -> bool {
        self.slots(param).is_some()
    }

    /// Whatever was given.
    pub(crate) fn value(&self, param: &str) -> Result<&Value, Fault> {
        let slots = self.slots(param).ok_or_else(|| missing(param))?;
        Ok(&slots[0].value)
    }

    /// A tensor.
    pub(crate) fn tensor(&self, param: &str) -> Result<&Tensor, Fault> {
        self.optional(param)?.ok_or_else(|| missing(param))
    }

    /// A tensor, if it was given.
    pub(crate) fn optional(&self, param: &str) -> Result<Option<&Tensor>, Fault> {
        match self.slots(param) {
            None => Ok(None),
            Some(slots) => tensor_of(param, &slots[0].value).map(Some),
        }
    }

    /// All tensors of a parameter that takes several.
    pub(crate) fn tensors(&self, param: &str) -> Result<Vec<&Tensor>, Fault> {
        let slots = self.slots(param).ok_or_else(|| missing(param))?;
        slots
            .iter()
            .map(|slot| tensor_of(param, &slot.value))
            .collect()
    }

    /// The floats of a tensor.
    pub(crate) fn floats(&self, param: &str) -> Result<&[f32], Fault> {
        let tensor = self.tensor(param)?;
        tensor
            .floats()
            .ok_or_else(|| wrong(param, tensor, "fp16 or fp32"))
    }

    /// The floats of a tensor, if it was given.
    pub(crate) fn optional_floats(&self, param: &str) -> Result<Option<&[f32]>, Fault> {
        self.has(param).then(|| self.floats(param)).transpose()
    }

    /// The elements of a tensor of this kind.
    pub(crate) fn elements<T: Element>(&self, param: &str) -> Result<&[T], Fault> {
        elements_of(param, self.tensor(param)?)
    }

    /// The elements of all tensors of a parameter that takes several, which must be of one kind.
    pub(crate) fn all_elements<T: Element>(&self, param: &str) -> Result<Vec<&[T]>, Fault> {
        let tensors = self.tensors(param)?.into_iter();
        tensors.map(|tensor| elements_of(param, tensor)).collect()
    }

    /// The integers of a tensor; booleans count as 0 and 1.
    pub(crate) fn optional_ints(&self, param: &str) -> Result<Option<Vec<i64>>, Fault> {
        let Some(tensor) = self.optional(param)? else {
            return Ok(None);
        };
        Ok(Some(match tensor.elements() {
            Elements::Ints(values) => values.iter().map(|&value| i64::from(value)).collect(),
            Elements::Bools(values) => values.iter().map(|&value| i64::from(value)).collect(),
            _ => return Err(wrong(param, tensor, "int32")),
        }))
    }

    /// The integers of a tensor.
    pub(crate) fn ints(&self, param: &str) -> Result<Vec<i64>, Fault> {
        self.optional_ints(param)?.ok_or_else(|| missing(param))
    }

    /// An integer, if it was given.
    pub(crate) fn optional_int(&self, param: &str) -> Result<Option<i64>, Fault> {
        let Some(values) = self.optional_ints(param)? else {
            return Ok(None);
        };
        match values.as_slice() {
            [value] => Ok(Some(*value)),
            _ => Err(format!("{param} has {} elements; expected one", values.len()).into()),
        }
    }

    /// An integer.
    pub(crate) fn int(&self, param: &str) -> Result<i64, Fault> {
        self.optional_int(param)?.ok_or_else(|| missing(param))
    }

    /// A number, if it was given.
    pub(crate) fn optional_float(&self, param: &str) -> Result<Option<f32>, Fault> {
        Ok(self.optional_number(param)?.map(|value| value as f32))
    }

    /// A number of any kind, if it was given; a boolean counts as 0 or 1.
    pub(crate) fn optional_number(&self, param: &str) -> Result<Option<f64>, Fault> {
        let Some(tensor) = self.optional(param)? else {
            return Ok(None);
        };
        let value = match tensor.elements() {
            Elements::Floats(values) => values.first().map(|&value| f64::from(value)),
            Elements::Ints(values) => values.first().map(|&value| f64::from(value)),
            Elements::Bools(values) => values.first().map(|&value| f64::from(u8::from(value))),
            Elements::Texts(_) => None,
        };
        match value {
            Some(value) if tensor.len() == 1 => Ok(Some(value)),
            _ => Err(wrong(param, tensor, "one number")),
        }
    }

    /// A number.
    pub(crate) fn float(&self, param: &str) -> Result<f32, Fault> {
        self.optional_float(param)?.ok_or_else(|| missing(param))
    }

    /// A number, or its default.
    pub(crate) fn float_or(&self, param: &str, default: f32) -> Result<f32, Fault> {
        Ok(self.optional_float(param)?.unwrap_or(default))
    }

    /// A boolean, or its default.
    pub(crate) fn bool_or(&self, param: &str, default: bool) -> Result<bool, Fault> {
        let Some(tensor) = self.optional(param)? else {
            return Ok(default);
        };
        match tensor.bools() {
            Some([value]) => Ok(*value),
            _ => Err(wrong(param, tensor, "one bool")),
        }
    }

    /// A string, if it was given.
    pub(crate) fn text(&self, param: &str) -> Result<Option<&str>, Fault> {
        let Some(tensor) = self.optional(param)? else {
            return Ok(None);
        };
        match tensor.texts() {
            Some([text]) => Ok(Some(text)),
            _ => Err(wrong(param, tensor, "one string")),
        }
    }

    /// An axis of a tensor of this rank, counted from the front; negative ones count from the back.
    pub(crate) fn axis_or(&self, param: &str, default: i64, rank: usize) -> Result<usize, Fault> {
        let axis = self.optional_int(param)?.unwrap_or(default);
        from_front(param, axis, rank)
    }

    /// Axes of a tensor of this rank, counted from the front, each once, in the order given; `None` if they were not.
    pub(crate) fn axes(&self, param: &str, rank: usize) -> Result<Option<Vec<usize>>, Fault> {
        let Some(axes) = self.optional_ints(param)? else {
            return Ok(None);
        };
        let mut found = Vec::with_capacity(axes.len());
        for axis in axes {
            let axis = from_front(param, axis, rank)?;
            if found.contains(&axis) {
                return Err(format!("{param} has the axis {axis} twice").into());
            }
            found.push(axis);
        }
        Ok(Some(found))
    }

    /// The declared type of an output.
    pub(crate) fn declared(&self, output: usize) -> Option<&Declared> {
        self.op.outputs.get(output).map(|output| &output.declared)
    }
}

/// An operation about to be run.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub args: Args<'a>,
    pub budget: Budget,
    /// The constant that its `x` is, if it is left to the operation to read of it what it needs: the argument is hollow.
    pub unread: Option<Unread<'a>>,
}

impl<'a> Deref for Call<'a> {
    type Target = Args<'a>;

    fn deref(&self) -> &Args<'a> {
        &self.args
    }
}

/// Elements of a tensor whose memory is asked for first.
const PROBED: usize = 1 << 24;

/// Elements and their shape.
pub(crate) type Shaped = (Vec<f32>, Vec<usize>);

impl Call<'_> {
    /// A tensor of floats as its elements, to be changed in place if nothing else needs them, and its shape.
    pub(crate) fn take_floats(&mut self, param: &str) -> Result<(Vec<f32>, Vec<usize>), Fault> {
        self.floats(param)?;
        self.take(param)
    }

    /// The same for a tensor of any kind.
    pub(crate) fn take<T: Element>(&mut self, param: &str) -> Result<(Vec<T>, Vec<usize>), Fault> {
        self.elements::<T>(param)?;
        let Value::Tensor(tensor) = self.take_value(param)? else {
            return Err(missing(param));
        };
        let shape = tensor.shape().to_vec();
        let elements = T::taken(tensor).ok_or_else(|| missing(param))?;
        Ok((elements, shape))
    }

    /// Whatever was given, to be changed if nothing else needs it.
    pub(crate) fn take_value(&mut self, param: &str) -> Result<Value, Fault> {
        let mut items = self.args.items.iter_mut();
        let found = items.find(|(name, _)| *name == param);
        let slot = found.and_then(|(_, slots)| slots.first_mut());
        let slot = slot.ok_or_else(|| missing(param))?;
        let emptied = Value::List(Default::default());
        Ok(std::mem::replace(&mut slot.value, emptied))
    }

    /// The same of a tensor whose elements nothing else needs; `None` of one that others need, which stays.
    pub(crate) fn sole_floats(&mut self, param: &str) -> Result<Option<Shaped>, Fault> {
        let sole = self.tensor(param)?.is_sole();
        sole.then(|| self.take_floats(param)).transpose()
    }

    /// The number of elements of a shape, if as many numbers fit into memory.
    pub(crate) fn count(&self, shape: &[usize]) -> Result<usize, Fault> {
        let count = element_count(shape).filter(|&count| count <= isize::MAX as usize / 4);
        let count = count
            .ok_or_else(|| format!("a tensor of shape {shape:?} is larger than any memory"))?;
        self.budget.ask(count as u64 * 4)?;
        Ok(count)
    }

    /// Zeros for a tensor of this shape.
    pub(crate) fn zeros<T: Copy + Default>(&self, shape: &[usize]) -> Result<Vec<T>, Fault> {
        self.filled(shape, T::default())
    }

    /// As many equal elements as a tensor of this shape has.
    pub(crate) fn filled<T: Copy>(&self, shape: &[usize], value: T) -> Result<Vec<T>, Fault> {
        let count = self.count(shape)?;
        if count >= PROBED {
            // a system that has not as much ends the process where memory is asked for without asking first
            let room = Vec::<T>::new().try_reserve_exact(count);
            room.map_err(|_| format!("the system has no memory for a tensor of shape {shape:?}"))?;
        }
        Ok(vec![value; count])
    }

    /// The only output, of its declared type.
    pub(crate) fn output(&self, shape: &[usize], elements: impl Into<Elements>) -> Outcome {
        Ok(vec![self.nth_output(0, shape, elements)?])
    }

    /// One of several outputs, of its declared type.
    pub(crate) fn nth_output(
        &self,
        output: usize,
        shape: &[usize],
        elements: impl Into<Elements>,
    ) -> Result<Value, Fault> {
        let elements = elements.into();
        let declared = self.declared(output).and_then(|declared| declared.dtype);
        let fits = |dtype: &Dtype| match &elements {
            Elements::Floats(_) => dtype.is_float(),
            Elements::Ints(_) => dtype.is_int(),
            Elements::Bools(_) => *dtype == Dtype::Bool,
            Elements::Texts(_) => *dtype == Dtype::Text,
        };
        let dtype = declared.filter(fits).unwrap_or(match &elements {
            Elements::Floats(_) => Dtype::F32,
            Elements::Ints(_) => Dtype::I32,
            Elements::Bools(_) => Dtype::Bool,
            Elements::Texts(_) => Dtype::Text,
        });
        let found = elements.len();
        let tensor = Tensor::new(dtype, shape, elements);
        let tensor =
            tensor.ok_or_else(|| format!("{found} elements were made for the shape {shape:?}"))?;
        Ok(Value::Tensor(tensor))
    }
}

fn tensor_of<'a>(param: &str, value: &'a Value) -> Result<&'a Tensor, Fault> {
    let found = || format!("{param} is {}; expected a tensor", value.kind());
    value.tensor().ok_or_else(|| found().into())
}

/// The elements of an argument, which must be of this kind.
pub(crate) fn elements_of<'a, T: Element>(
    param: &str,
    tensor: &'a Tensor,
) -> Result<&'a [T], Fault> {
    let found = T::of(tensor);
    found.ok_or_else(|| wrong(param, tensor, "the type of the other arguments"))
}

fn missing(param: &str) -> Fault {
    format!("parameter {param} is missing").into()
}

/// A tensor of another type than a parameter takes.
pub(crate) fn wrong(param: &str, tensor: &Tensor, expected: &str) -> Fault {
    let found = Value::Tensor(tensor.clone()).kind();
    format!("{param} is {found}; expected {expected}").into()
}

/// An axis counted from the front.
pub(crate) fn from_front(param: &str, axis: i64, rank: usize) -> Result<usize, Fault> {
    let signed = rank as i64;
    if !(-signed..signed).contains(&axis) {
        return Err(format!("{param} is {axis}; a tensor of rank {rank} has no such axis").into());
    }
    Ok(axis.rem_euclid(signed.max(1)) as usize)
}
