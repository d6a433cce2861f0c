//! Constants: read, or expanded from their compressed form, when an operation needs them.
//!
//! A large constant stays in its file, where fp32 is read as it lies; a palettized one stays compressed. What is converted or
//! expanded is in memory while an operation uses it. Small ones, whose elements a program asks for again and again (axes, shapes,
//! scales), are kept.

use crate::error::Error;
use crate::plan::Declared;
use crate::tensor::{Dtype, Elements, Floats, Tensor, element_count};
use crate::value::Value;
use half::f16;
use half::slice::HalfFloatSliceExt as _;
use palettizer_coreml::proto::view::items;
use palettizer_coreml::proto::{self, DataType};
use palettizer_coreml::{Dense, Model, Numbers};
use std::collections::HashMap;
use std::mem;
use std::ops::Range;
use std::sync::{Mutex, OnceLock, PoisonError};

/// Elements up to which a constant is kept once it was read.
const KEPT: usize = 4096;

/// The memory that an expanded constant had, for the next one: to make new memory ready costs more than to expand a constant. The
/// largest of one operation's is kept, so it is as much as the largest constant takes.
#[derive(Debug, Default)]
pub(crate) struct Spare(Mutex<Vec<f32>>);

impl Spare {
    /// What there is.
    fn take(&self) -> Vec<f32> {
        mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes the memory of a tensor that nothing else has, unless there is more already.
    pub(crate) fn give(&self, tensor: Tensor) {
        if tensor.len() <= KEPT || !tensor.is_sole() {
            return;
        }
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(values) = tensor.into_floats()
            && values.capacity() > held.capacity()
        {
            *held = values;
        }
    }
}

/// A constant of a function.
#[derive(Debug)]
pub(crate) struct Constant {
    /// The name of its operation, and of its output after the first.
    pub name: String,
    form: Form,
    kept: OnceLock<Value>,
}

#[derive(Debug)]
enum Form {
    /// As it is in the program or in a weight file.
    Stored(Box<proto::Value>),
    /// An output of a `constexpr_` operation, and the constants that it is chained to.
    Expression {
        op: Box<proto::Operation>,
        output: usize,
        from: HashMap<String, usize>,
    },
}

impl Constant {
    /// A value in place or in a weight file; those in place are read at once.
    pub(crate) fn stored(model: &Model, name: &str, value: &proto::Value) -> Result<Self, Error> {
        let constant = Constant {
            name: name.to_owned(),
            form: Form::Stored(Box::new(value.clone())),
            kept: OnceLock::new(),
        };
        if value.blob_file.is_none() {
            let read = read(model, name, value, Vec::new())?;
            let _ = constant.kept.set(read);
            return Ok(Constant {
                form: Form::Stored(Box::default()),
                ..constant
            });
        }
        Ok(constant)
    }

    /// An output of a `constexpr_` operation.
    pub(crate) fn expression(
        name: &str,
        op: proto::Operation,
        output: usize,
        from: HashMap<String, usize>,
    ) -> Self {
        Constant {
            name: name.to_owned(),
            form: Form::Expression {
                op: Box::new(op),
                output,
                from,
            },
            kept: OnceLock::new(),
        }
    }

