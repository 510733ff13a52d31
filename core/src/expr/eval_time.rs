//! Dates, times, timestamps and intervals: arithmetic, casts, `date_trunc`, `extract`.
//!
//! The session's zone is UTC, so `timestamp` and `timestamptz` differ only in their type.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "dispatch on values and functions: whatever is not listed is refused alike"
)]

use super::Func;
use super::eval::{EvalError, unexpected};
use crate::value::datetime::{
    Civil, DAY_MICROS, HOUR_MICROS, MINUTE_MICROS, SECOND_MICROS, date_out_of_range, days_in_month,
    is_valid_date, is_valid_timestamp, timestamp_out_of_range,
};
use crate::value::{Interval, Numeric, SqlState, Value, ValueError};

/// Days from Julian day 0 to 2000-01-01.
const JULIAN_2000: i64 = 2_451_545;
/// Days from 1970-01-01 to 2000-01-01.
const UNIX_2000: i64 = 10_957;

fn overflow(message: &'static str) -> EvalError {
    ValueError::new(SqlState::DatetimeFieldOverflow, message)
}

fn interval_out_of_range() -> EvalError {
    overflow("interval out of range")
}

pub(super) fn arithmetic(func: Func, x: &Value, y: &Value) -> Result<Value, EvalError> {
    match (func, x, y) {
        (Func::Add, Value::Interval(_), Value::Timestamp(_) | Value::TimestampTz(_))
        | (Func::Add, Value::Interval(_), Value::Date(_) | Value::Time(_))
        | (Func::Add, Value::Int(_) | Value::Time(_), Value::Date(_)) => arithmetic(func, y, x),
        (Func::Add, Value::Timestamp(x), Value::Interval(y)) => shift(*x, y).map(Value::Timestamp),
        (Func::Sub, Value::Timestamp(x), Value::Interval(y)) => {
            shift(*x, &negate(y)?).map(Value::Timestamp)
        }
        (Func::Add, Value::TimestampTz(x), Value::Interval(y)) => {
            shift(*x, y).map(Value::TimestampTz)
        }
        (Func::Sub, Value::TimestampTz(x), Value::Interval(y)) => {
            shift(*x, &negate(y)?).map(Value::TimestampTz)
        }
        (Func::Sub, Value::Timestamp(x), Value::Timestamp(y))
        | (Func::Sub, Value::TimestampTz(x), Value::TimestampTz(y)) => difference(*x, *y),
        (Func::Add, Value::Date(x), Value::Interval(y)) => {
            shift(date_to_timestamp(*x)?, y).map(Value::Timestamp)
        }
        (Func::Sub, Value::Date(x), Value::Interval(y)) => {
            shift(date_to_timestamp(*x)?, &negate(y)?).map(Value::Timestamp)
        }
        (Func::Add, Value::Date(x), Value::Int(y)) => add_days(*x, Some(*y)),
        (Func::Sub, Value::Date(x), Value::Int(y)) => add_days(*x, y.checked_neg()),
        (Func::Add, Value::Date(x), Value::Time(y)) => {
            let midnight = date_to_timestamp(*x)?;
            if is_infinite(midnight) {
                return Ok(Value::Timestamp(midnight));
            }
            valid(midnight.checked_add(*y)).map(Value::Timestamp)
        }
        (Func::Sub, Value::Date(x), Value::Date(y)) => {
            if is_infinite_date(*x) || is_infinite_date(*y) {
                return Err(overflow("cannot subtract infinite dates"));
            }
            Ok(Value::Int(i64::from(*x) - i64::from(*y)))
        }
        (Func::Sub, Value::Time(x), Value::Time(y)) => {
            Ok(Value::Interval(Interval { months: 0, days: 0, micros: x - y }))
        }
        (Func::Add, Value::Time(_), Value::Interval(y)) if y.is_infinite() => {
            Err(overflow("cannot add infinite interval to time"))
        }
        (Func::Sub, Value::Time(_), Value::Interval(y)) if y.is_infinite() => {
            Err(overflow("cannot subtract infinite interval from time"))
        }
        (Func::Add, Value::Time(x), Value::Interval(y)) => {
            Ok(Value::Time((i128::from(*x) + i128::from(y.micros)).rem_day()))
        }
        (Func::Sub, Value::Time(x), Value::Interval(y)) => {
            Ok(Value::Time((i128::from(*x) - i128::from(y.micros)).rem_day()))
        }
        (Func::Add, Value::Interval(x), Value::Interval(y)) => sum(x, y).map(Value::Interval),
        (Func::Sub, Value::Interval(x), Value::Interval(y)) if y.is_infinite() => {
            sum(x, &negate(y)?).map(Value::Interval)
        }
        (Func::Sub, Value::Interval(x), Value::Interval(_)) if x.is_infinite() => {
            Ok(Value::Interval(*x))
        }
        (Func::Sub, Value::Interval(x), Value::Interval(y)) => finite(
            x.months.checked_sub(y.months),
            x.days.checked_sub(y.days),
            x.micros.checked_sub(y.micros),
        )
        .map(Value::Interval),
        _ => Err(unexpected(func)),
    }
}

