//! Between `numeric` and binary numbers.

use super::{Finite, Numeric, Repr, big_at_scale, pow10, pow10_big, widen};
use crate::value::error::{SqlState, ValueError};
use num_bigint::BigInt;
use num_integer::Integer;
use num_traits::{ToPrimitive, Zero};

impl Numeric {
    /// Rounded half away from zero, as the cast to bigint does.
    pub fn to_i64(&self) -> Result<i64, ValueError> {
        self.to_integer("bigint")
    }

    /// As [`Numeric::to_i64`], with PostgreSQL's messages for `type_name`; the caller checks the
    /// range of a narrower type.
    pub(crate) fn to_integer(&self, type_name: &str) -> Result<i64, ValueError> {
        let refuse = |what: &str| {
            Err(ValueError::new(
                SqlState::FeatureNotSupported,
                format!("cannot convert {what} to {type_name}"),
            ))
        };
        match self.0 {
            Repr::NaN => return refuse("NaN"),
            Repr::Infinity | Repr::NegativeInfinity => return refuse("infinity"),
            Repr::Small { .. } | Repr::Big(_) => {}
        }
        match self.round(0)?.as_small() {
            Some((coefficient, _)) => {
                i64::try_from(coefficient).ok().ok_or_else(|| ValueError::out_of_range(type_name))
            }
            None => Err(ValueError::out_of_range(type_name)),
        }
    }

    /// The nearest double; past its range an error, as PostgreSQL's cast.
    pub fn to_f64(&self) -> Result<f64, ValueError> {
        match self.0 {
            Repr::NaN => return Ok(f64::NAN),
            Repr::Infinity => return Ok(f64::INFINITY),
            Repr::NegativeInfinity => return Ok(f64::NEG_INFINITY),
            Repr::Small { .. } | Repr::Big(_) => {}
        }
        let out_of_range = || {
            ValueError::new(
                SqlState::NumericValueOutOfRange,
                "value is out of range for type double precision",
            )
        };
        let float: f64 = self.to_string().parse().ok().ok_or_else(out_of_range)?;
        if float.is_infinite() || (float == 0.0 && !self.is_zero()) {
            return Err(out_of_range());
        }
        Ok(float)
    }

    pub fn to_f32(&self) -> Result<f32, ValueError> {
        match self.0 {
            Repr::NaN => return Ok(f32::NAN),
            Repr::Infinity => return Ok(f32::INFINITY),
            Repr::NegativeInfinity => return Ok(f32::NEG_INFINITY),
            Repr::Small { .. } | Repr::Big(_) => {}
        }
        let out_of_range = || {
            ValueError::new(SqlState::NumericValueOutOfRange, "value is out of range for type real")
        };
        let float: f32 = self.to_string().parse().ok().ok_or_else(out_of_range)?;
        if float.is_infinite() || (float == 0.0 && !self.is_zero()) {
            return Err(out_of_range());
        }
        Ok(float)
    }

    /// PostgreSQL's cast: 15 significant digits.
    pub fn from_f64(value: f64) -> Result<Self, ValueError> {
        if value.is_nan() {
            return Ok(Self::NAN);
        }
        if value.is_infinite() {
            return Ok(if value > 0.0 { Self::INFINITY } else { Self::NEGATIVE_INFINITY });
        }
        without_trailing_zeros(&format!("{value:.14e}")).parse()
    }

    /// PostgreSQL's cast: 6 significant digits.
    pub fn from_f32(value: f32) -> Result<Self, ValueError> {
        if value.is_nan() {
            return Ok(Self::NAN);
        }
        if value.is_infinite() {
            return Ok(if value > 0.0 { Self::INFINITY } else { Self::NEGATIVE_INFINITY });
        }
        without_trailing_zeros(&format!("{value:.5e}")).parse()
    }

    /// The integer that is `self * 10^scale`, for a decimal column of that scale; `None` where it
    /// is not an integer, does not fit, or `self` is not finite.
    #[must_use]
    pub fn to_scaled_i128(&self, scale: u8) -> Option<i128> {
        let (coefficient, own) = match self.finite()? {
            Finite::Small(coefficient, own) => (coefficient, own),
            Finite::Big(..) => return self.to_scaled(scale)?.to_i128(),
        };
        let scale = u16::from(scale);
        if scale >= own {
            return widen(coefficient, scale - own);
        }
        let Some(unit) = pow10(u32::from(own - scale)) else {
            return (coefficient == 0).then_some(0);
        };
        (coefficient % unit == 0).then_some(coefficient / unit)
    }

    /// As [`Numeric::to_scaled_i128`], as 32 bytes of little-endian two's complement.
    #[must_use]
    pub fn to_scaled_i256_le(&self, scale: u8) -> Option<[u8; 32]> {
        if let Some(small) = self.to_scaled_i128(scale) {
            let mut bytes = if small < 0 { [0xff; 32] } else { [0; 32] };
            let (low, _) = bytes.split_at_mut(16);
            low.copy_from_slice(&small.to_le_bytes());
            return Some(bytes);
        }
        let coefficient = self.to_scaled(scale)?;
        let signed = coefficient.to_signed_bytes_le();
        let fill = if coefficient < BigInt::zero() { 0xff } else { 0 };
        let mut bytes = [fill; 32];
        bytes.get_mut(..signed.len())?.copy_from_slice(&signed);
        Some(bytes)
    }

    /// `self * 10^scale` where that is an integer.
    #[must_use]
    pub fn to_scaled(&self, scale: u8) -> Option<BigInt> {
        let number = self.finite()?;
        let scale = u16::from(scale);
        if scale >= number.scale() {
            return Some(big_at_scale(number, scale));
        }
        let unit = pow10_big(u32::from(number.scale() - scale));
        let (quotient, rest) = number.to_big().div_rem(&unit);
        rest.is_zero().then_some(quotient)
    }
}

/// `%g` where `{:e}` printed: `1.50000e-7` is `1.5e-7`, because the digits shown become the scale.
fn without_trailing_zeros(text: &str) -> String {
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let mantissa = if mantissa.contains('.') {
        mantissa.trim_end_matches('0').trim_end_matches('.')
    } else {
        mantissa
    };
    format!("{mantissa}e{exponent}")
}
