//! Lists of tensors of one shape, which grow where they may.
//!
//! Elements that were never written are zeros where the program says what shape they have, or where another element shows it.

use crate::axis::product;
use crate::call::{Args, Call, Fault, Outcome};
use crate::element::{Element, each_kind};
use crate::registry::{Def, op};
use crate::tensor::{Dtype, Elements, Tensor};
use crate::value::{List, Value};
use std::sync::Arc;

pub(super) const OPS: &[Def] = &[
    op("make_list", make),
    op("list_length", length),
    op("list_read", read).moving(),
    op("list_write", write),
    op("list_gather", gather).moving(),
    op("list_scatter", scatter),
];

fn list<'a>(args: &'a Args<'_>) -> Result<&'a List, Fault> {
    match args.value("ls")? {
        Value::List(list) => Ok(list),
        other => Err(format!("ls is {}; expected a list", other.kind()).into()),
    }
}

/// The list, to be changed: without a copy if nothing else needs it.
fn take(call: &mut Call<'_>) -> Result<List, Fault> {
    list(call)?;
    match call.take_value("ls")? {
        Value::List(list) => Ok(Arc::unwrap_or_clone(list)),
        _ => Err("ls is no list".into()),
    }
}

fn index(found: i64) -> Result<usize, Fault> {
    usize::try_from(found).map_err(|_| format!("a list has no element {found}").into())
}

fn make(call: &mut Call<'_>) -> Outcome {
    let length = index(call.optional_int("init_length")?.unwrap_or(1))?;
    let dtype = call.text("dtype")?.unwrap_or("fp32");
    let dtype =
        Dtype::of_name(dtype).ok_or_else(|| format!("dtype is \"{dtype}\"; expected a type"))?;
    let zeros = match element_shape(call)? {
        Some(shape) => Some(zeros(call, dtype, &shape)?),
        None => None,
    };
    room(call, length)?;
    let fixed = !call.bool_or("dynamic_length", true)?;
    let items = vec![zeros; length];
    Ok(vec![Value::List(Arc::new(List { items, fixed }))])
}

/// Passes lists that fit into memory.
fn room(call: &Call<'_>, length: usize) -> Result<(), Fault> {
    let bytes = (length as u64).saturating_mul(size_of::<Option<Tensor>>() as u64);
    call.budget.ask(bytes)
}

/// The shape that all elements have, if the program says it in numbers; a name in it stands for any number.
fn element_shape(args: &Args<'_>) -> Result<Option<Vec<usize>>, Fault> {
    if !args.has("elem_shape") {
        return Ok(None);
    }
    let mut shape = Vec::new();
    for tensor in args.tensors("elem_shape")? {
        match tensor.elements() {
            Elements::Ints(dims) => {
                for &dim in dims.iter() {
                    let dim = usize::try_from(dim);
                    shape.push(dim.map_err(|_| "elem_shape has a dimension below 0")?);
                }
            }
            Elements::Texts(_) => return Ok(None),
            _ => return Err(crate::call::wrong("elem_shape", tensor, "int32 or string")),
        }
    }
    Ok(Some(shape))
}

fn zeros(call: &Call<'_>, dtype: Dtype, shape: &[usize]) -> Result<Tensor, Fault> {
    let elements = each_kind!(dtype, "dtype", T => Ok(T::elements(call.zeros(shape)?)))?;
    let made = Tensor::new(dtype, shape, elements);
    made.ok_or_else(|| format!("dtype is {}; expected a number's", dtype.name()).into())
}

fn length(call: &mut Call<'_>) -> Outcome {
    let length = i32::try_from(list(call)?.len());
    call.output(
        &[],
        vec![length.map_err(|_| "the list has more elements than an int32 counts")?],
    )
}

/// An element; zeros if it was never written.
fn element(call: &Call<'_>, list: &List, at: i64) -> Result<Tensor, Fault> {
    let found = list.get(index(at)?);
    match found
        .ok_or_else(|| format!("the list has {} elements, and no element {at}", list.len()))?
    {
        Some(tensor) => Ok(tensor.clone()),
        None => match list.iter().flatten().next() {
            Some(other) => zeros(call, other.dtype(), other.shape()),
            None => Err(format!(
                "element {at} of the list was never written, and its shape is not known"
            )
            .into()),
        },
    }
}

fn read(call: &mut Call<'_>) -> Outcome {
    Ok(vec![Value::Tensor(element(
        call,
        list(call)?,
        call.int("index")?,
    )?)])
}

/// Puts an element into a list, which grows if it must and may.
fn put(call: &Call<'_>, list: &mut List, at: i64, value: Tensor) -> Result<(), Fault> {
    let at = index(at)?;
    if let Some(other) = list.iter().flatten().next()
        && other.shape() != value.shape()
    {
        let (found, expected) = (value.shape(), other.shape());
        return Err(format!(
            "value has the shape {found:?}; the list has elements of {expected:?}"
        )
        .into());
    }
    if at >= list.len() {
        if list.fixed {
            return Err(format!(
                "the list has {} elements for good, and no element {at}",
                list.len()
            )
            .into());
        }
        room(call, at.saturating_add(1))?;
        list.items.resize(at + 1, None);
    }
    list.items[at] = Some(value);
    Ok(())
}

fn write(call: &mut Call<'_>) -> Outcome {
    let mut list = take(call)?;
    put(
        call,
        &mut list,
        call.int("index")?,
        call.tensor("value")?.clone(),
    )?;
    Ok(vec![Value::List(Arc::new(list))])
}

fn gather(call: &mut Call<'_>) -> Outcome {
    let indices = call.ints("indices")?;
    let list = list(call)?;
    let elements = indices.iter().map(|&at| element(call, list, at));
    let elements = elements.collect::<Result<Vec<Tensor>, Fault>>()?;
    let Some(first) = elements.first() else {
        // nothing of whatever shape the elements have
        let like = list.iter().flatten().next();
        let like = like.ok_or("indices is empty, and no element of the list was ever written")?;
        let none = Tensor::new(
            like.dtype(),
            &[&[0], like.shape()].concat(),
            zeros(call, like.dtype(), &[0])?.into_elements(),
        );
        return Ok(none.into_iter().map(Value::Tensor).collect());
    };
    let shape = [&[elements.len()], first.shape()].concat();
    call.count(&shape)?;
    each_kind!(first.dtype(), "ls", T => {
        let mut packed: Vec<T> = Vec::with_capacity(product(&shape));
        for tensor in &elements {
            packed.extend_from_slice(crate::call::elements_of("ls", tensor)?);
        }
        call.output(&shape, packed)
    })
}

fn scatter(call: &mut Call<'_>) -> Outcome {
    let (indices, value) = (call.ints("indices")?, call.tensor("value")?.clone());
    let Some((&count, shape)) = value.shape().split_first() else {
        return Err("value is a scalar; expected an element for each index".into());
    };
    if count != indices.len() {
        return Err(format!("value has {count} elements for {} indices", indices.len()).into());
    }
    let mut list = take(call)?;
    let each = product(shape);
    each_kind!(value.dtype(), "value", T => {
        let elements: &[T] = crate::call::elements_of("value", &value)?;
        for (number, &at) in indices.iter().enumerate() {
            let one = elements[number * each..][..each].to_vec();
            let one = Tensor::new(value.dtype(), shape, T::elements(one));
            put(call, &mut list, at, one.ok_or("value has other elements than its shape says")?)?;
        }
        Ok(vec![Value::List(Arc::new(list))])
    })
}
