//! The settings of one op as flags, files and bindings have them: the options of a palette, and the weight threshold.

use palettizer_palette::{OptionField, OptionKind, SpecError, SpecOptions};

use crate::OpPalettizerConfig;

/// What is said about the weights of an op; the rest is inherited, or default.
///
/// ```
/// use palettizer::OpOptions;
///
/// let mut options = OpOptions::default();
/// let nbits = OpOptions::field("nbits").ok_or("no such option")?;
/// options.set(nbits, "4").map_err(|error| error.to_string())?;
/// assert_eq!(options.build().map_err(|error| error.to_string())?.weight_threshold(), 2048);
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct OpOptions {
    /// How they are palettized.
    pub spec: SpecOptions,
    /// Only weights with more elements are.
    pub weight_threshold: Option<usize>,
}

const WEIGHT_THRESHOLD: OptionField = OptionField::new(
    "weight_threshold",
    OptionKind::Whole(0),
    "Palettize only weights with more elements",
)
.with_default("2048");

impl From<SpecOptions> for OpOptions {
    fn from(spec: SpecOptions) -> Self {
        OpOptions {
            spec,
            weight_threshold: None,
        }
    }
}

impl From<&OpPalettizerConfig> for OpOptions {
    fn from(config: &OpPalettizerConfig) -> Self {
        OpOptions {
            spec: config.spec().into(),
            weight_threshold: Some(config.weight_threshold()),
        }
    }
}

impl OpOptions {
    /// Every option, in the order in which they are shown.
    pub fn fields() -> impl Iterator<Item = &'static OptionField> {
        SpecOptions::FIELDS.iter().chain([&WEIGHT_THRESHOLD])
    }

    /// The option with this key.
    pub fn field(name: &str) -> Option<&'static OptionField> {
        Self::fields().find(|field| field.name == name)
    }

    /// Sets an option from a text.
    ///
    /// # Errors
    /// [`SpecError`] if it cannot be that.
    pub fn set(&mut self, field: &OptionField, text: &str) -> Result<(), SpecError> {
        if field.name == WEIGHT_THRESHOLD.name {
            self.weight_threshold = Some(field.read(text)?);
            return Ok(());
        }
        self.spec.set(field, text)
    }

    /// These options, and those of `base` where they say nothing: see [`SpecOptions::over`].
    #[must_use]
    pub fn over(self, base: &OpOptions) -> OpOptions {
        OpOptions {
            spec: self.spec.over(&base.spec),
            weight_threshold: self.weight_threshold.or(base.weight_threshold),
        }
    }

    /// The configuration, checked.
    ///
    /// # Errors
    /// [`SpecError`] that names the option.
    pub fn build(&self) -> Result<OpPalettizerConfig, SpecError> {
        let config = OpPalettizerConfig::new(self.spec.build()?);
        Ok(match self.weight_threshold {
            Some(elements) => config.with_weight_threshold(elements),
            None => config,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DEFAULT_WEIGHT_THRESHOLD;

    #[test]
    fn every_option_is_set_and_inherited() {
        for field in OpOptions::fields() {
            let value = field.kind.choices().pop().unwrap_or("7".to_owned());
            let mut options = OpOptions::default();
            options.set(field, &value).unwrap();
            assert_ne!(options, OpOptions::default(), "{}", field.name);
            assert_eq!(
                OpOptions::default().over(&options),
                options,
                "{}",
                field.name
            );
        }
        let default = DEFAULT_WEIGHT_THRESHOLD.to_string();
        assert_eq!(WEIGHT_THRESHOLD.default, Some(&*default));
    }
}
