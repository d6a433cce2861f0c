//! What is found where no number is given: temperatures by the weight itself, whatever its scale; and the straight-through mode.

#![allow(clippy::unwrap_used, clippy::panic)]

use half::f16;
use palettizer_palette::{
    Dkm, DkmConstants, DkmForward, DkmLut, DkmMode, DkmSpec, Nbits, Refusal, ScaleScheme,
};

/// Even numbers of a shuffled grid about zero.
fn values(n: usize, by: f32) -> Vec<f32> {
    let place = |i: usize| (i * 7919 % n) as f32 / n as f32 - 0.5;
    (0..n).map(|i| by * (place(i) + place(i).powi(3))).collect()
}

fn spec(nbits: Nbits) -> DkmSpec {
    DkmSpec {
        nbits,
        ..DkmSpec::default()
    }
}

struct Start {
    dkm: Dkm,
    seeds: Vec<f32>,
    scale: Option<Vec<f32>>,
    temperatures: Vec<f32>,
}

fn start(spec: DkmSpec, shape: &[usize], values: &[f32]) -> Start {
    let dkm = Dkm::new(spec, shape).unwrap();
    let scale = dkm.channel_scale(values).unwrap();
    let seeds = dkm.seed(values, scale.as_deref(), None).unwrap();
    let found = dkm.temperatures(values, &seeds, scale.as_deref());
    Start {
        seeds,
        scale,
        temperatures: found.unwrap(),
        dkm,
    }
}

impl Start {
    /// The soft weight, the next centroids, and the gradient of a loss whose gradient is `grad`.
    fn step(&self, values: &[f32], grad: &[f32]) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let (mut out, mut next) = (values.to_vec(), self.seeds.clone());
        let mut gradient = values.to_vec();
        let mut saved = vec![0.0; self.dkm.saved_len()];
        let constants = DkmConstants {
            scale: self.scale.as_deref(),
            temperatures: &self.temperatures,
            noise: 5,
        };
        let forward = DkmForward {
            out: &mut out,
            next: &mut next,
            saved: &mut saved,
        };
        let dkm = &self.dkm;
        dkm.forward(values, &self.seeds, constants, forward)
            .unwrap();
        dkm.backward(values, constants, &saved, grad, &mut gradient)
            .unwrap();
        (out, next, gradient)
    }
}

/// Half of the mean squared error of one group's elements, vector by vector and centroid by centroid.
fn by_hand(vectors: &[Vec<f64>], centroids: &[f32]) -> f64 {
    let dim = vectors[0].len();
    let distance = |x: &[f64], c: &[f32]| -> f64 {
        let pairs = x.iter().zip(c);
        pairs.map(|(x, c)| (x - f64::from(*c)).powi(2)).sum()
    };
    let least = |x: &Vec<f64>| {
        let all = centroids.chunks(dim).map(|c| distance(x, c));
        all.fold(f64::INFINITY, f64::min)
    };
    let error: f64 = vectors.iter().map(least).sum();
    0.5 * error / (vectors.len() * dim) as f64
}

#[track_caller]
fn close(found: f32, expected: f64) {
    let found = f64::from(found);
    assert!((found / expected - 1.0).abs() < 1e-4, "{found} {expected}");
}

#[test]
fn each_group_has_half_of_its_own_error() {
    let mut weight = values(16 * 24, 0.1);
    weight[8 * 24..].iter_mut().for_each(|w| *w *= 30.0);
    for scale in [None, Some(ScaleScheme::MinMax)] {
        for dim in [1, 2] {
            let spec = DkmSpec {
                group_size: Some(8),
                cluster_dim: dim,
                scale,
                ..spec(Nbits::B3)
            };
            let found = start(spec, &[16, 24], &weight);
            assert_eq!(found.temperatures.len(), 2);
            for group in 0..2 {
                let at = |row: usize, col: usize| {
                    let row = group * 8 + row;
                    let by = found.scale.as_ref().map_or(1.0, |s| f64::from(s[row]));
                    f64::from(weight[row * 24 + col]) / by
                };
                let blocks = (0..8).step_by(dim);
                let vectors: Vec<Vec<f64>> = blocks
                    .flat_map(|row| (0..24).map(move |col| (row, col)))
                    .map(|(row, col)| (row..row + dim).map(|row| at(row, col)).collect())
                    .collect();
                let len = 8 * dim;
                let own = &found.seeds[group * len..(group + 1) * len];
                close(found.temperatures[group], by_hand(&vectors, own));
            }
        }
    }
}

