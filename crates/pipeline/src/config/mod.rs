//! Which weights are to be palettized, and how: global, by op type, by op name.

mod entries;
mod names;
mod near;
mod preset;
mod target;

use crate::budget::Budget;
use crate::{Sensitivities, Statistics};
pub use entries::Entries;
pub use names::{Entry, Names};
pub use near::{Unmatched, near};
use palettizer_palette::PaletteSpec;
pub use preset::{Preset, PresetEntries, Role, UnknownPreset};
pub use target::{Target, UnknownTarget};

/// Weights with at most this many elements are left alone unless a configuration says otherwise.
pub const DEFAULT_WEIGHT_THRESHOLD: usize = 2048;

/// How the weights of one op, of a type of op, or of all ops are palettized.
#[derive(Clone, Debug, PartialEq)]
pub struct OpPalettizerConfig {
    spec: PaletteSpec,
    weight_threshold: usize,
}

impl OpPalettizerConfig {
    /// Palettize by `spec` whatever has more than [`DEFAULT_WEIGHT_THRESHOLD`] elements.
    pub fn new(spec: PaletteSpec) -> Self {
        Self {
            spec,
            weight_threshold: DEFAULT_WEIGHT_THRESHOLD,
        }
    }

    /// Palettize only weights with more than `elements` elements.
    #[must_use]
    pub fn with_weight_threshold(mut self, elements: usize) -> Self {
        self.weight_threshold = elements;
        self
    }

    /// How a weight is palettized.
    pub fn spec(&self) -> &PaletteSpec {
        &self.spec
    }

    /// The number of elements that a weight must exceed.
    pub fn weight_threshold(&self) -> usize {
        self.weight_threshold
    }
}

/// What to do with a whole model.
///
/// For a weight, the first of these that is set decides: the name of the constant, the name of the op that
/// uses it, the first pattern of names, in the order in which they were set, that fits either, the type of that op, the
/// first pattern of types that fits it, the preset, the global configuration. `None` skips.
///
/// A pattern is a regular expression that matches a whole name, as in configurations of PyTorch modules. What is a name in
/// the model is never taken for a pattern.
///
/// ```
/// use palettizer_pipeline::config::OptimizationConfig;
///
/// let config = OptimizationConfig::new()
///     .with_op_name(r".*_norm_.*", None)
///     .with_op_name("layers.0.norm", None) // a name, though its dots would fit other names too
///     .with_op_type("conv.*", None);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OptimizationConfig {
    global: Option<OpPalettizerConfig>,
    preset: Option<Preset>,
    op_types: Entries,
    op_names: Entries,
    joint_compression: bool,
    strict: bool,
    minimum_deployment_target: Option<Target>,
    sensitivity: Option<Sensitivities>,
    statistics: Option<Statistics>,
    budget: Option<Budget>,
}

impl OptimizationConfig {
    /// Nothing is palettized until something is set.
    pub fn new() -> Self {
        Self::default()
    }

    /// The configuration of all ops that have none of their own.
    #[must_use]
    pub fn with_global(mut self, config: impl Into<Option<OpPalettizerConfig>>) -> Self {
        self.global = config.into();
        self
    }

    /// Before the global configuration, what is known to suit a kind of model.
    #[must_use]
    pub fn with_preset(mut self, preset: impl Into<Option<Preset>>) -> Self {
        self.preset = preset.into();
        self
    }

    /// The configuration of the ops of a type, such as `linear`, or of the types that a pattern fits; `None` skips them.
    #[must_use]
    pub fn with_op_type(
        mut self,
        op_type: impl Into<String>,
        config: impl Into<Option<OpPalettizerConfig>>,
    ) -> Self {
        self.op_types.set(op_type.into(), config.into());
        self
    }

    /// The configuration of one op or constant, or of all that a pattern fits; `None` skips them.
    #[must_use]
    pub fn with_op_name(
        mut self,
        name: impl Into<String>,
        config: impl Into<Option<OpPalettizerConfig>>,
    ) -> Self {
        self.op_names.set(name.into(), config.into());
        self
    }

    /// Palettize the non-zero data of pruned weights and the int8 data of quantized ones too.
    #[must_use]
    pub fn with_joint_compression(mut self, joint: bool) -> Self {
        self.joint_compression = joint;
        self
    }

    /// Make a skip that the configuration did not ask for an error.
    #[must_use]
    pub fn with_strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// Raise the program's opset to this target's if it is older.
    #[must_use]
    pub fn with_minimum_deployment_target(mut self, target: impl Into<Option<Target>>) -> Self {
        self.minimum_deployment_target = target.into();
        self
    }

    /// Weigh the errors of k-means by how much each element matters; `None` weighs all alike.
    ///
    /// A weight is looked up by the name of its constant, then by that of any constant that shares its data.
    #[must_use]
    pub fn with_sensitivity(mut self, sensitivity: impl Into<Option<Sensitivities>>) -> Self {
        self.sensitivity = sensitivity.into();
        self
    }

    /// Fit tables and indices to the inputs of layers, where they are known; `None` clusters weights. A weight is looked up as
    /// with [`with_sensitivity`](Self::with_sensitivity), and sensitivities that are given too stand for a Fisher information.
    #[must_use]
    pub fn with_statistics(mut self, statistics: impl Into<Option<Statistics>>) -> Self {
        self.statistics = statistics.into();
        self
    }

    /// Choose bits and granularity of all weights that fall under the global configuration for a size or a quality.
    #[must_use]
    pub fn with_budget(mut self, budget: impl Into<Option<Budget>>) -> Self {
        self.budget = budget.into();
        self
    }

    /// The size or the quality that forms are chosen for.
    pub fn budget(&self) -> Option<&Budget> {
        self.budget.as_ref()
    }

    /// The configuration of all ops that have none of their own.
    pub fn global(&self) -> Option<&OpPalettizerConfig> {
        self.global.as_ref()
    }

    /// What is known to suit the kind of model.
    pub fn preset(&self) -> Option<Preset> {
        self.preset
    }

    /// The configurations by op type.
    pub fn op_types(&self) -> &Entries {
        &self.op_types
    }

    /// The configurations by the name of an op or a constant.
    pub fn op_names(&self) -> &Entries {
        &self.op_names
    }

    /// Whether compressed weights are palettized too.
    pub fn joint_compression(&self) -> bool {
        self.joint_compression
    }

    /// Whether a skip that was not asked for is an error.
    pub fn strict(&self) -> bool {
        self.strict
    }

    /// The target that the program is raised to.
    pub fn minimum_deployment_target(&self) -> Option<Target> {
        self.minimum_deployment_target
    }

    /// What the inputs of layers look like.
    pub fn statistics(&self) -> Option<&Statistics> {
        self.statistics.as_ref()
    }

    /// How much each element of the weights matters.
    pub fn sensitivity(&self) -> Option<&Sensitivities> {
        self.sensitivity.as_ref()
    }
}
