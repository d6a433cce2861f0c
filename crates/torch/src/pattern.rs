//! Names with wildcards.

/// Whether `name` fits `pattern`, in which each `*` stands for any characters, or none.
pub(crate) fn fits(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        // No wildcard at all.
        return rest.is_empty();
    };
    // The first place is the best for each part: it leaves most to the next.
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Of the keys that fit a name, the one that decides: the name itself, or else the longest pattern, and the first in
/// alphabetical order of patterns that are as long.
pub(crate) fn best<'k>(keys: impl Iterator<Item = &'k String>, name: &str) -> Option<&'k String> {
    let mut best: Option<&'k String> = None;
    for key in keys {
        if key == name {
            return Some(key);
        }
        if fits(key, name) && best.is_none_or(|best| key.len() > best.len()) {
            best = Some(key);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_for_anything() {
        let table = [
            ("a.weight", "a.weight", true),
            ("a.weight", "a.weights", false),
            ("a.weight", "b.a.weight", false),
            ("*", "", true),
            ("*", "x", true),
            ("", "", true),
            ("", "x", false),
            ("a*", "a", true),
            ("*a", "ba", true),
            ("*a", "ab", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("*.mlp.*.weight", "layers.0.mlp.up.weight", true),
            ("*.mlp.*.weight", "layers.0.mlp.weight", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*bc", "abcbc", true),
            ("a**b", "ab", true),
            ("é*ü", "éxü", true),
        ];
        for (pattern, name, expected) in table {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn the_name_then_the_longest_pattern_decides() {
        let keys = ["*", "a.*", "a.*.c", "a.b.*", "a.b.c"].map(str::to_owned);
        let table = [
            ("a.b.c", Some("a.b.c")),
            ("a.x.c", Some("a.*.c")),
            ("a.b.x.c", Some("a.*.c")),
            ("a.b.x", Some("a.b.*")),
            ("x", Some("*")),
        ];
        for (name, expected) in table {
            let found = best(keys.iter(), name).map(String::as_str);
            assert_eq!(found, expected, "{name}");
        }
        assert_eq!(best(keys[1..].iter(), "x"), None);
    }
}
