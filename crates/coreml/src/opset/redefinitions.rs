//! What each redefinition does to an op that was written for the definition before.
//!
//! **Source.** The op definitions of coremltools 9.0, read one by one; each line names the file
//! under `converters/mil/mil/ops/defs`. A test sees to it that every redefinition of
//! `definitions.tsv` has its line here, and that a line that says "keeps" is borne out by the
//! inputs: none lost, none newly required, no default changed, no element type withdrawn.

use super::scope::{Names, Scope, bound, floats};
use super::{constexpr, indices};
use crate::proto::Operation;
use palettizer_pipeline::config::Target;

/// What happens to an old use of an op.
#[derive(Clone, Copy)]
pub(super) enum Verdict {
    /// It means the same.
    Keeps,
    /// It means something else, or cannot be written.
    InTheWay,
    /// A rule decides, and perhaps rewrites; with the words for what it does.
    Rule(Rule, &'static str),
}

/// Looks at one op: `Ok(None)` leaves it as it is, `Ok(Some(ops))` puts `ops` in its place, and
/// `Err` says what is in the way.
pub(super) type Rule =
    fn(&Operation, &Scope<'_, '_>, &mut Names<'_>) -> Result<Option<Vec<Operation>>, String>;

/// One op's step from the definition before to the one of `opset`.
pub(super) struct Redefinition {
    pub(super) op: &'static str,
    pub(super) opset: Target,
    pub(super) verdict: Verdict,
    /// Why; for an op in the way, what the user is told.
    pub(super) reason: &'static str,
    /// The file with the newer definition.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "for the reader, and for the tests")
    )]
    pub(super) place: &'static str,
}

/// The redefinition of an op in an opset, if it has one.
pub(super) fn redefinition(op: &str, opset: Target) -> Option<&'static Redefinition> {
    REDEFINITIONS
        .iter()
        .find(|line| line.op == op && line.opset == opset)
}

const WIDER: &str = "more element types are allowed; the old ones mean what they meant";
const MIXED: &str = "parameters may have another element type than x; the same one stays allowed";
const BATCH_DIMS: &str = "a new optional input `batch_dims`; its default 0 is the old meaning";
const OUTPUT_DTYPE: &str =
    "a new optional input for the type of the indices; its default int32 is the old type";
const INDICES: &str = "an index below zero counted from the end; it is out of bounds now";
const AS_INPUTS: &str = "what were attributes are inputs now";

const fn line(
    op: &'static str,
    opset: Target,
    verdict: Verdict,
    reason: &'static str,
    place: &'static str,
) -> Redefinition {
    Redefinition {
        op,
        opset,
        verdict,
        reason,
        place,
    }
}