#[test]
fn weights_of_another_scale_are_palettized_the_same() {
    let weight = values(1024, 0.4);
    let one = start(spec(Nbits::B4), &[32, 32], &weight);
    let (soft, ..) = one.step(&weight, &weight);
    for by in [1.0 / 4096.0, 64.0] {
        let other: Vec<f32> = weight.iter().map(|w| w * by).collect();
        let scaled = start(spec(Nbits::B4), &[32, 32], &other);
        close(
            scaled.temperatures[0],
            f64::from(one.temperatures[0]) * f64::from(by * by),
        );
        // How many steps are made depends on a bound that is not by the scale; the centroids hardly do.
        let (made, ..) = scaled.step(&other, &other);
        for (soft, made) in soft.iter().zip(&made) {
            assert!((soft - made / by).abs() < 4e-3, "{soft} {}", made / by);
        }
    }
}

#[test]
fn where_values_are_no_more_than_centroids_even_cells_are_taken() {
    let weight: Vec<f32> = (0..64).map(|i| (i % 4) as f32).collect();
    let found = start(spec(Nbits::B4), &[8, 8], &weight);
    close(found.temperatures[0], 0.5 * 1.25 / 256.0);
    let (soft, next, gradient) = found.step(&weight, &weight);
    // All but what the floor of attention does.
    assert!(soft.iter().zip(&weight).all(|(s, w)| (s - w).abs() < 1e-6));
    assert!(next.iter().chain(&gradient).all(|x| x.is_finite()));
    // The error is that of an element: 8 vectors of two, 16 centroids, a variance of 5.25 and cells of a sixteenth.
    let rows: Vec<f32> = (0..64).map(|i| (i / 16 * 2 + i % 16 / 8) as f32).collect();
    let vectors = DkmSpec {
        cluster_dim: 2,
        ..spec(Nbits::B4)
    };
    close(
        start(vectors, &[8, 8], &rows).temperatures[0],
        0.5 * 5.25 / 16.0,
    );
    // Nothing to find it by: coremltools' number.
    for constant in [0.0, 0.25, 1e-30] {
        let weight = [constant; 64];
        let found = start(spec(Nbits::B2), &[8, 8], &weight);
        assert_eq!(found.temperatures, [1e-4]);
        let (soft, next, _) = found.step(&weight, &weight);
        assert!(soft.iter().chain(&next).all(|x| x.is_finite()));
    }
}

#[test]
fn the_ends_of_the_numbers() {
    for by in [1e-20, 1e18] {
        let weight = values(256, by);
        let found = start(spec(Nbits::B2), &[16, 16], &weight);
        let temperature = found.temperatures[0];
        assert!(temperature.is_normal() && (1.0 / temperature).is_normal());
        let (soft, ..) = found.step(&weight, &weight);
        assert!(soft.iter().all(|x| x.is_finite()), "{by}");
    }
    let small = start(spec(Nbits::B2), &[16, 16], &values(256, 1e-4));
    let halves: Vec<f16> = values(256, 1e-4)
        .iter()
        .map(|&x| f16::from_f32(x))
        .collect();
    let seeds = small.dkm.seed(&halves, None, None).unwrap();
    let found = small.dkm.temperatures(&halves, &seeds, None).unwrap();
    assert!((found[0] / small.temperatures[0] - 1.0).abs() < 0.1);
}

