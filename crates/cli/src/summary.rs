//! A report as a table, the reasons why weights were skipped, and its totals.

use std::collections::HashMap;

use palettizer::budget::{BudgetReport, Measure};
use palettizer::{Figures, Report, WeightReport, visible};

use crate::elide;
use crate::figures;
use crate::output::FAINT;
use crate::table::{Column, Table};
use crate::width::{columns, paragraph, wrap};

/// What the report says of a weight that was fitted to the inputs of its layer.
const FITTED: &str = "layerwise";

/// The lines that the weights of one reason take on a terminal; a file lists them all.
const MOST_LINES: usize = 3;

/// The table: a line for each weight that was palettized. A checkpoint has no ops that use them.
fn table(report: &Report) -> Table {
    let ops = report.target.is_some();
    let mut columns = vec![Column::name("weight")];
    if ops {
        columns.push(Column::text("consumer").leaves(3));
    }
    columns.extend([
        Column::number("shape").leaves(4),
        Column::number("dtype").leaves(1),
        Column::number("bits"),
        Column::number("LUTs").leaves(2),
        Column::number("before").leaves(5),
        Column::number("after"),
        Column::number("SNR dB"),
    ]);
    let figures = || report.weights.iter().filter_map(WeightReport::figures);
    let fitted = figures().any(|figures| figures.fit == Some(FITTED));
    if fitted {
        columns.push(Column::number("output dB"));
    }
    let mut table = Table::new(columns);
    for weight in &report.weights {
        if let Some(figures) = weight.figures() {
            let mut cells = row(weight, figures, ops);
            if fitted {
                cells.push(outputs(figures));
            }
            table.row(cells);
        }
    }
    table
}

fn row(weight: &WeightReport, palette: &Figures, ops: bool) -> Vec<String> {
    let mut cells = vec![name(weight)];
    if ops {
        cells.push(consumer(weight));
    }
    cells.extend([
        figures::shape(&weight.shape),
        weight.dtype.to_owned(),
        bits(palette),
        figures::grouped(palette.luts as u64),
        figures::grouped(weight.bytes_before),
        figures::grouped(palette.bytes_after),
        figures::decibels(palette.snr_db, Some(palette.mse)),
    ]);
    cells
}

/// How far the outputs of a layer are from their errors, if it was fitted to them.
fn outputs(palette: &Figures) -> String {
    match palette.fit == Some(FITTED) {
        true => figures::decibels(palette.output_snr_db, None),
        false => "-".to_owned(),
    }
}

/// The constant's name, and how many others share its data.
fn name(weight: &WeightReport) -> String {
    match weight.shared_with.len() {
        0 => weight.name.clone(),
        others => format!("{} (+{others})", weight.name),
    }
}

/// The types of the ops, and how many ops there are if more than types.
fn consumer(weight: &WeightReport) -> String {
    let types = weight.op_types.join(", ");
    match weight.op_names.len() {
        0 => "-".to_owned(),
        ops if ops > weight.op_types.len() => format!("{types} ×{ops}"),
        _ => types,
    }
}

/// Bits of an index, and of how many weights if it stands for several.
fn bits(palette: &Figures) -> String {
    match palette.cluster_dim {
        1 => palette.nbits.to_string(),
        dim => format!("{}/{dim}", palette.nbits),
    }
}

/// Why weights were skipped, or what was done to them instead: each reason once, with its weights. A file lists all of them, each on
/// a line.
fn reasons<'r>(
    report: &'r Report,
    what: &str,
    reason: impl Fn(&'r WeightReport) -> Option<&'r str>,
    width: Option<usize>,
) -> String {
    let mut reasons: Vec<(&str, Vec<String>)> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for weight in &report.weights {
        let Some(reason) = reason(weight) else {
            continue;
        };
        let place = *places.entry(reason).or_insert_with(|| {
            reasons.push((reason, Vec::new()));
            reasons.len() - 1
        });
        reasons[place].1.push(visible(&name(weight)).into_owned());
    }
    let mut text = String::new();
    for (reason, names) in reasons {
        let count = figures::grouped(names.len() as u64);
        let title = format!("{count} {what}: {}", visible(reason));
        let title = wrap(&title, width, "  ");
        text.push_str(&format!("{FAINT}{title}\n{}{FAINT:#}", list(&names, width)));
    }
    text
}

