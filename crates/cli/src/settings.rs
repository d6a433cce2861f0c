//! The settings of one op as flags give them, each there or not, and the palette that they add up to.

use clap::ValueEnum;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use palettizer::config_file::{DEFAULT_GROUP_SIZE, Defaults};
use palettizer::{Granularity, LutDtype, Mode, Nbits, OpPalettizerConfig, PaletteSpec};

/// How the values of a table are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ModeName {
    /// The values with the least squared error
    Kmeans,
    /// Evenly spaced values
    Uniform,
    /// The distinct values themselves, when at most 256: lossless
    Unique,
    /// Known only to be refused with advice.
    #[value(hide = true)]
    Custom,
}

impl ModeName {
    fn name(self) -> &'static str {
        match self {
            ModeName::Kmeans => "kmeans",
            ModeName::Uniform => "uniform",
            ModeName::Unique => "unique",
            ModeName::Custom => "custom",
        }
    }
}

/// Which weights share a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum GranularityName {
    /// One table for each weight
    #[value(name = "per_tensor", alias = "per-tensor")]
    PerTensor,
    /// One table for each group of channels
    #[value(name = "per_grouped_channel", alias = "per-grouped-channel")]
    PerGroupedChannel,
}

/// What the values of a table are stored as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LutDtypeName {
    /// The weight's own type
    Float,
    /// 8 bits with a sign, and a scale
    Int8,
    /// 8 bits without, a scale and a zero point
    Uint8,
}

impl From<LutDtypeName> for LutDtype {
    fn from(name: LutDtypeName) -> Self {
        match name {
            LutDtypeName::Float => LutDtype::Float,
            LutDtypeName::Int8 => LutDtype::Int8,
            LutDtypeName::Uint8 => LutDtype::Uint8,
        }
    }
}

/// The flags that describe a palette.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Palette")]
pub(crate) struct Flags {
    /// Bits per weight (per vector, with --cluster-dim)
    #[arg(long, value_name = "N", value_parser = nbits_parser())]
    nbits: Option<Nbits>,
    /// How the values of a table are found [default: kmeans]
    #[arg(long, value_name = "MODE", ignore_case = true)]
    mode: Option<ModeName>,
    /// Which weights share a table [default: per_tensor]
    #[arg(long, value_name = "G")]
    granularity: Option<GranularityName>,
    /// Channels that share a table, 0 for all; implies --granularity per_grouped_channel [default: 32]
    #[arg(long, value_name = "N")]
    group_size: Option<usize>,
    /// The axis of the groups, negative from the end; implies per_grouped_channel [default: the op's output channels]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    channel_axis: Option<i64>,
    /// Weights per index: tables of vectors [default: 1]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    cluster_dim: Option<usize>,
    /// Divide each output channel by its largest value first, and store that as a scale
    #[arg(long)]
    per_channel_scale: bool,
    /// What the values of a table are stored as [default: float]
    #[arg(long, value_name = "T")]
    lut_dtype: Option<LutDtypeName>,
    /// Palettize only weights with more elements [default: 2048]
    #[arg(long, value_name = "N")]
    weight_threshold: Option<usize>,
}

impl From<Flags> for Settings {
    fn from(flags: Flags) -> Self {
        Settings {
            nbits: flags.nbits,
            mode: flags.mode,
            granularity: flags.granularity,
            group_size: flags.group_size,
            channel_axis: flags.channel_axis,
            cluster_dim: flags.cluster_dim,
            per_channel_scale: flags.per_channel_scale.then_some(true),
            lut_dtype: flags.lut_dtype.map(LutDtype::from),
            weight_threshold: flags.weight_threshold,
        }
    }
}

/// What was said about the weights of an op; the rest is inherited, or default.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Settings {
    pub(crate) nbits: Option<Nbits>,
    pub(crate) mode: Option<ModeName>,
    pub(crate) granularity: Option<GranularityName>,
    pub(crate) group_size: Option<usize>,
    pub(crate) channel_axis: Option<i64>,
    pub(crate) cluster_dim: Option<usize>,
    pub(crate) per_channel_scale: Option<bool>,
    pub(crate) lut_dtype: Option<LutDtype>,
    pub(crate) weight_threshold: Option<usize>,
}

impl Settings {
    /// The settings that a configuration stands for.
    pub(crate) fn of(config: &OpPalettizerConfig) -> Self {
        let spec = config.spec();
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
        Settings {
            nbits: spec.mode().nbits(),
            mode: Some(match spec.mode() {
                Mode::Kmeans(_) => ModeName::Kmeans,
                Mode::Uniform(_) => ModeName::Uniform,
                Mode::Unique => ModeName::Unique,
                Mode::Custom(_) => ModeName::Custom,
            }),
            granularity: Some(granularity),
            group_size,
            channel_axis,
            cluster_dim: Some(spec.cluster_dim()),
            per_channel_scale: Some(spec.per_channel_scale()),
            lut_dtype: Some(spec.lut_dtype()),
            weight_threshold: Some(config.weight_threshold()),
        }
    }

