//! Which entry of a configuration a name falls under: the entry of that very name, or the first pattern that fits it.
//!
//! A pattern is a regular expression that matches the whole name, as in configurations of PyTorch modules. A key that is a
//! name in the model is that name and no pattern, whatever characters it is made of: dots and brackets are common in names.
//! Nor is a key a pattern whose only special characters are dots.

use crate::Error;
use crate::config::{Entries, OpPalettizerConfig};
use regex::{Regex, RegexBuilder};
use std::collections::{HashMap, HashSet};

/// Bytes that a compiled pattern may take: repetitions of repetitions grow without bounds.
const MAX_PATTERN_BYTES: usize = 1 << 20;

/// The characters that only a pattern has a use for.
const SPECIAL: &[char] = &[
    '\\', '*', '+', '?', '(', ')', '[', ']', '{', '}', '|', '^', '$',
];

/// What an entry says: settings, or that what it names is skipped.
pub type Entry<'c> = Option<&'c OpPalettizerConfig>;

/// The entries of a configuration, as they apply to the names of one model.
#[derive(Debug)]
pub struct Names<'c> {
    exact: HashMap<&'c str, Entry<'c>>,
    patterns: Vec<(Regex, Entry<'c>)>,
    unmatched: Vec<&'c str>,
}

impl<'c> Names<'c> {
    /// Sorts keys into names and patterns; `known` are all names that there are in the model.
    ///
    /// # Errors
    /// [`Error::Pattern`] for a key that is no name in the model, and with its special characters no pattern either.
    pub fn new(entries: &'c Entries, known: &HashSet<&str>) -> Result<Self, Error> {
        let mut names = Names {
            exact: HashMap::new(),
            patterns: Vec::new(),
            unmatched: Vec::new(),
        };
        for (key, entry) in entries.iter() {
            if known.contains(key) {
                names.exact.insert(key, entry);
            } else if key.contains(SPECIAL) {
                let pattern = pattern(key)?;
                if !known.iter().any(|name| pattern.is_match(name)) {
                    names.unmatched.push(key);
                }
                names.patterns.push((pattern, entry));
            } else {
                names.unmatched.push(key);
            }
        }
        Ok(names)
    }

    /// The entry of this very name.
    pub fn exact(&self, name: &str) -> Option<Entry<'c>> {
        self.exact.get(name).copied()
    }

    /// That of the first pattern, in the order of the configuration, that fits one of the names.
    pub fn pattern(&self, names: &[&str]) -> Option<Entry<'c>> {
        let fits = |pattern: &Regex| names.iter().any(|name| pattern.is_match(name));
        let mut patterns = self.patterns.iter();
        patterns.find_map(|(pattern, entry)| fits(pattern).then_some(*entry))
    }

    /// The entry that decides about a name: its own, or else that of the first pattern that fits.
    pub fn entry(&self, name: &str) -> Option<Entry<'c>> {
        self.exact(name).or_else(|| self.pattern(&[name]))
    }

    /// The keys that fit nothing in the model, in the order of the configuration.
    pub fn unmatched(&self) -> impl Iterator<Item = &'c str> {
        self.unmatched.iter().copied()
    }
}

/// The pattern that matches a whole name.
pub(crate) fn pattern(text: &str) -> Result<Regex, Error> {
    let build = |text: &str| {
        let mut builder = RegexBuilder::new(text);
        builder.size_limit(MAX_PATTERN_BYTES).build()
    };
    // By itself first: "a)|(b" is one only between the parentheses of ours.
    build(text)
        .and_then(|_| build(&format!(r"\A(?:{text})\z")))
        .map_err(|error| Error::Pattern {
            key: text.to_owned(),
            what: reason(&error),
        })
}

/// The last line of what the parser says; those before draw the place.
fn reason(error: &regex::Error) -> String {
    if let regex::Error::CompiledTooBig(_) = error {
        return "it repeats too much".to_owned();
    }
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use palettizer_palette::{Mode, Nbits, PaletteSpec};

    /// Entries that skip, but for their place: the threshold counts it.
    fn entries(keys: &[&str]) -> Entries {
        let mut entries = Entries::default();
        for (place, key) in keys.iter().enumerate() {
            let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B4));
            let config = OpPalettizerConfig::new(spec).with_weight_threshold(place);
            entries.set((*key).to_owned(), Some(config));
        }
        entries
    }

    /// The place of the entry that decides about a name, and what fits nothing.
    fn decided(keys: &[&str], known: &[&str], name: &str) -> (Option<usize>, Vec<String>) {
        let entries = entries(keys);
        let names = Names::new(&entries, &known.iter().copied().collect()).unwrap();
        let place = names.entry(name).flatten();
        (
            place.map(OpPalettizerConfig::weight_threshold),
            names.unmatched().map(str::to_owned).collect(),
        )
    }

    #[test]
    fn the_name_itself_then_the_first_pattern() {
        let known = ["a.b.c", "a.x.c", "axbxc", "w[0]", "w0", "v(1", "*.odd"];
        // keys, a name, the place of the key that decides about it, and the keys that fit nothing
        type Case<'a> = (&'a [&'a str], &'a str, Option<usize>, &'a [&'a str]);
        let table: [Case<'_>; 14] = [
            (&[".*", "a.b.c"], "a.b.c", Some(1), &[]),
            (&[r"a\..*", ".*c"], "a.x.c", Some(0), &[]),
            (&[".*c", r"a\..*"], "a.x.c", Some(0), &[]),
            // the whole name
            (&["b.*"], "a.b.c", None, &["b.*"]),
            (&["a|a.*"], "a.b.c", Some(0), &[]),
            // a name is no pattern, whatever it is made of
            (&["a.b.c"], "axbxc", None, &[]),
            (&["w[0]"], "w[0]", Some(0), &[]),
            (&["w[0]"], "w0", None, &[]),
            (&["v(1"], "v(1", Some(0), &[]),
            (&["*.odd"], "*.odd", Some(0), &[]),
            // dots alone make no pattern
            (&["a.x.x"], "axbxc", None, &["a.x.x"]),
            (&["w[0-9]"], "w0", Some(0), &[]),
            (&[r"w\[\d\]"], "w[0]", Some(0), &[]),
            (&["none", "n.*", ".*"], "w0", Some(2), &["none", "n.*"]),
        ];
        for (keys, name, place, unmatched) in table {
            let (found, fits_nothing) = decided(keys, &known, name);
            assert_eq!(found, place, "{keys:?} {name}");
            assert_eq!(fits_nothing, unmatched, "{keys:?} {name}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for (key, part) in [
            ("*.weight", "repetition operator missing expression"),
            ("a)|(b", "unopened group"),
            ("w[0", "unclosed character class"),
            ("(?x)a #", "unclosed group"),
            (r"(\w{100}){100}", "it repeats too much"),
        ] {
            let entries = entries(&[key]);
            let error = Names::new(&entries, &HashSet::new()).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(part) && text.contains(key), "{text}");
            assert_eq!(text.lines().count(), 1, "{text}");
        }
    }
}