/// Names in a few indented lines, or without a width each on its own.
fn list(names: &[String], width: Option<usize>) -> String {
    const INDENT: &str = "    ";
    let Some(width) = width else {
        let lines = names.iter().map(|name| format!("{INDENT}{name}\n"));
        return lines.collect();
    };
    let room = width.saturating_sub(INDENT.len() + 1);
    let short = elide::shortened(names, room);
    let mut lines: Vec<Vec<&str>> = vec![Vec::new()];
    for name in &short {
        let last = lines
            .last_mut()
            .filter(|line| line.is_empty() || taken(line) + columns(name) <= room);
        match last {
            Some(line) => line.push(name),
            None => lines.push(vec![name]),
        }
    }
    let mut more = String::new();
    if lines.len() > MOST_LINES {
        lines.truncate(MOST_LINES);
        let mut missing = names.len() - lines.iter().map(Vec::len).sum::<usize>();
        while let Some(line) = lines.last_mut() {
            more = format!("and {} more", figures::grouped(missing as u64));
            if taken(line) + columns(&more) <= room + 1 || line.pop().is_none() {
                break;
            }
            missing += 1;
        }
    }
    let mut words = lines.iter().map(|line| line.join(", ")).collect::<Vec<_>>();
    if let Some(line) = words.last_mut().filter(|_| !more.is_empty()) {
        let comma = if line.is_empty() { "" } else { ", " };
        line.push_str(&format!("{comma}{more}"));
    }
    words
        .iter()
        .map(|line| format!("{INDENT}{line}"))
        .collect::<Vec<_>>()
        .join(",\n")
        + "\n"
}

/// The columns of names with a comma and a space after each.
fn taken(names: &[&str]) -> usize {
    names.iter().map(|name| columns(name) + 2).sum()
}

/// All that is said of a report: the table, the reasons, the totals, with blank lines between.
pub(crate) fn text(report: &Report, width: Option<usize>) -> String {
    let table = table(report);
    let table = match table.is_empty() {
        true => String::new(),
        false => table.render(width),
    };
    let parts = [
        table,
        reasons(report, "not fitted to inputs", fallback, width),
        reasons(report, "skipped", WeightReport::reason, width),
        totals(report, width),
    ];
    let parts = parts.into_iter().filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("\n")
}

/// Why a weight was not fitted to the inputs of its layer.
fn fallback(weight: &WeightReport) -> Option<&str> {
    weight.figures()?.fallback.as_deref()
}

/// What it all came to.
fn totals(report: &Report, width: Option<usize>) -> String {
    let done = (report.weights.iter())
        .filter(|weight| weight.figures().is_some())
        .count();
    let target = report.target.as_ref();
    let target = target.map(|target| format!("; the program's target is {target}"));
    let bytes = format!(
        "{} → {} bytes",
        figures::grouped(report.bytes_before),
        figures::grouped(report.bytes_after),
    );
    let rest = format!(
        " ({} → {}, {} smaller), {:.2} bits per weight, {}",
        figures::bytes(report.bytes_before),
        figures::bytes(report.bytes_after),
        figures::ratio(report.bytes_before, report.bytes_after),
        report.bits_per_weight,
        figures::seconds(report.seconds),
    );
    let counts = format!(
        "{} palettized, {} skipped{}",
        figures::count(done, "weight"),
        report.weights.len() - done,
        target.unwrap_or_default(),
    );
    let first = paragraph(&bytes, &rest, width);
    let budget = report.budget.as_ref().map(|found| budget(found, width));
    let budget = budget.unwrap_or_default();
    format!("{first}\n{}\n{budget}", wrap(&counts, width, "  "))
}

/// What came of a budget.
fn budget(found: &BudgetReport, width: Option<usize>) -> String {
    let asked = match found.goal {
        "target_size" => format!("{} bytes", figures::grouped(found.asked as u64)),
        "target_bpw" => format!("{} bits a weight", found.asked),
        "target_ratio" => format!("{} times smaller", found.asked),
        _ => format!("an SNR of {} dB", found.asked),
    };
    let mut parts = vec![format!(
        "chosen from {} forms for {asked}",
        figures::grouped(found.forms as u64)
    )];
    if let Some(snr) = found.expected_snr_db {
        let of = match found.measure {
            Measure::Calibrated => "of the outputs:",
            Measure::Work | Measure::Sensitivity => "of the weights by their work:",
        };
        parts.push(format!("expected SNR {of} {snr:.1} dB"));
    }
    if let Some(snr) = found.measured_snr_db {
        parts.push(format!("measured {snr:.1} dB"));
    }
    parts.push(match found.gap {
        Some(0.0) => "proven to lose least".to_owned(),
        Some(gap) => format!("within {:.2}% of what loses least", 100.0 * gap),
        None => "the best by measurement".to_owned(),
    });
    wrap(&parts.join("; "), width, "  ") + "\n"
}

#[cfg(test)]
mod tests;
