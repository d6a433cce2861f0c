//! One form for each weight: the least harm that fits into so many bytes, proven.
//!
//! This is the multiple-choice knapsack problem. Three steps (Pisinger, "A minimal algorithm for the multiple-choice knapsack
//! problem", 1995, with the Lagrangian bound in the place of his):
//!
//! 1. *A price for a byte.* With a price λ each weight takes the form with the least harm + λ·bytes, on its own. The forms that are
//!    ever taken are the corners of the lower hull of its (bytes, harm); walking down all hulls at once, by falling price, the plan
//!    of any λ fits until one step does not. That step's price gives the *bound*: no plan that fits does less harm.
//! 2. *What fits.* Later steps that fit are taken too. That is a plan, mostly a fraction of a step above the bound.
//! 3. *The exact last step.* Weights leave the form of step 1 in the order of what that costs at λ. Of the plans so far, one that is
//!    larger and does more harm than another is dropped, and one that, at the price λ, can no longer beat the best. What is left at
//!    the end is the optimum. Where very many plans are in the balance only those with the lowest bounds are kept, and the lowest
//!    bound of what was dropped says how far the best that was found may be off.
//!
//! Sums of harms are made in the order of the weights, so that the same plan has the same harm to the last bit, however it was
//! found. Nothing depends on threads or chance.

use std::cmp::Ordering;

/// A form that a weight can have.
///
/// ```
/// let form = palettizer_pipeline::budget::Form { bytes: 100, harm: 0.25 };
/// assert!(form.bytes > 0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Form {
    /// Bytes that it takes.
    pub bytes: u64,
    /// What it costs in quality, at least 0, in a unit that all weights share.
    pub harm: f64,
}

/// What was chosen.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Allocation {
    /// The number of the form that each weight takes.
    pub forms: Vec<usize>,
    /// The sum of their bytes.
    pub bytes: u64,
    /// The sum of their harms.
    pub harm: f64,
    /// No choice that fits has less harm than this.
    pub bound: f64,
}

impl Allocation {
    /// How far it is from the best at most, as a part of its harm; 0 where it is proven to be the best.
    pub fn gap(&self) -> f64 {
        match self.harm > self.bound {
            true => 1.0 - self.bound / self.harm,
            false => 0.0,
        }
    }
}

/// Plans that are kept in the balance at most: milliseconds a weight, and a hundred kilobytes.
const PLANS: usize = 1 << 13;

/// Chooses a form for each weight, so that their bytes are `capacity` at most and the sum of harms is least.
///
/// # Errors
/// The least bytes that the weights can have, if that is more than `capacity`; a weight without forms cannot be had at all, and
/// counts as the largest number.
///
/// ```
/// use palettizer_pipeline::budget::{Form, allocate};
///
/// let forms = |small: f64, large: f64| vec![Form { bytes: 10, harm: small }, Form { bytes: 20, harm: large }];
/// let chosen = allocate(&[forms(9.0, 1.0), forms(5.0, 2.0)], 30).unwrap();
/// assert_eq!((chosen.forms, chosen.harm), (vec![1, 0], 6.0));
/// assert_eq!(allocate(&[forms(9.0, 1.0)], 9), Err(10));
/// ```
pub fn allocate(weights: &[Vec<Form>], capacity: u64) -> Result<Allocation, u64> {
    let hulls: Vec<Vec<usize>> = weights.iter().map(|forms| hull(forms)).collect();
    let least = least_bytes(weights, &hulls);
    let least = least
        .filter(|&least| least <= capacity)
        .ok_or(least.unwrap_or(u64::MAX))?;
    let descent = Descent::new(weights, &hulls, capacity - least);
    let mut best = Plan::of(weights, descent.fitting);
    let start = Plan::of(weights, descent.at_price);
    let price = Price {
        of_byte: descent.price,
        capacity,
    };
    let bound = price.bound(&start).min(best.harm);
    let dropped = refine(weights, &start, price, &mut best);
    let bound = dropped.map_or(best.harm, |dropped| dropped.max(bound).min(best.harm));
    Ok(Allocation {
        forms: best.forms,
        bytes: best.bytes,
        harm: best.harm,
        bound,
    })
}