    /// Its elements; `keep` says that they are to stay, however many they are. If they are expanded and do not stay, it may be in
    /// spare memory.
    pub(crate) fn value(
        &self,
        model: &Model,
        all: &[Constant],
        keep: bool,
        spare: Option<&Spare>,
    ) -> Result<Value, Error> {
        if let Some(value) = self.kept.get() {
            return Ok(value.clone());
        }
        let large = self.shape().and_then(|shape| element_count(&shape)) > Some(KEPT);
        let room = spare.filter(|_| large && !keep).map(Spare::take);
        let room = room.unwrap_or_default();
        let value = match &self.form {
            Form::Stored(value) => read(model, &self.name, value, room)?,
            Form::Expression { op, output, .. } => {
                let mut made = self.expand(model, all, Some(room))?;
                if *output >= made.len() {
                    return Err(self.bad("it has fewer outputs than the program says"));
                }
                let declared = op.outputs.get(*output).map(|output| &output.r#type);
                let declared = Declared::of(declared.and_then(Option::as_ref)).dtype;
                let tensor = from_dense(made.swap_remove(*output), declared);
                Value::Tensor(tensor.ok_or_else(|| self.bad("its size overflows"))?)
            }
        };
        if keep || value.tensor().is_some_and(|tensor| tensor.len() <= KEPT) {
            let _ = self.kept.set(value.clone());
        }
        Ok(value)
    }

    /// Its value, if it is at hand.
    pub(crate) fn small(&self) -> Option<&Value> {
        self.kept.get()
    }

    /// Its shape, as far as it is known without its elements.
    pub(crate) fn shape(&self) -> Option<Vec<usize>> {
        if let Some(value) = self.kept.get() {
            return Some(value.tensor()?.shape().to_vec());
        }
        Declared::of(self.declared()).shape?.into_iter().collect()
    }

    fn declared(&self) -> Option<&proto::ValueType> {
        match &self.form {
            Form::Stored(value) => value.r#type.as_ref(),
            Form::Expression { op, output, .. } => op.outputs.get(*output)?.r#type.as_ref(),
        }
    }

    /// Of its rows along the first axis, `of` in number, those that are named; `None` if they cannot be read apart from the others.
    fn rows(
        &self,
        model: &Model,
        all: &[Constant],
        of: usize,
        named: &[usize],
        room: Option<Vec<f32>>,
    ) -> Result<Option<Tensor>, Error> {
        let Form::Stored(value) = &self.form else {
            let declared = Declared::of(self.declared()).dtype;
            let rows = self.expand_rows(model, all, of, named, room)?;
            return Ok(rows.and_then(|rows| from_dense(rows, declared)));
        };
        let constant = model.constant(&self.name, value)?;
        let dtype = Dtype::of_program(constant.dtype);
        let (Some(dtype), Some(rows)) = (dtype, constant.rows(named)) else {
            return Ok(None);
        };
        let room = room.unwrap_or_default();
        let elements = widened(rows.dtype, &rows.bytes, &rows.shape, room);
        Ok(elements.and_then(|elements| Tensor::new(dtype, &rows.shape, elements)))
    }

    fn expand_rows(
        &self,
        model: &Model,
        all: &[Constant],
        of: usize,
        named: &[usize],
        room: Option<Vec<f32>>,
    ) -> Result<Option<Dense>, Error> {
        let Form::Expression {
            op,
            output: 0,
            from,
        } = &self.form
        else {
            return Ok(None);
        };
        let data = op
            .inputs
            .get("data")
            .and_then(|data| data.arguments.first());
        let data = data.filter(|data| data.value.is_none());
        let rows = match data.and_then(|data| from.get(&data.name)) {
            Some(&at) => match all[at].expand_rows(model, all, of, named, None)? {
                None => return Ok(None),
                rows => rows,
            },
            None => None,
        };
        let others = from
            .iter()
            .filter(|(name, _)| data.is_none_or(|data| data.name != **name));
        let made = self.made(model, all, others)?;
        Ok(model.expand_rows(op, &|name| made.get(name), rows, of, named, room)?)
    }

    /// Whether its elements are made when they are needed: read as they lie they are not.
    pub(crate) fn is_made(&self) -> bool {
        match &self.form {
            Form::Stored(_) => Declared::of(self.declared()).dtype != Some(Dtype::F32),
            Form::Expression { .. } => true,
        }
    }

    fn bad(&self, what: &str) -> Error {
        Error::Op {
            op_type: match &self.form {
                Form::Stored(_) => "const".to_owned(),
                Form::Expression { op, .. } => op.r#type.clone(),
            },
            name: self.name.clone(),
            what: what.to_owned(),
        }
    }

    /// All outputs of its `constexpr_` operation; with `room`, fp16 ones may come as fp32, and lie in it.
    fn expand(
        &self,
        model: &Model,
        all: &[Constant],
        room: Option<Vec<f32>>,
    ) -> Result<Vec<Dense>, Error> {
        let Form::Expression { op, from, .. } = &self.form else {
            return Err(self.bad("a compressed constant is made from one that is not compressed"));
        };
        let made = self.made(model, all, from.iter())?;
        Ok(model.expand(op, &|name| made.get(name), room)?)
    }

    /// What it is chained to, by name.
    fn made<'a>(
        &self,
        model: &Model,
        all: &[Constant],
        from: impl Iterator<Item = (&'a String, &'a usize)>,
    ) -> Result<HashMap<&'a str, Dense>, Error> {
        let mut made = HashMap::new();
        for (name, &at) in from {
            let before = &all[at];
            let dense = match &before.form {
                Form::Expression { output, .. } => {
                    let mut outputs = before.expand(model, all, None)?;
                    if *output >= outputs.len() {
                        return Err(before.bad("it has fewer outputs than the program says"));
                    }
                    outputs.swap_remove(*output)
                }
                Form::Stored(_) => dense_of(&before.value(model, all, false, None)?)
                    .ok_or_else(|| self.bad(&format!("\"{name}\" is no tensor of numbers")))?,
            };
            made.insert(name.as_str(), dense);
        }
        Ok(made)
    }
}

