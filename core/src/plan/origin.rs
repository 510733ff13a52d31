//! Where the columns of a result come from, in words that a reader of a store finds beside them.

use super::{Aggregate, AggregateFunc, View, ViewKind};
use crate::catalog::Catalog;
use crate::expr::{ColumnRef, Expr, ExprKind};
use crate::sql::type_name;

/// What says it where nothing needs to: tables of another schema are named with it.
const USUAL_SCHEMA: &str = "public";

impl View {
    /// For each column its PostgreSQL type and its origin: `bigint, bets.id`, `numeric,
    /// sum(bets.amount)`, `numeric, from bets.amount, bets.payout`. Without literals: a comment
    /// holds names, never values.
    #[must_use]
    pub fn origins(&self, catalog: &Catalog) -> Vec<String> {
        let names = Names { view: self, catalog };
        let output = match &self.kind {
            ViewKind::Rows { output } | ViewKind::Groups { output, .. } => output,
        };
        let of_table = |column| vec![names.of(column)];
        let origin = |expr: &Expr| match (&self.kind, &expr.kind) {
            (ViewKind::Rows { .. }, _) => over(expr, &of_table),
            (ViewKind::Groups { by, .. }, ExprKind::Column(ColumnRef { input: 0, column })) => {
                by.get(*column).map(|expr| over(expr, &of_table)).unwrap_or_default()
            }
            (ViewKind::Groups { by, aggregates, .. }, _) => {
                over(expr, &|column| match column.input {
                    0 => by.get(column.column).map(|by| names.within(by)).unwrap_or_default(),
                    _ => aggregates
                        .get(column.column)
                        .map(|call| names.call(call))
                        .into_iter()
                        .collect(),
                })
            }
        };
        self.columns
            .iter()
            .zip(output)
            .map(|(column, expr)| format!("{}, {}", type_name(&column.ty), origin(expr)))
            .collect()
    }
}

struct Names<'a> {
    view: &'a View,
    catalog: &'a Catalog,
}

impl Names<'_> {
    fn of(&self, column: ColumnRef) -> String {
        let table = self.view.inputs.get(column.input);
        let table = table.and_then(|input| self.catalog.by_oid(input.table));
        let Some((table, column)) = table.and_then(|t| Some((t, t.columns.get(column.column)?)))
        else {
            return "a column".to_owned();
        };
        match table.schema.as_str() {
            USUAL_SCHEMA => format!("{}.{}", table.name, column.name),
            schema => format!("{schema}.{}.{}", table.name, column.name),
        }
    }

    /// The columns of the tables that an expression reads, each once.
    fn within(&self, expr: &Expr) -> Vec<String> {
        let mut names = Vec::new();
        expr.columns(&mut |column| push_once(&mut names, self.of(column)));
        names
    }

    fn call(&self, call: &Aggregate) -> String {
        let name = match call.func {
            AggregateFunc::Count => "count",
            AggregateFunc::Sum => "sum",
            AggregateFunc::Avg => "avg",
        };
        let argument = call.argument.as_ref();
        let argument = argument.map_or_else(|| "*".to_owned(), |expr| self.within(expr).join(", "));
        let filter = call.filter.as_ref().map(|filter| self.within(filter).join(", "));
        match filter {
            Some(filter) => format!("{name}({argument}) filtered by {filter}"),
            None => format!("{name}({argument})"),
        }
    }
}

/// A plain column is named; what is computed says from what.
fn over(expr: &Expr, names: &dyn Fn(ColumnRef) -> Vec<String>) -> String {
    let mut parts = Vec::new();
    expr.columns(&mut |column| {
        for name in names(column) {
            push_once(&mut parts, name);
        }
    });
    let plain = matches!(expr.kind, ExprKind::Column(_));
    match parts.as_slice() {
        [] => "a constant".to_owned(),
        [part] if plain => part.clone(),
        parts => format!("from {}", parts.join(", ")),
    }
}

fn push_once(names: &mut Vec<String>, name: String) {
    if !names.contains(&name) {
        names.push(name);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a view that does not bind fails its test")]

    use crate::catalog::{Catalog, Collation, Column, ReplicaIdentity, Table, UniqueKey};
    use crate::sql;
    use crate::value::Type;

    fn table(oid: u32, schema: &str, name: &str, columns: &[(&str, Type)]) -> Table {
        let columns = (1..).zip(columns).map(|(attnum, (name, ty))| Column {
            name: (*name).to_owned(),
            attnum,
            ty: ty.clone(),
            type_oid: 0,
            type_modifier: -1,
            not_null: attnum == 1,
            collation: if *ty == Type::Text { Collation::C } else { Collation::None },
            generated: false,
            toastable: false,
            added: None,
        });
        Table {
            oid,
            schema: schema.to_owned(),
            name: name.to_owned(),
            columns: columns.collect(),
            unique_keys: vec![UniqueKey {
                name: "key".to_owned(),
                columns: vec![0],
                primary: true,
            }],
            replica_identity: ReplicaIdentity::Default,
        }
    }

    fn origins(sql: &str) -> Vec<String> {
        let numeric = Type::Numeric(Some((12, 2)));
        let bets = [
            ("id", Type::Int8),
            ("event_id", Type::Int8),
            ("amount", numeric.clone()),
            ("payout", numeric),
            ("placed_at", Type::TimestampTz),
        ];
        let events = [("id", Type::Int8), ("category", Type::Text)];
        let catalog = Catalog {
            tables: vec![table(1, "public", "bets", &bets), table(2, "feed", "events", &events)],
            ..Catalog::default()
        };
        let view = sql::bind(&sql::parse(sql).unwrap(), "v", &catalog, "public").unwrap();
        view.origins(&catalog)
    }

    #[test]
    fn columns_of_rows_say_where_they_come_from() {
        let sql =
            "SELECT b.id AS bet, b.amount, e.category AS c, b.amount - coalesce(b.payout, 7) AS m,
                          'secret' AS k
                   FROM bets b LEFT JOIN feed.events e ON e.id = b.event_id";
        let expected = [
            "bigint, bets.id",
            "numeric(12,2), bets.amount",
            "text, feed.events.category",
            "numeric, from bets.amount, bets.payout",
            "text, a constant",
        ];
        assert_eq!(origins(sql), expected);
    }

    #[test]
    fn columns_of_groups_say_what_is_counted() {
        let sql = "SELECT e.category, date_trunc('day', b.placed_at) AS day, count(*) AS n,
                          sum(b.amount) FILTER (WHERE b.payout IS NOT NULL) AS s,
                          coalesce(sum(b.payout), 0) AS p, avg(b.amount + b.payout) AS a
                   FROM bets b JOIN feed.events e ON e.id = b.event_id
                   GROUP BY e.category, date_trunc('day', b.placed_at)";
        let expected = [
            "text, feed.events.category",
            "timestamp with time zone, from bets.placed_at",
            "bigint, count(*)",
            "numeric, sum(bets.amount) filtered by bets.payout",
            "numeric, from sum(bets.payout)",
            "numeric, avg(bets.amount, bets.payout)",
        ];
        assert_eq!(origins(sql), expected);
    }
}
