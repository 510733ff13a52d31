//! Exact decimal arithmetic with PostgreSQL's display scales.
//!
//! A finite number is `coefficient / 10^scale`; the scale is what PostgreSQL prints (its `dscale`),
//! so `1.5` and `1.50` are different `Numeric`s that compare equal. Rules follow
//! `src/backend/utils/adt/numeric.c` of PostgreSQL 15.
//!
//! Invariants:
//! - a coefficient that fits an `i128` is held as one (`Small`), so derived equality is equality of
//!   value *and* scale, and almost no number of real life allocates;
//! - scale ≤ 16,383 and at most 131,072 digits before the point, as on PostgreSQL's disk.

mod arithmetic;
mod binary;
mod convert;
mod text;

use super::error::{SqlState, ValueError};
use num_bigint::{BigInt, Sign};
use num_traits::{Signed, ToPrimitive, Zero};
use std::cmp::Ordering;

/// Digits before the decimal point that PostgreSQL can store.
pub(crate) const INTEGER_DIGITS_MAX: i64 = 131_072;
/// Digits after it (`NUMERIC_DSCALE_MAX`).
pub(crate) const SCALE_MAX: u32 = 16_383;

/// PostgreSQL's `numeric`.
///
/// `==` is *identity*: same value and same display scale (what a reader sees). Comparison as SQL
/// does it, where 1.0 = 1.00, is [`Numeric::compare`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Numeric(Repr);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Repr {
    NegativeInfinity,
    Small { coefficient: i128, scale: u16 },
    Big(Box<Big>),
    Infinity,
    NaN,
}

/// Only where the coefficient does not fit an `i128`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Big {
    coefficient: BigInt,
    scale: u16,
}

/// A finite number on loan; arithmetic dispatches on pairs of it.
#[derive(Clone, Copy)]
enum Finite<'a> {
    Small(i128, u16),
    Big(&'a BigInt, u16),
}

impl Finite<'_> {
    fn scale(self) -> u16 {
        match self {
            Self::Small(_, scale) | Self::Big(_, scale) => scale,
        }
    }

    fn to_big(self) -> BigInt {
        match self {
            Self::Small(coefficient, _) => BigInt::from(coefficient),
            Self::Big(coefficient, _) => coefficient.clone(),
        }
    }

    fn signum(self) -> i32 {
        match self {
            Self::Small(coefficient, _) => match coefficient.cmp(&0) {
                Ordering::Less => -1,
                Ordering::Equal => 0,
                Ordering::Greater => 1,
            },
            Self::Big(coefficient, _) => match coefficient.sign() {
                Sign::Minus => -1,
                Sign::NoSign => 0,
                Sign::Plus => 1,
            },
        }
    }

    /// Decimal digits of the coefficient; 0 for zero.
    fn digits(self) -> i64 {
        match self {
            Self::Small(coefficient, _) => {
                coefficient.unsigned_abs().checked_ilog10().map_or(0, |log| i64::from(log) + 1)
            }
            Self::Big(coefficient, _) => big_digits(coefficient),
        }
    }
}

impl Numeric {
    pub const NAN: Self = Self(Repr::NaN);
    pub const INFINITY: Self = Self(Repr::Infinity);
    pub const NEGATIVE_INFINITY: Self = Self(Repr::NegativeInfinity);
    pub const ZERO: Self = Self(Repr::Small { coefficient: 0, scale: 0 });

    /// `coefficient / 10^scale`, shown with `scale` digits after the point. `None` past the limits
    /// of the type.
    #[must_use]
    pub fn from_scaled_i128(coefficient: i128, scale: u16) -> Option<Self> {
        (u32::from(scale) <= SCALE_MAX).then_some(Self(Repr::Small { coefficient, scale }))
    }

    /// As [`Numeric::from_scaled_i128`], for any coefficient.
    pub fn from_scaled(coefficient: BigInt, scale: u16) -> Result<Self, ValueError> {
        if u32::from(scale) > SCALE_MAX {
            return Err(overflow());
        }
        if let Some(coefficient) = coefficient.to_i128() {
            return Ok(Self(Repr::Small { coefficient, scale }));
        }
        if big_digits(&coefficient) - i64::from(scale) > INTEGER_DIGITS_MAX {
            return Err(overflow());
        }
        Ok(Self(Repr::Big(Box::new(Big { coefficient, scale }))))
    }

    /// Digits shown after the point; `None` for NaN and the infinities.
    #[must_use]
    pub fn scale(&self) -> Option<u16> {
        self.finite().map(Finite::scale)
    }

    #[must_use]
    pub fn is_nan(&self) -> bool {
        self.0 == Repr::NaN
    }

    #[must_use]
    pub fn is_infinite(&self) -> bool {
        matches!(self.0, Repr::Infinity | Repr::NegativeInfinity)
    }

    #[must_use]
    pub fn is_finite(&self) -> bool {
        self.finite().is_some()
    }

    #[must_use]
    pub fn is_zero(&self) -> bool {
        match &self.0 {
            Repr::Small { coefficient, .. } => *coefficient == 0,
            Repr::Big(_) | Repr::NaN | Repr::Infinity | Repr::NegativeInfinity => false,
        }
    }

