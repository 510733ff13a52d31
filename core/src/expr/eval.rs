//! Evaluation of typed expressions, with PostgreSQL's results and PostgreSQL's errors.
//!
//! ```text
//!  eval ── logic, CASE, comparison here
//!    ├── eval_number   + - * / %, abs, round … on integers, floats, numeric
//!    ├── eval_time     dates, timestamps, intervals, date_trunc, extract
//!    ├── eval_text     text functions, LIKE, hashes, json parts
//!    └── eval_cast     explicit casts
//! ```
//!
//! Invariants: evaluation is a function of the tree and the row; it never panics; an error carries
//! PostgreSQL's message and SQLSTATE and no value of the row. A tree that breaks the binder's
//! promises (a function over types that it does not take) is an error of state `Internal`.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "dispatch on values and functions: whatever is not listed is refused alike"
)]

use super::{ColumnRef, Expr, ExprKind, Func, eval_cast, eval_number, eval_text, eval_time};
use crate::value::{SqlState, Type, Value, ValueError};
use std::borrow::Cow;
use std::cmp::Ordering;

/// Why an expression has no value: PostgreSQL's message and state.
pub type EvalError = ValueError;

/// The row that an expression is evaluated over.
pub trait Env {
    /// The value of a column; NULL for the columns of a row that a LEFT JOIN did not find.
    fn column(&self, column: ColumnRef) -> &Value;
}

const NULL: Cow<'static, Value> = Cow::Owned(Value::Null);

impl Expr {
    /// The value of the expression over one row.
    pub fn eval(&self, env: &impl Env) -> Result<Value, EvalError> {
        // Most of what views show are columns: straight, without the way through a `Cow`.
        match &self.kind {
            ExprKind::Column(column) => Ok(env.column(*column).clone()),
            _ => self.eval_ref(env).map(Cow::into_owned),
        }
    }

    /// The values of several expressions over one row, or the first error.
    pub fn eval_all(exprs: &[Self], env: &impl Env) -> Result<Vec<Value>, EvalError> {
        // Collecting results does not know how many there will be, and would allocate several times.
        let mut values = Vec::with_capacity(exprs.len());
        for expr in exprs {
            values.push(expr.eval(env)?);
        }
        Ok(values)
    }

    /// Is the condition true? NULL is not.
    pub fn is_true(&self, env: &impl Env) -> Result<bool, EvalError> {
        Ok(matches!(*self.eval_ref(env)?, Value::Bool(true)))
    }

    /// As [`Expr::eval`], without a copy where the result stands in the row or the tree.
    pub fn eval_ref<'a, E: Env>(&'a self, env: &'a E) -> Result<Cow<'a, Value>, EvalError> {
        match &self.kind {
            ExprKind::Column(column) => Ok(Cow::Borrowed(env.column(*column))),
            ExprKind::Const(value) => Ok(Cow::Borrowed(value)),
            ExprKind::Call(func, args) => self.call(*func, args, env),
            ExprKind::And(args) => connect(args, false, env),
            ExprKind::Or(args) => connect(args, true, env),
            ExprKind::Not(inner) => match *inner.eval_ref(env)? {
                Value::Bool(value) => Ok(boolean(!value)),
                _ => Ok(NULL),
            },
            ExprKind::IsNull(inner) => Ok(boolean(inner.eval_ref(env)?.is_null())),
            ExprKind::IsBool(inner, wanted) => {
                Ok(boolean(matches!(*inner.eval_ref(env)?, Value::Bool(value) if value == *wanted)))
            }
            ExprKind::NotDistinct(left, right) => {
                let (a, b) = (left.eval_ref(env)?, right.eval_ref(env)?);
                let same = match (a.is_null(), b.is_null()) {
                    (false, false) => equal(&a, &b, &left.ty)?,
                    (a, b) => a == b,
                };
                Ok(boolean(same))
            }
            ExprKind::Case { branches, otherwise } => {
                for (condition, result) in branches {
                    if condition.is_true(env)? {
                        return result.eval_ref(env);
                    }
                }
                otherwise.eval_ref(env)
            }
            ExprKind::Coalesce(args) => {
                for arg in args {
                    let value = arg.eval_ref(env)?;
                    if !value.is_null() {
                        return Ok(value);
                    }
                }
                Ok(NULL)
            }
            ExprKind::NullIf(left, right) => {
                let (a, b) = (left.eval_ref(env)?, right.eval_ref(env)?);
                let same = !a.is_null() && !b.is_null() && equal(&a, &b, &left.ty)?;
                Ok(if same { NULL } else { a })
            }
            ExprKind::Greatest(args) => extreme(args, Ordering::Less, env),
            ExprKind::Least(args) => extreme(args, Ordering::Greater, env),
            ExprKind::Cast(inner) => {
                let value = inner.eval_ref(env)?;
                if value.is_null() || !eval_cast::changes(&inner.ty, &self.ty) {
                    return Ok(value);
                }
                eval_cast::cast(&value, &inner.ty, &self.ty).map(Cow::Owned)
            }
        }
    }

    fn is_constant(&self, wanted: bool) -> bool {
        matches!(self.kind, ExprKind::Const(Value::Bool(value)) if value == wanted)
    }