/// The corners of the lower hull of a weight's forms, by rising bytes and falling harm.
fn hull(forms: &[Form]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..forms.len()).collect();
    let key = |&at: &usize| (forms[at].bytes, forms[at].harm);
    order.sort_by(|a, b| {
        let (a, b) = (key(a), key(b));
        a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
    });
    let mut corners: Vec<usize> = Vec::new();
    for at in order {
        if corners
            .last()
            .is_some_and(|&last| forms[at].harm >= forms[last].harm)
        {
            continue;
        }
        while let [.., before, last] = corners[..]
            && slope(forms, before, last) <= slope(forms, last, at)
        {
            corners.pop();
        }
        corners.push(at);
    }
    corners
}

/// Harm that a byte saves from one form to a larger one.
fn slope(forms: &[Form], from: usize, to: usize) -> f64 {
    (forms[from].harm - forms[to].harm) / (forms[to].bytes - forms[from].bytes) as f64
}

/// The sum of the smallest forms; `None` if there is none of a weight, or no number for it.
fn least_bytes(weights: &[Vec<Form>], hulls: &[Vec<usize>]) -> Option<u64> {
    let each = weights.iter().zip(hulls);
    let mut each = each.map(|(forms, hull)| Some(forms[*hull.first()?].bytes));
    each.try_fold(0_u64, |sum, bytes| sum.checked_add(bytes?))
}

/// All hulls walked down at once.
struct Descent {
    /// The corners at the price of the first step that did not fit.
    at_price: Vec<usize>,
    /// The same with later steps that fit.
    fitting: Vec<usize>,
    price: f64,
}

impl Descent {
    /// `left` are the bytes that are not needed for the smallest forms.
    fn new(weights: &[Vec<Form>], hulls: &[Vec<usize>], mut left: u64) -> Self {
        let mut forms: Vec<usize> = hulls.iter().map(|hull| hull[0]).collect();
        let mut steps: Vec<(f64, usize, usize, usize)> = Vec::new();
        for (weight, hull) in hulls.iter().enumerate() {
            for pair in hull.windows(2) {
                let slope = slope(&weights[weight], pair[0], pair[1]);
                steps.push((slope, weight, pair[0], pair[1]));
            }
        }
        // of one weight they fall already, and equal ones of one weight are one
        steps.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let mut broken: Option<(Vec<usize>, f64)> = None;
        for (slope, weight, from, to) in steps {
            let bytes = weights[weight][to].bytes - weights[weight][from].bytes;
            if bytes <= left && forms[weight] == from {
                forms[weight] = to;
                left -= bytes;
            } else if broken.is_none() {
                broken = Some((forms.clone(), slope));
            }
        }
        let (at_price, price) = broken.unwrap_or((forms.clone(), 0.0));
        Descent {
            at_price,
            fitting: forms,
            price,
        }
    }
}

/// A form for each weight, and what they come to.
struct Plan {
    forms: Vec<usize>,
    bytes: u64,
    harm: f64,
}

impl Plan {
    fn of(weights: &[Vec<Form>], forms: Vec<usize>) -> Self {
        let chosen = || weights.iter().zip(&forms).map(|(of, &at)| of[at]);
        Plan {
            bytes: chosen().map(|form| form.bytes).sum(),
            harm: chosen().map(|form| form.harm).sum(),
            forms,
        }
    }

    /// Less harm, or as much in fewer bytes, or in forms that come first.
    fn beats(&self, other: &Plan) -> bool {
        let order = self.harm.total_cmp(&other.harm);
        let order = order.then(self.bytes.cmp(&other.bytes));
        order.then_with(|| self.forms.cmp(&other.forms)) == Ordering::Less
    }
}

/// What a byte costs, and how many there are.
#[derive(Clone, Copy)]
struct Price {
    of_byte: f64,
    capacity: u64,
}

