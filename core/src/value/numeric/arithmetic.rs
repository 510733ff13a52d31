//! The operators, with the result scales of `numeric.c`.

use super::{Finite, Numeric, Repr, SCALE_MAX, big_at_scale, overflow, pow10, pow10_big, widen};
use crate::value::error::{SqlState, ValueError};
use num_bigint::BigInt;
use num_integer::Integer;
use num_traits::{Signed, Zero};
use std::borrow::Cow;
use std::cmp::Ordering;

/// `NUMERIC_MIN_SIG_DIGITS`: a quotient shows at least as many.
const MIN_SIGNIFICANT_DIGITS: i64 = 16;
/// `NUMERIC_MAX_DISPLAY_SCALE`: a quotient shows at most as many digits after the point.
const DIVISION_SCALE_MAX: i64 = 1000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rounding {
    HalfAwayFromZero,
    TowardsZero,
    Down,
    Up,
}

impl Numeric {
    /// Scale: the larger one.
    pub fn add(&self, other: &Self) -> Result<Self, ValueError> {
        match (self.finite(), other.finite()) {
            (Some(left), Some(right)) => add_finite(left, right, false),
            _ => Ok(self.add_special(other)),
        }
    }

    pub fn sub(&self, other: &Self) -> Result<Self, ValueError> {
        match (self.finite(), other.finite()) {
            (Some(left), Some(right)) => add_finite(left, right, true),
            _ => Ok(self.add_special(&other.neg())),
        }
    }

    /// `self = self + other`, for running sums; no allocation while the sum fits an i128.
    pub fn add_assign(&mut self, other: &Self) -> Result<(), ValueError> {
        *self = self.add(other)?;
        Ok(())
    }

    pub fn sub_assign(&mut self, other: &Self) -> Result<(), ValueError> {
        *self = self.sub(other)?;
        Ok(())
    }

    fn add_special(&self, other: &Self) -> Self {
        match (&self.0, &other.0) {
            (Repr::NaN, _)
            | (_, Repr::NaN)
            | (Repr::Infinity, Repr::NegativeInfinity)
            | (Repr::NegativeInfinity, Repr::Infinity) => Self::NAN,
            (Repr::Infinity, _) | (_, Repr::Infinity) => Self::INFINITY,
            _ => Self::NEGATIVE_INFINITY,
        }
    }

    /// Scale: the sum of both, rounded to 16,383 digits.
    pub fn mul(&self, other: &Self) -> Result<Self, ValueError> {
        let (Some(left), Some(right)) = (self.finite(), other.finite()) else {
            if self.is_nan() || other.is_nan() {
                return Ok(Self::NAN);
            }
            return Ok(infinity_of_sign(self.signum() * other.signum()));
        };
        let scale = u32::from(left.scale()) + u32::from(right.scale());
        if let (Finite::Small(a, _), Finite::Small(b, _)) = (left, right)
            && scale <= SCALE_MAX
            && let Some(coefficient) = a.checked_mul(b)
        {
            return finite_small(coefficient, scale);
        }
        let product = left.to_big() * right.to_big();
        if scale <= SCALE_MAX {
            return finite_big(product, scale);
        }
        let rounded =
            divide_big(&product, &pow10_big(scale - SCALE_MAX), Rounding::HalfAwayFromZero);
        finite_big(rounded, SCALE_MAX)
    }

