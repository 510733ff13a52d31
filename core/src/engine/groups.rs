//! Accumulators of aggregate views: exact under insertion and removal.
//!
//! A sum keeps its total at full scale together with how many inputs have which display scale, so
//! that the result shows the digits that PostgreSQL would print for the rows that are there now
//! (1.50 against 1.5), and counts NaN and the infinities apart, because they cannot be taken back
//! out of a total.
//!
//! In the state a group is a row of plain values (`value::row`):
//! members | grouping values … | for each aggregate its parts.

use crate::expr::{ColumnRef, Env, EvalError, Expr};
use crate::plan::{Aggregate, AggregateFunc};
use crate::value::{Numeric, Row, SqlState, Type, Value, row};

/// A group's accumulators.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Group {
    /// Rows in the group.
    pub members: i64,
    /// The grouping values, dependent columns included.
    pub by: Vec<Value>,
    pub accumulators: Vec<Accumulator>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Accumulator {
    Count(i64),
    Sum(Sum),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sum {
    /// Inputs that are not NULL, specials included.
    count: i64,
    /// Of the finite inputs.
    total: Numeric,
    /// Finite inputs by display scale, in the order of scales: nearly always one.
    scales: Vec<(i64, i64)>,
    nan: i64,
    infinity: i64,
    negative_infinity: i64,
}

impl Sum {
    fn new() -> Self {
        Self {
            count: 0,
            total: Numeric::ZERO,
            scales: Vec::new(),
            nan: 0,
            infinity: 0,
            negative_infinity: 0,
        }
    }

    fn add(&mut self, value: &Value, sign: i64) -> Result<(), EvalError> {
        // NULLs are skipped before; the binder admits no other type.
        let of_int;
        let number = if let Value::Int(int) = value {
            of_int = Numeric::from(*int);
            &of_int
        } else if let Value::Numeric(number) = value {
            number
        } else {
            return Err(EvalError::new(SqlState::Internal, "sum over a type that has none"));
        };
        self.count += sign;
        let Some(scale) = number.scale() else {
            let special = match number.signum() {
                _ if number.is_nan() => &mut self.nan,
                -1 => &mut self.negative_infinity,
                _ => &mut self.infinity,
            };
            *special += sign;
            return Ok(());
        };
        let scale = i64::from(scale);
        match self.scales.binary_search_by_key(&scale, |(scale, _)| *scale) {
            Ok(at) => {
                if let Some((_, count)) = self.scales.get_mut(at) {
                    *count += sign;
                }
                self.scales.retain(|(_, count)| *count != 0);
            }
            Err(at) => self.scales.insert(at, (scale, sign)),
        }
        if sign < 0 { self.total.sub_assign(number) } else { self.total.add_assign(number) }
    }

    /// The sum as PostgreSQL's numeric shows it. Only called where `count` is not zero.
    fn total(&self) -> Result<Numeric, EvalError> {
        if self.nan > 0 || (self.infinity > 0 && self.negative_infinity > 0) {
            return Ok(Numeric::NAN);
        }
        if self.infinity > 0 {
            return Ok(Numeric::INFINITY);
        }
        if self.negative_infinity > 0 {
            return Ok(Numeric::NEGATIVE_INFINITY);
        }
        let scale = self.scales.last().map_or(0, |(scale, _)| *scale);
        // Every digit beyond the largest scale among the inputs is zero: this never rounds.
        self.total.round(i32::try_from(scale).unwrap_or(0))
    }
}

impl Group {
    pub(super) fn new(by: Vec<Value>, aggregates: &[Aggregate]) -> Self {
        let accumulators = aggregates
            .iter()
            .map(|aggregate| match aggregate.func {
                AggregateFunc::Count => Accumulator::Count(0),
                AggregateFunc::Sum | AggregateFunc::Avg => Accumulator::Sum(Sum::new()),
            })
            .collect();
        Self { members: 0, by, accumulators }
    }

    /// About how many bytes it takes beside itself: what its allocations hold, and as much again for
    /// what they cost. A total that grows later is not in it.
    pub(super) fn weight(&self) -> usize {
        let by: usize = self.by.iter().map(|value| size_of::<Value>() + value.weight()).sum();
        let scale = 4 * size_of::<(i64, i64)>();
        2 * by + self.accumulators.len() * (size_of::<Accumulator>() + scale)
    }

    /// Takes a member in (`sign` 1) or out (-1).
    ///
    /// # Errors
    /// A total left the range of numeric.
    pub(super) fn apply(
        &mut self,
        arguments: &[Option<Value>],
        sign: i64,
    ) -> Result<(), EvalError> {
        self.members += sign;
        for (accumulator, argument) in self.accumulators.iter_mut().zip(arguments) {
            let Some(argument) = argument else { continue };
            if argument.is_null() {
                continue;
            }
            match accumulator {
                Accumulator::Count(count) => *count += sign,
                Accumulator::Sum(sum) => sum.add(argument, sign)?,
            }
        }
        Ok(())
    }

    /// The group's result row.
    ///
    /// # Errors
    /// A sum does not fit its type, or an output expression fails: PostgreSQL would fail too.
    pub(super) fn output(
        &self,
        aggregates: &[Aggregate],
        output: &[Expr],
    ) -> Result<Row, EvalError> {
        let mut values = Vec::with_capacity(aggregates.len());
        for (accumulator, aggregate) in self.accumulators.iter().zip(aggregates) {
            values.push(finish(accumulator, aggregate)?);
        }
        Expr::eval_all(output, &GroupEnv { by: &self.by, aggregates: &values })
    }

    /// Appends the row of plain values that the state keeps.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let parts = self.accumulators.iter().map(|accumulator| match accumulator {
            Accumulator::Count(_) => 1,
            Accumulator::Sum(sum) => 6 + 2 * sum.scales.len(),
        });
        row::encode_len(1 + self.by.len() + parts.sum::<usize>(), out);
        let int = |value: i64, out: &mut Vec<u8>| row::encode_value(&Value::Int(value), out);
        int(self.members, out);
        for value in &self.by {
            row::encode_value(value, out);
        }
        for accumulator in &self.accumulators {
            match accumulator {
                Accumulator::Count(count) => int(*count, out),
                Accumulator::Sum(sum) => {
                    int(sum.count, out);
                    row::encode_numeric(&sum.total, out);
                    for special in [sum.nan, sum.infinity, sum.negative_infinity] {
                        int(special, out);
                    }
                    int(i64::try_from(sum.scales.len()).unwrap_or(i64::MAX), out);
                    for (scale, count) in &sum.scales {
                        int(*scale, out);
                        int(*count, out);
                    }
                }
            }
        }
    }

    /// The reverse of `encode`; `None` where the row is not one of this view's groups.
    pub(super) fn from_row(row: Row, by: usize, aggregates: &[Aggregate]) -> Option<Self> {
        let mut values = row.into_iter();
        let members = int(values.next())?;
        let by: Vec<Value> = values.by_ref().take(by).collect();
        let mut accumulators = Vec::with_capacity(aggregates.len());
        for aggregate in aggregates {
            accumulators.push(match aggregate.func {
                AggregateFunc::Count => Accumulator::Count(int(values.next())?),
                AggregateFunc::Sum | AggregateFunc::Avg => {
                    let count = int(values.next())?;
                    let Some(Value::Numeric(total)) = values.next() else {
                        return None;
                    };
                    let nan = int(values.next())?;
                    let infinity = int(values.next())?;
                    let negative_infinity = int(values.next())?;
                    let mut scales = Vec::new();
                    for _ in 0..int(values.next())? {
                        scales.push((int(values.next())?, int(values.next())?));
                    }
                    Accumulator::Sum(Sum { count, total, scales, nan, infinity, negative_infinity })
                }
            });
        }
        values.next().is_none().then_some(Self { members, by, accumulators })
    }
}

fn int(value: Option<Value>) -> Option<i64> {
    if let Some(Value::Int(int)) = value { Some(int) } else { None }
}

fn finish(accumulator: &Accumulator, aggregate: &Aggregate) -> Result<Value, EvalError> {
    let sum = match accumulator {
        Accumulator::Count(count) => return Ok(Value::Int(*count)),
        Accumulator::Sum(sum) => sum,
    };
    if sum.count == 0 {
        return Ok(Value::Null);
    }
    let total = sum.total()?;
    if aggregate.func == AggregateFunc::Avg {
        return total.div(&Numeric::from(sum.count)).map(Value::Numeric);
    }
    if aggregate.ty == Type::Int8 {
        return total.to_i64().map(Value::Int);
    }
    Ok(Value::Numeric(total))
}

struct GroupEnv<'a> {
    by: &'a [Value],
    aggregates: &'a [Value],
}

static NULL: Value = Value::Null;

impl Env for GroupEnv<'_> {
    fn column(&self, column: ColumnRef) -> &Value {
        let input = if column.input == 0 { self.by } else { self.aggregates };
        input.get(column.column).unwrap_or(&NULL)
    }
}
