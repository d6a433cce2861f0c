//! Einsum of two tensors, as one product of matrices: dimensions of both that stay are the batch, those of both that go are summed
//! over, and those of one are its rows or columns.

use super::batched::{Factor, multiply};
use crate::axis::product as count;
use crate::broadcast::{contiguous, copy};
use crate::call::{Call, Fault, Outcome};
use crate::grad::{Backward, Gradients};

/// The letters of the inputs and of the output.
#[derive(Clone, Debug, PartialEq)]
struct Equation {
    first: Vec<char>,
    second: Vec<char>,
    out: Vec<char>,
}

impl Equation {
    fn parse(text: &str) -> Result<Self, Fault> {
        let bad = || {
            Fault::from(format!(
                "equation is \"{text}\"; expected one of two inputs and an output, such as \"bij,bjk->bik\""
            ))
        };
        let (inputs, out) = text.split_once("->").ok_or_else(bad)?;
        let (first, second) = inputs.split_once(',').ok_or_else(bad)?;
        let letters = |text: &str| {
            let found: Vec<char> = text
                .chars()
                .filter(|letter| !letter.is_whitespace())
                .collect();
            let once = found
                .iter()
                .enumerate()
                .all(|(at, letter)| !found[..at].contains(letter));
            (once && found.iter().all(|letter| letter.is_ascii_alphabetic()))
                .then_some(found)
                .ok_or_else(bad)
        };
        let equation = Equation {
            first: letters(first)?,
            second: letters(second)?,
            out: letters(out)?,
        };
        let known =
            |letter: &char| equation.first.contains(letter) || equation.second.contains(letter);
        equation
            .out
            .iter()
            .all(known)
            .then_some(())
            .ok_or_else(bad)?;
        Ok(equation)
    }

    /// The same with other places for the tensors.
    fn of(first: &[char], second: &[char], out: &[char]) -> Self {
        Equation {
            first: first.to_vec(),
            second: second.to_vec(),
            out: out.to_vec(),
        }
    }
}

/// The size of each letter.
fn sizes(
    equation: &Equation,
    x: &[usize],
    y: &[usize],
) -> Result<impl Fn(&[char]) -> Vec<usize>, Fault> {
    let mut known: Vec<(char, usize)> = Vec::new();
    for (letters, shape) in [(&equation.first, x), (&equation.second, y)] {
        if letters.len() != shape.len() {
            return Err(format!(
                "a tensor of shape {shape:?} has {} letters in the equation",
                letters.len()
            )
            .into());
        }
        for (&letter, &dim) in letters.iter().zip(shape) {
            match known.iter().find(|(other, _)| *other == letter) {
                Some((_, size)) if *size != dim => {
                    return Err(format!(
                        "'{letter}' is {size} in one tensor and {dim} in the other"
                    )
                    .into());
                }
                Some(_) => {}
                None => known.push((letter, dim)),
            }
        }
    }
    Ok(move |letters: &[char]| {
        let size = |letter: &char| {
            known
                .iter()
                .find(|(other, _)| other == letter)
                .map_or(1, |(_, size)| *size)
        };
        letters.iter().map(size).collect()
    })
}

/// A tensor with its dimensions in another order; letters that go alone are summed over.
fn ordered(values: &[f32], letters: &[char], shape: &[usize], order: &[char]) -> Vec<f32> {
    let (own, mut strides, mut dims) = (contiguous(shape), Vec::new(), Vec::new());
    for letter in order {
        if let Some(at) = letters.iter().position(|other| other == letter) {
            strides.push(own[at]);
            dims.push(shape[at]);
        }
    }
    let gone = letters
        .iter()
        .enumerate()
        .filter(|(_, letter)| !order.contains(letter));
    for (at, _) in gone {
        strides.push(own[at]);
        dims.push(shape[at]);
    }
    let mut out = vec![0.0; values.len()];
    copy(values, &strides, &dims, &mut out);
    let each = count(&dims[order.len().min(dims.len())..]);
    match each {
        1 => out,
        0 => Vec::new(),
        _ => out
            .chunks_exact(each)
            .map(|chunk| chunk.iter().map(|&x| f64::from(x)).sum::<f64>() as f32)
            .collect(),
    }
}