    /// Scale: PostgreSQL's `select_div_scale`; rounded half away from zero.
    pub fn div(&self, other: &Self) -> Result<Self, ValueError> {
        let (Some(left), Some(right)) = (self.finite(), other.finite()) else {
            if self.is_nan() || other.is_nan() || (self.is_infinite() && other.is_infinite()) {
                return Ok(Self::NAN);
            }
            if other.is_zero() {
                return Err(ValueError::division_by_zero());
            }
            return Ok(if self.is_infinite() {
                infinity_of_sign(self.signum() * other.signum())
            } else {
                Self::ZERO
            });
        };
        if right.signum() == 0 {
            return Err(ValueError::division_by_zero());
        }
        let scale = division_scale(left, right);
        // left/10^l / (right/10^r) at `scale` = left * 10^(scale + r - l) / right
        let shift = i64::from(scale) + i64::from(right.scale()) - i64::from(left.scale());
        let power = u32::try_from(shift.unsigned_abs()).ok().ok_or_else(overflow)?;
        if let (Finite::Small(a, _), Finite::Small(b, _)) = (left, right)
            && let Some(factor) = pow10(power)
        {
            let (numerator, denominator) = if shift >= 0 {
                (a.checked_mul(factor), Some(b))
            } else {
                (Some(a), b.checked_mul(factor))
            };
            if let (Some(numerator), Some(denominator)) = (numerator, denominator)
                && let Some(quotient) =
                    divide_small(numerator, denominator, Rounding::HalfAwayFromZero)
            {
                return finite_small(quotient, scale);
            }
        }
        let (mut numerator, mut denominator) = (left.to_big(), right.to_big());
        if shift >= 0 {
            numerator *= pow10_big(power);
        } else {
            denominator *= pow10_big(power);
        }
        finite_big(divide_big(&numerator, &denominator, Rounding::HalfAwayFromZero), scale)
    }

    /// The remainder of the truncated quotient: it has the sign of `self` and the larger scale.
    pub fn rem(&self, other: &Self) -> Result<Self, ValueError> {
        let (Some(left), Some(right)) = (self.finite(), other.finite()) else {
            if self.is_nan() || other.is_nan() {
                return Ok(Self::NAN);
            }
            if other.is_zero() {
                return Err(ValueError::division_by_zero());
            }
            return Ok(if self.is_infinite() { Self::NAN } else { self.clone() });
        };
        if right.signum() == 0 {
            return Err(ValueError::division_by_zero());
        }
        let scale = left.scale().max(right.scale());
        if let (Finite::Small(a, a_scale), Finite::Small(b, b_scale)) = (left, right)
            && let (Some(a), Some(b)) = (widen(a, scale - a_scale), widen(b, scale - b_scale))
            && let Some(rest) = a.checked_rem(b)
        {
            return finite_small(rest, u32::from(scale));
        }
        finite_big(big_at_scale(left, scale) % big_at_scale(right, scale), u32::from(scale))
    }

    #[must_use]
    pub fn neg(&self) -> Self {
        match &self.0 {
            Repr::NaN => Self::NAN,
            Repr::Infinity => Self::NEGATIVE_INFINITY,
            Repr::NegativeInfinity => Self::INFINITY,
            Repr::Small { coefficient, scale } => match coefficient.checked_neg() {
                Some(coefficient) => Self(Repr::Small { coefficient, scale: *scale }),
                None => Self(Repr::Big(Box::new(super::Big {
                    coefficient: -BigInt::from(*coefficient),
                    scale: *scale,
                }))),
            },
            Repr::Big(big) => {
                // -(2^127) fits an i128 where 2^127 does not: build it anew.
                Self::from_scaled(-&big.coefficient, big.scale).unwrap_or_else(|_| self.clone())
            }
        }
    }

    #[must_use]
    pub fn abs(&self) -> Self {
        if self.signum() < 0 { self.neg() } else { self.clone() }
    }

    /// `round(x, digits)`: half away from zero; pads with zeros; negative digits round before the
    /// point.
    pub fn round(&self, digits: i32) -> Result<Self, ValueError> {
        self.to_scale(digits, Rounding::HalfAwayFromZero)
    }

    /// `trunc(x, digits)`.
    pub fn trunc(&self, digits: i32) -> Result<Self, ValueError> {
        self.to_scale(digits, Rounding::TowardsZero)
    }

    pub fn floor(&self) -> Result<Self, ValueError> {
        self.to_scale(0, Rounding::Down)
    }

    pub fn ceil(&self) -> Result<Self, ValueError> {
        self.to_scale(0, Rounding::Up)
    }

    /// The value as a column with or without precision and scale stores it.
    pub(in crate::value) fn fitted(self, typmod: Option<(u16, i16)>) -> Result<Self, ValueError> {
        match typmod {
            Some((precision, scale)) => self.with_typmod(precision, scale),
            None => Ok(self),
        }
    }