trait RemDay {
    fn rem_day(self) -> i64;
}

impl RemDay for i128 {
    /// Microseconds since midnight.
    fn rem_day(self) -> i64 {
        i64::try_from(self.rem_euclid(Self::from(DAY_MICROS))).unwrap_or(0)
    }
}

/// A sum or difference of finite intervals, which must stay finite.
fn finite(
    months: Option<i32>,
    days: Option<i32>,
    micros: Option<i64>,
) -> Result<Interval, EvalError> {
    match (months, days, micros) {
        (Some(months), Some(days), Some(micros)) => Some(Interval { months, days, micros }),
        _ => None,
    }
    .filter(|interval| !interval.is_infinite())
    .ok_or_else(interval_out_of_range)
}

fn sum(x: &Interval, y: &Interval) -> Result<Interval, EvalError> {
    match (x.is_infinite(), y.is_infinite()) {
        (true, true) if x != y => Err(interval_out_of_range()),
        (true, _) => Ok(*x),
        (false, true) => Ok(*y),
        (false, false) => finite(
            x.months.checked_add(y.months),
            x.days.checked_add(y.days),
            x.micros.checked_add(y.micros),
        ),
    }
}

/// The operator `-interval`, and what `timestamp - interval` does inside. Before 17 the latter
/// wraps around at the least numbers; we refuse, as later versions do.
pub(super) fn negate(x: &Interval) -> Result<Interval, EvalError> {
    match *x {
        Interval::INFINITY => Ok(Interval::NEGATIVE_INFINITY),
        Interval::NEGATIVE_INFINITY => Ok(Interval::INFINITY),
        _ => finite(x.months.checked_neg(), x.days.checked_neg(), x.micros.checked_neg()),
    }
}

fn is_infinite(micros: i64) -> bool {
    micros == i64::MIN || micros == i64::MAX
}

fn is_infinite_date(days: i32) -> bool {
    days == i32::MIN || days == i32::MAX
}

fn valid(micros: Option<i64>) -> Result<i64, EvalError> {
    micros.filter(|&micros| is_valid_timestamp(micros)).ok_or_else(timestamp_out_of_range)
}

fn time_of_day(micros: i64) -> i64 {
    micros.rem_euclid(DAY_MICROS)
}

/// Months first, the day clamped to the month's length; then days; then the time. Each step must
/// stay in the range of the type.
fn shift(micros: i64, by: &Interval) -> Result<i64, EvalError> {
    if by.is_infinite() {
        let end = if by.months > 0 { i64::MAX } else { i64::MIN };
        let opposite = is_infinite(micros) && micros != end;
        return if opposite { Err(timestamp_out_of_range()) } else { Ok(end) };
    }
    if is_infinite(micros) {
        return Ok(micros);
    }
    let mut micros = micros;
    if by.months != 0 {
        let civil = Civil::from_micros(micros);
        let months = i64::from(civil.year) * 12 + i64::from(civil.month) - 1 + i64::from(by.months);
        let year = i32::try_from(months.div_euclid(12)).ok().ok_or_else(timestamp_out_of_range)?;
        let month = u32::try_from(months.rem_euclid(12) + 1).unwrap_or(1);
        let day = civil.day.min(days_in_month(year, month));
        let moved = Civil { year, month, day, ..civil };
        micros = valid(moved.to_micros())?;
    }
    if by.days != 0 {
        let days = i64::from(by.days).checked_mul(DAY_MICROS);
        micros = valid(days.and_then(|days| micros.checked_add(days)))?;
    }
    valid(micros.checked_add(by.micros))
}

