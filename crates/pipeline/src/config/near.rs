//! Names that were probably meant.

/// An entry of a configuration that fits nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unmatched {
    /// Its name, or op type, as written.
    pub name: String,
    /// The names there are that are nearest to it: at most three, the nearest first.
    pub near: Vec<String>,
}

impl Unmatched {
    /// `name`, with what is near it among `known`.
    pub fn among<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Self {
        Self {
            name: name.to_owned(),
            near: near(name, known).into_iter().map(str::to_owned).collect(),
        }
    }
}

/// Names of more bytes are not compared: that takes time with the square of the length.
const LONGEST: usize = 256;

/// How many names are given.
const MOST: usize = 3;

/// Those of `known` that differ from `name` by few edits, or contain it; the nearest first, and at most three. Case
/// and the separators `-`, `.` and `/` do not count.
///
/// ```
/// use palettizer_pipeline::config::near;
///
/// assert_eq!(near("fc1_wight", ["fc1_weight", "fc2_weight", "x"]), ["fc1_weight", "fc2_weight"]);
/// assert!(near("decoder", ["fc1_weight", "fc2_weight"]).is_empty());
/// ```
pub fn near<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Vec<&'k str> {
    let wanted = plain(name);
    let most_edits = (wanted.chars().count() / 3).max(1);
    if name.len() > LONGEST {
        return Vec::new();
    }
    let mut found = Vec::new();
    for candidate in known {
        let other = plain(candidate);
        if candidate == name || other.len() > LONGEST {
            continue;
        }
        let contained = wanted.len() > 2 && other.contains(&wanted);
        let apart = other.len().abs_diff(wanted.len());
        if !contained && apart > 4 * most_edits {
            continue;
        }
        let distance = edits(&wanted, &other);
        if contained || distance <= most_edits {
            found.push((distance, candidate));
        }
    }
    found.sort_unstable();
    found.dedup();
    found.truncate(MOST);
    found.into_iter().map(|(_, candidate)| candidate).collect()
}

fn plain(name: &str) -> String {
    name.to_ascii_lowercase().replace(['-', '.', '/'], "_")
}

/// Levenshtein's distance, one row at a time.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (to, above) in b.iter().zip(row.iter_mut().skip(1)) {
            let cost = (diagonal + usize::from(from != *to))
                .min(left + 1)
                .min(*above + 1);
            diagonal = *above;
            *above = cost;
            left = cost;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_levenshteins() {
        let table = [
            ("", "", 0),
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("flaw", "lawn", 2),
            ("grün", "grun", 1),
        ];
        for (a, b, distance) in table {
            assert_eq!(edits(a, b), distance, "{a} {b}");
            assert_eq!(edits(b, a), distance, "{b} {a}");
        }
    }

    #[test]
    fn near_names_come_first_and_are_few() {
        let known = ["conv_1", "conv_2", "conv_3", "conv_11", "linear_1", "conv"];
        assert_eq!(near("conv1", known), ["conv", "conv_1"]);
        assert_eq!(near("linear", known), ["linear_1"]);
        assert_eq!(near("Conv.2", known)[0], "conv_2");
        assert!(near("conv", ["conv"]).is_empty(), "itself is no suggestion");
        assert!(near("x", known).is_empty());
        assert!(near(&"x".repeat(100_000), known).is_empty());
        assert!(near("", known).is_empty());
    }
}
