//! `interval` as text, with `IntervalStyle = postgres`.
//!
//! Input is what PostgreSQL prints in that style (`1 year 2 mons -3 days +04:05:06.7`), fields with
//! units as people write them (`5 minutes`, `1.5 hours`), and ISO 8601 with designators
//! (`P1DT2H`); from a server also `infinity`. Bare numbers, `ago`, `@` and fractions of months or years are errors: PostgreSQL
//! accepts them by rules (and roundings) of their own.

use super::Interval;
use super::datetime::{
    HOUR_MICROS, MINUTE_MICROS, SECOND_MICROS, micros_of_fraction, push_fraction, push_int,
    push_two,
};
use super::error::{SqlState, ValueError};
use super::order::DAY_MICROS;
use super::text::is_space;

pub(crate) fn write_interval(interval: &Interval, out: &mut String) {
    if interval.is_infinite() {
        out.push_str(if interval.months > 0 { "infinity" } else { "-infinity" });
        return;
    }
    let mut empty = true;
    let mut after_negative = false;
    let years = interval.months / 12;
    let months = interval.months % 12;
    for (value, unit) in [(years, "year"), (months, "mon"), (interval.days, "day")] {
        if value == 0 {
            continue;
        }
        if !empty {
            out.push(' ');
        }
        if after_negative && value > 0 {
            out.push('+');
        }
        push_int(value, out);
        out.push(' ');
        out.push_str(unit);
        if value != 1 {
            out.push('s');
        }
        // "-1 days +02:03:04": a plus says that the sign before it ends.
        after_negative = value < 0;
        empty = false;
    }
    if !empty && interval.micros == 0 {
        return;
    }
    if !empty {
        out.push(' ');
    }
    if interval.micros < 0 {
        out.push('-');
    } else if after_negative {
        out.push('+');
    }
    let micros = interval.micros.unsigned_abs();
    let part = |unit: i64| micros / unit.unsigned_abs();
    let hours = part(HOUR_MICROS);
    if hours < 10 {
        out.push('0');
    }
    push_int(hours, out);
    for unit in [MINUTE_MICROS, SECOND_MICROS] {
        out.push(':');
        push_two(u32::try_from(part(unit) % 60).unwrap_or(0), out);
    }
    let fraction = micros % SECOND_MICROS.unsigned_abs();
    push_fraction(u32::try_from(fraction).unwrap_or(0), out);
}

/// What a server printed: from 17 there are infinities, which are no literals before.
pub(crate) fn read_interval(text: &str) -> Result<Interval, ValueError> {
    match text {
        "infinity" => Ok(Interval::INFINITY),
        "-infinity" => Ok(Interval::NEGATIVE_INFINITY),
        _ => parse_interval(text),
    }
}

pub(crate) fn parse_interval(text: &str) -> Result<Interval, ValueError> {
    let mut parts = Parts::default();
    // ISO 8601 allows no blanks around it, and PostgreSQL only capitals.
    match text.strip_prefix('P') {
        Some(rest) => parse_iso(rest, &mut parts)?,
        None => parse_fields(text.trim_matches(is_space), &mut parts)?,
    }
    parts.finish()
}

fn syntax() -> ValueError {
    ValueError::new(SqlState::InvalidDatetimeFormat, "invalid input syntax for type interval")
}

fn overflow() -> ValueError {
    ValueError::new(SqlState::DatetimeFieldOverflow, "interval field value out of range")
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Micros,
    Millis,
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Year,
    Decade,
    Century,
    Millennium,
}

/// What a clock time and fractional seconds set, so that none of it may stand beside them.
const SECONDS: &[Unit] = &[Unit::Second, Unit::Millis, Unit::Micros];

/// Sums, wide enough that adding the few fields of one text cannot overflow.
#[derive(Default)]
struct Parts {
    months: i128,
    days: i128,
    micros: i128,
    /// Units seen: PostgreSQL refuses one that comes twice.
    seen: Vec<Unit>,
    /// A clock time was read. PostgreSQL reads from right to left, and a clock time takes the place of
    /// what fractions of days and weeks behind it gave: '01:00 0.25 days' is one hour.
    clock: bool,
}

