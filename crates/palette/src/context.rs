//! What is known of a weight beside its values, and the check of what a caller says of it.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::sensitivity::{Look, is_good, look};
use crate::{Layerwise, Mode, PaletteSpec, Refusal};

/// What is known of a weight beside its values.
///
/// ```
/// use palettizer_palette::{Context, Dtype, Lut, Mode, Nbits, PaletteSpec, Tensor, palettize};
///
/// let bytes = |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
/// let weight = bytes(&[0.0, 1.0, 9.0, 10.0]);
/// let tensor = Tensor::new(Dtype::F32, &[1, 4], &weight).map_err(|e| e.to_string())?;
/// let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B1));
/// let context = Context { sensitivity: Some(&[3.0, 1.0, 1.0, 0.0]), ..Context::default() };
/// let palette = palettize(&tensor, &spec, &context).map_err(|e| e.to_string())?;
/// assert_eq!(palette.lut, Lut::Float(bytes(&[0.25, 9.0])));
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Context<'a> {
    /// The axis of the output channels as the weight's consumers see it, from the front; `None` when they disagree.
    pub output_axis: Option<usize>,
    /// Of a pruned weight that stays sparse: the packed bitmap of its kept positions (least-significant bit first,
    /// row-major, ⌈elements / 8⌉ bytes). The tensor is dense all the same, and what the mask drops reads as zero.
    pub mask: Option<&'a [u8]>,
    /// What an error in each element costs: one finite number for each element, row-major, zero or more. k-means then
    /// minimises Σ s·(w − ŵ)²; a vector weighs the sum of its elements. The other modes do not look at it.
    /// [`sensitivity::normalise`](crate::sensitivity::normalise) makes one of squared gradients.
    pub sensitivity: Option<&'a [f32]>,
    /// What the layer's inputs look like: tables and indices are then fitted to keep its outputs, and sensitivities say what
    /// they start from. A weight that this does not suit is refused.
    pub layerwise: Option<Layerwise<'a>>,
    /// Set by another thread when the work is no longer wanted: it ends soon, with [`Refusal::Stopped`].
    pub stop: Option<&'a AtomicBool>,
}

impl<'a> Context<'a> {
    /// The sensitivities, if they matter: all the same matter as little as none.
    pub(crate) fn sensitivity(
        &self,
        elements: usize,
        spec: &PaletteSpec,
    ) -> Result<Option<Sensitivity<'a>>, Refusal> {
        let Some(each) = self.sensitivity else {
            return Ok(None);
        };
        if each.len() != elements {
            let found = each.len();
            return Err(Refusal::SensitivityLength { elements, found });
        }
        let Look { most, sound, .. } = look(each);
        if !sound {
            let count = each.iter().filter(|value| !is_good(**value)).count();
            return Err(Refusal::Sensitivity { count, elements });
        }
        let same = each.windows(2).all(|pair| pair[0] == pair[1]);
        let matters = !same && matches!(spec.mode(), Mode::Kmeans(_));
        Ok(matters.then_some(Sensitivity { each, most }))
    }

    /// Ends the work when it is no longer wanted.
    pub(crate) fn go_on(&self) -> Result<(), Refusal> {
        match self.stop {
            Some(stop) if stop.load(Ordering::Relaxed) => Err(Refusal::Stopped),
            _ => Ok(()),
        }
    }
}

/// Checked sensitivities, not all the same.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sensitivity<'a> {
    /// One for each element of the weight.
    pub(crate) each: &'a [f32],
    /// The greatest.
    most: f32,
}

impl Sensitivity<'_> {
    /// What an error in a normalised value weighs in a channel of that weight, relative to others. Zero stays zero, and
    /// nothing else becomes it.
    pub(crate) fn scaled(&self, at: usize, channel: f32) -> f32 {
        match self.each[at] {
            0.0 => 0.0,
            one => (one / self.most * channel).max(f32::MIN_POSITIVE),
        }
    }
}
