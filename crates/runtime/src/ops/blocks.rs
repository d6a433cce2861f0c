//! Blocks of pixels as channels or as batches, and back: axes are split, brought into another order, and joined.

use super::shape::shown_as;
use super::slice::{Pads, cropped};
use crate::call::{Args, Call, Fault, Outcome};
use crate::element::{Element, each_kind};
use crate::grad::{Backward, Gradients};
use crate::registry::{Def, differentiable};
use crate::view::View;

pub(super) const OPS: &[Def] = &[
    differentiable(
        "depth_to_space",
        |call| run(call, depth_to_space),
        |call| backward(call, depth_to_space),
    )
    .moving(),
    differentiable(
        "space_to_depth",
        |call| run(call, space_to_depth),
        |call| backward(call, space_to_depth),
    )
    .moving(),
    differentiable(
        "pixel_shuffle",
        |call| run(call, pixel_shuffle),
        |call| backward(call, pixel_shuffle),
    )
    .moving(),
    differentiable(
        "pixel_unshuffle",
        |call| run(call, pixel_unshuffle),
        |call| backward(call, pixel_unshuffle),
    )
    .moving(),
    differentiable("space_to_batch", space_to_batch, space_to_batch_backward).moving(),
    differentiable("batch_to_space", batch_to_space, batch_to_space_backward).moving(),
];

/// The axes of a tensor split, their new order, and the shape that they are joined to.
struct Regrouped {
    split: [usize; 6],
    order: [usize; 6],
    shape: [usize; 4],
}

impl Regrouped {
    /// The view of the tensor that has the new order.
    fn view(&self) -> View {
        View::of(&self.split).permuted(&self.order)
    }

    /// The view of what the other view reads that has the old order.
    fn inverse(&self) -> View {
        let mut back = [0; 6];
        for (to, &from) in self.order.iter().enumerate() {
            back[from] = to;
        }
        View::of(&self.order.map(|axis| self.split[axis])).permuted(&back)
    }
}

fn four(args: &Args<'_>) -> Result<[usize; 4], Fault> {
    let shape = args.tensor("x")?.shape();
    shape
        .try_into()
        .map_err(|_| format!("x has the shape {shape:?}; expected four dimensions").into())
}

/// The length of a block.
fn length(param: &str, found: i64) -> Result<usize, Fault> {
    let length = usize::try_from(found).ok().filter(|&length| length > 0);
    length.ok_or_else(|| format!("{param} has {found}; expected lengths above 0").into())
}

fn divided(dim: usize, by: usize) -> Result<usize, Fault> {
    match dim.checked_rem(by) {
        Some(0) => Ok(dim / by),
        _ => Err(format!("a dimension of {dim} is not divisible by {by}").into()),
    }
}

fn multiplied(dim: usize, by: usize) -> Result<usize, Fault> {
    let product = dim.checked_mul(by);
    product.ok_or_else(|| format!("a dimension of {dim} times {by} overflows").into())
}

/// Channels in blocks: the channel is the last part of theirs, as in TensorFlow.
fn depth_to_space(args: &Args<'_>) -> Result<Regrouped, Fault> {
    let ([n, channels, h, w], b) = (four(args)?, length("block_size", args.int("block_size")?)?);
    let c = divided(channels, multiplied(b, b)?)?;
    Ok(Regrouped {
        split: [n, b, b, c, h, w],
        order: [0, 3, 4, 1, 5, 2],
        shape: [n, c, multiplied(h, b)?, multiplied(w, b)?],
    })
}

fn space_to_depth(args: &Args<'_>) -> Result<Regrouped, Fault> {
    let ([n, c, h, w], b) = (four(args)?, length("block_size", args.int("block_size")?)?);
    let (h, w) = (divided(h, b)?, divided(w, b)?);
    Ok(Regrouped {
        split: [n, c, h, b, w, b],
        order: [0, 3, 5, 1, 2, 4],
        shape: [n, multiplied(c, multiplied(b, b)?)?, h, w],
    })
}

/// The same with the channel as the first part, as in torch.
fn pixel_shuffle(args: &Args<'_>) -> Result<Regrouped, Fault> {
    let ([n, channels, h, w], b) = (
        four(args)?,
        length("upscale_factor", args.int("upscale_factor")?)?,
    );
    let c = divided(channels, multiplied(b, b)?)?;
    Ok(Regrouped {
        split: [n, c, b, b, h, w],
        order: [0, 1, 4, 2, 5, 3],
        shape: [n, c, multiplied(h, b)?, multiplied(w, b)?],
    })
}

