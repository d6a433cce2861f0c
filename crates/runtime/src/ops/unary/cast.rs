//! Conversions between all types of numbers.
//!
//! MIL's documentation says nothing of numbers that a type has not. Here floats that are too large for an integer type become its
//! largest or least, and NaN becomes 0, as on Apple's processors; fractions are cut off. Integers that are too large for a narrower
//! type lose their upper bits, as in numpy. Whatever is not 0 is true.

use crate::call::{Call, Fault, Outcome, wrong};
use crate::grad::{Backward, Gradients};
use crate::tensor::{Dtype, Elements, Tensor};
use crate::value::Value;

pub(super) fn cast(call: &mut Call<'_>) -> Outcome {
    let name = call.text("dtype")?.ok_or("parameter dtype is missing")?;
    let dtype = Dtype::of_name(name).ok_or_else(|| {
        format!("dtype is \"{name}\"; expected fp16, fp32, int8 to int32, uint8 to uint32 or bool")
    })?;
    let x = call.tensor("x")?;
    if x.dtype() != dtype {
        call.count(x.shape())?;
    }
    let elements = converted(x, dtype).ok_or_else(|| wrong("x", x, name))?;
    let tensor = Tensor::new(dtype, x.shape(), elements);
    let tensor = tensor.ok_or_else(|| wrong("x", x, name))?;
    Ok(vec![Value::Tensor(tensor)])
}

pub(super) fn cast_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    Ok(vec![("x", 0, call.upstream()?.to_vec())])
}

fn converted(x: &Tensor, dtype: Dtype) -> Option<Elements> {
    if x.dtype() == dtype {
        return Some(x.elements().clone());
    }
    Some(match (x.elements(), dtype) {
        (_, Dtype::Text) | (Elements::Texts(_), _) => return None,
        (Elements::Floats(_), Dtype::F16 | Dtype::F32) => x.elements().clone(),
        (Elements::Floats(values), Dtype::Bool) => each(values, |x| x != 0.0),
        (Elements::Floats(values), Dtype::U32) => each(values, |x| (x as u32) as i32),
        (Elements::Floats(values), _) => {
            let (least, most) = dtype.int_range();
            let (least, most) = (least as i32, most as i32);
            each(values, |x| (x as i32).clamp(least, most))
        }
        (Elements::Ints(values), Dtype::F16 | Dtype::F32) => match x.dtype() {
            Dtype::U32 => each(values, |x| (x as u32) as f32),
            _ => each(values, |x| x as f32),
        },
        (Elements::Ints(values), Dtype::Bool) => each(values, |x| x != 0),
        (Elements::Ints(values), Dtype::I8) => each(values, |x| i32::from(x as i8)),
        (Elements::Ints(values), Dtype::U8) => each(values, |x| i32::from(x as u8)),
        (Elements::Ints(values), Dtype::I16) => each(values, |x| i32::from(x as i16)),
        (Elements::Ints(values), Dtype::U16) => each(values, |x| i32::from(x as u16)),
        (Elements::Ints(_), Dtype::I32 | Dtype::U32) => x.elements().clone(),
        (Elements::Bools(values), Dtype::F16 | Dtype::F32) => {
            each(values, |x| f32::from(u8::from(x)))
        }
        (Elements::Bools(values), _) => each(values, i32::from),
    })
}

fn each<T: Copy, R>(values: &[T], f: impl Fn(T) -> R) -> Elements
where
    Vec<R>: Into<Elements>,
{
    values.iter().map(|&x| f(x)).collect::<Vec<R>>().into()
}
