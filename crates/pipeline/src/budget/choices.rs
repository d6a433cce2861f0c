//! The forms that a weight may take.

use palettizer_palette::{OptionField, PaletteSpec, SpecError, SpecOptions};
use std::fmt;
use std::str::FromStr;

/// Which of them are tried if nobody says anything: every number of bits, with one table, and with tables for groups of
/// channels of the size that is usual and of the smallest that is known to be no trouble on devices.
const USUAL: [(&str, &[&str]); 2] = [
    ("nbits", &["1", "2", "3", "4", "6", "8"]),
    ("group_size", &[NONE, "32", "8"]),
];

/// One table for the whole weight, among sizes of groups.
const NONE: &str = "none";

/// The forms that each weight may take: all combinations of the values of some options.
///
/// As a text, the options are apart by commas and the values by slashes. An option that is not named has the usual values:
/// all numbers of bits, and one table or groups of 32 or of 8 channels; options beside these two are as the configuration
/// of the weight says.
///
/// ```
/// use palettizer_pipeline::budget::Choices;
///
/// assert_eq!(Choices::default().options().len(), 18);
/// let choices: Choices = "nbits=4/6,group_size=none/16,lut_dtype=float/int8".parse()?;
/// assert_eq!(choices.options().len(), 8);
/// # Ok::<(), palettizer_pipeline::budget::ChoicesError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Choices {
    axes: Vec<(&'static str, Vec<String>)>,
}

/// What is wrong with choices.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
#[non_exhaustive]
pub struct ChoicesError {
    /// What was found, and what was expected.
    pub what: String,
}

impl From<SpecError> for ChoicesError {
    fn from(error: SpecError) -> Self {
        let what = format!(
            "choices: {} is {}; expected {}",
            error.field, error.found, error.allowed
        );
        ChoicesError { what }
    }
}

impl Choices {
    /// Tries these values of an option, and no others.
    ///
    /// # Errors
    /// [`ChoicesError`] for an option that a form has not, one that is there twice, and values that it cannot have.
    pub fn with<T: AsRef<str>>(mut self, key: &str, values: &[T]) -> Result<Self, ChoicesError> {
        let field = field(key)?;
        if self.axes.iter().any(|(known, _)| *known == field.name) {
            let what = format!("choices: {} is there twice", field.name);
            return Err(ChoicesError { what });
        }
        if values.is_empty() {
            return Err(field.error("an empty list").into());
        }
        let mut axis: Vec<String> = Vec::new();
        for value in values {
            let value = value.as_ref().trim();
            set(&mut SpecOptions::default(), field, value)?;
            if !axis.iter().any(|known| known == value) {
                axis.push(value.to_owned());
            }
        }
        self.axes.push((field.name, axis));
        Ok(self)
    }

    /// Whether nobody said anything.
    pub fn are_usual(&self) -> bool {
        self.axes.is_empty()
    }

    /// What each form says, beside what the configuration of a weight does.
    pub fn options(&self) -> Vec<SpecOptions> {
        let one = |choices: &Choices| {
            let mut options = SpecOptions::default();
            for (key, values) in &choices.axes {
                // they were set once already
                let set = field(key).map(|field| set(&mut options, field, &values[0]));
                debug_assert!(matches!(set, Ok(Ok(()))), "{key}");
            }
            options
        };
        self.each().iter().map(one).collect()
    }

    /// Each form as the only choice.
    pub fn each(&self) -> Vec<Choices> {
        let usual = USUAL.iter().map(|(key, values)| {
            let values = values.iter().map(|&value| value.to_owned());
            (*key, values.collect::<Vec<_>>())
        });
        let unnamed = usual.filter(|(key, _)| !self.axes.iter().any(|(known, _)| known == key));
        let axes: Vec<(&'static str, Vec<String>)> =
            unnamed.chain(self.axes.iter().cloned()).collect();
        axes.iter()
            .fold(vec![Choices::default()], |all, (key, values)| {
                let with = |choices: &Choices| {
                    let mut each = Vec::new();
                    for value in values {
                        let mut choices = choices.clone();
                        choices.axes.push((key, vec![value.clone()]));
                        each.push(choices);
                    }
                    each
                };
                all.iter().flat_map(with).collect()
            })
    }
}

/// The option of a key, with dashes or without.
fn field(key: &str) -> Result<&'static OptionField, ChoicesError> {
    let name = key.trim().replace('-', "_");
    let mut fields = SpecOptions::FIELDS.iter();
    let found = fields.find(|field| field.name == name || field.name == format!("enable_{name}"));
    // a list of functions or of granularities says less than sizes of groups do
    found
        .filter(|field| field.name != "granularity")
        .ok_or_else(|| {
            let known = SpecOptions::FIELDS.iter().map(|field| field.name);
            let known: Vec<&str> = known.filter(|name| *name != "granularity").collect();
            ChoicesError {
                what: format!(
                    "choices: unknown key {name}; expected one of {}",
                    known.join(", ")
                ),
            }
        })
}