/// In days and time, never months.
fn difference(x: i64, y: i64) -> Result<Value, EvalError> {
    if is_infinite(x) || is_infinite(y) {
        return Err(overflow("cannot subtract infinite timestamps"));
    }
    // From 17 the difference is infinite, too, and before 17 it wraps around where it overflows: as
    // versions differ, both are refused.
    let micros = x.checked_sub(y).ok_or_else(interval_out_of_range)?;
    let days = i32::try_from(micros / DAY_MICROS).ok().ok_or_else(interval_out_of_range)?;
    Ok(Value::Interval(Interval { months: 0, days, micros: micros % DAY_MICROS }))
}

fn add_days(days: i32, by: Option<i64>) -> Result<Value, EvalError> {
    if is_infinite_date(days) {
        return Ok(Value::Date(days));
    }
    by.and_then(|by| i64::from(days).checked_add(by))
        .and_then(|days| i32::try_from(days).ok())
        .filter(|&days| is_valid_date(days))
        .map(Value::Date)
        .ok_or_else(date_out_of_range)
}

// --- casts ------------------------------------------------------------------------------------

fn date_to_timestamp(days: i32) -> Result<i64, EvalError> {
    match days {
        i32::MIN => Ok(i64::MIN),
        i32::MAX => Ok(i64::MAX),
        days => i64::from(days)
            .checked_mul(DAY_MICROS)
            .filter(|&micros| is_valid_timestamp(micros))
            .ok_or_else(|| overflow("date out of range for timestamp")),
    }
}

fn timestamp_to_date(micros: i64) -> i32 {
    match micros {
        i64::MIN => i32::MIN,
        i64::MAX => i32::MAX,
        micros => i32::try_from(micros.div_euclid(DAY_MICROS)).unwrap_or(i32::MAX),
    }
}

pub(super) fn to_date(value: &Value) -> Result<Value, EvalError> {
    match value {
        Value::Date(_) => Ok(value.clone()),
        Value::Timestamp(micros) | Value::TimestampTz(micros) => {
            Ok(Value::Date(timestamp_to_date(*micros)))
        }
        _ => Err(unexpected("cast to date")),
    }
}

pub(super) fn to_timestamp(value: &Value, with_zone: bool) -> Result<Value, EvalError> {
    let micros = match value {
        Value::Date(days) => date_to_timestamp(*days)?,
        Value::Timestamp(micros) | Value::TimestampTz(micros) => *micros,
        _ => return Err(unexpected("cast to timestamp")),
    };
    Ok(if with_zone { Value::TimestampTz(micros) } else { Value::Timestamp(micros) })
}

pub(super) fn to_time(value: &Value) -> Result<Value, EvalError> {
    match value {
        Value::Time(_) => Ok(value.clone()),
        // An infinity has no time of day: NULL, though the cast is strict.
        Value::Timestamp(micros) | Value::TimestampTz(micros) if is_infinite(*micros) => {
            Ok(Value::Null)
        }
        Value::Timestamp(micros) | Value::TimestampTz(micros) => {
            Ok(Value::Time(time_of_day(*micros)))
        }
        Value::Interval(interval) if interval.is_infinite() => {
            Err(overflow("cannot convert infinite interval to time"))
        }
        Value::Interval(interval) => Ok(Value::Time(time_of_day(interval.micros))),
        _ => Err(unexpected("cast to time")),
    }
}

// --- date_trunc, extract ------------------------------------------------------------------------

/// A field of a date or time, by any of the names that PostgreSQL knows it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Field {
    // In the order of size, as far as `date_trunc` takes them.
    Microseconds,
    Milliseconds,
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
    Decade,
    Century,
    Millennium,
    // Only of `extract`.
    Epoch,
    Julian,
    DayOfWeek,
    IsoDayOfWeek,
    DayOfYear,
    IsoYear,
    /// Of the offset from UTC, which is zero: `timezone` and its hours and minutes.
    Zone,
}