    /// The value as a column `numeric(precision, scale)` stores it.
    pub fn with_typmod(&self, precision: u16, scale: i16) -> Result<Self, ValueError> {
        let field_overflow =
            || ValueError::new(SqlState::NumericValueOutOfRange, "numeric field overflow");
        if self.is_nan() {
            return Ok(Self::NAN);
        }
        if self.is_infinite() {
            return Err(field_overflow());
        }
        let rounded = match self.as_small() {
            // The stream delivers column values, which have their scale already.
            Some((_, own)) if i32::from(own) == i32::from(scale) => Cow::Borrowed(self),
            _ => Cow::Owned(self.round_unclamped(i32::from(scale), Rounding::HalfAwayFromZero)?),
        };
        let Some(finite) = rounded.finite() else {
            return Err(field_overflow());
        };
        let integer_digits = finite.digits() - i64::from(finite.scale());
        if finite.signum() != 0 && integer_digits > i64::from(precision) - i64::from(scale) {
            return Err(field_overflow());
        }
        Ok(rounded.into_owned())
    }

    fn to_scale(&self, digits: i32, rounding: Rounding) -> Result<Self, ValueError> {
        // The limits of `numeric_round`: one digit past what a number can have.
        self.round_unclamped(digits.clamp(-131_073, 16_383), rounding)
    }

    fn round_unclamped(&self, digits: i32, rounding: Rounding) -> Result<Self, ValueError> {
        let Some(number) = self.finite() else {
            return Ok(self.clone());
        };
        let shown = u32::try_from(digits.max(0)).unwrap_or(0);
        let own = i32::from(number.scale());
        if digits == own {
            return Ok(self.clone());
        }
        if digits > own {
            let by = u32::try_from(digits - own).unwrap_or(0);
            if let Finite::Small(coefficient, _) = number
                && let Some(factor) = pow10(by)
                && let Some(coefficient) = coefficient.checked_mul(factor)
            {
                return finite_small(coefficient, shown);
            }
            return finite_big(number.to_big() * pow10_big(by), shown);
        }
        let by = u32::try_from(own - digits).unwrap_or(0);
        let back = u32::try_from(-digits.min(0)).unwrap_or(0);
        if let Finite::Small(coefficient, _) = number {
            let Some(divisor) = pow10(by) else {
                // Less than half of 10^by: only `Up` and `Down` could see it, and they ask for
                // digits = 0, where by is the scale.
                return small_to_integer(coefficient, rounding, shown);
            };
            if let Some(quotient) = divide_small(coefficient, divisor, rounding)
                && let Some(factor) = pow10(back)
                && let Some(coefficient) = quotient.checked_mul(factor)
            {
                return finite_small(coefficient, shown);
            }
        }
        if number.digits() < i64::from(by) && back > 0 {
            return finite_small(0, shown);
        }
        let quotient = divide_big(&number.to_big(), &pow10_big(by), rounding);
        finite_big(quotient * pow10_big(back), shown)
    }
}

/// What is left of |x| < 1/2 after rounding to `shown` digits.
fn small_to_integer(
    coefficient: i128,
    rounding: Rounding,
    shown: u32,
) -> Result<Numeric, ValueError> {
    let rounded = match (rounding, coefficient.cmp(&0)) {
        (Rounding::Down, Ordering::Less) => -1,
        (Rounding::Up, Ordering::Greater) => 1,
        _ => 0,
    };
    finite_small(rounded, shown)
}

fn infinity_of_sign(sign: i32) -> Numeric {
    match sign {
        0 => Numeric::NAN,
        1.. => Numeric::INFINITY,
        _ => Numeric::NEGATIVE_INFINITY,
    }
}

fn finite_small(coefficient: i128, scale: u32) -> Result<Numeric, ValueError> {
    let scale = u16::try_from(scale).ok().ok_or_else(overflow)?;
    Numeric::from_scaled_i128(coefficient, scale).ok_or_else(overflow)
}

fn finite_big(coefficient: BigInt, scale: u32) -> Result<Numeric, ValueError> {
    Numeric::from_scaled(coefficient, u16::try_from(scale).ok().ok_or_else(overflow)?)
}

