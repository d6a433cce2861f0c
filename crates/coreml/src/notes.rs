//! Notes on what was written: forms of which there are public reports of trouble on devices.
//!
//! A note says what others reported, where, and how many weights have the form. It is no verdict of ours: nothing here
//! was tried on a device.

use crate::program::walk::operations;
use crate::proto::Model;
use palettizer_pipeline::Note;

/// Tables of fewer channels are many: Apple's guide names groups of 8 and of 16 channels as those that still gain speed.
const FEWEST_CHANNELS: usize = 8;

/// What there is to note of a weight's form.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written<'a> {
    /// Whether a `constexpr_blockwise_shift_scale` has fp16 data.
    pub scales_halves: bool,
    /// Bits of an index.
    pub nbits: u32,
    /// The weight's shape.
    pub shape: &'a [usize],
    /// The number of tables along each axis.
    pub tables: &'a [usize],
}

impl Written<'_> {
    fn many_tables(&self) -> bool {
        let mut axes = self.shape.iter().zip(self.tables);
        axes.any(|(&channels, &tables)| tables > 1 && channels / tables < FEWEST_CHANNELS)
    }
}

/// The notes on weights that were written into `model`.
pub(crate) fn notes(model: &Model, weights: &[Written<'_>]) -> Vec<Note> {
    let count = |has: &dyn Fn(&Written<'_>) -> bool| weights.iter().filter(|w| has(w)).count();
    let stateful = is_stateful(model);
    let all = [
        Note::new(
            "per_channel_scale",
            "there are public reports that the Neural Engine of macOS 26 aborts when it loads a program in \
                   which constexpr_blockwise_shift_scale scales fp16 weights, as a per-channel scale does; a table \
                   for each channel (a group size of 1) in its place needs no such op",
            "https://github.com/apple/coremltools/pull/2688",
            count(&|weight| weight.scales_halves),
        ),
        Note::new(
            "many_tables",
            "the guide of coremltools says that a prediction may slow down as the number of tables of a weight \
                   grows, and that groups of 8 or 16 channels are typical; here groups have fewer than 8",
            "https://apple.github.io/coremltools/docs-guides/source/opt-palettization-perf.html",
            count(&|weight| weight.many_tables()),
        ),
        Note::new(
            "stateful_4_bit",
            "there are public reports that stateful models with 4-bit palettes crash on the Neural Engine after \
                   some hundred predictions",
            "https://github.com/apple/coremltools/issues/2716",
            count(&|weight| stateful && weight.nbits == 4),
        ),
    ];
    all.into_iter().filter(|note| note.weights > 0).collect()
}

/// Whether a program keeps state between predictions.
fn is_stateful(model: &Model) -> bool {
    let mut ops = operations(model).into_iter();
    ops.any(|op| op.r#type == "read_state")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_channels_a_table_are_many_tables() {
        let written = |shape, tables| Written {
            scales_halves: false,
            nbits: 4,
            shape,
            tables,
        };
        let cases: [(&[usize], &[usize], bool); 6] = [
            (&[64, 32], &[1, 1], false),
            (&[64, 32], &[8, 1], false),
            (&[64, 32], &[16, 1], true),
            (&[64, 32], &[64, 1], true),
            (&[64, 32], &[1, 8], true),
            // A weight of few channels has one table for all of them.
            (&[4, 32], &[1, 1], false),
        ];
        for (shape, tables, many) in cases {
            let written = written(shape, tables);
            assert_eq!(written.many_tables(), many, "{written:?}");
        }
    }
}
