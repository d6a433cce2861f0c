//! Scaled dot-product attention: softmax(q·kᵀ/√d + mask)·v.
//!
//! Scores are made for a block of queries of one head at a time: the matrix of all of them is never in memory.

use crate::axis::product as count;
use crate::broadcast::{shape_of, strides, sum_to};
use crate::call::{Args, Call, Fault, Outcome, Shaped, wrong};
use crate::grad::{Backward, Gradients};
use crate::tensor::Elements;
use palettizer_kernels::{Matrix, product_alone, softmax, softmax_gradient};
use rayon::prelude::*;

/// Queries of a block.
const QUERIES: usize = 64;

/// A mask, and its strides along the shape of all scores.
type Strided<'a> = (Vec<usize>, &'a [f32]);

/// What is attended to.
struct Heads<'a> {
    query: &'a [f32],
    key: &'a [f32],
    value: &'a [f32],
    /// The mask as what is added to scores, of the shape of all scores, or nothing.
    mask: Option<Shaped>,
    batch: Vec<usize>,
    /// Where each head begins in query, key and value, in units of their matrices.
    places: [Vec<usize>; 3],
    queries: usize,
    keys: usize,
    depth: usize,
    values: usize,
}

impl<'a> Heads<'a> {
    fn of(args: &'a Args<'_>) -> Result<Self, Fault> {
        let shapes =
            ["query", "key", "value"].map(|param| args.tensor(param).map(|tensor| tensor.shape()));
        let [query, key, value] = shapes;
        let (query, key, value) = (query?, key?, value?);
        let bad = || {
            format!(
                "query has the shape {query:?}, key {key:?}, value {value:?}; expected [.., L, E], [.., S, E], [.., S, V]"
            )
        };
        let ([q @ .., queries, depth], [k @ .., keys, also], [v @ .., rows, values]) =
            (query, key, value)
        else {
            return Err(bad().into());
        };
        if depth != also || keys != rows {
            return Err(bad().into());
        }
        let batch = shape_of(&[q, k, v])?;
        let place = |own: &[usize]| -> Result<Vec<usize>, Fault> {
            let strides = strides(own, &batch)?;
            let mut found = vec![0];
            for (&dim, stride) in batch.iter().zip(strides) {
                found = found
                    .iter()
                    .flat_map(|base| (0..dim).map(move |at| base + at * stride))
                    .collect();
            }
            Ok(found)
        };
        Ok(Heads {
            query: args.floats("query")?,
            key: args.floats("key")?,
            value: args.floats("value")?,
            mask: mask(args)?,
            places: [place(q)?, place(k)?, place(v)?],
            batch,
            queries: *queries,
            keys: *keys,
            depth: *depth,
            values: *values,
        })
    }

    fn shape(&self, last: [usize; 2]) -> Vec<usize> {
        self.batch.iter().copied().chain(last).collect()
    }

    fn part<'b>(
        &self,
        which: usize,
        of: &'b [f32],
        head: usize,
        rows: usize,
        columns: usize,
    ) -> &'b [f32] {
        &of[self.places[which][head] * rows * columns..][..rows * columns]
    }

    /// The weights that some queries of a head give to its keys.
    fn weights(
        &self,
        head: usize,
        first: usize,
        count: usize,
        mask: Option<&Strided<'_>>,
        scores: &mut Vec<f32>,
    ) {
        scores.clear();
        scores.resize(count * self.keys, 0.0);
        let query = &self.part(0, self.query, head, self.queries, self.depth)[first * self.depth..]
            [..count * self.depth];
        let key = self.part(1, self.key, head, self.keys, self.depth);
        let (query, key) = (
            Matrix::new(query, count, self.depth),
            Matrix::new(key, self.keys, self.depth),
        );
        product_alone(query, key.transposed(), scores, self.keys, false);
        let scale = 1.0 / (self.depth as f32).sqrt();
        for (at, row) in scores.chunks_exact_mut(self.keys.max(1)).enumerate() {
            row.iter_mut().for_each(|score| *score *= scale);
            if let Some((strides, mask)) = mask {
                let begin =
                    offset(&self.batch, strides, head) + (first + at) * strides[self.batch.len()];
                let step = strides[self.batch.len() + 1];
                row.iter_mut()
                    .enumerate()
                    .for_each(|(at, score)| *score += mask[begin + at * step]);
            }
        }
        softmax(scores, self.keys, 1);
    }

    fn mask_strides(&self) -> Result<Option<Strided<'_>>, Fault> {
        let wide = self.shape([self.queries, self.keys]);
        let found = self
            .mask
            .as_ref()
            .map(|(mask, shape)| Ok((strides(shape, &wide)?, mask.as_slice())));
        found.transpose()
    }
}