#[test]
fn zeros_that_are_held_do_not_count() {
    let mut weight = values(256, 0.1);
    weight.iter_mut().step_by(2).for_each(|w| *w = 0.0);
    let held = DkmSpec {
        enforce_zero: true,
        prune_threshold: Some(0.0),
        ..spec(Nbits::B2)
    };
    let found = start(held, &[16, 16], &weight);
    let others: Vec<Vec<f64>> = weight
        .iter()
        .filter(|w| **w != 0.0)
        .map(|&w| vec![f64::from(w)])
        .collect();
    assert_eq!(found.seeds[0], 0.0);
    close(found.temperatures[0], by_hand(&others, &found.seeds[1..]));
    let zeros = [0.0; 256];
    let held = start(found.dkm.spec().clone(), &[16, 16], &zeros);
    assert_eq!(held.temperatures, [1e-4]);
}

#[test]
fn a_zero_that_is_held_without_a_threshold_takes_what_is_nearest_to_it() {
    let weight = values(256, 0.1);
    let held = DkmSpec {
        enforce_zero: true,
        ..spec(Nbits::B2)
    };
    let found = start(held, &[16, 16], &weight);
    let (_, next, _) = found.step(&weight, &weight);
    let mut hard = weight.clone();
    found.dkm.assign(&weight, &next, None, &mut hard).unwrap();
    let zeros = hard.iter().filter(|w| **w == 0.0).count();
    assert!((30..120).contains(&zeros), "{zeros}");
    assert_eq!(DkmSpec::default().lowered_by(), 0.0);
    assert_eq!(DkmSpec::default().least_attention(), 1e-9);
}

#[test]
fn a_number_is_taken_as_it_is() {
    let weight = values(256, 0.1);
    let given = DkmSpec {
        temperature: Some(0.01),
        ..spec(Nbits::B2)
    };
    let found = start(given, &[16, 16], &weight);
    assert!(found.temperatures.is_empty());
    let constants = DkmConstants {
        temperatures: &[0.01],
        ..DkmConstants::default()
    };
    let error = found
        .dkm
        .backward(&weight, constants, &[], &weight, &mut weight.clone())
        .unwrap_err();
    assert!(
        matches!(
            error,
            Refusal::Length {
                what: "temperatures",
                expected: 0,
                found: 1
            }
        ),
        "{error}"
    );
}

#[test]
fn straight_through_is_the_nearest_and_passes_the_gradient() {
    let weight = values(256, 0.1);
    let grad: Vec<f32> = (0..256).map(|i| (i as f32).cos()).collect();
    for scale in [None, Some(ScaleScheme::Abs)] {
        for (group_size, cluster_dim, lut) in [
            (None, 1, DkmLut::Weight),
            (Some(4), 2, DkmLut::F16),
            (Some(8), 1, DkmLut::Int8),
        ] {
            let spec = DkmSpec {
                mode: DkmMode::Ste,
                group_size,
                cluster_dim,
                lut,
                scale,
                ..spec(Nbits::B2)
            };
            let found = start(spec.clone(), &[16, 16], &weight);
            assert!(found.temperatures.is_empty());
            let (soft, next, gradient) = found.step(&weight, &grad);
            assert_eq!(gradient, grad);
            let mut hard = weight.clone();
            let dkm = &found.dkm;
            dkm.assign(&weight, &next, found.scale.as_deref(), &mut hard)
                .unwrap();
            for (soft, hard) in soft.iter().zip(&hard) {
                assert!((soft - hard).abs() <= 1e-3 * hard.abs(), "{soft} {hard}");
            }
            // The table moves as k-means does: as with all attention to the nearest.
            let hard = DkmSpec {
                mode: DkmMode::Hard,
                ..spec
            };
            assert_eq!(start(hard, &[16, 16], &weight).step(&weight, &grad).1, next);
        }
    }
}