fn add_finite(left: Finite<'_>, right: Finite<'_>, subtract: bool) -> Result<Numeric, ValueError> {
    let scale = left.scale().max(right.scale());
    if let (Finite::Small(a, a_scale), Finite::Small(b, b_scale)) = (left, right)
        && let (Some(a), Some(b)) = (widen(a, scale - a_scale), widen(b, scale - b_scale))
        && let Some(sum) = if subtract { a.checked_sub(b) } else { a.checked_add(b) }
    {
        return finite_small(sum, u32::from(scale));
    }
    let (a, b) = (big_at_scale(left, scale), big_at_scale(right, scale));
    finite_big(if subtract { a - b } else { a + b }, u32::from(scale))
}

/// `select_div_scale`: at least 16 significant digits, counted in PostgreSQL's digits of base
/// 10,000, and no fewer than either argument shows.
fn division_scale(left: Finite<'_>, right: Finite<'_>) -> u32 {
    let (left_weight, left_digit) = leading_digit(left);
    let (right_weight, right_digit) = leading_digit(right);
    let mut weight = left_weight - right_weight;
    if left_digit <= right_digit {
        weight -= 1;
    }
    let scale = (MIN_SIGNIFICANT_DIGITS - weight * 4)
        .max(i64::from(left.scale()))
        .max(i64::from(right.scale()))
        .clamp(0, DIVISION_SCALE_MAX);
    u32::try_from(scale).unwrap_or(0)
}

/// The first digit of base 10,000 that is not zero, and its weight; (0, 0) for zero.
fn leading_digit(number: Finite<'_>) -> (i64, i128) {
    let digits = number.digits();
    if digits == 0 {
        return (0, 0);
    }
    let exponent = digits - 1 - i64::from(number.scale());
    let weight = exponent.div_euclid(4);
    let wanted = exponent.rem_euclid(4) + 1;
    let shift = digits - wanted;
    let power = u32::try_from(shift.unsigned_abs()).unwrap_or(u32::MAX);
    let digit = match number {
        Finite::Small(coefficient, _) => {
            let factor = pow10(power).unwrap_or(i128::MAX);
            let magnitude = coefficient.abs_diff(0);
            let factor = factor.unsigned_abs();
            let top = if shift >= 0 { magnitude / factor } else { magnitude * factor };
            i128::try_from(top).unwrap_or(0)
        }
        Finite::Big(coefficient, _) => {
            // A big coefficient has more than four digits.
            let top = coefficient.abs() / pow10_big(power);
            i128::try_from(top).unwrap_or(0)
        }
    };
    (weight, digit)
}

/// `None` where i128 arithmetic would overflow.
fn divide_small(numerator: i128, denominator: i128, rounding: Rounding) -> Option<i128> {
    let quotient = numerator.checked_div(denominator)?;
    let rest = numerator.checked_rem(denominator)?;
    if rest == 0 {
        return Some(quotient);
    }
    let negative = (numerator < 0) != (denominator < 0);
    let away = match rounding {
        Rounding::TowardsZero => false,
        Rounding::Down => negative,
        Rounding::Up => !negative,
        Rounding::HalfAwayFromZero => {
            let rest = rest.unsigned_abs();
            rest >= denominator.unsigned_abs() - rest
        }
    };
    match (away, negative) {
        (false, _) => Some(quotient),
        (true, true) => quotient.checked_sub(1),
        (true, false) => quotient.checked_add(1),
    }
}

fn divide_big(numerator: &BigInt, denominator: &BigInt, rounding: Rounding) -> BigInt {
    let (quotient, rest) = numerator.div_rem(denominator);
    if rest.is_zero() {
        return quotient;
    }
    let negative = numerator.is_negative() != denominator.is_negative();
    let away = match rounding {
        Rounding::TowardsZero => false,
        Rounding::Down => negative,
        Rounding::Up => !negative,
        Rounding::HalfAwayFromZero => rest.abs() * 2 >= denominator.abs(),
    };
    match (away, negative) {
        (false, _) => quotient,
        (true, true) => quotient - 1,
        (true, false) => quotient + 1,
    }
}
