//! Gumbel noise that is made again wherever it is needed: a function of seed, step, vector and cluster.
//!
//! Source: the mix is that of SplitMix64 (Steele, Lea and Flood 2014).

use crate::random::mix;

/// The noise of one cluster for the vector of that number.
pub(crate) fn gumbel(seed: u64, step: usize, vector: usize, cluster: usize) -> f64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let at = (vector as u64)
        .wrapping_mul(257)
        .wrapping_add(cluster as u64);
    let z = mix(seed.wrapping_add(ODD.wrapping_mul(step as u64 + 1)));
    let bits = mix(z ^ at.wrapping_mul(ODD));
    let unit = ((bits >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -(-unit.ln()).ln()
}
