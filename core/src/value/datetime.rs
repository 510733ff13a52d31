//! Dates and times: the calendar, and PostgreSQL's ISO text of them in UTC.
//!
//! The calendar is the proleptic Gregorian one. Years are astronomical inside (`0` is 1 BC) and
//! written as PostgreSQL does (`0001-01-01 BC`). Ranges are PostgreSQL's: dates from 4714-11-24 BC to
//! 5874897-12-31, timestamps to 294276-12-31.
//!
//! Input is what PostgreSQL prints with `DateStyle = ISO`, and the literals people write: `T` or a
//! blank between date and time, offsets as `Z`, `+02`, `+02:30`, `+0230`, `+02:30:15`. Every other
//! form (month names, two-digit years, `now`) is an error, because its meaning depends on settings
//! or the clock.

use super::Value;
use super::error::{SqlState, ValueError};
pub(crate) use super::order::DAY_MICROS;
use super::text::is_space;

pub(crate) const SECOND_MICROS: i64 = 1_000_000;
pub(crate) const MINUTE_MICROS: i64 = 60 * SECOND_MICROS;
pub(crate) const HOUR_MICROS: i64 = 60 * MINUTE_MICROS;

/// `MIN_TIMESTAMP`: 4714-11-24 BC.
const TIMESTAMP_MIN: i64 = -211_813_488_000_000_000;
/// `END_TIMESTAMP`: 294277-01-01, exclusive.
const TIMESTAMP_END: i64 = 9_223_371_331_200_000_000;
/// Days from 2000-01-01 to Julian day 0.
const DATE_MIN: i32 = -2_451_545;
/// `DATE_END_JULIAN`, exclusive.
const DATE_END: i32 = 2_147_483_494 - 2_451_545;

/// Days from 0000-03-01 to 2000-01-01.
const DAYS_TO_2000: i64 = 730_425;

/// A point in time, taken apart. Valid by construction when it came from `from_micros` or
/// `from_days`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Civil {
    /// Astronomical: 0 is 1 BC, -1 is 2 BC.
    pub year: i32,
    /// 1 to 12.
    pub month: u32,
    /// 1 to 31.
    pub day: u32,
    /// 0 to 23.
    pub hour: u32,
    pub minute: u32,
    pub second: u32,
    /// 0 to 999,999.
    pub micros: u32,
}

impl Civil {
    /// From days since 2000-01-01 (not for the infinities).
    #[must_use]
    pub fn from_days(days: i32) -> Self {
        Self::new(i64::from(days), 0)
    }

    /// From microseconds since 2000-01-01 (not for the infinities).
    #[must_use]
    pub fn from_micros(micros: i64) -> Self {
        Self::new(micros.div_euclid(DAY_MICROS), micros.rem_euclid(DAY_MICROS))
    }

    /// Howard Hinnant's `civil_from_days` over eras of 400 years that begin in March.
    fn new(days: i64, time: i64) -> Self {
        let shifted = days + DAYS_TO_2000;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let (hour, minute, second, micros) = split_time(time);
        Self {
            year: i32::try_from(year).unwrap_or(i32::MAX),
            month: small(month),
            day: small(day_of_year - (153 * from_march + 2) / 5 + 1),
            hour,
            minute,
            second,
            micros,
        }
    }

    /// Days since 2000-01-01 of the date; `None` for a date that does not exist or is out of the
    /// type's range.
    #[must_use]
    pub fn to_days(&self) -> Option<i32> {
        if self.day == 0 || self.day > days_in_month(self.year, self.month) {
            return None;
        }
        let days = i32::try_from(days_of(i64::from(self.year), self.month, self.day)).ok()?;
        is_valid_date(days).then_some(days)
    }

    /// Microseconds since 2000-01-01; `None` out of the type's range.
    #[must_use]
    pub fn to_micros(&self) -> Option<i64> {
        let days = i64::from(self.to_days()?);
        let time = i64::from(self.hour) * HOUR_MICROS
            + i64::from(self.minute) * MINUTE_MICROS
            + i64::from(self.second) * SECOND_MICROS
            + i64::from(self.micros);
        let micros = days.checked_mul(DAY_MICROS)?.checked_add(time)?;
        is_valid_timestamp(micros).then_some(micros)
    }
}

fn small(value: i64) -> u32 {
    u32::try_from(value).unwrap_or(0)
}

/// (hour, minute, second, microsecond) of microseconds since midnight; 24:00:00 stays 24 hours.
pub(crate) fn split_time(time: i64) -> (u32, u32, u32, u32) {
    (
        small(time / HOUR_MICROS),
        small(time / MINUTE_MICROS % 60),
        small(time / SECOND_MICROS % 60),
        small(time % SECOND_MICROS),
    )
}

