//! Reports of models with many blocks, as they look at several widths; the files in `tests/golden` hold what is expected.

use super::*;
use crate::width::columns;
use palettizer::{Fate, Mode, Nbits, OpPalettizerConfig, OptimizationConfig, PaletteSpec};

/// What a language model of 24 blocks would be reported as: its rows are of the built-in model, with other names.
fn report(separator: char, target: Option<&str>) -> Report {
    let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B4));
    let config = OptimizationConfig::new().with_global(OpPalettizerConfig::new(spec));
    let (_, mut report) = crate::demo_model()
        .unwrap()
        .palettize(&config, &())
        .unwrap();
    let done = report.weights[0].clone();
    report.weights.clear();
    let mut add = |name: &str, skipped: Option<&str>| {
        let mut weight = done.clone();
        weight.name = name.replace('.', &separator.to_string());
        if let Some(reason) = skipped {
            let (reason, refused) = (reason.to_owned(), false);
            weight.fate = Fate::Skipped { reason, refused };
        }
        report.weights.push(weight);
    };
    add(
        "model.embed_tokens.weight",
        Some("the configuration skips it"),
    );
    for block in 0..24 {
        for part in [
            "self_attn.q_proj",
            "self_attn.k_proj",
            "self_attn.v_proj",
            "mlp.gate_proj",
            "mlp.down_proj",
        ] {
            add(&format!("model.layers.{block}.{part}.weight"), None);
        }
        add(
            &format!("model.layers.{block}.input_layernorm.weight"),
            Some("one-dimensional"),
        );
    }
    add("model.重み.weight", None);
    report.target = target.map(str::to_owned);
    report.seconds = 1.5;
    report
}

fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

#[test]
fn a_report_fits_the_terminal() {
    for (separator, target) in [('_', Some("iOS18")), ('.', None)] {
        let report = report(separator, target);
        for width in [60, 80, 100, 160] {
            let text = plain(&text(&report, Some(width)));
            for line in text.lines() {
                assert!(columns(line) <= width, "{width}: {line}");
            }
            let rows = text.lines().skip(1).take_while(|line| !line.is_empty());
            let names: Vec<&str> = rows.filter_map(|line| line.split("  ").next()).collect();
            let distinct: std::collections::HashSet<&&str> = names.iter().collect();
            assert_eq!((names.len(), distinct.len()), (121, 121), "{width}");
        }
    }
}

/// Fails unless a rendering is as its file has it; shows what to put there.
fn is_golden(text: &str, expected: &str) {
    assert!(
        text == expected,
        "expected:\n{expected}\nfound:\n{text}\nend"
    );
}

#[test]
fn narrow_and_wide() {
    let mut report = report('_', Some("iOS18"));
    report.weights.truncate(20);
    let render = |width| plain(&text(&report, width));
    is_golden(
        &render(Some(60)),
        include_str!("../../tests/golden/report-60.txt"),
    );
    is_golden(
        &render(Some(80)),
        include_str!("../../tests/golden/report-80.txt"),
    );
    is_golden(
        &render(Some(100)),
        include_str!("../../tests/golden/report-100.txt"),
    );
    is_golden(
        &render(Some(160)),
        include_str!("../../tests/golden/report-160.txt"),
    );
    is_golden(
        &render(None),
        include_str!("../../tests/golden/report-file.txt"),
    );
}

#[test]
fn a_long_list_of_names_ends_with_how_many_are_missing() {
    let names: Vec<String> = (0..100).map(|at| format!("layers_{at}_norm")).collect();
    let text = list(&names, Some(60));
    assert_eq!(
        text,
        "    layers_0_norm, layers_1_norm, layers_2_norm,\n    \
             layers_3_norm, layers_4_norm, layers_5_norm,\n    \
             layers_6_norm, layers_7_norm, layers_8_norm, and 91 more\n"
    );
    let all = list(&names, None);
    assert_eq!(all.lines().count(), 100);
    let text = list(&names[..4], Some(60));
    assert_eq!(
        text,
        "    layers_0_norm, layers_1_norm, layers_2_norm,\n    layers_3_norm\n"
    );
}