fn field(name: &Value) -> Result<Field, EvalError> {
    let Value::Text(name) = name else {
        return Err(unexpected("field"));
    };
    Ok(match name.to_ascii_lowercase().as_str() {
        "us" | "usec" | "usecs" | "useconds" | "microsecond" | "microseconds" => {
            Field::Microseconds
        }
        "ms" | "msec" | "msecs" | "mseconds" | "millisecond" | "milliseconds" => {
            Field::Milliseconds
        }
        "s" | "sec" | "secs" | "second" | "seconds" => Field::Second,
        "m" | "min" | "mins" | "minute" | "minutes" => Field::Minute,
        "h" | "hr" | "hrs" | "hour" | "hours" => Field::Hour,
        "d" | "day" | "days" => Field::Day,
        "w" | "week" | "weeks" => Field::Week,
        "mon" | "mons" | "month" | "months" => Field::Month,
        "qtr" | "quarter" => Field::Quarter,
        "y" | "yr" | "yrs" | "year" | "years" => Field::Year,
        "dec" | "decs" | "decade" | "decades" => Field::Decade,
        "c" | "cent" | "century" | "centuries" => Field::Century,
        "mil" | "mils" | "millennium" | "millennia" => Field::Millennium,
        "epoch" => Field::Epoch,
        "j" | "jd" | "julian" => Field::Julian,
        "dow" => Field::DayOfWeek,
        "isodow" => Field::IsoDayOfWeek,
        "doy" => Field::DayOfYear,
        "isoyear" => Field::IsoYear,
        "timezone" | "timezone_hour" | "timezone_minute" => Field::Zone,
        _ => {
            return Err(ValueError::new(
                SqlState::InvalidParameterValue,
                "date/time units not recognized",
            ));
        }
    })
}

fn unsupported(type_name: &str) -> EvalError {
    ValueError::new(
        SqlState::FeatureNotSupported,
        format!("these {type_name} units are not supported"),
    )
}

pub(super) fn date_trunc(name: &Value, x: &Value) -> Result<Value, EvalError> {
    let field = field(name)?;
    match x {
        Value::Timestamp(micros) => {
            trunc_timestamp(field, *micros, "timestamp").map(Value::Timestamp)
        }
        Value::TimestampTz(micros) => {
            trunc_timestamp(field, *micros, "timestamp with time zone").map(Value::TimestampTz)
        }
        Value::Interval(interval) => trunc_interval(field, interval).map(Value::Interval),
        _ => Err(unexpected(Func::DateTrunc)),
    }
}

/// Microseconds of the units that divide a day.
fn unit_micros(field: Field) -> Option<i64> {
    match field {
        Field::Microseconds => Some(1),
        Field::Milliseconds => Some(1_000),
        Field::Second => Some(SECOND_MICROS),
        Field::Minute => Some(MINUTE_MICROS),
        Field::Hour => Some(HOUR_MICROS),
        Field::Day => Some(DAY_MICROS),
        _ => None,
    }
}

/// Years of the units that are made of years.
fn unit_years(field: Field) -> Option<i32> {
    [(Field::Year, 1), (Field::Decade, 10), (Field::Century, 100), (Field::Millennium, 1_000)]
        .into_iter()
        .find_map(|(unit, years)| (unit == field).then_some(years))
}

fn trunc_timestamp(field: Field, micros: i64, type_name: &str) -> Result<i64, EvalError> {
    if is_infinite(micros) {
        return Ok(micros);
    }
    if let Some(unit) = unit_micros(field) {
        return valid(Some(micros - micros.rem_euclid(unit)));
    }
    let midnight = micros - time_of_day(micros);
    let civil = Civil::from_micros(midnight);
    let first = |year: i32, month: u32| valid(Civil { year, month, day: 1, ..civil }.to_micros());
    if let Some(years) = unit_years(field) {
        // Decades begin with a year that ends in 0, centuries and millennia with one that ends in 1.
        let begin = i32::from(years > 10);
        return first((civil.year - begin).div_euclid(years) * years + begin, 1);
    }
    match field {
        Field::Week => {
            let since_monday = iso_day_of_week(days_of(midnight)) - 1;
            valid(midnight.checked_sub(since_monday * DAY_MICROS))
        }
        Field::Month => first(civil.year, civil.month),
        Field::Quarter => first(civil.year, (civil.month - 1) / 3 * 3 + 1),
        _ => Err(unsupported(type_name)),
    }
}

fn days_of(micros: i64) -> i64 {
    micros.div_euclid(DAY_MICROS)
}

