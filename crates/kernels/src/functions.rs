//! Functions of one number that compilers turn into vector instructions: additions, multiplications, shifts and choices alone.
//!
//! Each is within three units in the last place of fp32, over all of fp32 (mostly within one); infinities and NaN come out as the
//! mathematics has them. There is no fused multiplication and addition, so results are the same on every machine. The polynomials
//! are minimax fits (Lawson's iteration) of what their comments say, on the interval that the reduction leaves.
//!
//! ```
//! use palettizer_kernels::functions;
//!
//! assert_eq!(functions::exp(0.0), 1.0);
//! assert_eq!(functions::tanh(f32::INFINITY), 1.0);
//! assert_eq!(functions::log(0.0), f32::NEG_INFINITY);
//! ```

use std::f32::consts::{FRAC_1_SQRT_2, LN_2, LOG2_E};

/// ln 2 in two parts; the first has few bits, so that its product with a small whole number is exact.
const LN_2_PARTS: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];

/// The polynomial with these coefficients, the constant one first.
#[inline(always)]
fn polynomial<const N: usize>(x: f32, coefficients: [f32; N]) -> f32 {
    let mut sum = coefficients[N - 1];
    for at in (0..N - 1).rev() {
        sum = sum * x + coefficients[at];
    }
    sum
}

/// 2ⁿ, n from -126 to 127.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) << 23) as u32)
}

/// Adding it leaves whole numbers, in the low bits.
const SHIFT: f32 = 12_582_912.0;

/// The whole number that is in the low bits of what it was shifted to.
#[inline(always)]
fn whole(shifted: f32) -> i32 {
    (shifted.to_bits() as i32).wrapping_sub(SHIFT.to_bits() as i32)
}

/// e^r - 1, r within ln 2 / 2.
#[inline(always)]
fn exp_m1_near_zero(r: f32) -> f32 {
    /// (e^r - 1 - r) / r²; relative error of e^r - 1: 2.4e-10.
    const Q: [f32; 6] = [
        0.5,
        0.166_666_66,
        0.041_666_36,
        0.008_333_39,
        0.001_394_076_6,
        0.000_198_458_89,
    ];
    r + r * r * polynomial(r, Q)
}

/// p and n with e^(x + more) = 2ⁿ (1 + p); `more` is small, and p exact where it is small.
#[inline(always)]
fn reduced(x: f32, more: f32) -> (f32, i32) {
    let shifted = x * LOG2_E + SHIFT;
    let n = shifted - SHIFT;
    let r = (x - n * LN_2_PARTS[0]) - n * LN_2_PARTS[1] + more;
    (exp_m1_near_zero(r), whole(shifted))
}

/// x, not below and not above these; NaN stays.
#[inline(always)]
fn within(x: f32, least: f32, most: f32) -> f32 {
    let x = if x < least { least } else { x };
    if x > most { most } else { x }
}

/// m · 2ⁿ, n from -252 to 254; rounded once.
#[inline(always)]
fn scaled(m: f32, n: i32) -> f32 {
    let half = n >> 1;
    m * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

/// eˣ.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let (p, n) = reduced(within(x, -104.0, 89.0), 0.0);
    scaled(1.0 + p, n)
}

/// 2ˣ; exact where x is whole.
#[inline(always)]
pub fn exp2(x: f32) -> f32 {
    let x = within(x, -151.0, 129.0);
    let shifted = x + SHIFT;
    let p = exp_m1_near_zero((x - (shifted - SHIFT)) * LN_2);
    scaled(1.0 + p, whole(shifted))
}

/// eˣ - 1 of a number that is not above 88.
#[inline(always)]
pub fn exp_m1(x: f32) -> f32 {
    let (p, n) = reduced(within(x, -30.0, 88.0), 0.0);
    let power = power_of_two(n);
    power * p + (power - 1.0)
}

/// The hyperbolic tangent.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let a = within(x.abs(), 0.0, 20.0);
    let e = exp_m1(2.0 * a);
    // what is small is a quotient, what is large 1 less a small one: neither loses digits
    let small = a < 0.6;
    let (above, one) = if small { (e, 0.0) } else { (-2.0, 1.0) };
    (one + above / (e + 2.0)).copysign(x)
}

/// 1 / (1 + e⁻ˣ).
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    let e = exp(-x.abs());
    (if x < 0.0 { e } else { 1.0 }) / (1.0 + e)
}