    /// -1, 0 or 1; NaN counts as 1, as it sorts above everything.
    #[must_use]
    pub fn signum(&self) -> i32 {
        match &self.0 {
            Repr::NegativeInfinity => -1,
            Repr::Infinity | Repr::NaN => 1,
            Repr::Small { coefficient, scale } => Finite::Small(*coefficient, *scale).signum(),
            Repr::Big(big) => Finite::Big(&big.coefficient, big.scale).signum(),
        }
    }

    /// PostgreSQL's order: -Infinity < finite < Infinity < NaN; NaN = NaN; scales do not count.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Ordering {
        match (self.finite(), other.finite()) {
            (Some(left), Some(right)) => compare_finite(left, right),
            _ => self.class().cmp(&other.class()),
        }
    }

    /// Bytes beyond those of a number of ordinary size.
    pub(super) fn weight(&self) -> usize {
        self.as_big().map_or(0, |(big, _)| usize::try_from(big.bits() / 8).unwrap_or(usize::MAX))
    }

    fn class(&self) -> u8 {
        match self.0 {
            Repr::NegativeInfinity => 0,
            Repr::Small { .. } | Repr::Big(_) => 1,
            Repr::Infinity => 2,
            Repr::NaN => 3,
        }
    }

    fn finite(&self) -> Option<Finite<'_>> {
        match &self.0 {
            Repr::Small { coefficient, scale } => Some(Finite::Small(*coefficient, *scale)),
            Repr::Big(big) => Some(Finite::Big(&big.coefficient, big.scale)),
            Repr::NaN | Repr::Infinity | Repr::NegativeInfinity => None,
        }
    }

    /// For the codecs: the coefficient where it fits, and the scale.
    pub(crate) fn as_small(&self) -> Option<(i128, u16)> {
        match &self.0 {
            Repr::Small { coefficient, scale } => Some((*coefficient, *scale)),
            Repr::Big(_) | Repr::NaN | Repr::Infinity | Repr::NegativeInfinity => None,
        }
    }

    pub(crate) fn as_big(&self) -> Option<(&BigInt, u16)> {
        match &self.0 {
            Repr::Big(big) => Some((&big.coefficient, big.scale)),
            Repr::Small { .. } | Repr::NaN | Repr::Infinity | Repr::NegativeInfinity => None,
        }
    }
}

impl From<i64> for Numeric {
    fn from(value: i64) -> Self {
        Self(Repr::Small { coefficient: i128::from(value), scale: 0 })
    }
}

fn overflow() -> ValueError {
    ValueError::new(SqlState::NumericValueOutOfRange, "value overflows numeric format")
}

fn compare_finite(left: Finite<'_>, right: Finite<'_>) -> Ordering {
    if let (Finite::Small(a, a_scale), Finite::Small(b, b_scale)) = (left, right) {
        if a_scale == b_scale {
            return a.cmp(&b);
        }
        let scale = a_scale.max(b_scale);
        if let (Some(a), Some(b)) = (widen(a, scale - a_scale), widen(b, scale - b_scale)) {
            return a.cmp(&b);
        }
    }
    let (a_sign, b_sign) = (left.signum(), right.signum());
    if a_sign != b_sign || a_sign == 0 {
        return a_sign.cmp(&b_sign);
    }
    let magnitude = |n: Finite<'_>| n.digits() - i64::from(n.scale());
    let by_magnitude = magnitude(left).cmp(&magnitude(right));
    if by_magnitude != Ordering::Equal {
        return if a_sign < 0 { by_magnitude.reverse() } else { by_magnitude };
    }
    let scale = left.scale().max(right.scale());
    big_at_scale(left, scale).cmp(&big_at_scale(right, scale))
}

/// `coefficient * 10^by` where it fits.
fn widen(coefficient: i128, by: u16) -> Option<i128> {
    if by == 0 {
        return Some(coefficient);
    }
    coefficient.checked_mul(pow10(u32::from(by))?)
}

/// The coefficient at a scale that is not below the number's own.
fn big_at_scale(number: Finite<'_>, scale: u16) -> BigInt {
    let coefficient = number.to_big();
    if scale > number.scale() {
        coefficient * pow10_big(u32::from(scale - number.scale()))
    } else {
        coefficient
    }
}

/// 10^n where it fits an i128 (n ≤ 38).
fn pow10(n: u32) -> Option<i128> {
    POW10.get(usize::try_from(n).ok()?).copied()
}

const POW10: [i128; 39] = {
    let mut table = [1_i128; 39];
    let mut i = 1;
    while i < 39 {
        table[i] = table[i - 1] * 10;
        i += 1;
    }
    table
};

fn pow10_big(n: u32) -> BigInt {
    BigInt::from(10).pow(n)
}

/// Decimal digits of a number, 0 for zero: the length from the bits, corrected by one comparison.
fn big_digits(value: &BigInt) -> i64 {
    if value.is_zero() {
        return 0;
    }
    let bits = value.bits();
    // log10(2) from below, so that the estimate is the count or one less.
    let estimate = (bits - 1).saturating_mul(30_102_999) / 100_000_000;
    let power = pow10_big(u32::try_from(estimate).unwrap_or(u32::MAX));
    let mut digits = i64::try_from(estimate).unwrap_or(i64::MAX);
    let mut bound = power;
    let magnitude = value.abs();
    while magnitude >= bound {
        digits += 1;
        bound *= 10;
    }
    digits
}