impl Parts {
    fn see(&mut self, unit: Unit) -> Result<(), ValueError> {
        if self.seen.contains(&unit) {
            return Err(syntax());
        }
        self.seen.push(unit);
        Ok(())
    }

    fn see_all(&mut self, units: &[Unit]) -> Result<(), ValueError> {
        units.iter().try_for_each(|unit| self.see(*unit))
    }

    fn add(&mut self, number: &Number<'_>, unit: Unit) -> Result<(), ValueError> {
        let fraction = number.fraction.iter().any(|&digit| digit != b'0');
        if fraction && unit == Unit::Second {
            self.see_all(SECONDS)?;
        } else {
            self.see(unit)?;
        }
        let whole = i128::from(number.whole);
        let (months, days, micros) = match unit {
            Unit::Micros => (0, 0, 1),
            Unit::Millis => (0, 0, 1_000),
            Unit::Second => (0, 0, SECOND_MICROS),
            Unit::Minute => (0, 0, MINUTE_MICROS),
            Unit::Hour => (0, 0, HOUR_MICROS),
            Unit::Day => (0, 1, DAY_MICROS),
            Unit::Week => (0, 7, 7 * DAY_MICROS),
            Unit::Month => (1, 0, 0),
            Unit::Year => (12, 0, 0),
            Unit::Decade => (120, 0, 0),
            Unit::Century => (1_200, 0, 0),
            Unit::Millennium => (12_000, 0, 0),
        };
        let sign = if number.negative { -1 } else { 1 };
        self.months += sign * whole * months;
        self.days += sign * whole * days;
        if days == 0 && months == 0 {
            self.micros += sign * whole * i128::from(micros);
        }
        if !fraction {
            return Ok(());
        }
        if months != 0 {
            return Err(syntax());
        }
        let rest = if unit == Unit::Second {
            // Seconds round at the microsecond as everywhere in PostgreSQL.
            micros_of_fraction(number.fraction).map(i128::from)
        } else {
            exact_fraction(number.fraction, i128::from(micros))
        }
        .ok_or_else(syntax)?;
        // Fractions of weeks become days first.
        let day = i128::from(DAY_MICROS);
        let whole_days = if unit == Unit::Week { rest / day } else { 0 };
        self.days += sign * whole_days;
        if !self.clock {
            self.micros += sign * (rest - whole_days * day);
        }
        Ok(())
    }

    fn finish(self) -> Result<Interval, ValueError> {
        if self.seen.is_empty() {
            return Err(syntax());
        }
        let interval = Interval {
            months: i32::try_from(self.months).ok().ok_or_else(overflow)?,
            days: i32::try_from(self.days).ok().ok_or_else(overflow)?,
            micros: i64::try_from(self.micros).ok().ok_or_else(overflow)?,
        };
        if interval.is_infinite() { Err(overflow()) } else { Ok(interval) }
    }
}

/// `0.fraction * unit` where that is a whole number of microseconds.
fn exact_fraction(digits: &[u8], unit: i128) -> Option<i128> {
    let (mut value, mut scale) = (0_i128, 1_i128);
    for digit in digits {
        value = value.checked_mul(10)?.checked_add(i128::from(digit.wrapping_sub(b'0')))?;
        scale = scale.checked_mul(10)?;
    }
    let product = value.checked_mul(unit)?;
    (product % scale == 0).then_some(product / scale)
}

struct Number<'a> {
    negative: bool,
    whole: i64,
    fraction: &'a [u8],
}

/// A sign, digits, perhaps a point and digits, off the front of `text`.
fn take_number<'a>(text: &mut &'a str) -> Result<Number<'a>, ValueError> {
    let negative = text.starts_with('-');
    let rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, rest) = take_digits(rest);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => take_digits(rest),
        None => ("", rest),
    };
    if whole.is_empty() {
        return Err(syntax());
    }
    *text = rest;
    let whole = whole.parse().ok().ok_or_else(overflow)?;
    Ok(Number { negative, whole, fraction: fraction.as_bytes() })
}

fn take_digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

