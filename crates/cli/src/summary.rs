//! A report as a table and its totals.

use anstyle::Style;
use palettizer::{Report, Status, WeightReport};

use crate::figures;
use crate::output::{FAINT, STRONG};
use crate::table::{Align, Row, Table};

/// The table: a line for each weight. A checkpoint has no ops that use them.
pub(crate) fn table(report: &Report) -> Table {
    let ops = report.target.is_some();
    let mut columns = vec![("weight", Align::Left { least: 16 })];
    if ops {
        columns.push(("consumer", Align::Left { least: 8 }));
    }
    columns.extend([
        ("shape", Align::Right),
        ("dtype", Align::Right),
        ("bits", Align::Right),
        ("LUTs", Align::Right),
        ("before", Align::Right),
        ("after", Align::Right),
        ("SNR dB", Align::Right),
    ]);
    let mut table = Table::new(columns);
    for weight in &report.weights {
        table.styled(row(weight, ops));
    }
    table
}

fn row(weight: &WeightReport, ops: bool) -> Row {
    let compressed = weight.status == Status::Compressed;
    let mut cells = vec![name(weight)];
    if ops {
        cells.push(consumer(weight));
    }
    cells.extend([
        figures::shape(&weight.shape),
        weight.dtype.clone(),
        bits(weight),
        weight
            .luts
            .map_or("-".to_owned(), |luts| figures::grouped(luts as u64)),
        figures::grouped(weight.bytes_before),
        figures::grouped(weight.bytes_after),
    ]);
    let mut note = None;
    if compressed {
        cells.push(figures::decibels(weight.snr_db, weight.mse));
    } else {
        let reason = weight.reason.as_deref().unwrap_or("no reason given");
        note = Some(format!("skipped: {reason}"));
    }
    Row {
        cells,
        note,
        style: if compressed { Style::new() } else { FAINT },
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
fn bits(weight: &WeightReport) -> String {
    match (weight.nbits, weight.cluster_dim) {
        (Some(nbits), Some(dim)) if dim > 1 => format!("{nbits}/{dim}"),
        (Some(nbits), _) => nbits.to_string(),
        (None, _) => "-".to_owned(),
    }
}

/// What it all came to.
pub(crate) fn totals(report: &Report) -> String {
    let (done, skipped): (Vec<_>, Vec<_>) = report
        .weights
        .iter()
        .partition(|weight| weight.status == Status::Compressed);
    let target = report.target.as_ref();
    let target = target.map(|target| format!("; the program's target is {target}"));
    format!(
        "{STRONG}{} → {} bytes{STRONG:#} ({} → {}, {} smaller), {:.2} bits per weight, {}\n\
         {} palettized, {} skipped{}\n",
        figures::grouped(report.bytes_before),
        figures::grouped(report.bytes_after),
        figures::bytes(report.bytes_before),
        figures::bytes(report.bytes_after),
        figures::ratio(report.bytes_before, report.bytes_after),
        report.bits_per_weight,
        figures::seconds(report.seconds),
        figures::count(done.len(), "weight"),
        skipped.len(),
        target.unwrap_or_default(),
    )
}