    /// Whether there is enough for a palette: a number of bits, or a mode that needs none.
    pub(crate) fn names_a_palette(&self) -> bool {
        self.nbits.is_some() || matches!(self.mode, Some(ModeName::Unique | ModeName::Custom))
    }

    /// These settings, and those of `base` where they say nothing and nothing against it: a number of bits ends
    /// an inherited mode unique, mode unique ends inherited bits, groups end an inherited per_tensor, and
    /// per_tensor ends inherited groups.
    pub(crate) fn over(self, base: &Settings) -> Settings {
        let no_longer_unique = self.nbits.is_some() && base.mode == Some(ModeName::Unique);
        let mode = self.mode.or(base.mode.filter(|_| !no_longer_unique));
        let bits = base.nbits.filter(|_| mode != Some(ModeName::Unique));
        let grouped = self.group_size.is_some() || self.channel_axis.is_some();
        let granularity = match (self.granularity, grouped) {
            (None, true) => Some(GranularityName::PerGroupedChannel),
            (granularity, _) => granularity.or(base.granularity),
        };
        let inherits_groups = self.granularity != Some(GranularityName::PerTensor);
        Settings {
            nbits: self.nbits.or(bits),
            mode,
            granularity,
            group_size: self
                .group_size
                .or(base.group_size.filter(|_| inherits_groups)),
            channel_axis: self
                .channel_axis
                .or(base.channel_axis.filter(|_| inherits_groups)),
            cluster_dim: self.cluster_dim.or(base.cluster_dim),
            per_channel_scale: self.per_channel_scale.or(base.per_channel_scale),
            lut_dtype: self.lut_dtype.or(base.lut_dtype),
            weight_threshold: self.weight_threshold.or(base.weight_threshold),
        }
    }

    /// The configuration; an error names the flags by `dashes` and their names.
    pub(crate) fn build(
        &self,
        dashes: &'static str,
        defaults: Defaults,
    ) -> Result<OpPalettizerConfig, String> {
        let spec = PaletteSpec::new(self.palette_mode(dashes)?)
            .with_granularity(self.palette_granularity(dashes)?)
            .with_cluster_dim(self.cluster_dim.unwrap_or(1))
            .with_per_channel_scale(self.per_channel_scale.unwrap_or(false))
            .with_lut_dtype(self.lut_dtype.unwrap_or_default())
            .with_precision(defaults.precision)
            .with_seed(defaults.seed);
        let spec = spec.build().map_err(|error| {
            let flag = error.field.replace('_', "-");
            format!(
                "{dashes}{flag} is {}; it can be {}",
                error.found, error.allowed
            )
        })?;
        let config = OpPalettizerConfig::new(spec);
        Ok(match self.weight_threshold {
            Some(elements) => config.with_weight_threshold(elements),
            None => config,
        })
    }

    fn palette_mode(&self, dashes: &str) -> Result<Mode, String> {
        let name = self.mode.unwrap_or(ModeName::Kmeans);
        let nbits = || {
            self.nbits.ok_or_else(|| {
                let name = name.name();
                format!("{dashes}nbits is missing: mode {name} needs 1, 2, 3, 4, 6 or 8 bits")
            })
        };
        match (name, self.nbits) {
            (ModeName::Kmeans, _) => nbits().map(Mode::Kmeans),
            (ModeName::Uniform, _) => nbits().map(Mode::Uniform),
            (ModeName::Unique, None) => Ok(Mode::Unique),
            (ModeName::Unique, Some(_)) => Err(format!(
                "{dashes}nbits cannot be used with {dashes}mode unique, which takes as many bits as the values need"
            )),
            (ModeName::Custom, _) => Err(format!(
                "{dashes}mode custom needs a function: use Mode::Custom of the Rust API (crate palettizer); \
                 here it is one of kmeans, uniform, unique"
            )),
        }
    }

    fn palette_granularity(&self, dashes: &str) -> Result<Granularity, String> {
        let said = match (self.group_size, self.channel_axis) {
            (Some(_), _) => Some("group-size"),
            (None, Some(_)) => Some("channel-axis"),
            (None, None) => None,
        };
        match (self.granularity, said) {
            (Some(GranularityName::PerTensor), Some(flag)) => Err(format!(
                "{dashes}{flag} cannot be used with {dashes}granularity per_tensor"
            )),
            (Some(GranularityName::PerTensor) | None, None) => Ok(Granularity::PerTensor),
            _ => Ok(Granularity::PerGroupedChannel {
                group_size: self.group_size.unwrap_or(DEFAULT_GROUP_SIZE),
                channel_axis: self.channel_axis,
            }),
        }
    }
}

fn nbits_parser() -> impl TypedValueParser<Value = Nbits> {
    PossibleValuesParser::new(["1", "2", "3", "4", "6", "8"]).try_map(|text| text.parse::<Nbits>())
}

/// A whole number above zero.
pub(crate) fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("expected a whole number, 1 or more".to_owned()),
    }
}
