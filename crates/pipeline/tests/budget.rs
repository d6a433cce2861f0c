//! Budgets on a format of the tests' own: what is chosen, what is pinned, what cannot be, and what is kept.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod format;

use format::Tensors;
use palettizer_palette::{Granularity, Mode, Nbits, PaletteSpec};
use palettizer_pipeline::budget::{
    Budget, BudgetReport, Curve, Curves, Goal, Measure, Priced, Response,
};
use palettizer_pipeline::config::{OpPalettizerConfig, OptimizationConfig};
use palettizer_pipeline::{Decision, Error, Plan, curves, execute, plan};
use std::collections::BTreeMap;

/// Three weights, one of them tied, and a bias that stays.
fn tensors() -> Tensors {
    Tensors::default()
        .with("conv.weight", &[64, 36], &[("conv1", "conv")])
        .with("fc.weight", &[64, 64], &[("fc1", "linear")])
        .again("tied.weight")
        .with("head.weight", &[128, 64], &[("head", "linear")])
        .with("fc.bias", &[4096], &[("fc1", "linear")])
}

const BIAS: u64 = 4096 * 4;

fn budget(goal: Goal) -> OptimizationConfig {
    OptimizationConfig::new().with_budget(Budget::new(goal))
}

/// The number of bits, of channels in a group, by weight.
fn forms(plan: &Plan<usize>) -> Vec<(&str, u32, Option<usize>)> {
    let jobs = plan.jobs().map(|(weight, job)| {
        let group = match job.spec.granularity() {
            Granularity::PerTensor => None,
            Granularity::PerGroupedChannel { group_size, .. } => Some(group_size),
        };
        let bits = job.spec.mode().nbits().map_or(0, Nbits::bits);
        (weight.name(), bits, group)
    });
    jobs.collect()
}

/// Palettizes, and gives the bytes that all take in the end.
fn written(tensors: &Tensors, config: &OptimizationConfig) -> (u64, BudgetReport) {
    let mut plan = plan(tensors, config, &()).unwrap();
    let store =
        |_: &_, palette: &palettizer_palette::Palette| Ok(((), palette.stored_bytes() as u64));
    let done = execute(tensors, &mut plan, config, store, &()).unwrap();
    let bytes = done.iter().flatten().map(|done| done.figures.bytes_after);
    (bytes.sum::<u64>() + BIAS, plan.budget.unwrap())
}

#[test]
fn every_goal_is_met_and_no_byte_is_left_that_would_buy_something() {
    let tensors = tensors();
    for size in (BIAS + 3000..BIAS + 30_000).step_by(1777) {
        let (bytes, report) = written(&tensors, &budget(Goal::Size(size)));
        assert!(bytes == report.bytes && bytes <= size, "{size}: {report:?}");
        let (more, better) = written(&tensors, &budget(Goal::Size(size + 1777)));
        assert!(better.harm <= report.harm && more >= bytes, "{size}");
        // what is left over is less than the next better form of every weight costs
        let plan = plan(&tensors, &budget(Goal::Size(size)), &()).unwrap();
        for weight in plan
            .weights
            .iter()
            .filter_map(|planned| planned.allotted.as_ref())
        {
            if let Some(better) = &weight.next_better {
                assert!(
                    better.harm < weight.form.harm
                        && size - bytes < better.bytes - weight.form.bytes
                );
            }
            if let Some(worse) = &weight.next_worse {
                assert!(worse.harm >= weight.form.harm && worse.bytes < weight.form.bytes);
            }
        }
        assert!(report.gap.unwrap() <= 1e-3);
    }
    let whole = (64 * 36 + 64 * 64 + 128 * 64) as u64 * 4 + BIAS + 64 * 64 * 4;
    let (bytes, _) = written(&tensors, &budget(Goal::Ratio(2.0)));
    assert!(bytes <= whole / 2 && bytes > whole / 4);
    let elements = 64 * 36 + 64 * 64 + 128 * 64 + 4096;
    let (bytes, _) = written(&tensors, &budget(Goal::BitsPerWeight(12.0)));
    assert!(
        bytes * 8 <= elements * 12 && bytes * 8 > elements * 11,
        "{bytes}"
    );
    for snr in [12.0, 17.5, 30.0] {
        let (bytes, report) = written(&tensors, &budget(Goal::MinSnr(snr)));
        assert!(report.expected_snr_db.unwrap() >= snr);
        // and nothing smaller has it
        let (_, smaller) = written(&tensors, &budget(Goal::Size(bytes - 1)));
        assert!(smaller.expected_snr_db.unwrap() < snr, "{snr}: {smaller:?}");
    }
}