fn set(options: &mut SpecOptions, field: &OptionField, value: &str) -> Result<(), SpecError> {
    if field.name == "group_size" && value == NONE {
        options.granularity = Some(palettizer_palette::GranularityName::PerTensor);
        return Ok(());
    }
    options.set(field, value).map_err(|error| match field.name {
        "group_size" => SpecError::new(
            error.field,
            error.found,
            error.allowed + ", or none for one table",
        ),
        _ => error,
    })
}

impl FromStr for Choices {
    type Err = ChoicesError;

    fn from_str(text: &str) -> Result<Self, ChoicesError> {
        text.split(',').try_fold(Choices::default(), |choices, axis| {
            let (key, values) = axis.split_once('=').ok_or_else(|| ChoicesError {
                what: format!(
                    "choices: \"{axis}\" is none: expected KEY=VALUE/VALUE…, such as nbits=2/3/4,group_size=none/16"
                ),
            })?;
            let values: Vec<&str> = values.split('/').collect();
            choices.with(key, &values)
        })
    }
}

impl fmt::Display for Choices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let axes = self
            .axes
            .iter()
            .map(|(key, values)| format!("{key}={}", values.join("/")));
        f.write_str(&axes.collect::<Vec<_>>().join(","))
    }
}

/// What a form is called: what it differs in from one float table for the whole weight.
///
/// ```
/// use palettizer_pipeline::budget::Curve;
/// use palettizer_palette::{Mode, Nbits, PaletteSpec};
///
/// let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B4)).with_per_channel_scale(true);
/// assert_eq!(Curve::form(&spec), "mode=kmeans,nbits=4,enable_per_channel_scale=true");
/// ```
pub(super) fn form(spec: &PaletteSpec) -> String {
    let plain = PaletteSpec::new(spec.mode().clone()).fields();
    let own = spec.fields().into_iter().zip(plain);
    let own = own.filter(|((key, value), (_, plain))| {
        ["mode", "nbits"].contains(key) || (value != plain && *key != "granularity")
    });
    let own = own.map(|((key, value), _)| format!("{key}={value}"));
    own.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use palettizer_palette::{Mode, Nbits};
    use std::collections::HashSet;

    #[test]
    fn every_form_has_a_name_of_its_own() {
        let text = "nbits=1/2/3/4/6/8,group_size=none/0/1/32,cluster_dim=1/2,lut_dtype=float/int8/uint8,\
                    per-channel-scale=true/false";
        let choices: Choices = text.parse().unwrap();
        let base = SpecOptions::from(&PaletteSpec::new(Mode::Kmeans(Nbits::B4)));
        let options = choices.options();
        let specs = options
            .iter()
            .map(|one| one.clone().over(&base).build().unwrap());
        let specs: Vec<PaletteSpec> = specs.collect();
        let forms: HashSet<String> = specs.iter().map(form).collect();
        assert_eq!((specs.len(), forms.len()), (288, 288));
        assert_eq!(choices.to_string().parse(), Ok(choices));
    }

    #[test]
    fn what_is_no_choice_is_refused_by_its_name() {
        let cases = [
            ("", "choices: \"\" is none"),
            ("4", "choices: \"4\" is none"),
            (
                "nbits=5",
                "choices: nbits is 5; expected 1, 2, 3, 4, 6 or 8",
            ),
            ("nbits=", "choices: nbits is ; expected"),
            ("nbits=4,nbits=3", "choices: nbits is there twice"),
            ("bits=4", "choices: unknown key bits; expected one of"),
            ("granularity=per_tensor", "choices: unknown key granularity"),
            (
                "group_size=x",
                "choices: group_size is x; expected a whole number, 0 or more, or none",
            ),
            (
                "weight_threshold=4",
                "choices: unknown key weight_threshold",
            ),
        ];
        for (text, start) in cases {
            let error = text.parse::<Choices>().unwrap_err().to_string();
            assert!(error.starts_with(start), "{text}: {error}");
        }
        assert_eq!("nbits=4/4".parse::<Choices>().unwrap().options().len(), 3);
    }
}