fn trunc_interval(field: Field, x: &Interval) -> Result<Interval, EvalError> {
    let known = field <= Field::Millennium && field != Field::Week;
    if x.is_infinite() && known {
        return Ok(*x);
    }
    if let Some(unit) = unit_micros(field) {
        return Ok(Interval { micros: x.micros - x.micros % unit.min(DAY_MICROS), ..*x }
            .without_time(field));
    }
    let whole_months =
        |months: i32| Interval { months: x.months - x.months % months, days: 0, micros: 0 };
    if let Some(years) = unit_years(field) {
        return Ok(whole_months(years * 12));
    }
    match field {
        Field::Month => Ok(whole_months(1)),
        Field::Quarter => Ok(whole_months(3)),
        _ => Err(unsupported("interval")),
    }
}

impl Interval {
    fn without_time(self, field: Field) -> Self {
        if field == Field::Day { Self { micros: 0, ..self } } else { self }
    }
}

pub(super) fn extract(name: &Value, x: &Value) -> Result<Value, EvalError> {
    let field = field(name)?;
    match x {
        Value::Date(days) => {
            if field <= Field::Hour || field == Field::Zone {
                return Err(unsupported("date"));
            }
            if is_infinite_date(*days) {
                return Ok(of_infinity(field, *days > 0));
            }
            of_date(field, i64::from(*days))
        }
        Value::Timestamp(micros) | Value::TimestampTz(micros) => {
            if field == Field::Zone {
                return if matches!(x, Value::TimestampTz(_)) && !is_infinite(*micros) {
                    Ok(whole(0))
                } else if is_infinite(*micros) {
                    Ok(Value::Null)
                } else {
                    Err(unsupported("timestamp"))
                };
            }
            if is_infinite(*micros) {
                return Ok(of_infinity(field, *micros > 0));
            }
            of_timestamp(field, *micros)
        }
        Value::Time(micros) => match field {
            Field::Epoch => Ok(scaled(i128::from(*micros), 6)),
            _ => of_time(field, *micros).ok_or_else(|| unsupported("time")),
        },
        Value::Interval(interval) => of_interval(field, interval),
        _ => Err(unexpected(Func::Extract)),
    }
}

fn whole(value: i64) -> Value {
    Value::Numeric(Numeric::from(value))
}

fn scaled(value: i128, scale: u16) -> Value {
    Numeric::from_scaled_i128(value, scale).map_or(Value::Null, Value::Numeric)
}

/// What only grows is infinite with the time; what goes round is NULL.
fn of_infinity(field: Field, positive: bool) -> Value {
    let grows = unit_years(field).is_some()
        || matches!(field, Field::Epoch | Field::Julian | Field::IsoYear);
    match (grows, positive) {
        (false, _) => Value::Null,
        (true, true) => Value::Numeric(Numeric::INFINITY),
        (true, false) => Value::Numeric(Numeric::NEGATIVE_INFINITY),
    }
}

/// The parts of a time of day, and of the time of an interval (which may have more than 24 hours,
/// or be negative).
fn of_time(field: Field, micros: i64) -> Option<Value> {
    let seconds = micros % MINUTE_MICROS;
    match field {
        Field::Microseconds => Some(whole(seconds)),
        Field::Milliseconds => Some(scaled(i128::from(seconds), 3)),
        Field::Second => Some(scaled(i128::from(seconds), 6)),
        Field::Minute => Some(whole(micros / MINUTE_MICROS % 60)),
        Field::Hour => Some(whole(micros / HOUR_MICROS)),
        _ => None,
    }
}

/// Days and hours of an interval only grow, too.
fn of_infinite_interval(field: Field, positive: bool) -> Result<Value, EvalError> {
    match field {
        Field::Hour | Field::Day => Ok(of_infinity(Field::Epoch, positive)),
        Field::Julian
        | Field::DayOfWeek
        | Field::IsoDayOfWeek
        | Field::DayOfYear
        | Field::IsoYear
        | Field::Zone
        | Field::Week => Err(unsupported("interval")),
        _ => Ok(of_infinity(field, positive)),
    }
}