#[test]
fn what_has_a_configuration_of_its_own_keeps_it() {
    let tensors = tensors();
    let six = OpPalettizerConfig::new(PaletteSpec::new(Mode::Kmeans(Nbits::B6)));
    let config = budget(Goal::Size(80_000))
        .with_op_name("conv1", six)
        .with_op_type("linear", None);
    let found = plan(&tensors, &config, &()).unwrap();
    assert_eq!(forms(&found), [("conv.weight", 6, None)]);
    assert!(found.weights[0].allotted.as_ref().unwrap().pinned);
    let narrow = Budget::new(Goal::Size(BIAS + 6000))
        .with_choices("nbits=2/3,group_size=8".parse().unwrap());
    let found = plan(
        &tensors,
        &OptimizationConfig::new().with_budget(narrow),
        &(),
    )
    .unwrap();
    assert!(
        forms(&found)
            .iter()
            .all(|(_, bits, group)| [2, 3].contains(bits) && *group == Some(8))
    );
    // the global configuration says all else
    let scaled = PaletteSpec::new(Mode::Uniform(Nbits::B8)).with_per_channel_scale(true);
    let config = budget(Goal::Ratio(3.0)).with_global(OpPalettizerConfig::new(scaled));
    let found = plan(&tensors, &config, &()).unwrap();
    let kept =
        |spec: &PaletteSpec| spec.per_channel_scale() && matches!(spec.mode(), Mode::Uniform(_));
    assert!(found.jobs().count() == 3 && found.jobs().all(|(_, job)| kept(&job.spec)));
}

#[test]
fn what_cannot_be_met_says_what_can_be() {
    let tensors = tensors();
    let refused = |config: &OptimizationConfig| match plan(&tensors, config, &()) {
        Err(Error::Budget { what }) => what,
        other => panic!("{:?}", other.map(|plan| plan.budget)),
    };
    let what = refused(&budget(Goal::Size(1000)));
    let least: u64 = what
        .split("had is ")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!(what.contains("\"fc.bias\" (16384)"), "{what}");
    assert!(refused(&budget(Goal::Size(least - 1))).contains(&format!("is {least} bytes")));
    assert_eq!(written(&tensors, &budget(Goal::Size(least))).0, least);
    assert!(refused(&budget(Goal::BitsPerWeight(0.1))).contains("weights that stay as they are"));
    assert!(refused(&budget(Goal::Ratio(1e12))).starts_with("target_ratio is a model that is"));
    let coarse = Budget::new(Goal::MinSnr(40.0)).with_choices("nbits=1/2".parse().unwrap());
    let what = refused(&OptimizationConfig::new().with_budget(coarse));
    assert!(
        what.starts_with("min_snr is 40; the best that the choices come to is "),
        "{what}"
    );
    let impossible = Budget::new(Goal::Ratio(2.0)).with_choices("cluster_dim=3".parse().unwrap());
    let found = plan(
        &tensors,
        &OptimizationConfig::new().with_budget(impossible),
        &(),
    );
    assert!(found.is_err());
}

