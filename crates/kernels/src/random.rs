//! Random numbers from a seed: the same on every machine, and whatever the number of threads.
//!
//! Source: SplitMix64 (Steele, Lea and Flood 2014). Fit for seeding and for noise, not for secrets.

/// What the state grows by: 2⁶⁴ over the golden ratio.
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

/// A source of random numbers.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The source of a seed.
    ///
    /// ```
    /// use palettizer_kernels::Random;
    ///
    /// let mut one = Random::new(7);
    /// assert_eq!(one.bits(), Random::new(7).bits());
    /// assert!((0.0..1.0).contains(&one.unit()));
    /// ```
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// The source of one of several streams of a seed.
    pub fn stream(seed: u64, number: u64) -> Self {
        Random(mix(
            seed.wrapping_add(ODD.wrapping_mul(number.wrapping_add(1)))
        ))
    }

    /// 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(ODD);
        mix(self.0)
    }

    /// At least 0 and less than 1.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// From the normal distribution of mean 0 and variance 1 (Box and Muller 1958).
    pub fn normal(&mut self) -> f64 {
        // the logarithm of 1 to 0 excluded
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Less than `count`, each alike; 0 if that is 0.
    pub fn below(&mut self, count: u64) -> u64 {
        // Lemire 2019, without the rejection: off by less than 2⁻³² for the counts that fit into memory
        ((u128::from(self.bits()) * u128::from(count)) >> 64) as u64
    }
}

/// SplitMix64's finalizer.
pub(crate) fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_spread_as_they_should_be() {
        let mut random = Random::stream(3, 5);
        let normal: Vec<f64> = (0..100_000).map(|_| random.normal()).collect();
        let mean = normal.iter().sum::<f64>() / 1e5;
        let square = normal.iter().map(|x| x * x).sum::<f64>() / 1e5;
        assert!(
            mean.abs() < 0.02 && (square - 1.0).abs() < 0.02,
            "{mean} {square}"
        );
        let mut counts = [0; 7];
        (0..70_000).for_each(|_| counts[random.below(7) as usize] += 1);
        assert!(
            counts.iter().all(|count| (9_500..10_500).contains(count)),
            "{counts:?}"
        );
        assert_eq!(random.below(0), 0);
        assert_ne!(Random::stream(3, 5).bits(), Random::stream(3, 6).bits());
    }
}