/// Where a batch lies, by strides along the batch dimensions.
fn offset(batch: &[usize], strides: &[usize], mut number: usize) -> usize {
    let mut found = 0;
    for (&dim, &stride) in batch.iter().zip(strides).rev() {
        found += number % dim.max(1) * stride;
        number /= dim.max(1);
    }
    found
}

/// A mask of booleans says what is seen; one of floats is added.
fn mask(args: &Args<'_>) -> Result<Option<Shaped>, Fault> {
    let Some(mask) = args.optional("attn_mask")? else {
        return Ok(None);
    };
    let values = match mask.elements() {
        Elements::Floats(values) => values.to_vec(),
        Elements::Bools(values) => values
            .iter()
            .map(|&seen| if seen { 0.0 } else { f32::NEG_INFINITY })
            .collect(),
        _ => return Err(wrong("attn_mask", mask, "bool or floats")),
    };
    Ok(Some((values, mask.shape().to_vec())))
}

pub(super) fn attention(call: &mut Call<'_>) -> Outcome {
    let heads = Heads::of(call)?;
    let shape = heads.shape([heads.queries, heads.values]);
    let mut out: Vec<f32> = call.zeros(&shape)?;
    let mask = heads.mask_strides()?;
    let (size, block) = (heads.queries * heads.values, QUERIES * heads.values);
    if size > 0 {
        out.par_chunks_exact_mut(size)
            .enumerate()
            .for_each(|(head, out)| {
                out.par_chunks_mut(block).enumerate().for_each_init(
                    Vec::new,
                    |scores, (at, out)| {
                        let count = out.len() / heads.values;
                        heads.weights(head, at * QUERIES, count, mask.as_ref(), scores);
                        let value = heads.part(2, heads.value, head, heads.keys, heads.values);
                        let (weights, value) = (
                            Matrix::new(scores, count, heads.keys),
                            Matrix::new(value, heads.keys, heads.values),
                        );
                        product_alone(weights, value, out, heads.values, false);
                    },
                );
            });
    }
    call.output(&shape, out)
}

pub(super) fn backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let heads = Heads::of(call)?;
    let mask = heads.mask_strides()?;
    let (upstream, count) = (call.upstream()?, count(&heads.batch));
    let (l, s, e, v) = (heads.queries, heads.keys, heads.depth, heads.values);
    let scale = 1.0 / (e as f32).sqrt();
    let head = |at: usize| {
        let mut weights = Vec::new();
        heads.weights(at, 0, l, mask.as_ref(), &mut weights);
        let slopes = Matrix::new(&upstream[at * l * v..][..l * v], l, v);
        let (query, key, value) = (
            Matrix::new(heads.part(0, heads.query, at, l, e), l, e),
            Matrix::new(heads.part(1, heads.key, at, s, e), s, e),
            Matrix::new(heads.part(2, heads.value, at, s, v), s, v),
        );
        let (mut dq, mut dk, mut dv, mut scores) = (
            vec![0.0; l * e],
            vec![0.0; s * e],
            vec![0.0; s * v],
            vec![0.0; l * s],
        );
        product_alone(
            Matrix::new(&weights, l, s).transposed(),
            slopes,
            &mut dv,
            v,
            false,
        );
        product_alone(slopes, value.transposed(), &mut scores, s, false);
        softmax_gradient(&weights, &mut scores, s, 1);
        let added = scores.clone();
        scores.iter_mut().for_each(|score| *score *= scale);
        let scores = Matrix::new(&scores, l, s);
        product_alone(scores, key, &mut dq, e, false);
        product_alone(scores.transposed(), query, &mut dk, e, false);
        [dq, dk, dv, added]
    };
    let found: Vec<[Vec<f32>; 4]> = (0..count).into_par_iter().map(head).collect();
    let mut gradients = Gradients::new();
    let sizes = [[l, e], [s, e], [s, v], [l, s]];
    for (at, param) in ["query", "key", "value", "attn_mask"]
        .into_iter()
        .enumerate()
    {
        if !call.wants(param) {
            continue;
        }
        let whole: Vec<f32> = found
            .iter()
            .flat_map(|head| head[at].iter().copied())
            .collect();
        gradients.push((
            param,
            0,
            sum_to(whole, &heads.shape(sizes[at]), call.tensor(param)?.shape()),
        ));
    }
    Ok(gradients)
}
