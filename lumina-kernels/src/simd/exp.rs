//! The exponential and the sigmoid, in operations that the compiler vectorises.

/// Adding 1.5 · 2²³ rounds to the nearest whole number, ties to even, on any processor alike. The number is then in the
/// low bits.
pub(crate) const ROUND: f32 = 12_582_912.0;

/// `e^x`, within two units in the last place.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Outside of this range the result is not a normal number.
    let x = x.clamp(-87.0, 88.0);
    // A cast to an integer would saturate, which compilers do value by value.
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let whole = rounded - ROUND;
    // ln 2 in two parts, so that the remainder is exact.
    let rest = (x - whole * 0.693_359_4) + whole * 2.121_944_4e-4;
    let series = 1.0 / 5040.0;
    let series = series * rest + 1.0 / 720.0;
    let series = series * rest + 1.0 / 120.0;
    let series = series * rest + 1.0 / 24.0;
    let series = series * rest + 1.0 / 6.0;
    let series = series * rest + 0.5;
    let series = (series * rest + 1.0) * rest + 1.0;
    series * f32::from_bits(rounded.to_bits().wrapping_add(127) << 23)
}

/// `1 / (1 + e^−x)`.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close() {
        for step in -1700..1760 {
            let x = step as f32 * 0.05;
            let expected = f64::from(x).exp();
            assert!((f64::from(exp(x)) - expected).abs() <= 4e-7 * expected, "{x}: {} {expected}", exp(x));
        }
        assert!(sigmoid(-1e30) >= 0.0 && sigmoid(1e30) == 1.0 && sigmoid(f32::NAN).is_nan());
    }
}
