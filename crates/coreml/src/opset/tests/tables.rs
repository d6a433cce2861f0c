//! `definitions.tsv` and the table of redefinitions.

use super::*;
use std::collections::{BTreeMap, BTreeSet};

/// Ops whose definition stays but which have a newer one beside them.
const SUPERSEDED: [&str; 1] = ["constexpr_affine_dequantize"];

#[test]
fn every_line_of_the_table_is_read() {
    let parsed: usize = DEFINITIONS.values().map(Vec::len).sum();
    assert_eq!(
        parsed,
        TABLE.lines().count() - 2 + 1,
        "a remark, a heading, and FILE_ONLY"
    );
    assert!(definitions("gather").unwrap()[0].takes("axis"));
    assert!(!definitions("gather").unwrap()[0].takes("batch_dims"));
    for all in DEFINITIONS.values() {
        assert!(all.is_sorted_by(|a, b| a.since < b.since));
    }
}

/// Every op with each of its redefinitions.
fn judged_ops() -> impl Iterator<Item = (&'static str, &'static Redefinition)> {
    let lines = REDEFINITIONS.iter();
    lines.flat_map(|line| line.ops.iter().map(move |op| (*op, line)))
}

#[test]
fn every_redefinition_has_one_verdict() {
    let redefined: BTreeSet<_> = DEFINITIONS
        .iter()
        .flat_map(|(op, all)| all.iter().skip(1).map(|definition| (*op, definition.since)))
        .collect();
    let mut judged = BTreeSet::new();
    for (op, line) in judged_ops() {
        assert!(judged.insert((op, line.opset)), "{op} twice");
        assert!(!line.reason.is_empty() && line.place.ends_with(".py"));
    }
    for op in SUPERSEDED {
        assert!(judged.remove(&(op, Target::IOS18)));
    }
    assert_eq!(judged, redefined);
}

#[test]
fn what_keeps_its_meaning_takes_what_it_took() {
    for (op, line) in judged_ops() {
        let all = definitions(op).unwrap();
        let Some(at) = all
            .iter()
            .position(|definition| definition.since == line.opset)
        else {
            assert!(SUPERSEDED.contains(&op));
            continue;
        };
        let lost = lost(&all[at - 1], &all[at]);
        match line.verdict {
            Verdict::Keeps => assert_eq!(lost, [""; 0], "{op} in {}", line.opset),
            Verdict::InTheWay => assert!(!lost.is_empty(), "{op} in {}", line.opset),
            Verdict::Rule(..) => {}
        }
    }
}

#[test]
fn code_that_changed_was_looked_at() {
    // Where a "keeps" comes with other code, the reason has to say more than that types were added.
    for (op, line) in judged_ops() {
        let all = definitions(op).unwrap();
        let definition = all.iter().find(|definition| definition.since == line.opset);
        if let (Verdict::Keeps, Some(definition)) = (line.verdict, definition) {
            let plain = line.reason.starts_with("more element types")
                || line.reason.starts_with("parameters may");
            assert!(
                definition.methods == "-" || !plain,
                "{op}: {}",
                definition.methods
            );
        }
    }
}

#[test]
fn ops_that_rules_insert_are_in_the_newer_opsets_as_written() {
    for op in [
        "const",
        "greater_equal",
        "add",
        "select",
        "shape",
        "slice_by_index",
        "cast",
    ] {
        let all = definitions(op).unwrap();
        assert!(
            all.iter()
                .all(|definition| definition.since <= Target::IOS17),
            "{op}"
        );
    }
}

/// What an old use may have that the new definition does not take.
fn lost(old: &Definition, new: &Definition) -> Vec<String> {
    let (old, new) = (inputs(old), inputs(new));
    let mut lost = Vec::new();
    for (name, before) in &old {
        let Some(after) = new.get(name) else {
            lost.push(format!("{name} is gone"));
            continue;
        };
        let narrower = before
            .dtypes
            .iter()
            .any(|dtype| !after.dtypes.contains(dtype));
        let stricter = (after.constant && !before.constant) || (before.optional && !after.optional);
        let tied = new.iter().any(|(other, one)| {
            let was = old.get(other).is_none_or(|was| was.letter == before.letter);
            one.letter == after.letter && !one.letter.is_empty() && !was
        });
        if narrower || stricter || tied || before.default != after.default {
            lost.push(format!("{name} takes less"));
        }
    }
    let needed = new
        .iter()
        .filter(|(name, input)| !old.contains_key(*name) && !input.optional);
    lost.extend(needed.map(|(name, _)| format!("{name} is needed")));
    lost
}

struct Input {
    optional: bool,
    constant: bool,
    letter: &'static str,
    dtypes: BTreeSet<&'static str>,
    default: &'static str,
}

fn inputs(definition: &Definition) -> BTreeMap<&'static str, Input> {
    let parse = |text: &'static str| {
        let name = input_name(text);
        let (flags, rest) = text[name.len()..].split_once(':').unwrap();
        let (domain, default) = rest.split_once('=').unwrap_or((rest, ""));
        let (letter, dtypes) = domain.split_once('(').unwrap_or(("", domain));
        let input = Input {
            optional: flags.contains('?'),
            constant: flags.contains('!'),
            letter,
            dtypes: dtypes.trim_end_matches(')').split(',').collect(),
            default,
        };
        (name, input)
    };
    definition.inputs.iter().map(|text| parse(text)).collect()
}