/// A large constant of which an operation reads what it needs.
#[derive(Debug)]
pub(crate) struct Unread<'a> {
    model: &'a Model,
    all: &'a [Constant],
    spare: Option<&'a Spare>,
    /// Which of them it is.
    pub at: usize,
    /// It without its elements.
    pub hollow: Tensor,
}

impl<'a> Unread<'a> {
    /// A constant whose type and shape are known; `None` for one that is kept, or would be.
    pub(crate) fn new(
        model: &'a Model,
        all: &'a [Constant],
        spare: Option<&'a Spare>,
        at: usize,
    ) -> Option<Self> {
        let constant = &all[at];
        let hollow = Tensor::hollow(Declared::of(constant.declared()).dtype?, &constant.shape()?)?;
        if constant.kept.get().is_some() || hollow.len() <= KEPT {
            return None;
        }
        Some(Unread {
            model,
            all,
            spare,
            at,
            hollow,
        })
    }

    /// The rows along the first axis that are named, in their order; `None` if they cannot be read apart from the others, or are
    /// more than these.
    pub(crate) fn rows(&self, named: &[usize]) -> Result<Option<Tensor>, Error> {
        let Some((&of, row)) = self.hollow.shape().split_first() else {
            return Ok(None);
        };
        if named.is_empty() || named.len() >= of {
            return Ok(None);
        }
        self.read(of, row, named, None)
    }

    /// The rows of a range along the first axis, which may lie in `room`; `None` if they cannot be read apart from the others.
    pub(crate) fn block(
        &self,
        range: Range<usize>,
        room: Vec<f32>,
    ) -> Result<Option<Tensor>, Error> {
        let Some((&of, row)) = self.hollow.shape().split_first() else {
            return Ok(None);
        };
        let named: Vec<usize> = range.collect();
        self.read(of, row, &named, Some(room))
    }

    fn read(
        &self,
        of: usize,
        row: &[usize],
        named: &[usize],
        room: Option<Vec<f32>>,
    ) -> Result<Option<Tensor>, Error> {
        let rows = self.all[self.at].rows(self.model, self.all, of, named, room)?;
        let shape = [&[named.len()], row].concat();
        Ok(rows.filter(|rows| rows.shape() == shape))
    }

    /// Takes the memory of all of it back.
    pub(crate) fn give_back(&self, whole: Tensor) {
        if let Some(spare) = self.spare {
            spare.give(whole);
        }
    }

    /// All of it.
    pub(crate) fn whole(&self) -> Result<Tensor, Error> {
        let constant = &self.all[self.at];
        let value = constant.value(self.model, self.all, false, self.spare)?;
        let (found, shape) = (value.tensor(), self.hollow.shape());
        match found {
            Some(found) if found.shape() == shape => Ok(found.clone()),
            Some(found) => Err(constant.bad(&format!(
                "it has the shape {:?}, the program says {shape:?}",
                found.shape()
            ))),
            None => Err(constant.bad("it is no tensor")),
        }
    }
}

