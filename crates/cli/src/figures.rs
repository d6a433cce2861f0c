//! Numbers as text.

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in the unit that leaves one to three digits before the point.
pub(crate) fn bytes(number: u64) -> String {
    let mut scaled = number as f64;
    let mut unit = "B";
    for next in ["kB", "MB", "GB", "TB"] {
        if scaled < 999.5 {
            break;
        }
        scaled /= 1000.0;
        unit = next;
    }
    match scaled {
        _ if unit == "B" => format!("{number} B"),
        s if s < 9.995 => format!("{s:.2} {unit}"),
        s if s < 99.95 => format!("{s:.1} {unit}"),
        s => format!("{s:.0} {unit}"),
    }
}

/// `[64, 3, 7, 7]` as `64×3×7×7`.
pub(crate) fn shape(shape: &[usize]) -> String {
    if shape.is_empty() {
        return "scalar".to_owned();
    }
    let dims: Vec<String> = shape.iter().map(usize::to_string).collect();
    dims.join("×")
}

/// How many times smaller.
pub(crate) fn ratio(before: u64, after: u64) -> String {
    format!("{:.2}×", before as f64 / after.max(1) as f64)
}

/// A signal-to-noise ratio; there is none without noise.
pub(crate) fn decibels(snr_db: Option<f64>, mse: Option<f64>) -> String {
    match (snr_db, mse) {
        (Some(snr), _) => format!("{snr:.1}"),
        (None, Some(0.0)) => "exact".to_owned(),
        (None, _) => "-".to_owned(),
    }
}

/// A time that keeps its leading digits.
pub(crate) fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 0.0995 => format!("{:.1} ms", s * 1e3),
        s if s < 9.995 => format!("{s:.2} s"),
        s => format!("{s:.1} s"),
    }
}

/// A number of any size, with four digits that count.
pub(crate) fn general(number: f64) -> String {
    match number.abs() {
        0.0 => "0".to_owned(),
        size if !(1e-3..1e5).contains(&size) => format!("{number:.3e}"),
        size => {
            let digits = 3 - (size.log10().floor() as i32);
            format!("{number:.*}", digits.clamp(0, 6) as usize)
        }
    }
}

/// A count with its noun.
pub(crate) fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", grouped(number as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        let table = [
            (grouped(0), "0"),
            (grouped(999), "999"),
            (grouped(1000), "1,000"),
            (grouped(1_234_567), "1,234,567"),
            (bytes(0), "0 B"),
            (bytes(999), "999 B"),
            (bytes(1000), "1.00 kB"),
            (bytes(163_476), "163 kB"),
            (bytes(999_600), "1.00 MB"),
            (bytes(51_234_567), "51.2 MB"),
            (bytes(6_000_000_000), "6.00 GB"),
            (shape(&[64, 3, 7, 7]), "64×3×7×7"),
            (shape(&[]), "scalar"),
            (ratio(100, 25), "4.00×"),
            (ratio(100, 0), "100.00×"),
            (decibels(Some(20.06), Some(0.1)), "20.1"),
            (decibels(None, Some(0.0)), "exact"),
            (decibels(None, None), "-"),
            (seconds(0.0123), "12.3 ms"),
            (seconds(0.25), "0.25 s"),
            (seconds(12.34), "12.3 s"),
            (general(0.0), "0"),
            (general(-1.23456), "-1.235"),
            (general(123.456), "123.5"),
            (general(12345.6), "12346"),
            (general(0.00123456), "0.001235"),
            (general(1.5e-7), "1.500e-7"),
            (general(f64::NAN), "NaN"),
            (count(1, "weight"), "1 weight"),
            (count(2, "weight"), "2 weights"),
        ];
        for (text, expected) in table {
            assert_eq!(text, expected);
        }
    }
}
