//! What is asked for: a size, or a quality.

use super::{Choices, ChoicesError, Curves, Response};
use crate::Error;
use crate::config::OpPalettizerConfig;
use palettizer_palette::{Mode, Nbits, PaletteSpec, SpecOptions};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Names and what they mean, with the unit that their numbers are in.
macro_rules! goals {
    ($($(#[doc = $about:literal])+ $variant:ident($number:ty) = $name:literal;)+) => {
        /// What a budget is about.
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub enum Goal {
            $($(#[doc = $about])+ $variant($number),)+
        }

        /// Which of them it is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum GoalName {
            $($(#[doc = $about])+ $variant,)+
        }

        impl GoalName {
            /// Every goal.
            pub const ALL: &'static [GoalName] = &[$(GoalName::$variant,)+];

            /// Its key, as files and bindings write it.
            pub fn name(self) -> &'static str {
                match self {
                    $(GoalName::$variant => $name,)+
                }
            }

            /// What it means.
            pub fn about(self) -> &'static str {
                match self {
                    $(GoalName::$variant => concat!($($about),+).trim_ascii(),)+
                }
            }
        }

        impl Goal {
            /// Which it is.
            pub fn name(self) -> GoalName {
                match self {
                    $(Goal::$variant(_) => GoalName::$variant,)+
                }
            }
        }
    };
}

goals! {
    /// The new model, its program and its weight files, takes at most so many bytes.
    Size(u64) = "target_size";
    /// The weights of the report take at most so many bits an element on average, all that belongs to them included.
    BitsPerWeight(f64) = "target_bpw";
    /// The new model takes at most this part of the old one's bytes: 5 for a fifth.
    Ratio(f64) = "target_ratio";
    /// The expected signal-to-noise ratio is at least so many decibels, in as few bytes as can be.
    MinSnr(f64) = "min_snr";
}

impl Goal {
    /// The number that is asked for, in the unit of the goal.
    pub fn number(self) -> f64 {
        match self {
            Goal::Size(bytes) => bytes as f64,
            Goal::BitsPerWeight(number) | Goal::Ratio(number) | Goal::MinSnr(number) => number,
        }
    }
}

/// A goal that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} is {found}; expected {expected}")]
#[non_exhaustive]
pub struct GoalError {
    /// Which.
    pub name: &'static str,
    /// What was found.
    pub found: String,
    /// What was expected.
    pub expected: &'static str,
}

impl GoalName {
    /// What a number of it may be.
    pub fn expected(self) -> &'static str {
        match self {
            GoalName::Size => "bytes, such as 20000000, 20MB (millions) or 20MiB (2^20)",
            GoalName::BitsPerWeight => "bits, a number above 0 such as 3.5",
            GoalName::Ratio => "how many times smaller, a number above 0 such as 5",
            GoalName::MinSnr => "decibels, a finite number such as 30",
        }
    }

    /// Reads its number.
    ///
    /// # Errors
    /// [`GoalError`] with what was found and what was expected.
    ///
    /// ```
    /// use palettizer_pipeline::budget::{Goal, GoalName};
    ///
    /// assert_eq!(GoalName::Size.read("1.5MB"), Ok(Goal::Size(1_500_000)));
    /// assert_eq!(GoalName::Size.read("2 KiB"), Ok(Goal::Size(2048)));
    /// let error = GoalName::BitsPerWeight.read("0").unwrap_err();
    /// assert_eq!(error.to_string(), "target_bpw is 0; expected bits, a number above 0 such as 3.5");
    /// ```
    pub fn read(self, text: &str) -> Result<Goal, GoalError> {
        let number = || text.trim().parse::<f64>().ok().filter(|n| n.is_finite());
        let above = || number().filter(|&number| number > 0.0);
        let goal = match self {
            GoalName::Size => bytes(text.trim()).map(Goal::Size),
            GoalName::BitsPerWeight => above().map(Goal::BitsPerWeight),
            GoalName::Ratio => above().map(Goal::Ratio),
            GoalName::MinSnr => number().map(Goal::MinSnr),
        };
        goal.ok_or_else(|| GoalError {
            name: self.name(),
            found: text.to_owned(),
            expected: self.expected(),
        })
    }
}

/// A number of bytes, with or without a unit.
fn bytes(text: &str) -> Option<u64> {
    let end = text.find(|c: char| c.is_ascii_alphabetic());
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return None,
    };
    let number = number.trim();
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor).filter(|&bytes| bytes > 0);
    }
    // "1e9" and "-0" are no sizes that anybody writes
    let plain = number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let number: f64 = number.parse().ok().filter(|_| plain && factor > 1)?;
    let bytes = (number * factor as f64).floor();
    (1.0..u64::MAX as f64)
        .contains(&bytes)
        .then_some(bytes as u64)
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Goal::Size(bytes) => write!(f, "{bytes} bytes"),
            Goal::BitsPerWeight(bits) => write!(f, "{bits} bits a weight"),
            Goal::Ratio(ratio) => write!(f, "a model that is {ratio} times smaller"),
            Goal::MinSnr(snr) => write!(f, "an expected SNR of {snr} dB"),
        }
    }
}

impl FromStr for GoalName {
    type Err = GoalError;

    fn from_str(text: &str) -> Result<Self, GoalError> {
        let found = GoalName::ALL.iter().find(|goal| goal.name() == text);
        found.copied().ok_or_else(|| GoalError {
            name: "goal",
            found: text.to_owned(),
            expected: "target_size, target_bpw, target_ratio or min_snr",
        })
    }
}