impl Price {
    /// No plan that fits and differs from this one in weights that are at their cheapest does less harm.
    fn bound(self, plan: &Plan) -> f64 {
        self.bound_of(plan.bytes, plan.harm)
    }

    fn bound_of(self, bytes: u64, harm: f64) -> f64 {
        harm + self.of_byte * (bytes as f64 - self.capacity as f64)
    }

    fn cost(self, form: Form) -> f64 {
        form.harm + self.of_byte * form.bytes as f64
    }
}

/// A plan in the balance: what it differs in from the start is at `trail`, but for the last step.
#[derive(Clone, Copy)]
struct Open {
    bytes: u64,
    harm: f64,
    trail: u32,
    step: Option<Step>,
}

/// A weight, and the form that it takes.
#[derive(Clone, Copy)]
struct Step {
    weight: u32,
    form: u32,
}

/// Searches below the bound of `start`. Gives the lowest bound of the plans that were not followed, if any might have been better.
fn refine(weights: &[Vec<Form>], start: &Plan, price: Price, best: &mut Plan) -> Option<f64> {
    // each weight with what it costs at least to leave its form
    let mut order: Vec<(f64, usize)> = Vec::new();
    for (weight, (forms, &at)) in weights.iter().zip(&start.forms).enumerate() {
        let own = price.cost(forms[at]);
        let others = forms.iter().enumerate().filter(|&(other, _)| other != at);
        let cost = others.map(|(_, &form)| price.cost(form) - own);
        if let Some(cost) = cost.min_by(f64::total_cmp) {
            order.push((cost, weight));
        }
    }
    order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    // the trail before, and a step
    let mut trails: Vec<(u32, Option<Step>)> = vec![(0, None)];
    let mut open = vec![Open {
        bytes: start.bytes,
        harm: start.harm,
        trail: 0,
        step: None,
    }];
    // sums in another order differ in their last bits
    let slack = |harm: f64| harm + 1e-12 * (harm + start.harm);
    let bound = |plan: &Open| price.bound_of(plan.bytes, plan.harm);
    let mut dropped = f64::INFINITY;
    for (cost, weight) in order {
        if price.bound(start) + cost > slack(best.harm) {
            break;
        }
        let (forms, at) = (&weights[weight], start.forms[weight]);
        let mut next = Vec::new();
        for plan in &open {
            next.push(*plan);
            for (to, form) in forms.iter().enumerate() {
                if to == at {
                    continue;
                }
                let bytes = (plan.bytes - forms[at].bytes).checked_add(form.bytes);
                let Some(bytes) = bytes else {
                    continue;
                };
                let harm = plan.harm - forms[at].harm + form.harm;
                // there are no more weights or forms than an address has bits for, and no model has so many
                let step = (weight as u32, to as u32);
                let step = Step {
                    weight: step.0,
                    form: step.1,
                };
                next.push(Open {
                    bytes,
                    harm,
                    step: Some(step),
                    ..*plan
                });
            }
        }
        next.retain(|plan| bound(plan) <= slack(best.harm));
        next.sort_by(|a, b| a.bytes.cmp(&b.bytes).then(a.harm.total_cmp(&b.harm)));
        open.clear();
        for plan in next {
            if open.last().is_none_or(|last: &Open| last.harm > plan.harm) {
                open.push(plan);
            }
        }
        if open.len() > PLANS {
            let order =
                |a: &Open, b: &Open| bound(a).total_cmp(&bound(b)).then(a.bytes.cmp(&b.bytes));
            open.select_nth_unstable_by(PLANS, order);
            let least = open[PLANS..]
                .iter()
                .map(bound)
                .fold(f64::INFINITY, f64::min);
            dropped = dropped.min(least);
            open.truncate(PLANS);
            open.sort_by_key(|plan| plan.bytes);
        }
        for plan in &mut open {
            if let Some(step) = plan.step.take() {
                trails.push((plan.trail, Some(step)));
                // so many plans for each weight, and a weight is a kilobyte at least
                plan.trail = (trails.len() - 1) as u32;
            }
            if plan.bytes <= price.capacity && plan.harm <= slack(best.harm) {
                let found = followed(weights, start, &trails, plan.trail);
                if found.beats(best) {
                    *best = found;
                }
            }
        }
    }
    Some(dropped).filter(|&dropped| dropped < best.harm)
}