fn days_of(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let from_march = i64::from(if month > 2 { month - 3 } else { month + 9 });
    let day_of_year = (153 * from_march + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - DAYS_TO_2000
}

/// 0 for a month that does not exist.
pub(crate) fn days_in_month(year: i32, month: u32) -> u32 {
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if year.rem_euclid(4) == 0
            && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0) =>
        {
            29
        }
        2 => 28,
        _ => 0,
    }
}

pub(crate) fn is_valid_timestamp(micros: i64) -> bool {
    (TIMESTAMP_MIN..TIMESTAMP_END).contains(&micros)
}

pub(crate) fn is_valid_date(days: i32) -> bool {
    (DATE_MIN..DATE_END).contains(&days)
}

pub(crate) fn timestamp_out_of_range() -> ValueError {
    ValueError::new(SqlState::DatetimeFieldOverflow, "timestamp out of range")
}

pub(crate) fn date_out_of_range() -> ValueError {
    ValueError::new(SqlState::DatetimeFieldOverflow, "date out of range")
}

// --- output ---------------------------------------------------------------------------------

pub(crate) fn write_date(days: i32, out: &mut String) {
    if write_infinity(i64::from(days), i64::from(i32::MIN), i64::from(i32::MAX), out) {
        return;
    }
    let civil = Civil::from_days(days);
    push_date(&civil, out);
    push_era(&civil, out);
}

pub(crate) fn write_timestamp(micros: i64, with_zone: bool, out: &mut String) {
    if write_infinity(micros, i64::MIN, i64::MAX, out) {
        return;
    }
    let civil = Civil::from_micros(micros);
    push_date(&civil, out);
    out.push(' ');
    push_time((civil.hour, civil.minute, civil.second, civil.micros), out);
    if with_zone {
        out.push_str("+00");
    }
    push_era(&civil, out);
}

pub(crate) fn write_time(micros: i64, out: &mut String) {
    push_time(split_time(micros), out);
}

/// A `timetz`; `west` is the zone in seconds west of UTC, as PostgreSQL stores it.
pub(crate) fn write_time_tz(micros: i64, west: i32, out: &mut String) -> Result<(), ValueError> {
    let seconds = west.unsigned_abs();
    // PostgreSQL's MAX_TZDISP_HOUR.
    let (hours @ ..16, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60) else {
        return Err(zone_out_of_range());
    };
    write_time(micros, out);
    out.push(if west > 0 { '-' } else { '+' });
    push_two(hours, out);
    if minutes != 0 || seconds != 0 {
        out.push(':');
        push_two(minutes, out);
    }
    if seconds != 0 {
        out.push(':');
        push_two(seconds, out);
    }
    Ok(())
}

fn zone_out_of_range() -> ValueError {
    ValueError::new(SqlState::DatetimeFieldOverflow, "time zone displacement out of range")
}

fn write_infinity(value: i64, negative: i64, positive: i64, out: &mut String) -> bool {
    if value == positive {
        out.push_str("infinity");
    } else if value == negative {
        out.push_str("-infinity");
    } else {
        return false;
    }
    true
}

fn push_date(civil: &Civil, out: &mut String) {
    let year = if civil.year > 0 { civil.year } else { 1 - civil.year };
    if let Ok(year @ 0..=9999) = u32::try_from(year) {
        push_two(year / 100, out);
        push_two(year % 100, out);
    } else {
        push_int(year, out);
    }
    out.push('-');
    push_two(civil.month, out);
    out.push('-');
    push_two(civil.day, out);
}

fn push_time((hour, minute, second, micros): (u32, u32, u32, u32), out: &mut String) {
    push_two(hour, out);
    out.push(':');
    push_two(minute, out);
    out.push(':');
    push_two(second, out);
    push_fraction(micros, out);
}

/// `.5` for 500,000 microseconds; nothing for none.
pub(crate) fn push_fraction(micros: u32, out: &mut String) {
    if micros == 0 {
        return;
    }
    out.push('.');
    let mut unit = 100_000;
    let mut rest = micros;
    while rest > 0 {
        push_digit(rest / unit, out);
        rest %= unit;
        unit /= 10;
    }
}

pub(crate) fn push_two(value: u32, out: &mut String) {
    push_digit(value / 10, out);
    push_digit(value % 10, out);
}

fn push_digit(digit: u32, out: &mut String) {
    out.push(char::from_digit(digit, 10).unwrap_or('?'));
}

/// Not by `core::fmt`, which costs several times as much as the digits.
pub(crate) fn push_int(number: impl itoa::Integer, out: &mut String) {
    out.push_str(itoa::Buffer::new().format(number));
}

