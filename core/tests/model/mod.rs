//! A model of the engine that knows nothing of deltas: tables, views over them, and each view computed
//! from scratch by nested loops over whole tables.

#![expect(clippy::unwrap_used, reason = "a surprise fails the test")]

use crate::made::column;
use std::collections::BTreeMap;
use walview_core::catalog::{Catalog, Column, ReplicaIdentity, Table, UniqueKey};
use walview_core::expr::{ColumnRef, Env, EvalError, Expr};
use walview_core::plan::{Aggregate, AggregateFunc, JoinKind, View, ViewKind};
use walview_core::value::{Numeric, Row, Type, Value};

fn table(oid: u32, name: &str, columns: Vec<Column>, keys: &[&[usize]]) -> Table {
    let unique_keys = keys
        .iter()
        .enumerate()
        .map(|(at, columns)| UniqueKey {
            name: format!("{name}_key{at}"),
            columns: columns.to_vec(),
            primary: at == 0,
        })
        .collect();
    let schema = "public".to_owned();
    let replica_identity = ReplicaIdentity::Default;
    Table { oid, schema, name: name.to_owned(), columns, unique_keys, replica_identity }
}

pub(crate) fn catalog() -> Catalog {
    let id = |name: &str| column(name, Type::Int8, true);
    let reference = |name: &str| column(name, Type::Int8, false);
    let text = |name: &str| column(name, Type::Text, false);
    // What groups are keyed by: NULL has no place in a Redis key.
    let label = |name: &str| column(name, Type::Text, true);
    Catalog {
        tables: vec![
            table(
                1,
                "bets",
                vec![
                    id("id"),
                    reference("user_id"),
                    reference("event_id"),
                    column("amount", Type::Numeric(None), false),
                    label("status"),
                    text("email"),
                ],
                &[&[0]],
            ),
            table(2, "users", vec![id("id"), label("name"), label("email")], &[&[0], &[2]]),
            table(3, "events", vec![id("id"), text("name"), reference("owner_id")], &[&[0]]),
            table(4, "staff", vec![id("id"), reference("boss_id"), label("name")], &[&[0]]),
        ],
        ..Catalog::default()
    }
}

pub(crate) const VIEWS: [(&str, &str); 16] = [
    (
        "wide",
        "SELECT b.id, b.status, b.amount, u.name AS user_name, e.name AS event_name FROM bets b \
         LEFT JOIN users u ON u.id = b.user_id LEFT JOIN events e ON e.id = b.event_id",
    ),
    (
        "two_roles",
        "SELECT b.id, u.name AS user_name, o.name AS owner_name, e.name FROM bets b \
         LEFT JOIN users u ON u.id = b.user_id JOIN events e ON e.id = b.event_id \
         LEFT JOIN users o ON o.id = e.owner_id AND o.name <> 'n1'",
    ),
    (
        "filtered",
        "SELECT b.id, u.name FROM bets b JOIN users u ON u.id = b.user_id \
         WHERE u.name <> 'n0' AND b.status = 's1'",
    ),
    ("by_email", "SELECT b.id, u.id AS user_id FROM bets b JOIN users u ON u.email = b.email"),
    (
        "chain",
        "SELECT s.id, b.name AS boss, g.name AS big_boss FROM staff s \
         LEFT JOIN staff b ON b.id = s.boss_id LEFT JOIN staff g ON g.id = b.boss_id \
         AND g.name <> s.name",
    ),
    (
        "by_status",
        "SELECT status, count(*) AS bets, sum(amount) AS staked, avg(amount) AS mean, \
         count(amount) AS given FROM bets GROUP BY status",
    ),
    (
        "by_event",
        "SELECT e.id, e.name, sum(b.amount) AS staked, \
         count(*) FILTER (WHERE b.status = 's0') AS zero FROM bets b \
         JOIN events e ON e.id = b.event_id GROUP BY e.id",
    ),
    (
        "by_owner",
        "SELECT u.name, count(*) AS bets, sum(b.amount) AS staked FROM bets b \
         JOIN events e ON e.id = b.event_id JOIN users u ON u.id = e.owner_id GROUP BY u.name",
    ),
    ("total", "SELECT 1 AS one, count(*) AS bets, sum(amount) AS staked FROM bets"),
    // One changed row in several roles of one group: it must count once.
    (
        "own_bets",
        "SELECT o.name, count(*) AS bets, sum(b.amount) AS staked FROM bets b \
         JOIN users u ON u.id = b.user_id JOIN events e ON e.id = b.event_id \
         JOIN users o ON o.id = e.owner_id WHERE u.name <> 'n0' GROUP BY o.name",
    ),
    (
        "teams",
        "SELECT g.name, count(*) AS staff, count(b.name) AS bosses FROM staff s \
         JOIN staff b ON b.id = s.boss_id AND b.name <> 'n1' \
         JOIN staff g ON g.id = b.boss_id GROUP BY g.name",
    ),
    ("names", "SELECT DISTINCT u.name FROM bets b JOIN users u ON u.id = b.user_id"),
    // Divisions by zero: in the fact, in a dimension, in a filter, in a condition of ON, in a sum.
    (
        "shares",
        "SELECT b.id, 10 / b.amount AS share, 1 / CASE u.name WHEN 'n0' THEN 0 ELSE 1 END AS one \
         FROM bets b LEFT JOIN users u ON u.id = b.user_id",
    ),
    ("large", "SELECT b.id, b.status FROM bets b WHERE 10 / b.amount > 1"),
    (
        "named",
        "SELECT b.id, u.name FROM bets b \
         LEFT JOIN users u ON u.id = b.user_id AND 10 / (b.amount - 1) > 1",
    ),
    (
        "share_of",
        "SELECT status, count(*) AS bets, sum(10 / b.amount) AS share FROM bets b GROUP BY status",
    ),
];

