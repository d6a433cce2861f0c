//! Naive twins, and what every implementation must agree on with them.

mod any_values;
mod assign;
mod branch_and_bound;
mod draws;
mod histogram;
mod layerwise;
mod naive;
mod pack;
mod same;
mod scalar;
mod soft;
mod stop;
mod vectors;

pub(crate) use same::force_portable;

/// Numbers that look random; the tests draw their larger inputs from this.
pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    /// Uniform between 0 and 1.
    pub(crate) fn unit(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let mixed = (self.0 ^ (self.0 >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((mixed >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    pub(crate) fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// `n` values of one of the named distributions.
    pub(crate) fn values(&mut self, kind: Kind, n: usize) -> Vec<f32> {
        let mut values: Vec<f32> = (0..n).map(|i| self.value(kind, i) as f32).collect();
        if let (Kind::Outlier, Some(first)) = (kind, values.first_mut()) {
            *first = 60_000.0;
        }
        values
    }

    fn value(&mut self, kind: Kind, i: usize) -> f64 {
        match kind {
            Kind::Normal => self.normal() * 0.02,
            Kind::Uniform => self.unit() - 0.5,
            Kind::Cauchy => self.normal() / self.normal(),
            Kind::Lognormal => {
                (2.0 * self.normal()).exp() * if self.unit() < 0.5 { -1.0 } else { 1.0 }
            }
            Kind::Outlier => self.normal() * 1e-3,
            Kind::Far => 1000.0 + 0.001 * self.normal(),
            Kind::Clumps => [-10.0, 3.0, 40.0][i % 3] + 1e-3 * self.normal(),
            Kind::Sparse => {
                if self.unit() < 0.7 {
                    0.0
                } else {
                    self.normal()
                }
            }
            Kind::Lattice => (self.unit() * 64.0).floor() / 16.0,
        }
    }
}

/// Distributions of weights, pleasant and not.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Normal,
    Uniform,
    Cauchy,
    Lognormal,
    Outlier,
    Far,
    Clumps,
    Sparse,
    Lattice,
}

pub(crate) const KINDS: [Kind; 9] = [
    Kind::Normal,
    Kind::Uniform,
    Kind::Cauchy,
    Kind::Lognormal,
    Kind::Outlier,
    Kind::Far,
    Kind::Clumps,
    Kind::Sparse,
    Kind::Lattice,
];
