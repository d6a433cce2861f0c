//! Non-maximum suppression: of boxes that overlap, the one with the best score.
//!
//! Boxes are taken in the order of their scores, the first of equal ones first, and each suppresses those after it whose
//! intersection with it is more than `iou_threshold` of their union; with `per_class_suppression`, those of its own class. A box'
//! score is its best one, and its class the one of that. Before iOS 17 boxes whose score is below `score_threshold` do not take
//! part, and if none is left the best one is given. What is left of `max_boxes` has zeros, and -1 as its index.

use crate::call::{Args, Call, Fault, Outcome};
use crate::grad::{Backward, Gradients};
use palettizer_pipeline::config::Target;
use std::cmp::Ordering;

/// Where the numbers of a box are: before iOS 17 each box has its own next to each other, since then each number of all boxes.
#[derive(Clone, Copy)]
struct Layout {
    batches: usize,
    boxes: usize,
    classes: usize,
    chosen: usize,
    /// Whether the boxes are the last axis.
    last: bool,
}

impl Layout {
    fn of(args: &Args<'_>) -> Result<Self, Fault> {
        let (boxes, scores) = (
            args.tensor("boxes")?.shape(),
            args.tensor("scores")?.shape(),
        );
        let last = args.target >= Target::IOS17;
        let ([batches, rows, columns], [same, score_rows, score_columns]) = (boxes, scores) else {
            return Err(format!(
                "boxes has the shape {boxes:?}, scores {scores:?}; expected three dimensions"
            )
            .into());
        };
        let (count, four) = if last {
            (*columns, *rows)
        } else {
            (*rows, *columns)
        };
        let (scored, classes) = if last {
            (*score_columns, *score_rows)
        } else {
            (*score_rows, *score_columns)
        };
        if four != 4 || count != scored || batches != same || classes == 0 {
            return Err(format!("boxes has the shape {boxes:?}, scores {scores:?}; expected four numbers and the scores of as many boxes").into());
        }
        let chosen = args.int("max_boxes")?;
        let chosen = usize::try_from(chosen)
            .map_err(|_| format!("max_boxes is {chosen}; expected none below 0"))?;
        Ok(Layout {
            batches: *batches,
            boxes: count,
            classes,
            chosen,
            last,
        })
    }

    /// The place of one of `width` numbers of a box, one of `boxes`.
    fn place(&self, batch: usize, boxes: usize, at: usize, width: usize, number: usize) -> usize {
        let first = batch * boxes * width;
        if self.last {
            first + number * boxes + at
        } else {
            first + at * width + number
        }
    }

    fn shape(&self, width: usize) -> [usize; 3] {
        if self.last {
            [self.batches, width, self.chosen]
        } else {
            [self.batches, self.chosen, width]
        }
    }
}

pub(super) fn run(call: &mut Call<'_>) -> Outcome {
    let layout = Layout::of(call)?;
    let Layout {
        batches,
        classes,
        chosen,
        boxes,
        ..
    } = layout;
    let (coordinates, scores) = (call.floats("boxes")?, call.floats("scores")?);
    let threshold = call
        .optional_float("iou_threshold")?
        .ok_or("parameter iou_threshold is missing")?;
    let least = if layout.last {
        None
    } else {
        Some(call.float_or("score_threshold", f32::NEG_INFINITY)?)
    };
    let per_class = call.bool_or("per_class_suppression", false)?;
    let (shape_of_boxes, shape_of_scores) = (layout.shape(4), layout.shape(classes));
    let mut out_boxes: Vec<f32> = call.zeros(&shape_of_boxes)?;
    let mut out_scores: Vec<f32> = call.zeros(&shape_of_scores)?;
    let mut indices = call.filled(&[batches, chosen], -1i32)?;
    let mut counts = vec![0i32; batches];
    for batch in 0..batches {
        let candidates: Vec<Candidate> = (0..boxes)
            .map(|at| Candidate {
                at,
                edges: edges(
                    [0, 1, 2, 3]
                        .map(|number| coordinates[layout.place(batch, boxes, at, 4, number)]),
                ),
                best: best(
                    (0..classes)
                        .map(|class| scores[layout.place(batch, boxes, at, classes, class)]),
                ),
            })
            .collect();
        let kept = suppressed(candidates, threshold, least, per_class, chosen);
        counts[batch] = kept.len() as i32;
        for (to, &at) in kept.iter().enumerate() {
            indices[batch * chosen + to] = at as i32;
            for number in 0..4 {
                out_boxes[layout.place(batch, chosen, to, 4, number)] =
                    coordinates[layout.place(batch, boxes, at, 4, number)];
            }
            for class in 0..classes {
                out_scores[layout.place(batch, chosen, to, classes, class)] =
                    scores[layout.place(batch, boxes, at, classes, class)];
            }
        }
    }
    let mut outputs = vec![
        call.nth_output(0, &shape_of_boxes, out_boxes)?,
        call.nth_output(1, &shape_of_scores, out_scores)?,
        call.nth_output(2, &[batches, chosen], indices)?,
    ];
    if !layout.last {
        outputs.push(call.nth_output(3, &[batches], counts)?);
    }
    Ok(outputs)
}

