//! 1-D k-means against brute force over all contiguous partitions.

use proptest::prelude::*;

use crate::{Census, Precision, Weights};

/// Least cost of any partition of sorted `(x, w)` into at most `k` runs.
fn brute(points: &[(f64, f64)], k: usize) -> f64 {
    if points.is_empty() {
        return 0.0;
    }
    let run = |part: &[(f64, f64)]| {
        let total: f64 = part.iter().map(|p| p.1).sum();
        let mean = part.iter().map(|p| p.0 * p.1).sum::<f64>() / total;
        part.iter().map(|p| p.1 * (p.0 - mean).powi(2)).sum::<f64>()
    };
    if k == 1 {
        return run(points);
    }
    (1..=points.len()).map(|i| run(&points[..i]) + brute(&points[i..], k - 1)).fold(f64::INFINITY, f64::min)
}

proptest! {
    #[test]
    fn as_good_as_brute_force(values in prop::collection::vec(-20_i32..20, 1..14), k in 1_usize..6) {
        let values: Vec<f32> = values.into_iter().map(|v| v as f32 / 4.0).collect();
        let mut points: Vec<(f64, f64)> = values.iter().map(|&v| (f64::from(v), 1.0)).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let clusters = Census::new(&values, Weights::Equal, Precision::Exact).cluster(k);
        prop_assert!((clusters.cost - brute(&points, k)).abs() < 1e-9);
        prop_assert!(clusters.centroids.len() <= k);
    }
}
