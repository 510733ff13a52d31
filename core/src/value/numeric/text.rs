//! `numeric_in` and `numeric_out`.

use super::{Finite, INTEGER_DIGITS_MAX, Numeric, Repr, SCALE_MAX, overflow, pow10_big};
use crate::value::datetime::{push_int, push_padded};
use crate::value::error::ValueError;
use num_bigint::BigInt;
use num_traits::Num;
use std::fmt;
use std::str::FromStr;

impl FromStr for Numeric {
    type Err = ValueError;

    /// What PostgreSQL 15 accepts: blanks around, a sign, digits with a point, an exponent, `NaN`,
    /// `Infinity`, `inf`.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let syntax = || ValueError::syntax("numeric");
        let text = text.trim_matches(super::super::text::is_space);
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, text.get(1..).unwrap_or_default()),
            Some(b'+') => (false, text.get(1..).unwrap_or_default()),
            _ => (false, text),
        };
        if !rest.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
            return special(text, rest, negative).ok_or_else(syntax);
        }
        let (mantissa, exponent) = match rest.find(['e', 'E']) {
            Some(at) => (
                rest.get(..at).unwrap_or_default(),
                parse_exponent(rest.get(at + 1..).unwrap_or_default())?,
            ),
            None => (rest, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if (whole.is_empty() && fraction.is_empty()) || !all_digits(whole) || !all_digits(fraction)
        {
            return Err(syntax());
        }
        build(negative, whole, fraction, exponent)
    }
}

fn special(text: &str, rest: &str, negative: bool) -> Option<Numeric> {
    if text.eq_ignore_ascii_case("nan") {
        return Some(Numeric::NAN);
    }
    if rest.eq_ignore_ascii_case("infinity") || rest.eq_ignore_ascii_case("inf") {
        return Some(if negative { Numeric::NEGATIVE_INFINITY } else { Numeric::INFINITY });
    }
    None
}

fn parse_exponent(text: &str) -> Result<i64, ValueError> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ValueError::syntax("numeric"));
    }
    // PostgreSQL refuses |exponent| ≥ INT_MAX / 2 before it looks at the digits.
    let exponent: i64 = text.parse().ok().ok_or_else(overflow)?;
    if exponent.unsigned_abs() >= u64::from(i32::MAX.unsigned_abs() / 2) {
        return Err(overflow());
    }
    Ok(exponent)
}

fn build(
    negative: bool,
    whole: &str,
    fraction: &str,
    exponent: i64,
) -> Result<Numeric, ValueError> {
    let fraction_digits = i64::try_from(fraction.len()).ok().ok_or_else(overflow)?;
    let scale = fraction_digits - exponent;
    if scale > i64::from(SCALE_MAX) {
        return Err(overflow());
    }
    let shown = u16::try_from(scale.max(0)).ok().ok_or_else(overflow)?;
    let zeros = u32::try_from((-scale).max(0)).ok().ok_or_else(overflow)?;
    let digits = || whole.bytes().chain(fraction.bytes());
    if whole.len() + fraction.len() <= 38 && zeros == 0 {
        let magnitude = digits().fold(0_i128, |value, digit| value * 10 + i128::from(digit - b'0'));
        let coefficient = if negative { -magnitude } else { magnitude };
        return Numeric::from_scaled_i128(coefficient, shown).ok_or_else(overflow);
    }
    if digits().all(|digit| digit == b'0') {
        return Numeric::from_scaled_i128(0, shown).ok_or_else(overflow);
    }
    // Before anything large is built.
    let leading = i64::try_from(digits().take_while(|&digit| digit == b'0').count());
    let total = i64::try_from(whole.len() + fraction.len());
    if let (Ok(total), Ok(leading)) = (total, leading)
        && total - leading - scale > INTEGER_DIGITS_MAX
    {
        return Err(overflow());
    }
    let text: String = digits().map(char::from).collect();
    let mut coefficient =
        BigInt::from_str_radix(&text, 10).ok().ok_or_else(|| ValueError::syntax("numeric"))?;
    coefficient *= pow10_big(zeros);
    Numeric::from_scaled(if negative { -coefficient } else { coefficient }, shown)
}

impl fmt::Display for Numeric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.write(&mut text);
        f.write_str(&text)
    }
}

impl Numeric {
    /// Appends `numeric_out`: every digit of the scale is shown.
    pub(crate) fn write(&self, out: &mut String) {
        match &self.0 {
            Repr::NaN => out.push_str("NaN"),
            Repr::Infinity => out.push_str("Infinity"),
            Repr::NegativeInfinity => out.push_str("-Infinity"),
            Repr::Small { coefficient, scale } => {
                write_small(*coefficient, usize::from(*scale), out);
            }
            Repr::Big(big) => {
                let negative = Finite::Big(&big.coefficient, big.scale).signum() < 0;
                let digits = big.coefficient.magnitude().to_string();
                write_digits(negative, &digits, usize::from(big.scale), out);
            }
        }
    }
}

fn write_small(coefficient: i128, scale: usize, out: &mut String) {
    let magnitude = coefficient.unsigned_abs();
    // Nearly all numbers: the 64-bit division is several times as fast as the 128-bit one.
    if let Ok(magnitude) = u64::try_from(magnitude)
        && let Some(unit) = u32::try_from(scale).ok().and_then(|scale| 10_u64.checked_pow(scale))
    {
        if coefficient < 0 {
            out.push('-');
        }
        push_int(magnitude / unit, out);
        if scale > 0 {
            out.push('.');
            push_padded(magnitude % unit, scale, out);
        }
        return;
    }
    write_digits(coefficient < 0, itoa::Buffer::new().format(magnitude), scale, out);
}

fn write_digits(negative: bool, digits: &str, scale: usize, out: &mut String) {
    if negative {
        out.push('-');
    }
    let (whole, fraction) = match digits.len().checked_sub(scale) {
        Some(at) if at > 0 => digits.split_at_checked(at).unwrap_or((digits, "")),
        _ => ("0", digits),
    };
    out.push_str(whole);
    if scale > 0 {
        out.push('.');
        for _ in fraction.len()..scale {
            out.push('0');
        }
        out.push_str(fraction);
    }
}
