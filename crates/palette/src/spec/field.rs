//! What an option is: its key, what it may be, what it means. Parsers, help and errors are made from it.

use std::str::FromStr;

use super::alternatives;
use crate::{Choice, Nbits, SpecError};

/// An option that users may set: what is said of it in one place.
///
/// ```
/// use palettizer_palette::SpecOptions;
///
/// let field = SpecOptions::FIELDS.iter().find(|field| field.name == "cluster_dim").unwrap();
/// assert_eq!(field.kind.expected(), "a whole number, 1 or more");
/// assert_eq!(field.default, Some("1"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OptionField {
    /// Its key, as files and bindings write it.
    pub name: &'static str,
    /// What it may be.
    pub kind: OptionKind,
    /// What it is when nobody says anything.
    pub default: Option<&'static str>,
    /// What it means, in a line, with the keys of other options in backticks.
    pub about: &'static str,
}

/// What an option may be.
///
/// ```
/// use palettizer_palette::{LutDtype, OptionKind};
///
/// assert_eq!(OptionKind::Names(LutDtype::CHOICES).expected(), "float, int8 or uint8");
/// assert_eq!(OptionKind::Bits.expected(), "1, 2, 3, 4, 6 or 8");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionKind {
    /// One of these names.
    Names(&'static [Choice]),
    /// One of [`Nbits::ALL`].
    Bits,
    /// A whole number, this or more.
    Whole(usize),
    /// A whole number that may be negative.
    Integer,
    /// Whether or not.
    Flag,
}

impl OptionKind {
    /// The names or numbers to choose from; none where there is no list of them.
    pub fn choices(self) -> Vec<String> {
        match self {
            OptionKind::Names(choices) => choices.iter().map(|one| one.name.to_owned()).collect(),
            OptionKind::Bits => Nbits::ALL.iter().map(Nbits::to_string).collect(),
            OptionKind::Flag => vec!["true".to_owned(), "false".to_owned()],
            OptionKind::Whole(_) | OptionKind::Integer => Vec::new(),
        }
    }

    /// What is expected, for a message.
    pub fn expected(self) -> String {
        match self {
            OptionKind::Whole(least) => format!("a whole number, {least} or more"),
            OptionKind::Integer => "a whole number".to_owned(),
            OptionKind::Names(_) | OptionKind::Bits | OptionKind::Flag => {
                alternatives(self.choices())
            }
        }
    }
}

impl OptionField {
    /// An option that is the same as nothing where it is absent.
    pub const fn new(name: &'static str, kind: OptionKind, about: &'static str) -> Self {
        OptionField {
            name,
            kind,
            default: None,
            about,
        }
    }

    /// With what it is when nobody says anything.
    #[must_use]
    pub const fn with_default(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self
    }

    /// Reads a value.
    ///
    /// # Errors
    /// [`SpecError`] with the key, the text and what is expected.
    pub fn read<T: FromStr>(&self, text: &str) -> Result<T, SpecError> {
        let fits = match self.kind {
            OptionKind::Whole(least) => text.parse().is_ok_and(|number: usize| number >= least),
            _ => true,
        };
        let value = text.parse().ok().filter(|_| fits);
        value.ok_or_else(|| self.error(text))
    }

    /// What is wrong with a value that is no such thing.
    pub fn error(&self, found: impl ToString) -> SpecError {
        SpecError::new(self.name, found, self.kind.expected())
    }
}
