//! Division, remainders and powers as numpy has them.
//!
//! An integer divided by 0 is 0, as in numpy; a quotient of integers, and a power with a negative exponent, is cut to an integer.

/// The quotient rounded down, from the exact remainder: 1 / 0.1 is 9, for the 0.1 of fp32 is larger than a tenth.
pub(super) fn floor_div(x: f32, y: f32) -> f32 {
    if y == 0.0 {
        return x / y;
    }
    let rest = x % y;
    let quotient = (x - rest) / y;
    let quotient = match rest != 0.0 && (y < 0.0) != (rest < 0.0) {
        true => quotient - 1.0,
        false => quotient,
    };
    if quotient == 0.0 {
        return 0.0f32.copysign(x / y);
    }
    let below = quotient.floor();
    if quotient - below > 0.5 {
        below + 1.0
    } else {
        below
    }
}

/// The remainder of `floor_div`: it has the sign of y.
pub(super) fn remainder(x: f32, y: f32) -> f32 {
    let rest = x % y;
    if rest == 0.0 {
        return 0.0f32.copysign(y);
    }
    if (y < 0.0) != (rest < 0.0) {
        rest + y
    } else {
        rest
    }
}

/// x to the power of y.
pub(super) fn power(x: f32, y: f32) -> f32 {
    x.powf(y)
}

/// The quotient rounded down.
pub(super) fn floor_div_ints(x: i32, y: i32) -> i32 {
    if y == 0 {
        return 0;
    }
    let quotient = x.wrapping_div(y);
    let down = x.wrapping_rem(y) != 0 && (x < 0) != (y < 0);
    quotient - i32::from(down)
}

/// The remainder of `floor_div_ints`.
pub(super) fn mod_ints(x: i32, y: i32) -> i32 {
    if y == 0 {
        return 0;
    }
    let rest = x.wrapping_rem(y);
    if rest != 0 && (rest < 0) != (y < 0) {
        rest + y
    } else {
        rest
    }
}

/// The quotient without its fraction.
pub(super) fn real_div_ints(x: i32, y: i32) -> i32 {
    if y == 0 { 0 } else { x.wrapping_div(y) }
}

/// x to the power of y, as many bits of it as there are.
pub(super) fn power_ints(x: i32, y: i32) -> i32 {
    match (x, u32::try_from(y)) {
        (_, Ok(y)) => x.wrapping_pow(y),
        (1, _) => 1,
        (-1, _) => 1 - 2 * (y & 1),
        _ => 0,
    }
}