    /// Every argument is evaluated before NULL decides, as in PostgreSQL: an error in the second is
    /// an error though the first is NULL.
    fn call<'a, E: Env>(
        &'a self,
        func: Func,
        args: &'a [Expr],
        env: &'a E,
    ) -> Result<Cow<'a, Value>, EvalError> {
        let result = match args {
            [a] => {
                let x = a.eval_ref(env)?;
                if x.is_null() {
                    return Ok(NULL);
                }
                unary(func, &x, a, &self.ty)?
            }
            [a, b] => {
                let (x, y) = (a.eval_ref(env)?, b.eval_ref(env)?);
                if x.is_null() || y.is_null() {
                    return Ok(NULL);
                }
                binary(func, &x, &y, a, &self.ty)?
            }
            [a, b, c] => {
                let (x, y, z) = (a.eval_ref(env)?, b.eval_ref(env)?, c.eval_ref(env)?);
                if x.is_null() || y.is_null() || z.is_null() {
                    return Ok(NULL);
                }
                ternary(func, &x, &y, &z)?
            }
            _ => return Err(unexpected(func)),
        };
        Ok(Cow::Owned(result))
    }
}

fn boolean(value: bool) -> Cow<'static, Value> {
    Cow::Owned(Value::Bool(value))
}

/// The binder promised that this cannot be.
pub(super) fn unexpected(what: impl std::fmt::Debug) -> EvalError {
    EvalError::new(SqlState::Internal, format!("{what:?} is not defined for these types"))
}

/// `AND` (`decisive` false) and `OR` (true), left to right, stopping at what decides.
fn connect<'a, E: Env>(
    args: &'a [Expr],
    decisive: bool,
    env: &'a E,
) -> Result<Cow<'a, Value>, EvalError> {
    let mut unknown = false;
    for arg in args {
        let value = match arg.eval_ref(env) {
            // PostgreSQL's planner makes `x AND false` false before anything is evaluated.
            Err(_) if args.iter().any(|arg| arg.is_constant(decisive)) => {
                return Ok(boolean(decisive));
            }
            value => value?,
        };
        match *value {
            Value::Bool(value) if value == decisive => return Ok(boolean(decisive)),
            Value::Bool(_) => {}
            _ => unknown = true,
        }
    }
    Ok(if unknown { NULL } else { boolean(!decisive) })
}

/// The first argument that no other one beats; `replace` is how the best so far compares with what
/// takes its place.
fn extreme<'a, E: Env>(
    args: &'a [Expr],
    replace: Ordering,
    env: &'a E,
) -> Result<Cow<'a, Value>, EvalError> {
    let mut best = NULL;
    for arg in args {
        let value = arg.eval_ref(env)?;
        if value.is_null() {
            continue;
        }
        if best.is_null() || ordering(&best, &value, &arg.ty)? == replace {
            best = value;
        }
    }
    Ok(best)
}

fn ordering(a: &Value, b: &Value, ty: &Type) -> Result<Ordering, EvalError> {
    a.compare(b, ty).ok_or_else(|| unexpected("comparison"))
}

/// SQL's `=` of two values that are not NULL.
fn equal(a: &Value, b: &Value, ty: &Type) -> Result<bool, EvalError> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => Ok(a == b),
        // Equal labels are the same label, also where the list of labels is out of date.
        (Value::Text(a), Value::Text(b))
            if matches!(ty, Type::Enum { .. } | Type::Text | Type::Varchar(_)) =>
        {
            Ok(a == b)
        }
        _ => Ok(ordering(a, b, ty)? == Ordering::Equal),
    }
}

fn unary(func: Func, x: &Value, arg: &Expr, ty: &Type) -> Result<Value, EvalError> {
    match func {
        Func::Neg | Func::Abs | Func::Round | Func::Floor | Func::Ceil => {
            eval_number::unary(func, x, ty)
        }
        Func::Length | Func::Lower | Func::Upper | Func::Md5 | Func::Sha256Hex => {
            eval_text::unary(func, x, &arg.ty)
        }
        _ => Err(unexpected(func)),
    }
}

fn binary(func: Func, x: &Value, y: &Value, arg: &Expr, ty: &Type) -> Result<Value, EvalError> {
    match func {
        Func::Eq => equal(x, y, &arg.ty).map(Value::Bool),
        Func::Ne => equal(x, y, &arg.ty).map(|same| Value::Bool(!same)),
        Func::Lt => ordering(x, y, &arg.ty).map(|order| Value::Bool(order.is_lt())),
        Func::Le => ordering(x, y, &arg.ty).map(|order| Value::Bool(order.is_le())),
        Func::Gt => ordering(x, y, &arg.ty).map(|order| Value::Bool(order.is_gt())),
        Func::Ge => ordering(x, y, &arg.ty).map(|order| Value::Bool(order.is_ge())),
        Func::Add | Func::Sub | Func::Mul | Func::Div | Func::Mod => match (x, y) {
            (Value::Int(_), Value::Int(_))
            | (Value::Numeric(_), Value::Numeric(_))
            | (Value::Float4(_), Value::Float4(_))
            | (Value::Float8(_), Value::Float8(_)) => eval_number::binary(func, x, y, ty),
            _ => eval_time::arithmetic(func, x, y),
        },
        Func::Round => eval_number::round_to(x, y),
        Func::DateTrunc => eval_time::date_trunc(x, y),
        Func::Extract => eval_time::extract(x, y),
        Func::Concat
        | Func::Like
        | Func::Trim(_)
        | Func::Left
        | Func::Right
        | Func::Substring
        | Func::JsonGet
        | Func::JsonGetText
        | Func::JsonPathText => eval_text::binary(func, x, y, &arg.ty),
        _ => Err(unexpected(func)),
    }
}

fn ternary(func: Func, x: &Value, y: &Value, z: &Value) -> Result<Value, EvalError> {
    match (x, y, z) {
        (Value::Text(x), Value::Int(from), Value::Int(length)) if func == Func::Substring => {
            eval_text::substring(x, *from, Some(*length))
        }
        (Value::Text(x), Value::Text(by), Value::Int(n)) if func == Func::SplitPart => {
            eval_text::split_part(x, by, *n)
        }
        _ => Err(unexpected(func)),
    }
}