fn parse_fields(text: &str, parts: &mut Parts) -> Result<(), ValueError> {
    let mut rest = text;
    while !rest.is_empty() {
        let mut number = take_number(&mut rest)?;
        if rest.starts_with(':') {
            if !number.fraction.is_empty() {
                return Err(syntax());
            }
            parse_clock(&mut number, &mut rest, parts)?;
        } else {
            rest = rest.trim_start_matches(is_space);
            let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
            let (name, after) = rest.split_at_checked(end).ok_or_else(syntax)?;
            parts.add(&number, unit(name).ok_or_else(syntax)?)?;
            rest = after;
        }
        // "1 week2 hours" is a word "week2" to PostgreSQL.
        let after = rest.trim_start_matches(is_space);
        if !after.is_empty() && after.len() == rest.len() {
            return Err(syntax());
        }
        rest = after;
    }
    Ok(())
}

/// The rest of `hh:mm[:ss[.f]]` behind the hours; the sign is for all of it.
fn parse_clock(
    hours: &mut Number<'_>,
    rest: &mut &str,
    parts: &mut Parts,
) -> Result<(), ValueError> {
    parts.see_all(&[Unit::Hour, Unit::Minute])?;
    parts.see_all(SECONDS)?;
    let mut micros = i128::from(hours.whole) * i128::from(HOUR_MICROS);
    for (unit, last) in [(MINUTE_MICROS, false), (SECOND_MICROS, true)] {
        let Some(after) = rest.strip_prefix(':') else {
            break;
        };
        let (digits, after) = take_digits(after);
        if digits.len() != 2 {
            return Err(syntax());
        }
        let value: i64 = digits.parse().ok().ok_or_else(syntax)?;
        if value > 59 {
            return Err(overflow());
        }
        micros += i128::from(value * unit);
        *rest = after;
        if last && let Some(after) = after.strip_prefix('.') {
            let (fraction, after) = take_digits(after);
            micros += i128::from(micros_of_fraction(fraction.as_bytes()).ok_or_else(syntax)?);
            *rest = after;
        }
    }
    parts.micros += if hours.negative { -micros } else { micros };
    parts.clock = true;
    Ok(())
}

fn unit(name: &str) -> Option<Unit> {
    Some(match name.to_ascii_lowercase().as_str() {
        "us" | "usec" | "usecs" | "microsecond" | "microseconds" => Unit::Micros,
        "ms" | "msec" | "msecs" | "millisecond" | "milliseconds" => Unit::Millis,
        "s" | "sec" | "secs" | "second" | "seconds" => Unit::Second,
        "m" | "min" | "mins" | "minute" | "minutes" => Unit::Minute,
        "h" | "hr" | "hrs" | "hour" | "hours" => Unit::Hour,
        "d" | "day" | "days" => Unit::Day,
        "w" | "week" | "weeks" => Unit::Week,
        "mon" | "mons" | "month" | "months" => Unit::Month,
        "y" | "yr" | "yrs" | "year" | "years" => Unit::Year,
        "dec" | "decs" | "decade" | "decades" => Unit::Decade,
        "c" | "cent" | "century" | "centuries" => Unit::Century,
        "mil" | "mils" | "millennium" | "millennia" => Unit::Millennium,
        _ => return None,
    })
}

/// `1Y2M3W4DT5H6M7.8S` behind the `P`.
fn parse_iso(text: &str, parts: &mut Parts) -> Result<(), ValueError> {
    let mut rest = text;
    let mut in_time = false;
    while !rest.is_empty() {
        if !in_time && let Some(after) = rest.strip_prefix('T') {
            in_time = true;
            rest = after;
            if rest.is_empty() {
                return Err(syntax());
            }
        }
        let number = take_number(&mut rest)?;
        let mut chars = rest.chars();
        let unit = match (chars.next(), in_time) {
            (Some('Y'), false) => Unit::Year,
            (Some('M'), false) => Unit::Month,
            (Some('W'), false) => Unit::Week,
            (Some('D'), false) => Unit::Day,
            (Some('H'), true) => Unit::Hour,
            (Some('M'), true) => Unit::Minute,
            (Some('S'), true) => Unit::Second,
            _ => return Err(syntax()),
        };
        parts.add(&number, unit)?;
        rest = chars.as_str();
    }
    Ok(())
}
