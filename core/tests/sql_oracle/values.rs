//! The values of bound row views against PostgreSQL's, row by row.
//!
//! The table `t` holds one row at a time, so that a row whose expression fails is seen alone: then
//! PostgreSQL must fail too, and with the same SQLSTATE. Joins are made here by the plan's
//! equalities, the simplest way there is.

use crate::server::Server;
use crate::{ACCEPTED, ROWS, bind, server, statements};
use walview_core::catalog::Catalog;
use walview_core::expr::{ColumnRef, Env, EvalError, Expr};
use walview_core::plan::{JoinKind, View, ViewKind};
use walview_core::value::{Row, Value};

const NULL: Value = Value::Null;

/// The rows of the inputs so far; `None` where LEFT JOIN found none.
struct Inputs<'a>(Vec<Option<&'a Row>>);

impl Env for Inputs<'_> {
    fn column(&self, column: ColumnRef) -> &Value {
        match self.0.get(column.input) {
            Some(Some(row)) => &row[column.column],
            _ => &NULL,
        }
    }
}

type Tables = Vec<(u32, Vec<Row>)>;

fn rows(tables: &Tables, oid: u32) -> &[Row] {
    tables.iter().find(|(own, _)| *own == oid).map_or(&[], |(_, rows)| rows)
}

fn load(server: &Server, catalog: &Catalog) -> Tables {
    let mut script = String::from("\\pset null '\u{1e}'\n");
    for table in &catalog.tables {
        script.push_str(&format!("\\echo @@\nSELECT * FROM {}.{};\n", table.schema, table.name));
    }
    let printed = server.psql(&script);
    let answers: Vec<&str> = printed.split("@@\n").skip(1).collect();
    assert_eq!(answers.len(), catalog.tables.len());
    let parse = |table: &walview_core::catalog::Table, line: &str| {
        let fields: Vec<&str> = line.split('\u{1f}').collect();
        assert_eq!(fields.len(), table.columns.len(), "{}: {line:?}", table.name);
        let values = fields.iter().zip(&table.columns).map(|(field, column)| match *field {
            "\u{1e}" => Value::Null,
            text => Value::from_server(&column.ty, text).unwrap(),
        });
        values.collect()
    };
    let loaded = catalog.tables.iter().zip(answers).map(|(table, answer)| {
        (table.oid, answer.lines().map(|line| parse(table, line)).collect())
    });
    loaded.collect()
}

fn evaluate(view: &View, tables: &Tables) -> Result<Vec<String>, EvalError> {
    let ViewKind::Rows { output } = &view.kind else {
        return Ok(Vec::new());
    };
    let mut lines = Vec::new();
    'fact: for fact in rows(tables, view.inputs[0].table) {
        let mut inputs = Inputs(vec![Some(fact)]);
        for (index, input) in view.inputs.iter().enumerate().skip(1) {
            let join = input.join.as_ref().unwrap();
            let mut found = None;
            for row in rows(tables, input.table) {
                let mut equal = true;
                for (column, expr) in &join.on {
                    let value = expr.eval(&inputs)?;
                    equal &= !value.is_null() && value == row[*column];
                }
                inputs.0.push(Some(row));
                if equal && holds(join.condition.as_ref(), &inputs)? {
                    assert!(found.is_none(), "two rows of input {index}");
                    found = Some(row);
                }
                inputs.0.pop();
            }
            if found.is_none() && join.kind == JoinKind::Inner {
                continue 'fact;
            }
            inputs.0.push(found);
        }
        if !holds(view.filter.as_ref(), &inputs)? {
            continue;
        }
        let mut fields = Vec::new();
        for (expr, column) in output.iter().zip(&view.columns) {
            let value = expr.eval(&inputs)?;
            assert!(column.nullable || !value.is_null(), "{} is NULL", column.name);
            fields.push(if value.is_null() {
                "\u{1e}".to_owned()
            } else {
                value.to_text(&column.ty)
            });
        }
        lines.push(fields.join("\u{1f}"));
    }
    lines.sort();
    Ok(lines)
}

fn holds(condition: Option<&Expr>, inputs: &Inputs<'_>) -> Result<bool, EvalError> {
    condition.map_or(Ok(true), |condition| condition.is_true(inputs))
}

#[test]
fn postgres_agrees_on_values() {
    let (server, catalog) = server();
    let views: Vec<(&str, View)> = statements(ACCEPTED)
        .into_iter()
        .map(|statement| (statement, bind(statement, &catalog).unwrap()))
        .filter(|(_, view)| matches!(view.kind, ViewKind::Rows { .. }))
        .collect();
    let mut wrong = Vec::new();
    let mut compared = 0;
    for row in ROWS.lines() {
        let printed = server.psql(&format!("TRUNCATE t; INSERT INTO t ({row});\n"));
        assert_eq!(printed, "", "{row}");
        let tables = load(&server, &catalog);
        let mut script = String::from("\\pset null '\u{1e}'\n\\set VERBOSITY sqlstate\n");
        for (statement, _) in &views {
            script.push_str(&format!("\\echo @@\n{statement}\n;\n"));
        }
        let printed = server.psql(&script);
        let answers: Vec<&str> = printed.split("@@\n").skip(1).collect();
        assert_eq!(answers.len(), views.len());
        for ((statement, view), answer) in views.iter().zip(answers) {
            let ours = match evaluate(view, &tables) {
                Ok(lines) => lines,
                Err(error) => vec![format!("ERROR:  {}", error.state.code())],
            };
            let mut theirs: Vec<String> = answer
                .lines()
                .map(|line| line.find("ERROR:").map_or(line, |at| line.get(at..).unwrap_or(line)))
                .map(str::to_owned)
                .collect();
            theirs.sort();
            compared += 1;
            // From 17 the difference of infinite timestamps is an interval; our row is parked.
            let by_version = server.major() >= 17
                && ours == ["ERROR:  22008"]
                && theirs.iter().any(|line| line.contains("infinity"));
            if ours != theirs && !by_version {
                let id: String = row.split("VALUES (").nth(1).unwrap().chars().take(2).collect();
                wrong.push(format!(
                    "row {id} {statement}\n  ours     {ours:?}\n  postgres {theirs:?}"
                ));
            }
        }
    }
    assert!(compared > 900, "{compared} compared");
    assert!(wrong.is_empty(), "{} of {compared} differ:\n{}", wrong.len(), wrong.join("\n"));
}