/// The natural logarithm.
#[inline(always)]
pub fn log(x: f32) -> f32 {
    const SQRT_HALF: i32 = 0x3f35_04f3;
    /// (log(1 + f) - f + f²/2) / f³; relative error of the logarithm: 7.5e-10.
    const P: [f32; 9] = [
        0.333_333_13,
        -0.250_000_1,
        0.200_021_19,
        -0.166_679_96,
        0.142_195_52,
        -0.124_055_89,
        0.118_881_62,
        -0.116_756_52,
        0.067_466_4,
    ];
    let tiny = x < f32::MIN_POSITIVE;
    let bits = (if tiny { x * 8_388_608.0 } else { x }).to_bits() as i32;
    let n = bits.wrapping_sub(SQRT_HALF) >> 23;
    let f = f32::from_bits(bits.wrapping_sub(n << 23) as u32) - 1.0;
    let n = n as f32 - if tiny { 23.0 } else { 0.0 };
    let rest = f * f * f * polynomial(f, P) + n * LN_2_PARTS[1] - 0.5 * f * f;
    let value = rest + f + n * LN_2_PARTS[0];
    let value = if x == 0.0 { f32::NEG_INFINITY } else { value };
    let value = if x < 0.0 { f32::NAN } else { value };
    if x < f32::INFINITY { value } else { x }
}

/// log(1 + x) of a number that is not negative.
#[inline(always)]
pub fn log_1p(x: f32) -> f32 {
    let u = 1.0 + x;
    log(u) + (x - (u - 1.0)) / u
}

/// log(1 + eˣ).
#[inline(always)]
pub fn softplus(x: f32) -> f32 {
    (if x < 0.0 { 0.0 } else { x }) + log_1p(exp(-x.abs()))
}

/// 1 - erf(a) of a number that is not negative; digits are lost as those of a² are, 10 units at 3.
#[inline(always)]
fn erfc_above(a: f32) -> f32 {
    /// e^(a²) (a + 3) erfc(a) as a polynomial in (a - 3) / (a + 3), a from 0 to 10.2; relative error 2.1e-9.
    const P: [f32; 10] = [
        1.074_006_9,
        -0.883_394_5,
        0.590_228_3,
        -0.310_466_02,
        0.119_529_07,
        -0.026_839_826,
        -0.001_226_430_2,
        0.003_080_328_7,
        -0.000_483_177_6,
        -0.000_325_334_05,
    ];
    let a = within(a, 0.0, 10.2);
    // the square of the first half of the digits is exact
    let z = f32::from_bits(a.to_bits() & 0xffff_f000);
    let (p, n) = reduced(-z * z, -(a - z) * (a + z));
    let inverse = 1.0 / (a + 3.0);
    scaled(
        (1.0 + p) * (polynomial((a - 3.0) * inverse, P) * inverse),
        n,
    )
}

/// The error function.
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    /// erf(x) / x - 1 as a polynomial in x², |x| up to 0.9; relative error of erf(x): 2.9e-10.
    const P: [f32; 7] = [
        0.128_379_17,
        -0.376_126_35,
        0.112_837_15,
        -0.026_860_509,
        0.005_203_859,
        -0.000_817_563_97,
        8.513_105e-5,
    ];
    let a = x.abs();
    let small = x + x * polynomial(x * x, P);
    let large = (1.0 - erfc_above(a)).copysign(x);
    if a < 0.9 { small } else { large }
}

/// The probability that a normal variable is below x.
#[inline(always)]
pub fn normal_below(x: f32) -> f32 {
    let tail = 0.5 * erfc_above(x.abs() * FRAC_1_SQRT_2);
    if x > 0.0 { 1.0 - tail } else { tail }
}