#[test]
fn curves_are_made_once_and_only_used_for_what_they_were_made_of() {
    let tensors = tensors();
    let config = budget(Goal::Ratio(4.0));
    let made = curves(&tensors, &config, &()).unwrap();
    let text = serde_json::to_string(&made).unwrap();
    let read: Curves = serde_json::from_str(&text).unwrap();
    assert_eq!(read, made);
    let with = |curves: &Curves| {
        let budget = Budget::new(Goal::Ratio(4.0)).with_curves(curves.clone());
        OptimizationConfig::new().with_budget(budget)
    };
    let fresh = plan(&tensors, &config, &()).unwrap();
    let kept = plan(&tensors, &with(&made), &()).unwrap();
    assert_eq!((forms(&fresh), &fresh.budget), (forms(&kept), &kept.budget));
    // what they say is what is believed, as long as they are of these values
    let mut lies = made.clone();
    for curve in lies.weights.values_mut() {
        for (form, price) in &mut curve.forms {
            if let Priced::Costs { error, .. } = price {
                *error = if form.contains("nbits=1") { 0.0 } else { 1.0 };
            }
        }
    }
    let believed = plan(&tensors, &with(&lies), &()).unwrap();
    assert!(forms(&believed).iter().all(|(_, bits, _)| *bits == 1));
    let other = Tensors::default().with("x", &[64, 36], &[]).with(
        "conv.weight",
        &[64, 36],
        &[("conv1", "conv")],
    );
    let found = curves(&other, &with(&lies), &()).unwrap();
    assert_ne!(
        found.weights["conv.weight"].basis,
        lies.weights["conv.weight"].basis
    );
    assert!(
        found.weights["conv.weight"].forms.values().all(
            |price| matches!(price, Priced::Costs { error, .. } if *error > 0.0 && *error < 1.0)
        )
    );
    // numbers that cannot be are no numbers of ours
    for bad in [(u64::MAX, 0.1), (10, -1.0)] {
        let mut bent = made.clone();
        let curve = bent.weights.get_mut("conv.weight").unwrap();
        curve.forms.insert(
            "mode=kmeans,nbits=1".to_owned(),
            Priced::Costs {
                bytes: bad.0,
                error: bad.1,
            },
        );
        assert_eq!(curves(&tensors, &with(&bent), &()).unwrap(), made);
    }
    for text in [
        r#"{"version": 2, "weights": {}}"#,
        r#"{"version": 1}"#,
        r#"{"version": 1, "weights": {}, "more": 1}"#,
    ] {
        assert!(serde_json::from_str::<Curves>(text).is_err(), "{text}");
    }
}

#[test]
fn measured_responses_and_choices_go_first() {
    let tensors = tensors();
    let plain = |spec: PaletteSpec| Curve::form(&spec);
    let eight = plain(PaletteSpec::new(Mode::Kmeans(Nbits::B8)));
    let one = plain(PaletteSpec::new(Mode::Kmeans(Nbits::B1)));
    // only one weight matters
    let response = |factor: f64| Response::new([(0.01, 0.01 * factor)]);
    let responses = BTreeMap::from([
        ("conv.weight".to_owned(), response(1e3)),
        ("fc.weight".to_owned(), response(1e-6)),
        ("head.weight".to_owned(), response(1e-6)),
    ]);
    let budget = Budget::new(Goal::Size(BIAS + 6500)).with_responses(responses);
    let found = plan(
        &tensors,
        &OptimizationConfig::new().with_budget(budget.clone()),
        &(),
    )
    .unwrap();
    let bits: Vec<u32> = forms(&found).iter().map(|(_, bits, _)| *bits).collect();
    assert!(bits[0] >= 6 && bits[1] <= 3 && bits[2] <= 3, "{bits:?}");
    let report = found.budget.unwrap();
    assert_eq!(
        (report.measure, report.gap.is_some()),
        (Measure::Calibrated, true)
    );
    let named = |conv: &str| {
        let forms = [
            ("conv.weight", conv),
            ("fc.weight", &one),
            ("head.weight", &one),
        ];
        let forms = forms.map(|(name, form)| (name.to_owned(), form.to_owned()));
        OptimizationConfig::new().with_budget(budget.clone().with_forms(BTreeMap::from(forms)))
    };
    let found = plan(&tensors, &named(&eight), &()).unwrap();
    assert_eq!(
        forms(&found),
        [
            ("conv.weight", 8, None),
            ("fc.weight", 1, None),
            ("head.weight", 1, None)
        ]
    );
    assert_eq!(found.budget.unwrap().gap, None);
    // a choice that names no form of theirs is none
    let found = plan(&tensors, &named("nbits=5"), &()).unwrap();
    assert!(found.budget.unwrap().gap.is_some());
    assert!(found.weights.iter().all(|planned| !matches!(&planned.decision, Decision::Compress(job) if job.spec.mode().nbits().is_none())));
}