/// A goal, and the forms that weights may take to reach it.
///
/// The budget chooses the bits and the granularity of every weight that falls under the global configuration; the rest of
/// that configuration (the mode, a scale, the type of tables) holds for all of them. A weight with a configuration of its
/// own, by name, type or preset, keeps that one: its bytes and its harm count all the same.
///
/// ```
/// use palettizer_pipeline::budget::{Budget, Goal};
/// use palettizer_pipeline::config::OptimizationConfig;
///
/// let budget = Budget::new(Goal::BitsPerWeight(3.5)).with_choices("nbits=2/3/4,group_size=none/16".parse()?);
/// let config = OptimizationConfig::new().with_budget(budget);
/// # assert!(config.budget().is_some());
/// # Ok::<(), palettizer_pipeline::budget::ChoicesError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    goal: Goal,
    choices: Choices,
    responses: Option<Arc<BTreeMap<String, Response>>>,
    forms: Option<Arc<BTreeMap<String, String>>>,
    curves: Option<Arc<Curves>>,
    usual: OpPalettizerConfig,
}

impl Budget {
    /// With the choices that are usual: see [`Choices`].
    pub fn new(goal: Goal) -> Self {
        Budget {
            goal,
            choices: Choices::default(),
            responses: None,
            forms: None,
            curves: None,
            usual: OpPalettizerConfig::new(PaletteSpec::new(Mode::Kmeans(Nbits::B4))),
        }
    }

    /// With these choices for every weight.
    #[must_use]
    pub fn with_choices(self, choices: Choices) -> Self {
        Budget { choices, ..self }
    }

    /// For another goal.
    #[must_use]
    pub fn with_goal(self, goal: Goal) -> Self {
        Budget { goal, ..self }
    }

    /// With what the error of each weight, by its name, does to the outputs of the model. A weight that none is known of is
    /// taken to pass its error on as it is.
    #[must_use]
    pub fn with_responses(self, responses: impl Into<Option<BTreeMap<String, Response>>>) -> Self {
        let responses = responses.into().map(Arc::new);
        Budget { responses, ..self }
    }

    /// With the [form](super::Curve::form) that each weight takes, by its name, if all of them together fit: a choice that was
    /// made already. Weights that are not named, and all if they do not fit, are chosen for as ever.
    #[must_use]
    pub fn with_forms(self, forms: impl Into<Option<BTreeMap<String, String>>>) -> Self {
        let forms = forms.into().map(Arc::new);
        Budget { forms, ..self }
    }

    /// With what weights cost, as far as it is known already; what these do not know is found anew.
    #[must_use]
    pub fn with_curves(self, curves: impl Into<Option<Curves>>) -> Self {
        let curves = curves.into().map(Arc::new);
        Budget { curves, ..self }
    }

    /// The configuration of weights that none was given for.
    pub(crate) fn usual(&self) -> &OpPalettizerConfig {
        &self.usual
    }

    /// The forms of a weight that is configured so; `None` if its mode is one that has no bits to choose.
    pub(crate) fn specs(&self, spec: &PaletteSpec) -> Option<Result<Specs, Error>> {
        spec.mode().nbits()?;
        let base = SpecOptions::from(spec);
        let one = |options: SpecOptions| {
            let built = options.over(&base).build();
            built.map_err(|error| Error::Budget {
                what: ChoicesError::from(error).to_string(),
            })
        };
        let specs = self.choices.options().into_iter().map(one);
        Some(specs.collect::<Result<_, _>>().map(|specs| Specs {
            specs,
            usual: self.choices.are_usual(),
        }))
    }

    /// What is asked for.
    pub fn goal(&self) -> Goal {
        self.goal
    }

    /// The forms that weights may take.
    pub fn choices(&self) -> &Choices {
        &self.choices
    }

    /// What errors do to outputs.
    pub fn responses(&self) -> Option<&BTreeMap<String, Response>> {
        self.responses.as_deref()
    }

    /// The choice that was made already.
    pub fn forms(&self) -> Option<&BTreeMap<String, String>> {
        self.forms.as_deref()
    }

    /// What weights cost, as far as it is known.
    pub fn curves(&self) -> Option<&Curves> {
        self.curves.as_deref()
    }
}

/// Forms to choose from, and whether nobody asked for them.
pub(crate) struct Specs {
    pub(crate) specs: Vec<PaletteSpec>,
    pub(crate) usual: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_or_refused() {
        let good = [
            ("1", 1),
            ("20MB", 20_000_000),
            ("20 mb", 20_000_000),
            ("1.5GiB", 3 << 29),
            ("0.5kb", 500),
            ("18446744073709551615", u64::MAX),
        ];
        for (text, expected) in good {
            assert_eq!(
                GoalName::Size.read(text),
                Ok(Goal::Size(expected)),
                "{text}"
            );
        }
        let bad = [
            "",
            "0",
            "-1",
            "1.5",
            "MB",
            "20M",
            "1e9",
            "nan",
            "infMB",
            "1..5MB",
            "0.0001kb",
            "18446744073709551616",
            "18446744073709551615KB",
            "99999999999999999999.5MB",
            "20MB!",
        ];
        for text in bad {
            assert!(GoalName::Size.read(text).is_err(), "{text}");
        }
        for text in ["nan", "inf", "", "x"] {
            assert!(
                GoalName::ALL.iter().all(|name| name.read(text).is_err()),
                "{text}"
            );
        }
        assert!(GoalName::Ratio.read("-2").is_err());
        assert_eq!(GoalName::MinSnr.read("-2"), Ok(Goal::MinSnr(-2.0)));
    }
}