/// As [`push_int`], with zeros in front up to `width` digits.
pub(crate) fn push_padded(number: u64, width: usize, out: &mut String) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(number);
    for _ in digits.len()..width {
        out.push('0');
    }
    out.push_str(digits);
}

fn push_era(civil: &Civil, out: &mut String) {
    if civil.year <= 0 {
        out.push_str(" BC");
    }
}

// --- input ----------------------------------------------------------------------------------

pub(crate) fn parse_date(text: &str) -> Result<Value, ValueError> {
    match read(text, "date")? {
        Read::Infinity => Ok(Value::Date(i32::MAX)),
        Read::NegativeInfinity => Ok(Value::Date(i32::MIN)),
        Read::Point { civil, .. } => {
            checked_days(&civil)?.map(Value::Date).ok_or_else(date_out_of_range)
        }
    }
}

pub(crate) fn parse_timestamp(text: &str, with_zone: bool) -> Result<Value, ValueError> {
    let name = if with_zone { "timestamp with time zone" } else { "timestamp" };
    let micros = match read(text, name)? {
        Read::Infinity => i64::MAX,
        Read::NegativeInfinity => i64::MIN,
        Read::Point { civil, time, offset } => {
            let days = checked_days(&civil)?.ok_or_else(timestamp_out_of_range)?;
            // PostgreSQL reads an offset in a `timestamp` and forgets it.
            let offset = if with_zone { i64::from(offset) * SECOND_MICROS } else { 0 };
            i64::from(days)
                .checked_mul(DAY_MICROS)
                .and_then(|micros| micros.checked_add(time))
                .and_then(|micros| micros.checked_sub(offset))
                .filter(|&micros| is_valid_timestamp(micros))
                .ok_or_else(timestamp_out_of_range)?
        }
    };
    Ok(if with_zone { Value::TimestampTz(micros) } else { Value::Timestamp(micros) })
}

pub(crate) fn parse_time(text: &str) -> Result<Value, ValueError> {
    let mut cursor = Cursor::new(text.trim_matches(is_space), "time");
    let time = cursor.time()?;
    cursor.end()?;
    if time > DAY_MICROS { Err(cursor.overflow()) } else { Ok(Value::Time(time)) }
}

/// `Err` for a day that does not exist, `None` for one out of the type's range.
fn checked_days(civil: &Civil) -> Result<Option<i32>, ValueError> {
    if civil.day == 0 || civil.day > days_in_month(civil.year, civil.month) {
        return Err(field_overflow());
    }
    Ok(civil.to_days())
}

fn field_overflow() -> ValueError {
    ValueError::new(SqlState::DatetimeFieldOverflow, "date/time field value out of range")
}

enum Read {
    Infinity,
    NegativeInfinity,
    /// The date at midnight, microseconds since then (up to 24:00:00), seconds east of UTC.
    Point {
        civil: Civil,
        time: i64,
        offset: i32,
    },
}

/// `date[ |T]time[offset][ BC]`, all but the date optional.
fn read(text: &str, type_name: &'static str) -> Result<Read, ValueError> {
    let text = text.trim_matches(is_space);
    if text.eq_ignore_ascii_case("infinity") {
        return Ok(Read::Infinity);
    }
    if text.eq_ignore_ascii_case("-infinity") {
        return Ok(Read::NegativeInfinity);
    }
    let (text, before_christ) = match strip_suffix_ignore_case(text, "bc") {
        Some(rest) if rest.ends_with(' ') => (rest.trim_end_matches(' '), true),
        _ => (text, false),
    };
    let mut cursor = Cursor::new(text, type_name);
    let year = cursor.number(4, 7)?;
    cursor.expect(b'-')?;
    let month = cursor.number(1, 2)?;
    cursor.expect(b'-')?;
    let day = cursor.number(1, 2)?;
    if year == 0 {
        return Err(field_overflow());
    }
    let year = i32::try_from(year).ok().ok_or_else(field_overflow)?;
    let year = if before_christ { 1 - year } else { year };
    let civil = Civil { year, month, day, hour: 0, minute: 0, second: 0, micros: 0 };
    let (mut time, mut offset) = (0, 0);
    if cursor.skip_separator() {
        time = cursor.time()?;
        offset = cursor.offset()?;
    }
    cursor.end()?;
    Ok(Read::Point { civil, time, offset })
}

fn strip_suffix_ignore_case<'a>(text: &'a str, suffix: &str) -> Option<&'a str> {
    let at = text.len().checked_sub(suffix.len())?;
    let (rest, end) = text.split_at_checked(at)?;
    end.eq_ignore_ascii_case(suffix).then_some(rest)
}

struct Cursor<'a> {
    rest: &'a [u8],
    type_name: &'static str,
}

impl<'a> Cursor<'a> {
    fn new(text: &'a str, type_name: &'static str) -> Self {
        Self { rest: text.as_bytes(), type_name }
    }