/// The plan at the end of a trail.
fn followed(
    weights: &[Vec<Form>],
    start: &Plan,
    trails: &[(u32, Option<Step>)],
    mut at: u32,
) -> Plan {
    let mut forms = start.forms.clone();
    while let (before, Some(step)) = trails[at as usize] {
        forms[step.weight as usize] = step.form as usize;
        at = before;
    }
    Plan::of(weights, forms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The best of all plans.
    fn brute_force(weights: &[Vec<Form>], capacity: u64) -> Option<(f64, u64)> {
        let Some((first, rest)) = weights.split_first() else {
            return Some((0.0, 0));
        };
        let with = |form: &Form| {
            let (harm, bytes) = brute_force(rest, capacity.checked_sub(form.bytes)?)?;
            Some((harm + form.harm, bytes + form.bytes))
        };
        first
            .iter()
            .filter_map(with)
            .min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))
    }

    fn forms(largest: u64) -> impl Strategy<Value = Vec<Form>> {
        // few distinct harms, so that there are ties
        let form = (0..=largest, 0..40_u32).prop_map(|(bytes, harm)| Form {
            bytes,
            harm: f64::from(harm) / 4.0,
        });
        prop::collection::vec(form, 1..6)
    }

    proptest! {
        #[test]
        fn agrees_with_all_plans(weights in prop::collection::vec(forms(30), 0..7), capacity in 0_u64..120) {
            match (allocate(&weights, capacity), brute_force(&weights, capacity)) {
                (Ok(chosen), Some((harm, bytes))) => {
                    prop_assert!((chosen.harm - harm).abs() < 1e-9, "{} instead of {harm}", chosen.harm);
                    prop_assert_eq!(chosen.bytes, bytes);
                    prop_assert_eq!(chosen.gap(), 0.0);
                    let sums = Plan::of(&weights, chosen.forms.clone());
                    prop_assert_eq!((sums.bytes, sums.harm), (chosen.bytes, chosen.harm));
                }
                (Err(least), None) => prop_assert!(least > capacity),
                (found, expected) => prop_assert!(false, "{found:?} instead of {expected:?}"),
            }
        }
    }

    /// Weights as a large network has them: halving the harm four times with each bit.
    fn network(count: usize) -> Vec<Vec<Form>> {
        let weight = |number: usize| {
            let elements = 1000 + (number * 7919 % 1013) as u64 * 64;
            let scale = 1.0 + (number * 104_729 % 997) as f64;
            let form = |bits: u64| Form {
                bytes: elements * bits / 8 + (16 << bits),
                harm: scale * elements as f64 * 0.25_f64.powi(bits as i32),
            };
            [1, 2, 3, 4, 6, 8].map(form).to_vec()
        };
        (0..count).map(weight).collect()
    }

    #[test]
    fn large_networks_are_within_a_thousandth() {
        let weights = network(400);
        let sum = |at: usize| weights.iter().map(|forms| forms[at].bytes).sum::<u64>();
        for capacity in [sum(0), sum(1), (sum(2) + sum(3)) / 2, sum(4) - 1, sum(5)] {
            let chosen = allocate(&weights, capacity).unwrap();
            assert!(chosen.bytes <= capacity);
            assert!(chosen.gap() <= 1e-3, "{}", chosen.gap());
        }
        assert_eq!(allocate(&weights, sum(0) - 1), Err(sum(0)));
    }

    #[test]
    fn what_cannot_be_had() {
        assert_eq!(allocate(&[vec![]], 5), Err(u64::MAX));
        assert_eq!(allocate(&[], 0).map(|chosen| chosen.forms), Ok(vec![]));
        let huge = vec![Form {
            bytes: u64::MAX,
            harm: 1.0,
        }];
        assert_eq!(allocate(&[huge.clone(), huge], 9), Err(u64::MAX));
    }
}