/// The output of an equation.
fn evaluate(
    equation: &Equation,
    (x, xs): (&[f32], &[usize]),
    (y, ys): (&[f32], &[usize]),
) -> Result<Vec<f32>, Fault> {
    let Equation { first, second, out } = equation;
    let size = sizes(equation, xs, ys)?;
    let both = |letter: &&char| second.contains(letter);
    let batch: Vec<char> = first
        .iter()
        .filter(both)
        .filter(|l| out.contains(l))
        .copied()
        .collect();
    let summed: Vec<char> = first
        .iter()
        .filter(both)
        .filter(|l| !out.contains(l))
        .copied()
        .collect();
    let rows: Vec<char> = first
        .iter()
        .filter(|l| !second.contains(l) && out.contains(l))
        .copied()
        .collect();
    let columns: Vec<char> = second
        .iter()
        .filter(|l| !first.contains(l) && out.contains(l))
        .copied()
        .collect();
    let a = ordered(x, first, xs, &[&batch[..], &rows, &summed].concat());
    let b = ordered(y, second, ys, &[&batch[..], &summed, &columns].concat());
    let [b_n, m, k, n] = [&batch, &rows, &summed, &columns].map(|letters| count(&size(letters)));
    let mut product = vec![0.0; b_n.saturating_mul(m).saturating_mul(n)];
    multiply(
        (&a, &Factor::first(&[b_n, m, k], false)),
        (&b, &Factor::second(&[b_n, k, n], false)),
        &mut product,
    )?;
    let made = [&batch[..], &rows, &columns].concat();
    Ok(ordered(&product, &made, &size(&made), out))
}

pub(super) fn einsum(call: &mut Call<'_>) -> Outcome {
    let values = call.tensors("values")?;
    let [x, y] = values.as_slice() else {
        return Err(format!("values are {} tensors; expected 2", values.len()).into());
    };
    let equation = Equation::parse(
        call.text("equation")?
            .ok_or("parameter equation is missing")?,
    )?;
    let shape = sizes(&equation, x.shape(), y.shape())?(&equation.out);
    call.count(&shape)?;
    let floats = |tensor: &&crate::Tensor| {
        tensor
            .floats()
            .map(<[f32]>::to_vec)
            .ok_or("values are no floats")
    };
    let (a, b) = (floats(x)?, floats(y)?);
    let out = evaluate(&equation, (&a, x.shape()), (&b, y.shape()))?;
    call.output(&shape, out)
}

pub(super) fn backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let values = call.tensors("values")?;
    let [x, y] = values.as_slice() else {
        return Err("values are not 2 tensors".into());
    };
    let Equation { first, second, out } = Equation::parse(
        call.text("equation")?
            .ok_or("parameter equation is missing")?,
    )?;
    let (upstream, shape) = (call.upstream()?, call.output(0)?.shape());
    let mut gradients = Gradients::new();
    for (at, own, other, letters) in [(0, x, y, (&first, &second)), (1, y, x, (&second, &first))] {
        let other_floats = other.floats().ok_or("values are no floats")?;
        // what only this tensor has, and the output has not, gets the same gradient everywhere
        let known = |l: &&char| out.contains(l) || letters.1.contains(l);
        let some: Vec<char> = letters.0.iter().filter(known).copied().collect();
        let part = evaluate(
            &Equation::of(&out, letters.1, &some),
            (upstream, shape),
            (other_floats, other.shape()),
        )?;
        let dims: Vec<usize> = letters
            .0
            .iter()
            .zip(own.shape())
            .filter(|(l, _)| known(l))
            .map(|(_, &dim)| dim)
            .collect();
        let mut strides = contiguous(&dims).into_iter();
        let wide = letters.0.iter().map(|l| {
            if known(&l) {
                strides.next().unwrap_or(0)
            } else {
                0
            }
        });
        let mut gradient = vec![0.0; own.len()];
        copy(&part, &wide.collect::<Vec<_>>(), own.shape(), &mut gradient);
        gradients.push(("values", at, gradient));
    }
    Ok(gradients)
}
