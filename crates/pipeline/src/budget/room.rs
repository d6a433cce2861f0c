//! What a goal means in bytes, and what is in the way of one that cannot be met.

use super::goal::Goal;
use crate::format::Format;
use crate::planned::Plan;

/// Bytes that the prices of a whole model may be too high.
pub(super) const DOUBT: u64 = 1 << 10;

/// What a model takes beside palettes, and with that what a goal means in bytes.
#[derive(Clone, Debug)]
pub struct Room {
    /// Bytes of the model as it is.
    before: u64,
    /// Bytes of the new one, without palettes.
    pub(super) other: u64,
    /// Bytes of files that reports do not count.
    beside: u64,
    /// Elements of all weights of the report, and bytes of those that stay as they are.
    elements: u64,
    kept: Vec<(String, u64)>,
}

impl Room {
    /// Of a model that takes `before` bytes as it is, and `other` ones without the weights that are to be palettized, and whose
    /// weights have so many elements, all together.
    pub fn new(before: u64, other: u64, elements: u64) -> Self {
        Room {
            before,
            other,
            beside: 0,
            elements,
            kept: Vec::new(),
        }
    }

    /// With the weights that are not palettized: their names and bytes, which `other` has in it.
    #[must_use]
    pub fn with_kept(self, kept: Vec<(String, u64)>) -> Self {
        Room { kept, ..self }
    }

    /// Of the model of a plan.
    pub(super) fn of<F: Format>(format: &F, plan: &Plan<F::Place>) -> Result<Self, F::Error> {
        let weights = || plan.weights.iter();
        let kept = weights().filter(|planned| planned.job().is_none());
        let kept = kept.map(|planned| (planned.weight.name().to_owned(), planned.weight.bytes));
        let elements = weights().map(|planned| planned.weight.elements() as u64);
        let room = Room::new(
            format.stored_len(),
            format.other_bytes(plan)?,
            elements.sum(),
        );
        Ok(Room {
            beside: format.bytes_beside(plan)?,
            ..room.with_kept(kept.collect())
        })
    }

    fn kept_bytes(&self) -> u64 {
        self.kept.iter().map(|(_, bytes)| bytes).sum()
    }

    /// Bytes that the new model may take, as reports count them.
    pub(super) fn most(&self, goal: Goal) -> u64 {
        match (goal, self.for_palettes(goal)) {
            (Goal::Size(_) | Goal::Ratio(_), Some((total, without))) => {
                total.saturating_sub(without).saturating_add(self.other)
            }
            _ => u64::MAX,
        }
    }

    /// Bytes that palettes may take; `None` for a goal that is about something else.
    pub(super) fn for_palettes(&self, goal: Goal) -> Option<(u64, u64)> {
        let (total, without) = match goal {
            // what is on the disk in the end, whatever it is
            Goal::Size(bytes) => (bytes, self.other.saturating_add(self.beside)),
            Goal::Ratio(ratio) => ((self.before as f64 / ratio) as u64, self.other),
            Goal::BitsPerWeight(bits) => {
                let total = (self.elements as f64 * bits / 8.0) as u64;
                (total, self.kept_bytes())
            }
            Goal::MinSnr(_) => return None,
        };
        Some((total, without))
    }
}

/// Why a budget cannot be met: `total` bytes are asked for, and there cannot be fewer than `least`, `without` palettes among them.
/// `refused` are the weights that no form could be made of, with their bytes.
pub(super) fn in_the_way<'w>(
    goal: Goal,
    (total, least, without): (u64, u64, u64),
    room: &'w Room,
    refused: impl Iterator<Item = (&'w str, u64)>,
) -> String {
    const MOST: usize = 3;
    let asked = match goal {
        Goal::Size(_) => format!("{goal}"),
        _ => format!("{goal}, which is {total} bytes"),
    };
    let what = match goal {
        Goal::BitsPerWeight(_) => "weights that stay as they are",
        _ => "the program and what stays as it is",
    };
    let mut text = format!(
        "{} is {asked}; the least that can be had is {least} bytes: {} of palettes in their smallest forms, {without} of {what}",
        goal.name().name(),
        least - without,
    );
    let mut kept: Vec<(&str, u64)> = room
        .kept
        .iter()
        .map(|(name, bytes)| (name.as_str(), *bytes))
        .collect();
    kept.extend(refused);
    kept.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let kept: Vec<String> = kept
        .iter()
        .take(MOST)
        .map(|(name, bytes)| format!("\"{name}\" ({bytes})"))
        .collect();
    if !kept.is_empty() {
        text += &format!(" (the largest: {})", kept.join(", "));
    }
    text + "; ask for more, allow smaller forms, or palettize more weights"
}
