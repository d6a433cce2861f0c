//! What to do with a weight: the validated request.
//!
//! A string becomes one of these enums once, at the edge; combinations that make no sense are refused here,
//! by name of the field, before any weight is looked at.

mod error;
mod field;
mod granularity;
mod lut_dtype;
mod names;
mod options;

use palettizer_kernels::Precision;

use crate::Mode;
pub use error::SpecError;
pub use field::{OptionField, OptionKind};
pub use granularity::{Granularity, GranularityName};
pub use lut_dtype::LutDtype;
pub use names::Choice;
pub(crate) use names::{alternatives, names};
pub use options::{DEFAULT_GROUP_SIZE, SpecOptions};

/// Declares the fields of a request once: what they mean, how they are set and read, and what they are at first.
macro_rules! request {
    (
        $(#[$meta:meta])*
        $type:ident {
            $($(#[doc = $about:literal])+ $field:ident, $with:ident: $value:ty = $first:expr;)+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $type {
            mode: Mode,
            $($field: $value,)+
        }

        impl $type {
            /// One scalar float table for the whole tensor, no scale, the kernels' default precision, seed 0.
            pub fn new(mode: Mode) -> Self {
                $type { mode, $($field: $first,)+ }
            }

            /// How the entries are found.
            pub fn mode(&self) -> &Mode {
                &self.mode
            }

            $(
                $(#[doc = $about])+
                #[must_use]
                pub fn $with(self, $field: $value) -> Self {
                    $type { $field, ..self }
                }

                $(#[doc = $about])+
                pub fn $field(&self) -> $value {
                    self.$field
                }
            )+
        }
    };
}

request! {
    /// The whole request for one weight.
    ///
    /// Built with `with_…` and checked by [`build`](PaletteSpec::build); [`layout`](crate::layout) and
    /// [`palettize`](crate::palettize) check it again, so that an unchecked one is refused and never misread.
    ///
    /// ```
    /// use palettizer_palette::{Granularity, LutDtype, Mode, Nbits, PaletteSpec};
    ///
    /// let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B4))
    ///     .with_granularity(Granularity::PerGroupedChannel { group_size: 8, channel_axis: None })
    ///     .with_lut_dtype(LutDtype::Int8)
    ///     .build()?;
    /// assert_eq!(spec.cluster_dim(), 1);
    /// # Ok::<(), palettizer_palette::SpecError>(())
    /// ```
    PaletteSpec {
        /// Which weights share a table.
        granularity, with_granularity: Granularity = Granularity::PerTensor;
        /// Weights for one index: vectors of this many consecutive channels when above 1.
        cluster_dim, with_cluster_dim: usize = 1;
        /// Whether each output channel is divided by its largest absolute value first.
        per_channel_scale, with_per_channel_scale: bool = false;
        /// Whether a per-channel scale goes into the scales of an integer table: the weight then has no scale of its
        /// own, but each output channel has tables of its own, with the integers of its group. It is the one form that
        /// coremltools converts from PyTorch. Without a scale or with float tables nothing changes.
        fold_scale, with_fold_scale: bool = false;
        /// Whether the scales of an `fp32` weight are numbers of `fp16`, rounded up before values are divided by them,
        /// and the entries under a per-channel scale too. A program that computes the weight in `fp16` then comes to
        /// the very numbers that the weight rounds to. Scales above 65504 or below 2⁻²⁴ stay as they are, and integers
        /// under a per-channel scale need [`with_fold_scale`](PaletteSpec::with_fold_scale) besides. Weights of other
        /// dtypes are not touched.
        half_scales, with_half_scales: bool = false;
        /// What the entries are stored as.
        lut_dtype, with_lut_dtype: LutDtype = LutDtype::Float;
        /// How hard the scalar k-means tries; see [`Precision`].
        precision, with_precision: Precision = Precision::Refined;
        /// Where the random numbers of vector k-means start; everything else uses none.
        seed, with_seed: u64 = 0;
    }
}

impl PaletteSpec {
    /// Every field by its name, with its value as a text. Of two specs with the same fields palettizing makes the same
    /// palette; a custom function is only known to be one.
    ///
    /// ```
    /// use palettizer_palette::{Mode, Nbits, PaletteSpec};
    ///
    /// let fields = PaletteSpec::new(Mode::Kmeans(Nbits::B4)).with_seed(7).fields();
    /// assert!(fields.contains(&("mode", "kmeans".to_owned())));
    /// assert!(fields.contains(&("seed", "7".to_owned())));
    /// ```
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        // Without "..", so that a new field has to come in here too.
        let PaletteSpec {
            mode,
            granularity,
            cluster_dim,
            per_channel_scale,
            fold_scale,
            half_scales,
            lut_dtype,
            precision,
            seed,
        } = self;
        let nbits = mode.nbits().map_or("any".to_owned(), |n| n.to_string());
        let (group_size, channel_axis) = match granularity {
            Granularity::PerTensor => ("none".to_owned(), None),
            Granularity::PerGroupedChannel {
                group_size,
                channel_axis,
            } => (group_size.to_string(), *channel_axis),
        };
        let axis = channel_axis.map_or("the output axis".to_owned(), |axis| axis.to_string());
        vec![
            ("mode", mode.name().to_owned()),
            ("nbits", nbits),
            ("granularity", granularity.name().to_owned()),
            ("group_size", group_size),
            ("channel_axis", axis),
            ("cluster_dim", cluster_dim.to_string()),
            ("enable_per_channel_scale", per_channel_scale.to_string()),
            ("fold_scale", fold_scale.to_string()),
            ("half_scales", half_scales.to_string()),
            ("lut_dtype", lut_dtype.name().to_owned()),
            ("exact", (*precision == Precision::Exact).to_string()),
            ("seed", seed.to_string()),
        ]
    }

    /// Whether there is a per-channel scale that goes into those of an integer table.
    pub(crate) fn folds(&self) -> bool {
        self.fold_scale && self.per_channel_scale && self.lut_dtype != LutDtype::Float
    }

    /// Checks the fields and hands the spec back.
    ///
    /// # Errors
    /// As [`validate`](PaletteSpec::validate).
    pub fn build(self) -> Result<Self, SpecError> {
        self.validate()?;
        Ok(self)
    }

    /// Checks the fields, each alone and with the others.
    ///
    /// # Errors
    /// [`SpecError`] when `cluster_dim` is 0, when vectors are asked of uniform or custom mode, an
    /// integer table of unique or custom mode, or a folded scale of vectors.
    pub fn validate(&self) -> Result<(), SpecError> {
        let mode = self.mode.name();
        let refuse = |field, found, allowed: &str| Err(SpecError::new(field, found, allowed));
        if self.cluster_dim == 0 {
            return refuse("cluster_dim", "0".to_owned(), "1 or more");
        }
        if self.cluster_dim > 1 && matches!(self.mode, Mode::Uniform(_) | Mode::Custom(_)) {
            let found = format!("{} with mode {mode}", self.cluster_dim);
            return refuse("cluster_dim", found, "1, or mode kmeans or unique");
        }
        if self.lut_dtype != LutDtype::Float && matches!(self.mode, Mode::Unique | Mode::Custom(_))
        {
            let found = format!("{} with mode {mode}", self.lut_dtype.name());
            return refuse("lut_dtype", found, "float, or mode kmeans or uniform");
        }
        if self.cluster_dim > 1 && self.folds() {
            let found = format!("true with cluster_dim {}", self.cluster_dim);
            return refuse("fold_scale", found, "false, or cluster_dim 1");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CustomLut, LutFunction, Nbits};

    fn custom() -> Mode {
        Mode::Custom(LutFunction::new(|_, _| Ok(CustomLut::default())))
    }

    #[test]
    fn every_rule_names_its_field() {
        let kmeans = || PaletteSpec::new(Mode::Kmeans(Nbits::B4));
        let grouped = |group_size| Granularity::PerGroupedChannel {
            group_size,
            channel_axis: Some(-1),
        };
        let table = [
            (kmeans().with_cluster_dim(0), Some("cluster_dim")),
            (kmeans().with_granularity(grouped(0)), None),
            (
                PaletteSpec::new(custom()).with_cluster_dim(2),
                Some("cluster_dim"),
            ),
            (
                PaletteSpec::new(Mode::Uniform(Nbits::B1)).with_cluster_dim(2),
                Some("cluster_dim"),
            ),
            (
                PaletteSpec::new(Mode::Unique).with_lut_dtype(LutDtype::Int8),
                Some("lut_dtype"),
            ),
            (
                PaletteSpec::new(custom()).with_lut_dtype(LutDtype::Uint8),
                Some("lut_dtype"),
            ),
            (
                kmeans()
                    .with_cluster_dim(2)
                    .with_per_channel_scale(true)
                    .with_lut_dtype(LutDtype::Int8)
                    .with_fold_scale(true),
                Some("fold_scale"),
            ),
            (kmeans().with_cluster_dim(2).with_fold_scale(true), None),
            (PaletteSpec::new(Mode::Unique).with_cluster_dim(4), None),
            (kmeans().with_granularity(grouped(1)), None),
            (
                PaletteSpec::new(Mode::Uniform(Nbits::B8)).with_lut_dtype(LutDtype::Uint8),
                None,
            ),
        ];
        for (spec, expected) in table {
            let field = spec.clone().build().err().map(|error| error.field);
            assert_eq!(field, expected, "{spec:?}");
        }
    }

    #[test]
    fn strings_become_enums_or_errors() {
        assert_eq!("int8".parse(), Ok(LutDtype::Int8));
        let error = "int4".parse::<LutDtype>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "lut_dtype is int4; expected float, int8 or uint8"
        );
    }
}