/// Every redefinition.
#[rustfmt::skip]
pub(super) const REDEFINITIONS: &[Redefinition] = {
    use Target::*;
    use Verdict::*;
    const NON_NEGATIVE: Verdict = Rule(indices::non_negative, "indices made non-negative");
    const IN_ORDER: Verdict = Rule(clip_bounds, "");
    const STORED_AS_INPUTS: &str = "stored in the iOS18 form";
    &[
        // iOS15 → iOS16
        line("crop_resize", IOS16, Keeps, "a new optional input `pad_value`; its default 0 is the old meaning", "iOS16/image_resizing.py"),
        line("gather", IOS16, Keeps, BATCH_DIMS, "iOS16/scatter_gather.py"),
        line("gather_along_axis", IOS16, Keeps, WIDER, "iOS16/scatter_gather.py"),
        line("gather_nd", IOS16, Keeps, BATCH_DIMS, "iOS16/scatter_gather.py"),
        line("resample", IOS16, Keeps, WIDER, "iOS16/image_resizing.py"),
        line("topk", IOS16, Keeps, "new optional inputs `sort` and `return_indices`; true is the old meaning", "iOS16/tensor_operation.py"),
        line("upsample_bilinear", IOS16, Keeps, "a new optional input `half_pixel_centers`; its default, the opposite of `align_corners`, is what the old formula says", "iOS16/image_resizing.py"),

        // iOS16 → iOS17
        line("batch_norm", IOS17, Keeps, MIXED, "iOS17/normalization.py"),
        line("cast", IOS17, Keeps, WIDER, "iOS17/elementwise_unary.py"),
        line("clamped_relu", IOS17, Keeps, MIXED, "iOS17/activation.py"),
        line("clip", IOS17, IN_ORDER, "alpha has to be below beta now", "iOS17/elementwise_unary.py"),
        line("conv", IOS17, Keeps, MIXED, "iOS17/conv.py"),
        line("conv_transpose", IOS17, Keeps, MIXED, "iOS17/conv.py"),
        line("crop_resize", IOS17, InTheWay, "its input `roi` has become `boxes` and `box_indices`, and its output has lost an axis", "iOS17/image_resizing.py"),
        line("elu", IOS17, Keeps, MIXED, "iOS17/activation.py"),
        line("expand_dims", IOS17, Keeps, WIDER, "iOS17/tensor_transformation.py"),
        line("gather", IOS17, NON_NEGATIVE, INDICES, "iOS17/scatter_gather.py"),
        line("gather_along_axis", IOS17, NON_NEGATIVE, INDICES, "iOS17/scatter_gather.py"),
        line("gather_nd", IOS17, NON_NEGATIVE, INDICES, "iOS17/scatter_gather.py"),
        line("gru", IOS17, Keeps, WIDER, "iOS17/recurrent.py"),
        line("instance_norm", IOS17, Keeps, MIXED, "iOS17/normalization.py"),
        line("inverse", IOS17, Keeps, MIXED, "iOS17/elementwise_unary.py"),
        line("l2_norm", IOS17, Keeps, MIXED, "iOS17/normalization.py"),
        line("layer_norm", IOS17, Keeps, MIXED, "iOS17/normalization.py"),
        line("leaky_relu", IOS17, Keeps, MIXED, "iOS17/activation.py"),
        line("linear", IOS17, Keeps, MIXED, "iOS17/linear.py"),
        line("linear_activation", IOS17, Keeps, MIXED, "iOS17/activation.py"),
        line("local_response_norm", IOS17, Keeps, MIXED, "iOS17/normalization.py"),
        line("log", IOS17, Keeps, MIXED, "iOS17/elementwise_unary.py"),
        line("lstm", IOS17, Keeps, WIDER, "iOS17/recurrent.py"),
        line("matmul", IOS17, Keeps, "x and y may differ in type if one is constant; with one type the output has it, as before", "iOS17/linear.py"),
        line("non_maximum_suppression", IOS17, InTheWay, "its inputs and outputs have the boxes on the last axis now, and `score_threshold` and the fourth output are gone", "iOS17/tensor_operation.py"),
        line("prelu", IOS17, Keeps, MIXED, "iOS17/activation.py"),
        line("reduce_argmax", IOS17, Keeps, OUTPUT_DTYPE, "iOS17/reduction.py"),
        line("reduce_argmin", IOS17, Keeps, OUTPUT_DTYPE, "iOS17/reduction.py"),
        line("resample", IOS17, Keeps, WIDER, "iOS17/image_resizing.py"),
        line("reshape", IOS17, Keeps, "a 0 in the shape counts axes from the right now, which is the same where the ranks are equal, and before they had to be", "iOS17/tensor_transformation.py"),
        line("reshape_like", IOS17, Keeps, WIDER, "iOS17/tensor_transformation.py"),
        line("reverse", IOS17, Keeps, WIDER, "iOS17/tensor_transformation.py"),
        line("reverse_sequence", IOS17, Keeps, WIDER, "iOS17/tensor_transformation.py"),
        line("rnn", IOS17, Keeps, WIDER, "iOS17/recurrent.py"),
        line("rsqrt", IOS17, Keeps, MIXED, "iOS17/elementwise_unary.py"),
        line("scaled_tanh", IOS17, Keeps, MIXED, "iOS17/activation.py"),
        line("scatter", IOS17, NON_NEGATIVE, INDICES, "iOS17/scatter_gather.py"),
        line("scatter_along_axis", IOS17, NON_NEGATIVE, INDICES, "iOS17/scatter_gather.py"),
        line("scatter_nd", IOS17, NON_NEGATIVE, INDICES, "iOS17/scatter_gather.py"),
        line("sigmoid_hard", IOS17, Keeps, MIXED, "iOS17/activation.py"),
        line("slice_by_index", IOS17, Keeps, WIDER, "iOS17/tensor_transformation.py"),
        line("slice_by_size", IOS17, Keeps, WIDER, "iOS17/tensor_transformation.py"),
        line("sliding_windows", IOS17, Keeps, WIDER, "iOS17/tensor_transformation.py"),
        line("softplus_parametric", IOS17, Keeps, MIXED, "iOS17/activation.py"),
        line("squeeze", IOS17, Keeps, WIDER, "iOS17/tensor_transformation.py"),
        line("thresholded_relu", IOS17, Keeps, MIXED, "iOS17/activation.py"),
        line("topk", IOS17, Keeps, OUTPUT_DTYPE, "iOS17/tensor_operation.py"),
        line("transpose", IOS17, Keeps, WIDER, "iOS17/tensor_transformation.py"),

        // iOS17 → iOS18
        line("constexpr_affine_dequantize", IOS18, Rule(constexpr::affine_dequantize, "turned into constexpr_blockwise_shift_scale"), "superseded: the old form stays valid", "iOS18/compression.py"),
        line("constexpr_cast", IOS18, Rule(constexpr::cast, STORED_AS_INPUTS), AS_INPUTS, "iOS18/compression.py"),
        line("constexpr_lut_to_dense", IOS18, Rule(constexpr::lut_to_dense, STORED_AS_INPUTS), AS_INPUTS, "iOS18/compression.py"),
        line("constexpr_sparse_to_dense", IOS18, Rule(constexpr::sparse_to_dense, STORED_AS_INPUTS), AS_INPUTS, "iOS18/compression.py"),
        line("gru", IOS18, Keeps, "new optional inputs `reset_after` and `input_bias`; left out, they are the old meaning", "iOS18/recurrent.py"),
        // iOS18 → iOS26: coremltools 9.0 redefines nothing.
    ]
};

/// `clip`: the bounds have to be in order.
fn clip_bounds(
    op: &Operation,
    scope: &Scope<'_, '_>,
    _: &mut Names<'_>,
) -> Result<Option<Vec<Operation>>, String> {
    let bound = |input| {
        bound(op, input)
            .and_then(|binding| scope.constant(binding))
            .and_then(floats)
            .and_then(|values| values.first().copied())
            .ok_or_else(|| format!("its `{input}` is not a constant that can be read"))
    };
    let (alpha, beta) = (bound("alpha")?, bound("beta")?);
    if alpha < beta {
        Ok(None)
    } else {
        Err(format!(
            "its alpha {alpha} is not below its beta {beta}, as it has to be now"
        ))
    }
}
