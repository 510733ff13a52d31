//! Floats as PostgreSQL prints them with `extra_float_digits = 1`: the fewest digits that read back
//! as the same number, in `%g`'s layout.

use super::datetime::push_int;
use super::error::{SqlState, ValueError};
use super::text::is_space;
use num_bigint::BigUint;

pub(crate) fn write_f64(value: f64, out: &mut String) {
    if write_special(value, out) {
        return;
    }
    let mut digits = format!("{:e}", value.abs());
    if on_boundary_f64(value.abs(), &digits) {
        digits = widen(value.abs(), 17);
    } else if let Some(even) =
        nearest_even(value.abs(), &digits, |n| format!("{:.n$e}", value.abs()))
        && even.parse::<f64>().is_ok_and(|back| back.to_bits() == value.abs().to_bits())
        && !on_boundary_f64(value.abs(), &even)
    {
        digits = even;
    }
    write_scientific(value.is_sign_negative(), &digits, 15, out);
}

pub(crate) fn write_f32(value: f32, out: &mut String) {
    if write_special(f64::from(value), out) {
        return;
    }
    let mut digits = format!("{:e}", value.abs());
    if on_boundary_f32(value.abs(), &digits) {
        digits = widen(f64::from(value.abs()), 9);
    } else if let Some(even) =
        nearest_even(f64::from(value.abs()), &digits, |n| format!("{:.n$e}", value.abs()))
        && even.parse::<f32>().is_ok_and(|back| back.to_bits() == value.abs().to_bits())
        && !on_boundary_f32(value.abs(), &even)
    {
        digits = even;
    }
    write_scientific(value.is_sign_negative(), &digits, 6, out);
}

/// Where two decimals of the fewest digits are equally near, PostgreSQL takes the even one and
/// Rust's printer the upper one: 224442.625 is 224442.62. Printing with a given number of digits
/// rounds half to even. `None` where it is the same, or cannot happen.
fn nearest_even(value: f64, shortest: &str, print: impl Fn(usize) -> String) -> Option<String> {
    // A tie is a number of one digit more, at most 18, that ends in 5: it has a fraction of k bits
    // with 5^k below 10^18.
    let bits = value.to_bits();
    let exponent = i32::try_from(bits >> 52).unwrap_or(0) - 1075;
    let zeros = ((bits & ((1 << 52) - 1)) | 1 << 52).trailing_zeros();
    let fraction_bits = -exponent.saturating_add_unsigned(zeros);
    if !(1..=25).contains(&fraction_bits) {
        return None;
    }
    let digits = shortest.bytes().take_while(|byte| *byte != b'e').filter(u8::is_ascii_digit);
    let even = print(digits.count() - 1);
    (even != shortest).then(|| trim_zeros(&even))
}

fn write_special(value: f64, out: &mut String) -> bool {
    if value.is_nan() {
        out.push_str("NaN");
    } else if value.is_infinite() {
        out.push_str(if value > 0.0 { "Infinity" } else { "-Infinity" });
    } else if value == 0.0 {
        out.push_str(if value.is_sign_negative() { "-0" } else { "0" });
    } else {
        return false;
    }
    true
}

