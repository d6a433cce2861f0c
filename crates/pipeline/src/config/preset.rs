//! Presets: what is known to suit a kind of model, as a table from weights to settings.
//!
//! A preset stands between the configurations by name and type, which go before it, and the global one, which it goes
//! before. Weights are known by their names, as checkpoints have them, with dots, and Core ML programs, with underscores; in
//! programs, which often have other names, also by what uses them.

use crate::Error;
use crate::config::OpPalettizerConfig;
use crate::config::names::pattern;
use palettizer_palette::{Mode, Nbits, PaletteSpec};
use regex::Regex;
use std::fmt;
use std::str::FromStr;

/// What is known to suit a kind of model.
///
/// ```
/// use palettizer_pipeline::config::{OpPalettizerConfig, OptimizationConfig, Preset};
/// use palettizer_palette::{Mode, Nbits, PaletteSpec};
///
/// let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B4));
/// let config = OptimizationConfig::new()
///     .with_global(OpPalettizerConfig::new(spec))
///     .with_preset(Preset::Llm);
/// assert_eq!("llm".parse(), Ok(Preset::Llm));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Preset {
    /// Language models: embeddings and heads at 8 bits, rotary tables and masks as they are.
    Llm,
}

/// What a weight is to the model, by the ops that use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// Rows of it are looked up.
    Embedding,
    /// It widens the last activations to an output of the model.
    Head,
    /// It is added to activations, or multiplied with them element by element, and mixes no channels.
    Table,
}

/// A line of a preset.
struct Rule {
    /// A pattern of the names of its weights; `~` stands for a dot or an underscore.
    names: &'static str,
    role: Role,
    does: Does,
}

/// What a preset does with weights.
enum Does {
    /// So many bits, by k-means, with one table for each weight.
    Bits(Nbits),
    /// Nothing, for this reason.
    Leave(&'static str),
}

/// The first line that fits decides.
const LLM: [Rule; 3] = [
    Rule {
        names: r"(.*~)?((rotary|rope|rotary_emb|rotary_pos_emb)~.*|inv_freq|freqs_cis|(cos|sin)(_cached|_table)?|attn~(masked_)?bias|(\w+_)?mask)",
        role: Role::Table,
        does: Does::Leave("the preset llm leaves rotary tables and masks as they are"),
    },
    Rule {
        names: "(.*~)?(embed_(tokens|tokens_per_layer|in|positions)|(tok|token|word|position)_embeddings?|embeddings?|wte|wpe|shared)~weight",
        role: Role::Embedding,
        does: Does::Bits(Nbits::B8),
    },
    Rule {
        names: "(.*~)?(lm_head|embed_out|output_layer)(~.*)?|((model|transformer|module)~)?(output|head)~weight",
        role: Role::Head,
        does: Does::Bits(Nbits::B8),
    },
];

impl Preset {
    /// Every preset.
    pub const ALL: [Preset; 1] = [Preset::Llm];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Preset::Llm => "llm",
        }
    }

    fn rules(self) -> &'static [Rule] {
        match self {
            Preset::Llm => &LLM,
        }
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A preset that nobody knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown preset \"{found}\"; expected llm")]
#[non_exhaustive]
pub struct UnknownPreset {
    /// What was written.
    pub found: String,
}

impl FromStr for Preset {
    type Err = UnknownPreset;

    /// Reads a preset by its name.
    fn from_str(text: &str) -> Result<Self, UnknownPreset> {
        let mut all = Self::ALL.into_iter();
        all.find(|preset| preset.name() == text)
            .ok_or_else(|| UnknownPreset {
                found: text.to_owned(),
            })
    }
}

/// A preset beside a global configuration, which gives what the preset does not say: precision, seed and threshold.
#[derive(Debug)]
pub struct PresetEntries(Vec<Line>);

#[derive(Debug)]
struct Line {
    names: Regex,
    role: Role,
    does: Result<OpPalettizerConfig, &'static str>,
}

impl PresetEntries {
    /// The lines of a preset.
    ///
    /// # Errors
    /// None: the patterns are ours.
    pub fn new(preset: Preset, global: Option<&OpPalettizerConfig>) -> Result<Self, Error> {
        let lines = preset.rules().iter().map(|rule| {
            // Converters write underscores for dots, and mark what they cast.
            let names = rule.names.replace('~', "[._]");
            Ok(Line {
                names: pattern(&format!(
                    "(?i)({names})(_to_[a-z0-9]+|_palettized|_quantized)*"
                ))?,
                role: rule.role,
                does: match rule.does {
                    Does::Bits(nbits) => Ok(config(nbits, global)),
                    Does::Leave(reason) => Err(reason),
                },
            })
        });
        lines.collect::<Result<_, Error>>().map(Self)
    }

    /// What the preset says of a weight that goes by these names: the first line that its names or its role fit. The error
    /// is why it is left as it is.
    pub fn entry(
        &self,
        names: &[&str],
        role: Option<Role>,
    ) -> Option<Result<&OpPalettizerConfig, &'static str>> {
        let named = |line: &Line| names.iter().any(|name| line.names.is_match(name));
        let mut lines = self.0.iter();
        let line = lines.find(|line| role == Some(line.role) || named(line))?;
        Some(line.does.as_ref().map_err(|reason| *reason))
    }
}

fn config(nbits: Nbits, global: Option<&OpPalettizerConfig>) -> OpPalettizerConfig {
    let spec = PaletteSpec::new(Mode::Kmeans(nbits));
    let Some(global) = global else {
        return OpPalettizerConfig::new(spec);
    };
    let spec = spec
        .with_precision(global.spec().precision())
        .with_seed(global.spec().seed());
    OpPalettizerConfig::new(spec).with_weight_threshold(global.weight_threshold())
}

#[cfg(test)]
mod tests;