    fn syntax(&self) -> ValueError {
        ValueError::new(
            SqlState::InvalidDatetimeFormat,
            format!("invalid input syntax for type {}", self.type_name),
        )
    }

    fn overflow(&self) -> ValueError {
        ValueError::new(
            SqlState::DatetimeFieldOverflow,
            format!("{} field value out of range", self.type_name),
        )
    }

    fn accept(&mut self, byte: u8) -> bool {
        match self.rest.split_first() {
            Some((&first, rest)) if first == byte => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), ValueError> {
        if self.accept(byte) { Ok(()) } else { Err(self.syntax()) }
    }

    fn digit(&mut self) -> Option<u32> {
        let (&first, rest) = self.rest.split_first()?;
        let digit = char::from(first).to_digit(10)?;
        self.rest = rest;
        Some(digit)
    }

    /// `min` to `max` digits (at most nine).
    fn number(&mut self, min: usize, max: usize) -> Result<u32, ValueError> {
        let mut value = 0;
        let mut count = 0;
        while count < max
            && let Some(digit) = self.digit()
        {
            value = value * 10 + digit;
            count += 1;
        }
        if count < min { Err(self.syntax()) } else { Ok(value) }
    }

    /// Blanks or a `T` between date and time.
    fn skip_separator(&mut self) -> bool {
        if self.accept(b'T') || self.accept(b't') {
            return true;
        }
        let mut found = false;
        while self.accept(b' ') {
            found = true;
        }
        found
    }

    /// `hh:mm[:ss[.f…]]`, up to 24:00:00; a second of 60 is the next minute, as PostgreSQL takes it.
    fn time(&mut self) -> Result<i64, ValueError> {
        let hour = self.number(1, 2)?;
        self.expect(b':')?;
        let minute = self.number(2, 2)?;
        let (mut second, mut micros) = (0, 0);
        if self.accept(b':') {
            second = self.number(2, 2)?;
            if self.accept(b'.') {
                micros = self.fraction()?;
            }
        }
        if minute > 59 || second > 60 || hour > 24 || (second == 60 && micros > 0) {
            return Err(field_overflow());
        }
        let time = i64::from(hour) * HOUR_MICROS
            + i64::from(minute) * MINUTE_MICROS
            + i64::from(second) * SECOND_MICROS
            + micros;
        if time > DAY_MICROS { Err(field_overflow()) } else { Ok(time) }
    }

    /// Microseconds, rounded as PostgreSQL does (through a double) where there are more digits.
    fn fraction(&mut self) -> Result<i64, ValueError> {
        let digits = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (fraction, rest) = self.rest.split_at_checked(digits).ok_or_else(|| self.syntax())?;
        self.rest = rest;
        micros_of_fraction(fraction).ok_or_else(|| self.syntax())
    }

    fn offset(&mut self) -> Result<i32, ValueError> {
        while self.accept(b' ') {}
        if self.rest.is_empty() {
            return Ok(0);
        }
        if self.rest.eq_ignore_ascii_case(b"z") || self.rest.eq_ignore_ascii_case(b"utc") {
            self.rest = &[];
            return Ok(0);
        }
        let negative = self.accept(b'-');
        if !negative {
            self.expect(b'+')?;
        }
        let hours = self.number(1, 2)?;
        let mut minutes = 0;
        let mut seconds = 0;
        if self.accept(b':') {
            minutes = self.number(2, 2)?;
            if self.accept(b':') {
                seconds = self.number(2, 2)?;
            }
        } else if !self.rest.is_empty() {
            minutes = self.number(2, 2)?;
        }
        // PostgreSQL's MAX_TZDISP_HOUR.
        if hours > 15 || minutes > 59 || seconds > 59 {
            return Err(zone_out_of_range());
        }
        let total = i32::try_from(hours * 3600 + minutes * 60 + seconds).unwrap_or(0);
        Ok(if negative { -total } else { total })
    }

    fn end(&self) -> Result<(), ValueError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.syntax()) }
    }
}

/// Microseconds of the digits after a point; up to a full second where they round up.
pub(crate) fn micros_of_fraction(digits: &[u8]) -> Option<i64> {
    if digits.len() > 6 {
        let text = format!("0.{}", std::str::from_utf8(digits).ok()?);
        let micros = (text.parse::<f64>().ok()? * 1e6).round_ties_even();
        // The way back to an integer that cannot lose anything.
        return format!("{micros:.0}").parse().ok();
    }
    let mut micros = 0;
    for at in 0..6 {
        let digit = match digits.get(at) {
            Some(byte) => i64::from(char::from(*byte).to_digit(10)?),
            None => 0,
        };
        micros = micros * 10 + digit;
    }
    Some(micros)
}
