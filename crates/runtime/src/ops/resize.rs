//! Images in another size, and images sampled at points between their pixels.
//!
//! Where the points are is what coremltools' documentation says of `resize_bilinear` and of the layers of neural networks. Of the
//! nearest neighbours it says nothing: which ones are taken is what its own tests expect of the devices.

mod boxes;
mod grid;
mod points;
mod sample;
mod scale;

use crate::registry::{Def, differentiable};

pub(super) const OPS: &[Def] = &[
    differentiable(
        "upsample_nearest_neighbor",
        scale::upsample_nearest,
        scale::upsample_nearest_backward,
    )
    .moving(),
    differentiable(
        "resize_nearest_neighbor",
        scale::resize_nearest,
        scale::resize_nearest_backward,
    )
    .moving(),
    differentiable(
        "upsample_bilinear",
        scale::upsample_linear,
        scale::upsample_linear_backward,
    ),
    differentiable(
        "resize_bilinear",
        scale::resize_linear,
        scale::resize_linear_backward,
    ),
    differentiable("resize", scale::resize, scale::resize_backward),
    differentiable("crop", scale::crop, scale::crop_backward).moving(),
    differentiable(
        "crop_resize",
        boxes::crop_resize,
        boxes::crop_resize_backward,
    ),
    differentiable("affine", sample::affine, sample::affine_backward),
    differentiable("resample", sample::resample, sample::resample_backward),
];
