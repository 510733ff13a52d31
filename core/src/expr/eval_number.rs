//! Arithmetic on integers, floats and numeric.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "dispatch on values and functions: whatever is not listed is refused alike"
)]

use super::Func;
use super::eval::{EvalError, unexpected};
use crate::value::{Numeric, SqlState, Type, Value, ValueError, int_range};

pub(super) fn out_of_range(what: &str) -> EvalError {
    ValueError::new(SqlState::NumericValueOutOfRange, format!("{what} out of range"))
}

fn division_by_zero() -> EvalError {
    ValueError::new(SqlState::DivisionByZero, "division by zero")
}

/// The value, if the type holds it.
pub(super) fn int(value: Option<i64>, ty: &Type) -> Result<Value, EvalError> {
    let (name, min, max) = int_range(ty);
    value
        .filter(|value| (min..=max).contains(value))
        .map(Value::Int)
        .ok_or_else(|| out_of_range(name))
}

pub(super) fn unary(func: Func, x: &Value, ty: &Type) -> Result<Value, EvalError> {
    Ok(match (func, x) {
        (Func::Neg, Value::Int(x)) => int(x.checked_neg(), ty)?,
        (Func::Abs, Value::Int(x)) => int(x.checked_abs(), ty)?,
        (Func::Neg, Value::Numeric(x)) => Value::Numeric(x.neg()),
        (Func::Abs, Value::Numeric(x)) => Value::Numeric(x.abs()),
        (Func::Round, Value::Numeric(x)) => Value::Numeric(x.round(0)?),
        (Func::Floor, Value::Numeric(x)) => Value::Numeric(x.floor()?),
        (Func::Ceil, Value::Numeric(x)) => Value::Numeric(x.ceil()?),
        (Func::Neg, Value::Float4(x)) => Value::Float4(-x),
        (Func::Abs, Value::Float4(x)) => Value::Float4(x.abs()),
        (Func::Neg, Value::Float8(x)) => Value::Float8(-x),
        (Func::Abs, Value::Float8(x)) => Value::Float8(x.abs()),
        (Func::Round, Value::Float8(x)) => Value::Float8(x.round_ties_even()),
        (Func::Floor, Value::Float8(x)) => Value::Float8(x.floor()),
        (Func::Ceil, Value::Float8(x)) => Value::Float8(x.ceil()),
        (Func::Neg, Value::Interval(x)) => Value::Interval(super::eval_time::negate(x)?),
        _ => return Err(unexpected(func)),
    })
}

/// `round(numeric, int)`.
pub(super) fn round_to(x: &Value, digits: &Value) -> Result<Value, EvalError> {
    let (Value::Numeric(x), Value::Int(digits)) = (x, digits) else {
        return Err(unexpected(Func::Round));
    };
    // An int4 in PostgreSQL, and clamped far inside its range.
    let clamped = i32::try_from(*digits).unwrap_or(if *digits < 0 { i32::MIN } else { i32::MAX });
    x.round(clamped).map(Value::Numeric)
}

pub(super) fn binary(func: Func, x: &Value, y: &Value, ty: &Type) -> Result<Value, EvalError> {
    match (x, y) {
        (Value::Int(x), Value::Int(y)) => integers(func, *x, *y, ty),
        (Value::Numeric(x), Value::Numeric(y)) => numerics(func, x, y).map(Value::Numeric),
        (Value::Float8(x), Value::Float8(y)) => doubles(func, *x, *y).map(Value::Float8),
        (Value::Float4(x), Value::Float4(y)) => singles(func, *x, *y).map(Value::Float4),
        _ => Err(unexpected(func)),
    }
}

fn integers(func: Func, x: i64, y: i64, ty: &Type) -> Result<Value, EvalError> {
    if matches!(func, Func::Div | Func::Mod) && y == 0 {
        return Err(division_by_zero());
    }
    match func {
        Func::Add => int(x.checked_add(y), ty),
        Func::Sub => int(x.checked_sub(y), ty),
        Func::Mul => int(x.checked_mul(y), ty),
        Func::Div => int(x.checked_div(y), ty),
        // The least integer % -1 is 0, not an overflow.
        Func::Mod => int(Some(x.checked_rem(y).unwrap_or(0)), ty),
        _ => Err(unexpected(func)),
    }
}

fn numerics(func: Func, x: &Numeric, y: &Numeric) -> Result<Numeric, EvalError> {
    match func {
        Func::Add => x.add(y),
        Func::Sub => x.sub(y),
        Func::Mul => x.mul(y),
        Func::Div => x.div(y),
        Func::Mod => x.rem(y),
        _ => Err(unexpected(func)),
    }
}

pub(super) fn float_overflow() -> EvalError {
    ValueError::new(SqlState::NumericValueOutOfRange, "value out of range: overflow")
}

pub(super) fn float_underflow() -> EvalError {
    ValueError::new(SqlState::NumericValueOutOfRange, "value out of range: underflow")
}

/// What `float8_pl` and its kin check, for both widths: an infinity or a zero that the arguments do
/// not explain is an error.
struct Checks {
    x_zero: bool,
    y_zero: bool,
    x_infinite: bool,
    y_infinite: bool,
    x_nan: bool,
}

impl Checks {
    fn before(&self, func: Func) -> Result<(), EvalError> {
        if func == Func::Div && self.y_zero && !self.x_nan {
            return Err(division_by_zero());
        }
        Ok(())
    }

    fn after(&self, func: Func, infinite: bool, zero: bool) -> Result<(), EvalError> {
        let explained = self.x_infinite || (self.y_infinite && func != Func::Div);
        if infinite && !explained {
            return Err(float_overflow());
        }
        let underflow = match func {
            Func::Mul => zero && !self.x_zero && !self.y_zero,
            Func::Div => zero && !self.x_zero && !self.y_infinite,
            _ => false,
        };
        if underflow { Err(float_underflow()) } else { Ok(()) }
    }
}

fn doubles(func: Func, x: f64, y: f64) -> Result<f64, EvalError> {
    let checks = Checks {
        x_zero: x == 0.0,
        y_zero: y == 0.0,
        x_infinite: x.is_infinite(),
        y_infinite: y.is_infinite(),
        x_nan: x.is_nan(),
    };
    checks.before(func)?;
    let result = match func {
        Func::Add => x + y,
        Func::Sub => x - y,
        Func::Mul => x * y,
        Func::Div => x / y,
        _ => return Err(unexpected(func)),
    };
    checks.after(func, result.is_infinite(), result == 0.0)?;
    Ok(result)
}

fn singles(func: Func, x: f32, y: f32) -> Result<f32, EvalError> {
    let checks = Checks {
        x_zero: x == 0.0,
        y_zero: y == 0.0,
        x_infinite: x.is_infinite(),
        y_infinite: y.is_infinite(),
        x_nan: x.is_nan(),
    };
    checks.before(func)?;
    let result = match func {
        Func::Add => x + y,
        Func::Sub => x - y,
        Func::Mul => x * y,
        Func::Div => x / y,
        _ => return Err(unexpected(func)),
    };
    checks.after(func, result.is_infinite(), result == 0.0)?;
    Ok(result)
}