/// A plain constant that a `constexpr_` operation refers to.
fn dense_of(value: &Value) -> Option<Dense> {
    let tensor = value.tensor()?;
    let numbers = match (tensor.dtype(), tensor.elements()) {
        (Dtype::F16, Elements::Floats(values)) => {
            Numbers::F16(values.iter().map(|&value| f16::from_f32(value)).collect())
        }
        (_, Elements::Floats(values)) => Numbers::F32(values.to_vec()),
        (Dtype::I8, Elements::Ints(values)) => {
            Numbers::I8(values.iter().map(|&v| v as i8).collect())
        }
        (Dtype::U8, Elements::Ints(values)) => {
            Numbers::U8(values.iter().map(|&v| v as u8).collect())
        }
        _ => return None,
    };
    Some(Dense {
        shape: tensor.shape().to_vec(),
        numbers,
    })
}

/// A constant that was expanded; one of fp16 may have come as fp32.
fn from_dense(dense: Dense, declared: Option<Dtype>) -> Option<Tensor> {
    let (dtype, elements): (Dtype, Elements) = match dense.numbers {
        Numbers::I8(values) => (
            Dtype::I8,
            values
                .iter()
                .map(|&v| i32::from(v))
                .collect::<Vec<_>>()
                .into(),
        ),
        Numbers::U8(values) => (
            Dtype::U8,
            values
                .iter()
                .map(|&v| i32::from(v))
                .collect::<Vec<_>>()
                .into(),
        ),
        Numbers::F16(values) => {
            let mut wide = vec![0.0; values.len()];
            values.convert_to_f32_slice(&mut wide);
            (Dtype::F16, wide.into())
        }
        Numbers::BF16(values) => (
            Dtype::F32,
            values.iter().map(|v| v.to_f32()).collect::<Vec<_>>().into(),
        ),
        Numbers::F32(values) => {
            let declared = declared.filter(|dtype| dtype.is_float());
            (declared.unwrap_or(Dtype::F32), values.into())
        }
    };
    Tensor::new(dtype, &dense.shape, elements)
}

/// Reads a value: a tensor, or a list of scalars, which becomes a tensor of one dimension. Halves are widened in `room`.
fn read(model: &Model, name: &str, value: &proto::Value, room: Vec<f32>) -> Result<Value, Error> {
    let damaged = |what: String| {
        Error::Model(palettizer_coreml::Error::BadValue {
            name: name.to_owned(),
            what,
        })
    };
    if let Some(immediate) = &value.immediate
        && immediate.tensor.is_none()
        && let Some(list) = items(immediate).map_err(|error| damaged(error.to_string()))?
    {
        return listed(model, name, &list);
    }
    let texts = value.immediate.as_ref().and_then(|one| one.tensor.as_ref());
    if let Some(texts) = texts.and_then(|tensor| tensor.strings.as_ref()) {
        let dims = value
            .r#type
            .as_ref()
            .and_then(|one| one.tensor_type.as_ref());
        let rank = dims.map_or(0, |one| one.dimensions.len());
        let shape = if rank == 0 {
            vec![]
        } else {
            vec![texts.values.len()]
        };
        let tensor = Tensor::new(Dtype::Text, &shape, texts.values.clone());
        return tensor
            .map(Value::Tensor)
            .ok_or_else(|| damaged("a scalar has several strings".to_owned()));
    }
    let constant = model.constant(name, value)?;
    let dtype = Dtype::of_program(constant.dtype).ok_or_else(|| {
        damaged(format!(
            "constants of {} are not known",
            constant.dtype.name()
        ))
    })?;
    let in_file = match constant.dtype {
        DataType::Float32 => model.shared(value)?.and_then(Floats::in_file),
        _ => None,
    };
    let elements = in_file.map(Elements::Floats);
    let elements = elements
        .or_else(|| widened(constant.dtype, &constant.bytes, &constant.shape, room))
        .ok_or_else(|| {
            damaged(format!(
                "its {} bytes are not of its type",
                constant.bytes.len()
            ))
        })?;
    let tensor = Tensor::new(dtype, &constant.shape, elements);
    tensor
        .map(Value::Tensor)
        .ok_or_else(|| damaged("its bytes are not as many as its shape says".to_owned()))
}