/// The density of a normal variable at x.
#[inline(always)]
pub fn normal_density(x: f32) -> f32 {
    const AT_ZERO: f32 = 0.398_942_3;
    AT_ZERO * exp(-0.5 * x * x)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest error in units in the last place, over numbers of all sizes between two.
    fn worst(ours: fn(f32) -> f32, exact: fn(f64) -> f64, least: f32, most: f32) -> f64 {
        let all = (0..=u32::MAX).step_by(4999).map(f32::from_bits);
        let errors = all.filter(|x| (least..=most).contains(x)).map(|x| {
            let (found, wanted) = (ours(x), exact(f64::from(x)));
            let rounded = wanted as f32;
            if rounded.is_infinite() || found.is_infinite() {
                assert!(found == rounded || rounded.abs() > 3.4e38, "{x}: {found}");
                return 0.0;
            }
            let above = rounded.abs().max(f32::MIN_POSITIVE).next_up();
            let unit = f64::from(above) - f64::from(above.next_down());
            (f64::from(found) - wanted).abs() / unit
        });
        errors.fold(
            0.0,
            |worst: f64, error| if error <= worst { worst } else { error },
        )
    }

    #[test]
    fn errors_are_a_few_units_in_the_last_place() {
        const ALL: f32 = f32::INFINITY;
        type Case = (&'static str, fn(f32) -> f32, fn(f64) -> f64, f32, f32);
        let table: [Case; 8] = [
            ("exp", exp, f64::exp, -ALL, ALL),
            ("exp2", exp2, f64::exp2, -ALL, ALL),
            ("exp_m1", exp_m1, f64::exp_m1, -ALL, 88.0),
            ("tanh", tanh, f64::tanh, -ALL, ALL),
            ("sigmoid", sigmoid, |x| 1.0 / (1.0 + (-x).exp()), -ALL, ALL),
            ("log", log, f64::ln, 0.0, ALL),
            ("log_1p", log_1p, f64::ln_1p, 0.0, 1e30),
            (
                "softplus",
                softplus,
                |x| x.max(0.0) + (-x.abs()).exp().ln_1p(),
                -ALL,
                1e30,
            ),
        ];
        for (name, ours, exact, least, most) in table {
            let worst = worst(ours, exact, least, most);
            assert!(worst < 3.0, "{name}: {worst}");
        }
    }

    #[test]
    fn the_error_function_is_that_of_its_integral() {
        // Simpson's rule on the density, from 0 on
        // steps whose ends are numbers of fp32
        let (steps, most) = (8192, 8.0f64);
        let width = most / f64::from(steps);
        let density = |x: f64| (-x * x).exp() * std::f64::consts::FRAC_2_SQRT_PI;
        let mut sum = 0.0;
        for step in 1..=steps {
            let (from, to) = (f64::from(step - 1) * width, f64::from(step) * width);
            sum += (density(from) + 4.0 * density(0.5 * (from + to)) + density(to)) * width / 6.0;
            let x = to as f32;
            for (x, wanted) in [(x, sum), (-x, -sum)] {
                let error = (f64::from(erf(x)) - wanted).abs();
                assert!(error <= 1.5e-7 * wanted.abs(), "{x}: {error}");
                let below = f64::from(normal_below(x * std::f32::consts::SQRT_2));
                assert!((below - 0.5 * (1.0 + wanted)).abs() < 2e-7, "{x}: {below}");
            }
        }
        // far out, where the error function says nothing, the tail keeps its digits
        for (x, wanted) in [
            (-3.0f32, 1.349_898_03e-3),
            (-6.0, 9.865_876_5e-10),
            (-12.0, 1.776_482_1e-33),
        ] {
            let found = f64::from(normal_below(x));
            assert!((found / wanted - 1.0).abs() < 1e-5, "{x}: {found}");
        }
    }

    #[test]
    fn what_is_no_number_stays_none() {
        let all: [fn(f32) -> f32; 9] = [
            exp,
            exp_m1,
            tanh,
            sigmoid,
            log,
            softplus,
            erf,
            normal_below,
            normal_density,
        ];
        assert!(all.iter().all(|function| function(f32::NAN).is_nan()));
        assert!(
            log(-1.0).is_nan() && log(0.0) == f32::NEG_INFINITY && log(-0.0) == f32::NEG_INFINITY
        );
        assert!(exp2(f32::NAN).is_nan());
        assert_eq!(
            [exp2(-149.0), exp2(127.0)],
            [f32::from_bits(1), 2f32.powi(127)]
        );
        assert!(tanh(-0.0).is_sign_negative() && erf(-0.0).is_sign_negative());
        assert_eq!(
            [normal_below(f32::NEG_INFINITY), normal_below(f32::INFINITY)],
            [0.0, 1.0]
        );
        assert_eq!([erf(f32::NEG_INFINITY), erf(f32::INFINITY)], [-1.0, 1.0]);
    }
}
