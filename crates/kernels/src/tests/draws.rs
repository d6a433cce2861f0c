//! Weights as they come, and worse: what no kernel may stumble over.

/// Kinds of values, each with something that an implementation may not have thought of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Draw {
    /// A masked layer: seven in ten are zeros, of both signs.
    Masked,
    /// A dead one: zeros of both signs and nothing else.
    Dead,
    /// Nothing but -0.
    NegativeZero,
    /// Nothing below zero, and zeros of both signs.
    Positive,
    /// Nothing above zero, and zeros of both signs.
    Negative,
    /// Two values.
    Two,
    /// One value.
    Constant,
    /// Smaller than any normal number.
    Subnormal,
    /// Nothing but the largest and the smallest finite number, and zeros.
    Extreme,
    /// The largest numbers beside ordinary ones.
    Outlier,
    /// Every exponent, both signs.
    Ladder,
    /// Tails so heavy that most of the energy is one value.
    Tail,
    /// Values next to each other, far from zero.
    Neighbours,
    /// Ascending in equal steps, a few hundred of them.
    Steps,
    /// Ordinary values.
    Normal,
    /// Ordinary values with NaN and infinities among them.
    Broken,
    /// NaN and infinities alone.
    Hopeless,
}

impl Draw {
    pub(crate) const ALL: [Draw; 17] = [
        Draw::Masked,
        Draw::Dead,
        Draw::NegativeZero,
        Draw::Positive,
        Draw::Negative,
        Draw::Two,
        Draw::Constant,
        Draw::Subnormal,
        Draw::Extreme,
        Draw::Outlier,
        Draw::Ladder,
        Draw::Tail,
        Draw::Neighbours,
        Draw::Steps,
        Draw::Normal,
        Draw::Broken,
        Draw::Hopeless,
    ];

    /// `n` values whose largest finite number is `most`: that of the dtype they are for.
    pub(crate) fn values(self, n: usize, most: f32, seed: u64) -> Vec<f32> {
        let mut bits = Bits(seed ^ 0x9e37_79b9_7f4a_7c15);
        (0..n).map(|i| self.value(i, most, &mut bits)).collect()
    }

    fn value(self, i: usize, most: f32, bits: &mut Bits) -> f32 {
        let zero = if bits.one_in(2) { 0.0 } else { -0.0 };
        match self {
            Draw::Masked if bits.one_in(10) || !bits.one_in(3) => zero,
            Draw::Masked | Draw::Normal => bits.normal(),
            Draw::Dead => zero,
            Draw::NegativeZero => -0.0,
            Draw::Positive | Draw::Negative if bits.one_in(4) => zero,
            Draw::Positive => bits.normal().abs(),
            Draw::Negative => -bits.normal().abs(),
            Draw::Two => [-0.25, 0.5][usize::from(bits.one_in(3))],
            Draw::Constant => 0.3,
            Draw::Subnormal => bits.normal() * f32::MIN_POSITIVE,
            Draw::Extreme => [most, -most, zero][bits.below(3)],
            Draw::Outlier if bits.one_in(50) => [most, -most][bits.below(2)],
            Draw::Outlier => bits.normal(),
            Draw::Ladder => {
                let exponent = i as i32 % 277 - 149;
                let sign = if bits.one_in(2) { 1.0 } else { -1.0 };
                ((sign * 2_f64.powi(exponent)) as f32 * (1.0 + bits.unit() * 0.9))
                    .clamp(-most, most)
            }
            Draw::Tail => (bits.normal() / bits.normal()).powi(5).clamp(-most, most),
            Draw::Neighbours => f32::from_bits(1000_f32.to_bits() + bits.below(40) as u32),
            Draw::Steps => (i % 300) as f32 / 64.0,
            Draw::Broken if bits.one_in(100) => bits.special(),
            Draw::Broken => bits.normal(),
            Draw::Hopeless => bits.special(),
        }
    }
}

/// Numbers that look random.
pub(crate) struct Bits(pub(crate) u64);

impl Bits {
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 ^ (self.0 >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 11
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// Between 0 and 1.
    pub(crate) fn unit(&mut self) -> f32 {
        ((self.next() >> 29) as f32 + 0.5) / (1 << 24) as f32
    }

    fn normal(&mut self) -> f32 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f32::consts::TAU * self.unit()).cos() * 0.05
    }

    fn special(&mut self) -> f32 {
        [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -f32::NAN][self.below(4)]
    }
}