fn listed(model: &Model, name: &str, list: &[proto::Value]) -> Result<Value, Error> {
    let mut texts = Vec::new();
    let mut ints = Vec::new();
    for item in list {
        match read(model, name, item, Vec::new())?
            .tensor()
            .map(Tensor::elements)
        {
            Some(Elements::Texts(found)) => texts.extend(found.iter().cloned()),
            Some(Elements::Ints(found)) => ints.extend(found.iter().copied()),
            _ => {}
        }
    }
    let tensor = if ints.is_empty() {
        Tensor::new(Dtype::Text, &[texts.len()], texts)
    } else {
        Tensor::new(Dtype::I32, &[ints.len()], ints)
    };
    tensor.map(Value::Tensor).ok_or_else(|| {
        Error::Model(palettizer_coreml::Error::BadValue {
            name: name.to_owned(),
            what: "its list holds neither strings nor integers".to_owned(),
        })
    })
}

/// Stored elements as they are computed with; those of halves in the memory of `room`, if it is enough.
fn widened(dtype: DataType, bytes: &[u8], shape: &[usize], room: Vec<f32>) -> Option<Elements> {
    fn words<const N: usize, T>(bytes: &[u8], convert: fn([u8; N]) -> T) -> Vec<T> {
        bytes
            .as_chunks()
            .0
            .iter()
            .map(|&word| convert(word))
            .collect()
    }
    let ints = |values: Vec<i32>| Some(Elements::from(values));
    match dtype {
        DataType::Float32 => Some(words(bytes, f32::from_le_bytes).into()),
        DataType::Float64 => Some(words(bytes, |word| f64::from_le_bytes(word) as f32).into()),
        DataType::Float16 => {
            let halves = bytemuck::try_cast_slice::<u8, f16>(bytes);
            let count = bytes.len() / 2;
            let mut wide = match room.capacity() >= count {
                true => room,
                false => vec![0.0; count],
            };
            // all of them are written
            wide.truncate(count);
            wide.resize(count, 0.0);
            match halves {
                Ok(halves) if cfg!(target_endian = "little") => {
                    halves.convert_to_f32_slice(&mut wide)
                }
                _ => words(bytes, f16::from_le_bytes).convert_to_f32_slice(&mut wide),
            }
            Some(wide.into())
        }
        DataType::BFloat16 => {
            Some(words(bytes, |word| half::bf16::from_le_bytes(word).to_f32()).into())
        }
        DataType::Int8 => ints(words(bytes, |word| i8::from_le_bytes(word).into())),
        DataType::UInt8 => ints(words(bytes, |word| u8::from_le_bytes(word).into())),
        DataType::Int16 => ints(words(bytes, |word| i16::from_le_bytes(word).into())),
        DataType::UInt16 => ints(words(bytes, |word| u16::from_le_bytes(word).into())),
        DataType::Int32 | DataType::UInt32 => ints(words(bytes, i32::from_le_bytes)),
        DataType::Int64 | DataType::UInt64 => {
            ints(words(bytes, |word| i64::from_le_bytes(word) as i32))
        }
        DataType::Bool => Some(words(bytes, |[byte]: [u8; 1]| byte != 0).into()),
        DataType::Int4
        | DataType::UInt1
        | DataType::UInt2
        | DataType::UInt3
        | DataType::UInt4
        | DataType::UInt6 => {
            let bits = dtype.bits()? as usize;
            let count = element_count(shape)?;
            let at = |index: usize| {
                let bit = index * bits;
                let low = usize::from(*bytes.get(bit / 8)?) >> (bit % 8);
                let high =
                    usize::from(bytes.get(bit / 8 + 1).copied().unwrap_or(0)) << (8 - bit % 8);
                let value = ((low | high) & ((1 << bits) - 1)) as i32;
                let negative = dtype == DataType::Int4 && value >= 8;
                Some(if negative { value - 16 } else { value })
            };
            (0..count)
                .map(at)
                .collect::<Option<Vec<i32>>>()
                .map(Elements::from)
        }
        DataType::String | DataType::Float8E4M3FN | DataType::Float8E5M2 => None,
    }
}
