//! The same bits, whatever the number of threads and the instruction set.

use std::sync::atomic::{AtomicBool, Ordering};

use half::{bf16, f16};

use super::{Kind, Noise};
use crate::{
    Element, Precision, ValueHistogram, VectorOptions, Weights, assign_vectors, cluster_vectors,
    pack,
};

/// Whether the kernels use their force_portable form. Other tests run at the same time and may see either: that is the point.
static PLAIN: AtomicBool = AtomicBool::new(false);

pub(crate) fn force_portable() -> bool {
    PLAIN.load(Ordering::Relaxed)
}

fn histogram<T: Element>(values: &[T], weights: Weights<'_>, out: &mut Vec<u64>) {
    let histogram = ValueHistogram::new(values, weights, Precision::Exact);
    out.push(histogram.energy().to_bits());
    for k in [2, 16, 40] {
        let clusters = histogram.cluster(k);
        out.push(clusters.cost.to_bits());
        out.extend(clusters.centroids.iter().map(|c| c.to_bits()));
        let lut: Vec<f32> = clusters.centroids.iter().map(|&c| c as f32).collect();
        let mut indices = vec![0; values.len()];
        out.push(histogram.assign(&lut, &mut indices).to_bits());
        let mut bytes = Vec::new();
        pack(&indices, 6, &mut bytes);
        out.extend(bytes.iter().map(|&b| u64::from(b)));
    }
}

/// Everything there is, as bits.
fn everything() -> Vec<u64> {
    let mut noise = Noise(41);
    let mut out = Vec::new();
    super::soft::everything(&mut out);
    super::layerwise::everything(&mut out);
    crate::pointwise::tests::everything(&mut out);
    crate::fold::tests::everything(&mut out);
    crate::softmax::tests::everything(&mut out);
    for (kind, n) in [
        (Kind::Normal, 400_000),
        (Kind::Cauchy, 30_000),
        (Kind::Sparse, 1000),
    ] {
        let values = noise.values(kind, n);
        let weights: Vec<f32> = (0..n).map(|_| noise.unit() as f32).collect();
        for weights in [Weights::Equal, Weights::Each(&weights)] {
            histogram(&values, weights, &mut out);
            histogram(
                &values.iter().map(|&x| f16::from_f32(x)).collect::<Vec<_>>(),
                weights,
                &mut out,
            );
            histogram(
                &values
                    .iter()
                    .map(|&x| bf16::from_f32(x))
                    .collect::<Vec<_>>(),
                weights,
                &mut out,
            );
        }
        for dim in [1, 2, 3, 4, 5, 8] {
            let values = &values[..values.len().min(60_000)];
            let found = cluster_vectors(
                values,
                dim,
                32,
                None,
                VectorOptions {
                    seed: 5,
                    ..VectorOptions::default()
                },
            );
            out.push(found.cost.to_bits());
            out.extend(found.centroids.iter().map(|c| u64::from(c.to_bits())));
            out.extend(found.indices.iter().map(|&i| u64::from(i)));
            let mut indices = vec![0; values.len() / dim];
            out.push(assign_vectors(values, dim, &found.centroids, &mut indices, None).to_bits());
        }
    }
    out
}

#[test]
fn whatever_the_threads_and_instructions() {
    let run = |threads: usize| {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap()
            .install(everything)
    };
    let one = run(1);
    assert!(one == run(3), "threads matter");
    PLAIN.store(true, Ordering::Relaxed);
    let plain = run(2);
    PLAIN.store(false, Ordering::Relaxed);
    assert!(one == plain, "instructions matter");
}