/// The source's tables, whole.
pub(crate) type Tables = BTreeMap<u32, Vec<Row>>;

struct Joined<'a>(Vec<Option<&'a Row>>);

impl Env for Joined<'_> {
    fn column(&self, column: ColumnRef) -> &Value {
        match self.0[column.input] {
            Some(row) => &row[column.column],
            None => &Value::Null,
        }
    }
}

struct Grouped<'a>(&'a [Value], &'a [Value]);

impl Env for Grouped<'_> {
    fn column(&self, column: ColumnRef) -> &Value {
        if column.input == 0 { &self.0[column.column] } else { &self.1[column.column] }
    }
}

fn holds(expr: &Expr, env: &impl Env) -> Result<bool, EvalError> {
    Ok(expr.eval(env)? == Value::Bool(true))
}

fn eval(exprs: &[Expr], env: &impl Env) -> Result<Row, EvalError> {
    exprs.iter().map(|expr| expr.eval(env)).collect()
}

/// The joined row of a fact; `None` where an inner join or the filter leaves it out.
fn join<'a>(
    view: &View,
    tables: &'a Tables,
    fact: &'a Row,
) -> Result<Option<Joined<'a>>, EvalError> {
    let mut env = Joined(vec![Some(fact)]);
    for input in &view.inputs[1..] {
        let condition = input.join.as_ref().unwrap();
        let mut partner = None;
        for row in &tables[&input.table] {
            let keys = condition.on.iter().all(|(column, expr)| {
                let key = expr.eval(&env).unwrap();
                !key.is_null() && row[*column] == key
            });
            let mut inputs = env.0.clone();
            inputs.push(Some(row));
            let more = condition.condition.as_ref();
            if keys && more.none_or_ok(|c| holds(c, &Joined(inputs)))? {
                partner = Some(row);
            }
        }
        if partner.is_none() && condition.kind == JoinKind::Inner {
            return Ok(None);
        }
        env.0.push(partner);
    }
    Ok(view.filter.as_ref().none_or_ok(|filter| holds(filter, &env))?.then_some(env))
}

/// `Option::is_none_or` with a condition that may fail.
trait NoneOrOk<T> {
    fn none_or_ok(
        self,
        holds: impl FnOnce(T) -> Result<bool, EvalError>,
    ) -> Result<bool, EvalError>;
}

impl<T> NoneOrOk<T> for Option<T> {
    fn none_or_ok(
        self,
        holds: impl FnOnce(T) -> Result<bool, EvalError>,
    ) -> Result<bool, EvalError> {
        self.map_or(Ok(true), holds)
    }
}

/// A group's key, and each aggregate's argument where its FILTER lets the row in.
type Member = (Row, Vec<Option<Value>>);

fn member(by: &[Expr], aggregates: &[Aggregate], env: &Joined<'_>) -> Result<Member, EvalError> {
    let arguments = aggregates.iter().map(|aggregate| {
        if !aggregate.filter.as_ref().none_or_ok(|filter| holds(filter, env))? {
            return Ok(None);
        }
        let argument = aggregate.argument.as_ref();
        argument.map_or(Ok(Value::Bool(true)), |argument| argument.eval(env)).map(Some)
    });
    Ok((eval(by, env)?, arguments.collect::<Result<_, _>>()?))
}

/// A view from scratch, and the ids of the facts that cannot be evaluated.
pub(crate) fn compute(view: &View, tables: &Tables) -> (Vec<Row>, Vec<Value>) {
    let mut failed = Vec::new();
    let facts = &tables[&view.inputs[0].table];
    let mut each = |of: &mut dyn FnMut(&Joined<'_>) -> Result<(), EvalError>| {
        for fact in facts {
            let evaluated =
                join(view, tables, fact).and_then(|env| env.map_or(Ok(()), |env| of(&env)));
            if evaluated.is_err() {
                failed.push(fact[0].clone());
            }
        }
    };
    let mut rows = Vec::new();
    let (by, aggregates, output) = match &view.kind {
        ViewKind::Rows { output } => {
            each(&mut |env| {
                rows.push(eval(output, env)?);
                Ok(())
            });
            return (rows, failed);
        }
        ViewKind::Groups { by, aggregates, output, .. } => (by, aggregates, output),
    };
    let mut groups: Vec<(Row, Vec<Vec<Option<Value>>>)> = Vec::new();
    if by.is_empty() {
        groups.push((Vec::new(), Vec::new()));
    }
    each(&mut |env| {
        let (key, arguments) = member(by, aggregates, env)?;
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, members)) => members.push(arguments),
            None => groups.push((key, vec![arguments])),
        }
        Ok(())
    });
    for (key, members) in &groups {
        let values: Row = aggregates
            .iter()
            .enumerate()
            .map(|(at, aggregate)| {
                let arguments = members.iter().filter_map(|arguments| arguments[at].clone());
                let values: Vec<Value> = arguments.filter(|value| !value.is_null()).collect();
                finish(aggregate.func, &values)
            })
            .collect();
        rows.push(eval(output, &Grouped(key, &values)).unwrap());
    }
    (rows, failed)
}

fn finish(func: AggregateFunc, values: &[Value]) -> Value {
    let count = i64::try_from(values.len()).unwrap();
    if func == AggregateFunc::Count {
        return Value::Int(count);
    }
    if values.is_empty() {
        return Value::Null;
    }
    let mut total = Numeric::ZERO;
    for value in values {
        let Value::Numeric(number) = value else { panic!("sums are over numeric here") };
        total = total.add(number).unwrap();
    }
    let sum =
        if func == AggregateFunc::Avg { total.div(&Numeric::from(count)).unwrap() } else { total };
    Value::Numeric(sum)
}