/// A box, its edges, and its best score with the class of it.
struct Candidate {
    at: usize,
    edges: [f64; 4],
    best: (f32, usize),
}

/// The best score, the first of equal ones, and its class.
fn best(scores: impl Iterator<Item = f32>) -> (f32, usize) {
    let all = scores.enumerate().map(|(class, score)| (score, class));
    all.reduce(|best, one| {
        if one.0 > best.0 || best.0.is_nan() {
            one
        } else {
            best
        }
    })
    .unwrap_or((f32::NAN, 0))
}

/// Left, top, right and bottom of a box that is given by its centre and size.
fn edges([x, y, width, height]: [f32; 4]) -> [f64; 4] {
    let [x, y, width, height] = [x, y, width, height].map(f64::from);
    let (half_width, half_height) = (width.abs() / 2.0, height.abs() / 2.0);
    [
        x - half_width,
        y - half_height,
        x + half_width,
        y + half_height,
    ]
}

/// The intersection of two boxes over their union; none with a box without an area.
fn overlap(one: &[f64; 4], other: &[f64; 4]) -> f64 {
    let area = |edges: &[f64; 4]| (edges[2] - edges[0]) * (edges[3] - edges[1]);
    let side =
        |axis: usize| (one[axis + 2].min(other[axis + 2]) - one[axis].max(other[axis])).max(0.0);
    let both = side(0) * side(1);
    let union = area(one) + area(other) - both;
    if both > 0.0 { both / union } else { 0.0 }
}

/// The boxes that are left, in the order of their scores.
fn suppressed(
    mut all: Vec<Candidate>,
    threshold: f32,
    least: Option<f32>,
    per_class: bool,
    most: usize,
) -> Vec<usize> {
    // NaN is below every score
    let score = |one: &Candidate| {
        if one.best.0.is_nan() {
            f32::NEG_INFINITY
        } else {
            one.best.0
        }
    };
    let order = |one: &Candidate, other: &Candidate| score(other).partial_cmp(&score(one));
    all.sort_by(|one, other| order(one, other).unwrap_or(Ordering::Equal));
    let mut kept: Vec<&Candidate> = Vec::new();
    for one in &all {
        if kept.len() == most {
            break;
        }
        let rejected = one.best.0.is_nan() || least.is_some_and(|least| one.best.0 < least);
        let rival = |other: &&Candidate| {
            (!per_class || other.best.1 == one.best.1)
                && overlap(&one.edges, &other.edges) > f64::from(threshold)
        };
        if !rejected && !kept.iter().any(rival) {
            kept.push(one);
        }
    }
    if kept.is_empty() && most > 0 {
        kept.extend(all.first());
    }
    kept.into_iter().map(|one| one.at).collect()
}

/// Numbers of boxes that were chosen have the gradients of where they went.
pub(super) fn backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let layout = Layout::of(call)?;
    let indices = call
        .output(2)?
        .ints()
        .ok_or("its indices are no integers")?;
    let mut gradients: Gradients = Vec::new();
    for (output, param, width) in [(0, "boxes", 4), (1, "scores", layout.classes)] {
        let (Some(upstream), true) = (call.upstream_of(output), call.wants(param)) else {
            continue;
        };
        let mut gradient = vec![0.0; call.tensor(param)?.len()];
        for (number, &at) in indices.iter().enumerate() {
            let (batch, to) = (number / layout.chosen, number % layout.chosen);
            let Ok(at) = usize::try_from(at) else {
                continue;
            };
            for number in 0..width {
                gradient[layout.place(batch, layout.boxes, at, width, number)] +=
                    upstream[layout.place(batch, layout.chosen, to, width, number)];
            }
        }
        gradients.push((param, 0, gradient));
    }
    Ok(gradients)
}
