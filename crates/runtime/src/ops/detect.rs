//! What a classifier or a detector ends with.

mod suppression;

use crate::call::{Call, Outcome};
use crate::registry::{Def, differentiable, op};
use crate::tensor::{Elements, Tensor};
use crate::value::{Label, Value};
use std::sync::Arc;

pub(super) const OPS: &[Def] = &[
    op("classify", classify),
    differentiable(
        "non_maximum_suppression",
        suppression::run,
        suppression::backward,
    )
    .moving(),
];

/// The class of the largest probability, the first of those if there are several, and the probabilities of all classes.
fn classify(call: &mut Call<'_>) -> Outcome {
    let (probabilities, classes) = (call.floats("probabilities")?, call.tensor("classes")?);
    if probabilities.is_empty() || classes.len() != probabilities.len() {
        let (found, expected) = (probabilities.len(), classes.len());
        return Err(format!("probabilities has {found} elements for {expected} classes").into());
    }
    let mut best = 0;
    for (at, &probability) in probabilities.iter().enumerate() {
        // a NaN is the largest of nothing
        if probability > probabilities[best] || probabilities[best].is_nan() {
            best = at;
        }
    }
    let (label, labels): (Elements, Vec<Label>) = match classes.elements() {
        Elements::Texts(texts) => (
            vec![texts[best].clone()].into(),
            texts.iter().cloned().map(Label::Text).collect(),
        ),
        Elements::Ints(ints) => (
            vec![ints[best]].into(),
            ints.iter().map(|&class| Label::Int(class.into())).collect(),
        ),
        _ => {
            return Err(crate::call::wrong(
                "classes",
                classes,
                "strings or integers",
            ));
        }
    };
    let entries = labels
        .into_iter()
        .zip(probabilities.iter().copied())
        .collect();
    let label = Tensor::new(classes.dtype(), &[], label)
        .ok_or("classes has another type than its elements")?;
    Ok(vec![
        Value::Tensor(label),
        Value::Dictionary(Arc::new(entries)),
    ])
}
