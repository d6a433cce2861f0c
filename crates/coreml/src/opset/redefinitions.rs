//! What each redefinition does to an op that was written for the definition before.
//!
//! **Source.** The op definitions of coremltools 9.0, read one by one; each line names the file
//! under `converters/mil/mil/ops/defs`. A test sees to it that every redefinition of
//! `definitions.tsv` has its line here, and that a line that says "keeps" is borne out by the
//! inputs: none lost, none newly required, no default changed, no element type withdrawn.

use super::scope::{Scope, bound, floats};
use super::{constexpr, indices};
use crate::program::names::Names;
use crate::proto::Operation;
use palettizer_pipeline::config::Target;

/// What happens to an old use of an op.
#[derive(Clone, Copy)]
pub(super) enum Verdict {
    /// It means the same.
    Keeps,
    /// It means something else, or cannot be written.
    InTheWay,
    /// A rule decides, and perhaps rewrites.
    Rule(Rule),
}

/// Looks at one op: `Ok(None)` leaves it as it is, `Ok(Some(ops))` puts `ops` in its place, and
/// `Err` says what is in the way.
pub(super) type Rule =
    fn(&Operation, &Scope<'_, '_>, &mut Names) -> Result<Option<Vec<Operation>>, String>;

/// The step of some ops from the definition before to the one of `opset`.
pub(super) struct Redefinition {
    pub(super) opset: Target,
    /// The file with the newer definitions, in the folder of the opset.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "for the reader, and for the tests")
    )]
    pub(super) place: &'static str,
    pub(super) ops: &'static [&'static str],
    pub(super) verdict: Verdict,
    /// Why; for an op in the way, what the user is told.
    pub(super) reason: &'static str,
}

/// The redefinition of an op in an opset, if it has one.
pub(super) fn redefinition(op: &str, opset: Target) -> Option<&'static Redefinition> {
    REDEFINITIONS
        .iter()
        .find(|line| line.opset == opset && line.ops.contains(&op))
}

const WIDER: &str = "more element types are allowed; the old ones mean what they meant";
const MIXED: &str = "parameters may have another element type than x; the same one stays allowed";
const BATCH_DIMS: &str = "a new optional input `batch_dims`; its default 0 is the old meaning";
const OUTPUT_DTYPE: &str =
    "a new optional input for the type of the indices; its default int32 is the old type";
const INDICES: &str = "an index below zero counted from the end; it is out of bounds now";
const AS_INPUTS: &str = "what were attributes are inputs now";

const fn line(
    opset: Target,
    place: &'static str,
    ops: &'static [&'static str],
    verdict: Verdict,
    reason: &'static str,
) -> Redefinition {
    Redefinition {
        opset,
        place,
        ops,
        verdict,
        reason,
    }
}

/// Every redefinition.
#[rustfmt::skip]
pub(super) const REDEFINITIONS: &[Redefinition] = {
    use Target::*;
    use Verdict::*;
    &[
        // iOS15 → iOS16
        line(IOS16, "image_resizing.py", &["crop_resize"], Keeps, "a new optional input `pad_value`; its default 0 is the old meaning"),
        line(IOS16, "image_resizing.py", &["resample"], Keeps, WIDER),
        line(IOS16, "image_resizing.py", &["upsample_bilinear"], Keeps, "a new optional input `half_pixel_centers`; its default, the opposite of `align_corners`, is what the old formula says"),
        line(IOS16, "scatter_gather.py", &["gather", "gather_nd"], Keeps, BATCH_DIMS),
        line(IOS16, "scatter_gather.py", &["gather_along_axis"], Keeps, WIDER),
        line(IOS16, "tensor_operation.py", &["topk"], Keeps, "new optional inputs `sort` and `return_indices`; true is the old meaning"),

        // iOS16 → iOS17
        line(IOS17, "activation.py", &["clamped_relu", "elu", "leaky_relu", "linear_activation", "prelu", "scaled_tanh", "sigmoid_hard", "softplus_parametric", "thresholded_relu"], Keeps, MIXED),
        line(IOS17, "conv.py", &["conv", "conv_transpose"], Keeps, MIXED),
        line(IOS17, "elementwise_unary.py", &["cast"], Keeps, WIDER),
        line(IOS17, "elementwise_unary.py", &["clip"], Rule(clip_bounds), "alpha has to be below beta now"),
        line(IOS17, "elementwise_unary.py", &["inverse", "log", "rsqrt"], Keeps, MIXED),
        line(IOS17, "image_resizing.py", &["crop_resize"], InTheWay, "its input `roi` has become `boxes` and `box_indices`, and its output has lost an axis"),
        line(IOS17, "image_resizing.py", &["resample"], Keeps, WIDER),
        line(IOS17, "linear.py", &["linear"], Keeps, MIXED),
        line(IOS17, "linear.py", &["matmul"], Keeps, "x and y may differ in type if one is constant; with one type the output has it, as before"),
        line(IOS17, "normalization.py", &["batch_norm", "instance_norm", "l2_norm", "layer_norm", "local_response_norm"], Keeps, MIXED),
        line(IOS17, "recurrent.py", &["gru", "lstm", "rnn"], Keeps, WIDER),
        line(IOS17, "reduction.py", &["reduce_argmax", "reduce_argmin"], Keeps, OUTPUT_DTYPE),
        line(IOS17, "scatter_gather.py", &["gather", "gather_along_axis", "gather_nd", "scatter", "scatter_along_axis", "scatter_nd"], Rule(indices::non_negative), INDICES),
        line(IOS17, "tensor_operation.py", &["non_maximum_suppression"], InTheWay, "its inputs and outputs have the boxes on the last axis now, and `score_threshold` and the fourth output are gone"),
        line(IOS17, "tensor_operation.py", &["topk"], Keeps, OUTPUT_DTYPE),
        line(IOS17, "tensor_transformation.py", &["expand_dims", "reshape_like", "reverse", "reverse_sequence", "slice_by_index", "slice_by_size", "sliding_windows", "squeeze", "transpose"], Keeps, WIDER),
        line(IOS17, "tensor_transformation.py", &["reshape"], Keeps, "a 0 in the shape counts axes from the right now, which is the same where the ranks are equal, and before they had to be"),

        // iOS17 → iOS18
        line(IOS18, "compression.py", &["constexpr_affine_dequantize"], Rule(constexpr::affine_dequantize), "superseded: the old form stays valid"),
        line(IOS18, "compression.py", &["constexpr_cast"], Rule(constexpr::cast), AS_INPUTS),
        line(IOS18, "compression.py", &["constexpr_lut_to_dense"], Rule(constexpr::lut_to_dense), AS_INPUTS),
        line(IOS18, "compression.py", &["constexpr_sparse_to_dense"], Rule(constexpr::sparse_to_dense), AS_INPUTS),
        line(IOS18, "recurrent.py", &["gru"], Keeps, "new optional inputs `reset_after` and `input_bias`; left out, they are the old meaning"),
        // iOS18 → iOS26: coremltools 9.0 redefines nothing.
    ]
};

/// `clip`: the bounds have to be in order.
fn clip_bounds(
    op: &Operation,
    scope: &Scope<'_, '_>,
    _: &mut Names,
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