fn of_timestamp(field: Field, micros: i64) -> Result<Value, EvalError> {
    if let Some(value) = of_time(field, time_of_day(micros)) {
        return Ok(value);
    }
    if field == Field::Epoch {
        let since_1970 = i128::from(micros) + i128::from(UNIX_2000) * i128::from(DAY_MICROS);
        if since_1970 < i128::from(i64::MAX) {
            return Ok(scaled(since_1970, 6));
        }
        // Here PostgreSQL divides as `numeric` does, which rounds to the millisecond.
        let micros = Numeric::from_scaled_i128(since_1970, 0).unwrap_or(Numeric::ZERO);
        let seconds = micros.div(&Numeric::from(SECOND_MICROS))?;
        return seconds.round(6).map(Value::Numeric);
    }
    if field == Field::Julian {
        let day = Numeric::from(days_of(micros) + JULIAN_2000);
        let part = Numeric::from(time_of_day(micros)).div(&Numeric::from(DAY_MICROS))?;
        return day.add(&part).map(Value::Numeric);
    }
    of_date(field, days_of(micros))
}

/// 1 is Monday, 7 is Sunday; 2000-01-01 was a Saturday.
fn iso_day_of_week(days: i64) -> i64 {
    (days + 5).rem_euclid(7) + 1
}

fn of_date(field: Field, days: i64) -> Result<Value, EvalError> {
    let civil = Civil::from_days(i32::try_from(days).ok().ok_or_else(date_out_of_range)?);
    let year = i64::from(civil.year);
    let month = i64::from(civil.month);
    let day_of_year = days - first_day_of(year) + 1;
    Ok(whole(match field {
        Field::Day => i64::from(civil.day),
        Field::Month => month,
        Field::Quarter => (month - 1) / 3 + 1,
        // There is no year 0: 1 BC is -1. Decades have one.
        Field::Year => shown_year(year),
        Field::Decade => year.div_euclid(10),
        Field::Century => shown_age(year, 100),
        Field::Millennium => shown_age(year, 1_000),
        Field::Julian => days + JULIAN_2000,
        Field::Epoch => (days + UNIX_2000) * 86_400,
        Field::DayOfWeek => iso_day_of_week(days) % 7,
        Field::IsoDayOfWeek => iso_day_of_week(days),
        Field::DayOfYear => day_of_year,
        Field::Week => iso_week(days).1,
        Field::IsoYear => shown_year(iso_week(days).0),
        _ => return Err(unsupported("date")),
    }))
}

fn shown_year(year: i64) -> i64 {
    if year > 0 { year } else { year - 1 }
}

/// Centuries and millennia count from 1 in both directions.
fn shown_age(year: i64, years: i64) -> i64 {
    let age = (year - 1).div_euclid(years) + 1;
    if age > 0 { age } else { age - 1 }
}

/// Days since 2000-01-01 of the first day of a year.
fn first_day_of(year: i64) -> i64 {
    let before = year - 1;
    let days =
        before * 365 + before.div_euclid(4) - before.div_euclid(100) + before.div_euclid(400);
    // The same sum for the year 2000.
    days - 730_119
}

/// (year, week): a week belongs to the year that holds its Thursday.
fn iso_week(days: i64) -> (i64, i64) {
    let thursday = days + 4 - iso_day_of_week(days);
    let year = i64::from(Civil::from_days(i32::try_from(thursday).unwrap_or(i32::MAX)).year);
    (year, (thursday - first_day_of(year)) / 7 + 1)
}

fn of_interval(field: Field, x: &Interval) -> Result<Value, EvalError> {
    if x.is_infinite() {
        return of_infinite_interval(field, x.months > 0);
    }
    if let Some(value) = of_time(field, x.micros) {
        return Ok(value);
    }
    let months = i64::from(x.months);
    if let Some(years) = unit_years(field) {
        return Ok(whole(months / 12 / i64::from(years)));
    }
    match field {
        Field::Day => Ok(whole(i64::from(x.days))),
        Field::Month => Ok(whole(months % 12)),
        Field::Epoch => {
            // A year has 365.25 days here and a month 30, counted in quarters of a day.
            let quarters = i128::from(months / 12) * 1_461
                + i128::from(months % 12) * 120
                + i128::from(x.days) * 4;
            let quarter = i128::from(DAY_MICROS / 4);
            Ok(scaled(quarters * quarter + i128::from(x.micros), 6))
        }
        _ => Err(unsupported("interval")),
    }
}
