//! What `numeric_send` writes: groups of four decimal digits, and where the point stands.

use super::{Numeric, SCALE_MAX, overflow, pow10};
use crate::value::ValueError;
use crate::value::binary::odd;
use num_bigint::{BigInt, BigUint, Sign};

/// Decimal digits of a group.
const GROUP_DIGITS: i32 = 4;
/// Groups that fit an `i128` whatever they are.
const GROUPS_SMALL: usize = 9;

impl Numeric {
    /// Reads the binary form. Digits past the display scale are left out, as `numeric_out` does.
    pub(in crate::value) fn from_binary(bytes: &[u8]) -> Result<Self, ValueError> {
        let (head, rest) =
            bytes.split_first_chunk::<8>().ok_or_else(|| odd("numeric", "less than its head"))?;
        let [c0, c1, w0, w1, s0, s1, d0, d1] = *head;
        let count = usize::from(u16::from_be_bytes([c0, c1]));
        let weight = i32::from(i16::from_be_bytes([w0, w1]));
        let scale = u16::from_be_bytes([d0, d1]);
        let (pairs, []) = rest.as_chunks::<2>() else {
            return Err(odd("numeric", "half a digit"));
        };
        if pairs.len() != count {
            return Err(odd("numeric", &format!("{} digits where {count} belong", pairs.len())));
        }
        let negative = match u16::from_be_bytes([s0, s1]) {
            0x0000 => false,
            0x4000 => true,
            0xC000 => return Ok(Self::NAN),
            0xD000 => return Ok(Self::INFINITY),
            0xF000 => return Ok(Self::NEGATIVE_INFINITY),
            _ => return Err(odd("numeric", "unknown sign")),
        };
        if u32::from(scale) > SCALE_MAX {
            return Err(odd("numeric", "scale out of range"));
        }
        let groups = || pairs.iter().map(|pair| u16::from_be_bytes(*pair));
        if groups().any(|group| group > 9999) {
            return Err(odd("numeric", "a digit above 9999"));
        }
        // Decimal digits of the groups behind the point, less than four of them past the scale.
        let groups_behind = i32::try_from(count).unwrap_or(i32::MAX) - 1 - weight;
        let missing = i32::from(scale) - groups_behind * GROUP_DIGITS;
        if count <= GROUPS_SMALL {
            let magnitude = groups().fold(0, |value, group| value * 10_000 + i128::from(group));
            if let Some(magnitude) = shifted(magnitude, missing) {
                let coefficient = if negative { -magnitude } else { magnitude };
                return Self::from_scaled_i128(coefficient, scale).ok_or_else(overflow);
            }
        }
        let digits = groups().flat_map(|group| {
            [1000, 100, 10, 1].map(|unit| u8::try_from(group / unit % 10).unwrap_or(0))
        });
        let shown = (weight + 1) * GROUP_DIGITS + i32::from(scale);
        let shown = usize::try_from(shown).unwrap_or(0);
        let digits: Vec<u8> = digits.chain(std::iter::repeat(0)).take(shown).collect();
        let magnitude = BigUint::from_radix_be(&digits, 10).unwrap_or_default();
        let sign = if negative { Sign::Minus } else { Sign::Plus };
        Self::from_scaled(BigInt::from_biguint(sign, magnitude), scale)
    }
}

/// `magnitude * 10^by`, cut off where `by` is negative; `None` where it does not fit.
fn shifted(magnitude: i128, by: i32) -> Option<i128> {
    let power = pow10(by.unsigned_abs());
    if by >= 0 {
        return magnitude.checked_mul(power?);
    }
    let Some(power) = power else { return Some(0) };
    // Nearly all numbers: the 64-bit division is several times as fast as the 128-bit one.
    Some(match (u64::try_from(magnitude), u64::try_from(power)) {
        (Ok(magnitude), Ok(power)) => i128::from(magnitude / power),
        _ => magnitude / power,
    })
}