fn pixel_unshuffle(args: &Args<'_>) -> Result<Regrouped, Fault> {
    let ([n, c, h, w], b) = (
        four(args)?,
        length("downscale_factor", args.int("downscale_factor")?)?,
    );
    let (h, w) = (divided(h, b)?, divided(w, b)?);
    Ok(Regrouped {
        split: [n, c, h, b, w, b],
        order: [0, 1, 3, 5, 2, 4],
        shape: [n, multiplied(c, multiplied(b, b)?)?, h, w],
    })
}

type Regroup = fn(&Args<'_>) -> Result<Regrouped, Fault>;

fn run(call: &mut Call<'_>, regroup: Regroup) -> Outcome {
    let regrouped = regroup(call)?;
    shown_as(call, &regrouped.view(), &regrouped.shape)
}

fn backward(call: &Backward<'_>, regroup: Regroup) -> Result<Gradients, Fault> {
    Ok(vec![(
        "x",
        0,
        regroup(call)?.inverse().read(call.upstream()?),
    )])
}

/// The two lengths of a block.
fn lengths(args: &Args<'_>) -> Result<[usize; 2], Fault> {
    match *args.ints("block_shape")? {
        [h, w] => Ok([length("block_shape", h)?, length("block_shape", w)?]),
        ref found => Err(format!("block_shape is {found:?}; expected two lengths").into()),
    }
}

/// What is added to, or cut off, the two spatial axes.
fn margins(args: &Args<'_>, param: &str) -> Result<[i64; 4], Fault> {
    let found = args.ints(param)?;
    <[i64; 4]>::try_from(found.as_slice()).map_err(|_| {
        format!("{param} is {found:?}; expected two numbers for each of two axes").into()
    })
}

/// The pads of the image, and the regrouping of what is padded.
fn to_batch(args: &Args<'_>) -> Result<(Pads, Regrouped), Fault> {
    let [bh, bw] = lengths(args)?;
    let pads = Pads::of(&four(args)?, &margins(args, "paddings")?)?;
    let [n, c, h, w] = *pads.shape else {
        return Err("x has other than four dimensions".into());
    };
    let (h, w) = (divided(h, bh)?, divided(w, bw)?);
    let regrouped = Regrouped {
        split: [n, c, h, bh, w, bw],
        order: [3, 5, 0, 1, 2, 4],
        shape: [multiplied(n, multiplied(bh, bw)?)?, c, h, w],
    };
    Ok((pads, regrouped))
}

fn space_to_batch(call: &mut Call<'_>) -> Outcome {
    let (pads, regrouped) = to_batch(call)?;
    call.count(&regrouped.shape)?;
    each_kind!(call.tensor("x")?.dtype(), "x", T => {
        let mut padded: Vec<T> = call.zeros(&pads.shape)?;
        pads.inside().write(&mut padded, call.elements("x")?);
        call.output(&regrouped.shape, regrouped.view().read(&padded))
    })
}

fn space_to_batch_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let (pads, regrouped) = to_batch(call)?;
    let padded = regrouped.inverse().read(call.upstream()?);
    Ok(vec![("x", 0, pads.inside().read(&padded))])
}

/// The regrouping of the batches, and the view of the image that is cut out of it.
fn to_space(args: &Args<'_>) -> Result<(Regrouped, View), Fault> {
    let ([batch, c, h, w], [bh, bw]) = (four(args)?, lengths(args)?);
    let n = divided(batch, multiplied(bh, bw)?)?;
    let shape = [n, c, multiplied(h, bh)?, multiplied(w, bw)?];
    let [top, bottom, left, right] = margins(args, "crops")?;
    let inside = cropped(&shape, [[top, bottom], [left, right]])?;
    let regrouped = Regrouped {
        split: [bh, bw, n, c, h, w],
        order: [2, 3, 4, 0, 5, 1],
        shape,
    };
    Ok((regrouped, inside))
}

fn batch_to_space(call: &mut Call<'_>) -> Outcome {
    let (regrouped, inside) = to_space(call)?;
    call.count(&regrouped.shape)?;
    each_kind!(call.tensor("x")?.dtype(), "x", T => {
        let whole = regrouped.view().read::<T>(call.elements("x")?);
        call.output(&inside.shape(), T::elements(inside.read(&whole)))
    })
}

fn batch_to_space_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let (regrouped, inside) = to_space(call)?;
    let mut whole = vec![0.0; call.tensor("x")?.len()];
    inside.write(&mut whole, call.upstream()?);
    Ok(vec![("x", 0, regrouped.inverse().read(&whole))])
}
