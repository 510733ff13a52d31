//! PostgreSQL as the judge of the SQL front end.
//!
//! A throw-away server is asked about every statement of the lists below: what binds here must be
//! accepted there with the same column names, types and modifiers, and what PostgreSQL refuses must
//! be refused here. Without PostgreSQL these tests fail; they are never skipped.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test stops at the first surprise"
)]

#[path = "../programs/mod.rs"]
mod programs;
mod server;
mod values;

use server::Server;
use walview_core::catalog::Catalog;
use walview_core::diagnostic::Diagnostic;
use walview_core::plan::View;
use walview_core::sql;
use walview_core::value::Type;

const SCHEMA: &str = include_str!("schema.sql");
const ROWS: &str = include_str!("rows.sql");
const ACCEPTED: &str = include_str!("accepted.sql");
const REFUSED: &str = include_str!("refused_by_postgres.sql");

/// Statements between semicolons at a line's end; lines that start with `--` are comments.
fn statements(text: &str) -> Vec<&str> {
    text.split(";\n").map(str::trim).filter(|statement| !statement.is_empty()).collect()
}

/// As `format_type` prints it.
fn format_type(ty: &Type) -> String {
    match ty {
        Type::Bool => "boolean".to_owned(),
        Type::Int2 => "smallint".to_owned(),
        Type::Int4 => "integer".to_owned(),
        Type::Int8 => "bigint".to_owned(),
        Type::Float4 => "real".to_owned(),
        Type::Float8 => "double precision".to_owned(),
        Type::Numeric(None) => "numeric".to_owned(),
        Type::Numeric(Some((precision, scale))) => format!("numeric({precision},{scale})"),
        Type::Text => "text".to_owned(),
        Type::Varchar(None) => "character varying".to_owned(),
        Type::Varchar(Some(length)) => format!("character varying({length})"),
        Type::Char(length) => format!("character({length})"),
        Type::Bytea => "bytea".to_owned(),
        Type::Date => "date".to_owned(),
        Type::Time => "time without time zone".to_owned(),
        Type::Timestamp => "timestamp without time zone".to_owned(),
        Type::TimestampTz => "timestamp with time zone".to_owned(),
        Type::Interval => "interval".to_owned(),
        Type::Uuid => "uuid".to_owned(),
        Type::Json => "json".to_owned(),
        Type::Jsonb => "jsonb".to_owned(),
        Type::Enum { name, .. } => name.clone(),
        Type::Other { name, .. } => match name.strip_prefix('_') {
            Some("int4") => "integer[]".to_owned(),
            Some(element) => format!("{element}[]"),
            None => name.clone(),
        },
    }
}

fn bind(statement: &str, catalog: &Catalog) -> Result<View, Vec<Diagnostic>> {
    let parsed = sql::parse(statement)?;
    sql::bind(&parsed, "v", catalog, "public")
}

fn shown(view: &View) -> Vec<String> {
    view.columns
        .iter()
        .map(|column| format!("{} {}", column.name, format_type(&column.ty)))
        .collect()
}

fn server() -> (Server, Catalog) {
    let server = Server::start();
    let printed = server.psql(SCHEMA);
    assert_eq!(printed, "", "the schema does not load");
    let catalog = server.catalog();
    (server, catalog)
}

#[test]
fn postgres_agrees_on_types_and_refusals() {
    let (server, catalog) = server();
    let mut wrong = Vec::new();

    let accepted = statements(ACCEPTED);
    assert!(accepted.len() >= 150, "{} statements", accepted.len());
    for (statement, postgres) in accepted.iter().zip(server.views(&accepted)) {
        match (bind(statement, &catalog), postgres) {
            (Ok(view), Ok(columns)) if shown(&view) == columns => {}
            (Ok(view), Ok(columns)) => {
                wrong.push(format!(
                    "{statement}\n  bound    {:?}\n  postgres {columns:?}",
                    shown(&view)
                ));
            }
            (Ok(_), Err(error)) => wrong.push(format!("{statement}\n  postgres refuses: {error}")),
            (Err(diagnostics), answer) => {
                let ours: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
                wrong.push(format!("{statement}\n  refused: {ours:?}\n  postgres: {answer:?}"));
            }
        }
    }

    let refused = statements(REFUSED);
    assert!(refused.len() >= 50, "{} statements", refused.len());
    for (statement, postgres) in refused.iter().zip(server.views(&refused)) {
        if let Ok(columns) = postgres {
            wrong.push(format!("{statement}\n  belongs elsewhere: postgres gives {columns:?}"));
        }
        if let Ok(view) = bind(statement, &catalog) {
            wrong.push(format!("{statement}\n  bound: {:?}", shown(&view)));
        }
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}