/// `digits` is Rust's `d.ddde-7`. Plain from 1e-4 to below 10^`plain_exponent`.
fn write_scientific(negative: bool, digits: &str, plain_exponent: i32, out: &mut String) {
    if negative {
        out.push('-');
    }
    let (mantissa, exponent) = digits.split_once('e').unwrap_or((digits, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !(-4..plain_exponent).contains(&exponent) {
        out.push_str(mantissa);
        out.push_str(if exponent < 0 { "e-" } else { "e+" });
        if exponent.abs() < 10 {
            out.push('0');
        }
        push_int(exponent.abs(), out);
        return;
    }
    let mut all = mantissa.chars().filter(|c| *c != '.');
    if exponent < 0 {
        out.push_str("0.");
        out.extend(std::iter::repeat_n('0', usize::try_from(-1 - exponent).unwrap_or(0)));
        out.extend(all);
        return;
    }
    for _ in 0..=exponent {
        out.push(all.next().unwrap_or('0'));
    }
    let mut fraction = all.peekable();
    if fraction.peek().is_some() {
        out.push('.');
        out.extend(fraction);
    }
}

/// PostgreSQL's printer is built without `STRICTLY_SHORTEST`: it never prints a number that lies
/// exactly half way to a neighbour, though that would read back (rounding to even), as Rust's does:
/// 1e23 is printed as 9.999999999999999e+22.
fn on_boundary_f64(value: f64, digits: &str) -> bool {
    // Only here can a decimal of 17 digits be a half-way point.
    if !(1e15..1e41).contains(&value) {
        return false;
    }
    let bits = value.to_bits();
    let mantissa = (bits & ((1 << 52) - 1)) | 1 << 52;
    let exponent = i32::try_from(bits >> 52).unwrap_or(0) - 1075;
    is_half_way(mantissa, exponent, bits & ((1 << 52) - 1) == 0, digits)
}

fn on_boundary_f32(value: f32, digits: &str) -> bool {
    if !(1e5..1e20).contains(&value) {
        return false;
    }
    let bits = value.to_bits();
    let mantissa = u64::from((bits & ((1 << 23) - 1)) | 1 << 23);
    let exponent = i32::try_from(bits >> 23).unwrap_or(0) - 150;
    is_half_way(mantissa, exponent, bits & ((1 << 23) - 1) == 0, digits)
}

/// Is the decimal exactly `mantissa * 2^exponent` plus or minus half a unit (a quarter below a
/// power of two)? Both sides are scaled to integers: by 4 and by powers of ten and two.
fn is_half_way(mantissa: u64, exponent: i32, power_of_two: bool, digits: &str) -> bool {
    let (text, ten) = digits.split_once('e').unwrap_or((digits, "0"));
    let fraction = text.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    let whole: String = text.chars().filter(|c| *c != '.').collect();
    let (Ok(ten), Ok(whole), Ok(fraction)) =
        (ten.parse::<i32>(), whole.parse::<u64>(), i32::try_from(fraction))
    else {
        return false;
    };
    let ten = ten - fraction;
    let mut decimal = BigUint::from(whole) * 4_u32;
    let mut units = [BigUint::from(mantissa) * 4_u32, BigUint::from(0_u32), BigUint::from(0_u32)];
    let [middle, above, below] = &mut units;
    *above = &*middle + 2_u32;
    *below = &*middle - if power_of_two { 1_u32 } else { 2_u32 };
    let ten_power = BigUint::from(10_u32).pow(ten.unsigned_abs());
    let two_power = BigUint::from(2_u32).pow(exponent.unsigned_abs());
    if ten >= 0 {
        decimal *= &ten_power;
    } else {
        *above *= &ten_power;
        *below *= &ten_power;
    }
    if exponent >= 0 {
        *above *= &two_power;
        *below *= &two_power;
    } else {
        decimal *= &two_power;
    }
    decimal == *above || decimal == *below
}

/// The shortest correctly rounded decimal that is longer than the refused one and reads back;
/// 17 (or 9) digits always do.
fn widen(value: f64, most_digits: usize) -> String {
    let single = most_digits == 9;
    for digits in 1..most_digits {
        let text = format!("{value:.*e}", digits - 1);
        let same = if single {
            text.parse::<f32>().is_ok_and(|back| f64::from(back).to_bits() == value.to_bits())
                && !text.parse::<f32>().is_ok_and(|back| on_boundary_f32(back, &text))
        } else {
            text.parse::<f64>().is_ok_and(|back| back.to_bits() == value.to_bits())
                && !on_boundary_f64(value, &text)
        };
        if same {
            return trim_zeros(&text);
        }
    }
    trim_zeros(&format!("{value:.*e}", most_digits - 1))
}

fn trim_zeros(text: &str) -> String {
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    if mantissa.contains('.') {
        let mantissa = mantissa.trim_end_matches('0').trim_end_matches('.');
        return format!("{mantissa}e{exponent}");
    }
    text.to_owned()
}

/// Digits that are not all zero, though the number read as zero or infinity, are out of range.
fn has_value(text: &str) -> bool {
    text.bytes().take_while(|byte| !matches!(byte, b'e' | b'E')).any(|b| matches!(b, b'1'..=b'9'))
}

fn out_of_range(type_name: &str) -> ValueError {
    ValueError::new(
        SqlState::NumericValueOutOfRange,
        format!("value is out of range for type {type_name}"),
    )
}

/// `strtod` reads as far as it can, and its range error comes before the complaint about the rest.
fn refused(text: &str, type_name: &str, in_range: impl Fn(&str) -> bool) -> ValueError {
    let prefix = number_prefix(text);
    if has_value(prefix) && !in_range(prefix) {
        return out_of_range(type_name);
    }
    ValueError::syntax(type_name)
}

/// Sign, digits with a point, exponent: the longest beginning that is a number, or nothing.
fn number_prefix(text: &str) -> &str {
    let bytes = text.as_bytes();
    let digits =
        |from: usize| bytes.iter().skip(from).take_while(|byte| byte.is_ascii_digit()).count();
    let mut end = usize::from(matches!(bytes.first(), Some(b'+' | b'-')));
    let whole = digits(end);
    end += whole;
    let mut fraction = 0;
    if bytes.get(end) == Some(&b'.') {
        fraction = digits(end + 1);
        end += 1 + fraction;
    }
    if whole + fraction == 0 {
        return "";
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let exponent = digits(end + 1 + sign);
        if exponent > 0 {
            end += 1 + sign + exponent;
        }
    }
    text.get(..end).unwrap_or_default()
}

/// What else `strtod` reads, in a form that Rust reads: `0x1.8p3` as a decimal number of the same
/// value, `nan(…)` as NaN.
fn rewritten(text: &str) -> Option<String> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => ("-", text.get(1..)?),
        b'+' => ("", text.get(1..)?),
        _ => ("", text),
    };
    if let Some((name, rest)) = digits.split_once('(') {
        let inner = rest.strip_suffix(')')?;
        let named = inner.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        return (name.eq_ignore_ascii_case("nan") && named).then(|| "NaN".to_owned());
    }
    let digits = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"))?;
    let (mantissa, exponent) = digits.split_once(['p', 'P']).unwrap_or((digits, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mantissa = format!("{whole}{fraction}");
    let is_hex = |byte: u8| byte.is_ascii_hexdigit();
    let unsigned = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
    let is_exponent = !unsigned.is_empty() && unsigned.bytes().all(|byte| byte.is_ascii_digit());
    if mantissa.is_empty() || !mantissa.bytes().all(is_hex) || !is_exponent {
        return None;
    }
    let mantissa = BigUint::parse_bytes(mantissa.as_bytes(), 16)?;
    // Beyond these every value is out of range, and digits would fill the memory.
    let far = i64::try_from(digits.len()).ok()?.checked_mul(4)?.checked_add(2_000)?;
    let saturated = if exponent.starts_with('-') { -far } else { far };
    let exponent = exponent.parse::<i64>().unwrap_or(saturated).clamp(-far, far);
    let exponent = exponent - 4 * i64::try_from(fraction.len()).ok()?;
    let power = u32::try_from(exponent.unsigned_abs()).ok()?;
    Some(if exponent < 0 {
        // m / 2^k is m * 5^k / 10^k.
        format!("{sign}{}e-{power}", mantissa * BigUint::from(5_u8).pow(power))
    } else {
        format!("{sign}{}", mantissa << power)
    })
}

pub(crate) fn parse_f64(text: &str) -> Result<f64, ValueError> {
    let name = "double precision";
    let text = text.trim_matches(is_space);
    let rewritten = rewritten(text);
    let text = rewritten.as_deref().unwrap_or(text);
    let in_range = |value: f64| value.is_finite() && value != 0.0;
    let Ok(value) = text.parse::<f64>() else {
        return Err(refused(text, name, |prefix| prefix.parse().is_ok_and(in_range)));
    };
    if has_value(text) && !in_range(value) {
        return Err(out_of_range(name));
    }
    Ok(value)
}

pub(crate) fn parse_f32(text: &str) -> Result<f32, ValueError> {
    let name = "real";
    let text = text.trim_matches(is_space);
    let rewritten = rewritten(text);
    let text = rewritten.as_deref().unwrap_or(text);
    let in_range = |value: f32| value.is_finite() && value != 0.0;
    let Ok(value) = text.parse::<f32>() else {
        return Err(refused(text, name, |prefix| prefix.parse().is_ok_and(in_range)));
    };
    if has_value(text) && !in_range(value) {
        return Err(out_of_range(name));
    }
    Ok(value)
}
