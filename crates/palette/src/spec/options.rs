//! Raw options (numbers, texts, missing values) to a [`PaletteSpec`]: the one way for flags, files and bindings.

use super::{GranularityName, OptionField, OptionKind};
use crate::{
    Granularity, LutDtype, LutFunction, Mode, ModeName, Nbits, PaletteSpec, Precision, SpecError,
};

/// Channels that share a table when groups are asked for and nobody says how large.
pub const DEFAULT_GROUP_SIZE: usize = 32;

/// Declares the options once: the field, its key, what it may be, what it means. Those `beside` have no key in files.
macro_rules! options {
    (
        $(#[$meta:meta])*
        $type:ident {
            $($(#[doc = $about:literal])+ $field:ident: $value:ty as $kind:expr $(, default $default:literal)?;)+
        }
        beside { $($(#[doc = $more:literal])+ $beside:ident: $beside_value:ty;)+ }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $type {
            $($(#[doc = $about])+ pub $field: Option<$value>,)+
            $($(#[doc = $more])+ pub $beside: Option<$beside_value>,)+
        }

        impl $type {
            /// The options that have a key, in the order in which they are shown.
            pub const FIELDS: &'static [OptionField] = &[$(OptionField {
                name: stringify!($field),
                kind: $kind,
                default: [$(Some($default),)? None][0],
                about: concat!($($about),+).trim_ascii(),
            }),+];

            /// Sets one of [`FIELDS`](Self::FIELDS) from a text.
            ///
            /// # Errors
            /// [`SpecError`] if it cannot be that, or is none of these fields.
            pub fn set(&mut self, field: &OptionField, text: &str) -> Result<(), SpecError> {
                match field.name {
                    $(stringify!($field) => self.$field = Some(field.read(text)?),)+
                    _ => return Err(field.error(text)),
                }
                Ok(())
            }

            /// These, and those of `base` where they say nothing.
            fn or(self, base: Self) -> Self {
                $type {
                    $($field: self.$field.or(base.$field),)+
                    $($beside: self.$beside.or(base.$beside),)+
                }
            }
        }
    };
}

options! {
    /// What is said about a palette; the rest is inherited, or default.
    ///
    /// ```
    /// use palettizer_palette::{Nbits, SpecOptions};
    ///
    /// let mut options = SpecOptions { nbits: Some(Nbits::B4), ..SpecOptions::default() };
    /// assert_eq!(options.build()?.cluster_dim(), 1);
    /// for field in SpecOptions::FIELDS.iter().filter(|field| field.name == "mode") {
    ///     options.set(field, "unique")?;
    /// }
    /// assert_eq!(
    ///     options.build().unwrap_err().to_string(),
    ///     "nbits is 4 with mode unique; expected none: the mode takes as many bits as the values need"
    /// );
    /// # Ok::<(), palettizer_palette::SpecError>(())
    /// ```
    SpecOptions {
        /// Bits per weight (per vector, with `cluster_dim`)
        nbits: Nbits as OptionKind::Bits;
        /// How the values of a table are found
        mode: ModeName as OptionKind::Names(ModeName::CHOICES), default "kmeans";
        /// Which weights share a table
        granularity: GranularityName as OptionKind::Names(GranularityName::CHOICES), default "per_tensor";
        /// Channels that share a table, 0 for all
        group_size: usize as OptionKind::Whole(0), default "32";
        /// The axis of the groups, negative from the end
        channel_axis: i64 as OptionKind::Integer, default "the op's output channels";
        /// Weights per index: tables of vectors
        cluster_dim: usize as OptionKind::Whole(1), default "1";
        /// Divide each output channel by its largest value first, and store that as a scale
        enable_per_channel_scale: bool as OptionKind::Flag;
        /// What the values of a table are stored as
        lut_dtype: LutDtype as OptionKind::Names(LutDtype::CHOICES), default "float";
    }
    beside {
        /// The function of mode custom
        lut_function: LutFunction;
        /// How hard the scalar k-means tries
        precision: Precision;
        /// Where the random numbers of vector k-means start
        seed: u64;
    }
}

/// The options that a spec stands for. (`fold_scale` and `half_scales` are nothing that users choose.)
impl From<&PaletteSpec> for SpecOptions {
    fn from(spec: &PaletteSpec) -> Self {
        let (granularity, group_size, channel_axis) = match spec.granularity() {
            Granularity::PerTensor => (GranularityName::PerTensor, None, None),
            Granularity::PerGroupedChannel {
                group_size,
                channel_axis,
            } => (
                GranularityName::PerGroupedChannel,
                Some(group_size),
                channel_axis,
            ),
        };
        SpecOptions {
            nbits: spec.mode().nbits(),
            mode: Some(spec.mode().into()),
            granularity: Some(granularity),
            group_size,
            channel_axis,
            cluster_dim: Some(spec.cluster_dim()),
            enable_per_channel_scale: Some(spec.per_channel_scale()),
            lut_dtype: Some(spec.lut_dtype()),
            lut_function: match spec.mode() {
                Mode::Custom(function) => Some(function.clone()),
                _ => None,
            },
            precision: Some(spec.precision()),
            seed: Some(spec.seed()),
        }
    }
}

impl SpecOptions {
    /// Whether there is enough for a palette: a number of bits, or a mode that needs none.
    pub fn names_a_palette(&self) -> bool {
        self.nbits.is_some() || matches!(self.mode, Some(ModeName::Unique | ModeName::Custom))
    }

    /// These options, and those of `base` where they say nothing and nothing against it: a number of bits ends an
    /// inherited mode unique, mode unique ends inherited bits, groups end an inherited per_tensor, and per_tensor ends
    /// inherited groups.
    #[must_use]
    pub fn over(self, base: &SpecOptions) -> SpecOptions {
        let mut base = base.clone();
        if self.nbits.is_some() {
            base.mode = base.mode.filter(|mode| *mode != ModeName::Unique);
        }
        if self.mode.or(base.mode) == Some(ModeName::Unique) {
            base.nbits = None;
        }
        match self.granularity {
            Some(GranularityName::PerTensor) => (base.group_size, base.channel_axis) = (None, None),
            None if self.groups().is_some() => base.granularity = None,
            _ => {}
        }
        self.or(base)
    }

    /// As coremltools reads configurations: without `per_grouped_channel`, `group_size` and `channel_axis` count for
    /// nothing. (Otherwise they stand for it where no granularity is given, and are refused beside `per_tensor`.)
    #[must_use]
    pub fn ignoring_unused_groups(self) -> SpecOptions {
        match self.granularity {
            Some(GranularityName::PerGroupedChannel) => self,
            _ => SpecOptions {
                group_size: None,
                channel_axis: None,
                ..self
            },
        }
    }

    /// The specification, checked.
    ///
    /// # Errors
    /// [`SpecError`] that names the option.
    pub fn build(&self) -> Result<PaletteSpec, SpecError> {
        PaletteSpec::new(self.palette_mode()?)
            .with_granularity(self.palette_granularity()?)
            .with_cluster_dim(self.cluster_dim.unwrap_or(1))
            .with_per_channel_scale(self.enable_per_channel_scale.unwrap_or(false))
            .with_lut_dtype(self.lut_dtype.unwrap_or_default())
            .with_precision(self.precision.unwrap_or(Precision::Refined))
            .with_seed(self.seed.unwrap_or(0))
            .build()
    }

    /// Mode, bits and function, which decide about each other.
    fn palette_mode(&self) -> Result<Mode, SpecError> {
        let mode = self.mode.unwrap_or_default();
        let name = mode.name();
        let nbits = || {
            let expected = format!("{} (mode {name} needs it)", OptionKind::Bits.expected());
            self.nbits
                .ok_or_else(|| SpecError::new("nbits", "missing", expected))
        };
        match (mode, self.nbits, &self.lut_function) {
            (ModeName::Kmeans, _, None) => nbits().map(Mode::Kmeans),
            (ModeName::Uniform, _, None) => nbits().map(Mode::Uniform),
            (ModeName::Unique, None, None) => Ok(Mode::Unique),
            (ModeName::Custom, None, Some(function)) => Ok(Mode::Custom(function.clone())),
            (ModeName::Custom, _, None) => Err(SpecError::new(
                "mode",
                "custom, which needs a function, and flags and files hold none",
                "kmeans, uniform or unique \
                 (Mode::Custom of the Rust API and lut_function of the Python API take one)",
            )),
            (ModeName::Unique | ModeName::Custom, Some(nbits), _) => Err(SpecError::new(
                "nbits",
                format!("{nbits} with mode {name}"),
                "none: the mode takes as many bits as the values need",
            )),
            (_, _, Some(_)) => Err(SpecError::new(
                "lut_function",
                format!("a function with mode {name}"),
                "none, or mode custom",
            )),
        }
    }

    /// Granularity, group size and axis, likewise.
    fn palette_granularity(&self) -> Result<Granularity, SpecError> {
        match (self.granularity, self.groups()) {
            (Some(GranularityName::PerTensor), Some((field, found))) => Err(SpecError::new(
                field,
                format!("{found} with granularity per_tensor"),
                "none, or granularity per_grouped_channel",
            )),
            (Some(GranularityName::PerTensor) | None, None) => Ok(Granularity::PerTensor),
            _ => Ok(Granularity::PerGroupedChannel {
                group_size: self.group_size.unwrap_or(DEFAULT_GROUP_SIZE),
                channel_axis: self.channel_axis,
            }),
        }
    }

    /// The first option that is about groups, with its value.
    fn groups(&self) -> Option<(&'static str, String)> {
        let size = self.group_size.map(|size| ("group_size", size.to_string()));
        size.or(self
            .channel_axis
            .map(|axis| ("channel_axis", axis.to_string())))
    }
}

#[cfg(test)]
mod tests;
