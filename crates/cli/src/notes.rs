//! What a report has to say beside its table: that nothing was done, and what is known of forms that were written.

use palettizer::Report;

use crate::figures;
use crate::width::paragraph;

/// Why nothing at all was palettized; `None` if something was.
pub(crate) fn nothing_done(report: &Report) -> Option<String> {
    if report.weights.is_empty() {
        return Some(
            "nothing was palettized: there is no weight with more elements than the threshold; \
             --weight-threshold lowers it"
                .to_owned(),
        );
    }
    let mut reasons: Vec<(&str, usize)> = Vec::new();
    for weight in &report.weights {
        let reason = weight.reason()?;
        match reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += 1,
            None => reasons.push((reason, 1)),
        }
    }
    // The reason of most comes first.
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let reasons: Vec<String> = reasons
        .into_iter()
        .map(|(reason, count)| format!("{}: {reason}", figures::grouped(count as u64)))
        .collect();
    Some(format!(
        "nothing was palettized, 0 of {}:\n  {}",
        figures::count(report.weights.len(), "weight"),
        reasons.join("\n  ")
    ))
}

/// A paragraph for each note of the report.
pub(crate) fn lines(report: &Report, width: Option<usize>) -> String {
    let line = |note: &palettizer::Note| {
        let weights = figures::count(note.weights, "weight");
        let text = format!(" {weights}: {} ({})", note.text, note.reference);
        paragraph("note:", &text, width) + "\n"
    };
    report.notes.iter().map(line).collect()
}
