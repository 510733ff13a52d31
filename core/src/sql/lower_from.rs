//! FROM and JOIN of sqlparser's tree.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "sqlparser knows many dialects: what is not named is refused"
)]

use super::ast::{JoinRef, Name, TableRef};
use super::lower::{Lower, Lowered, Refused, start_of, start_of_body};
use crate::diagnostic::Place;
use crate::plan::JoinKind;
use sqlparser::ast::{
    self as sql, JoinConstraint, JoinOperator, Spanned, TableFactor, TableWithJoins,
};

impl Lower {
    pub(super) fn from(
        &mut self,
        from: Vec<TableWithJoins>,
        select: Place,
    ) -> Lowered<(TableRef, Vec<JoinRef>)> {
        let mut from = from.into_iter();
        let Some(first) = from.next() else {
            return self.refuse(select, "the SELECT has no FROM", "select from a table");
        };
        for other in from {
            let place = factor_place(&other.relation, select);
            self.note(
                place,
                "tables separated by commas",
                "write JOIN … ON dimension.key = column",
            );
        }
        let fact = self.table(first.relation, select);
        let mut joins = Vec::new();
        for join in first.joins {
            if let Ok(join) = self.join(join, select) {
                joins.push(join);
            }
        }
        Ok((fact?, joins))
    }

    fn join(&mut self, join: sql::Join, select: Place) -> Lowered<JoinRef> {
        let place = factor_place(&join.relation, select);
        if join.global {
            self.note(place, "GLOBAL JOIN is not PostgreSQL's", "remove GLOBAL");
        }
        let (kind, constraint) = match join.join_operator {
            JoinOperator::Join(constraint) | JoinOperator::Inner(constraint) => {
                (Ok(JoinKind::Inner), Some(constraint))
            }
            JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => {
                (Ok(JoinKind::Left), Some(constraint))
            }
            JoinOperator::Right(_) | JoinOperator::RightOuter(_) => (
                self.refuse(
                    place,
                    "RIGHT JOIN is not accepted",
                    "start FROM with this table and LEFT JOIN the other one by its key",
                ),
                None,
            ),
            JoinOperator::FullOuter(_) => (
                self.refuse(
                    place,
                    "FULL JOIN is not accepted",
                    "write LEFT JOIN from the table that has the rows to show",
                ),
                None,
            ),
            JoinOperator::CrossJoin(_) => (
                self.refuse(
                    place,
                    "CROSS JOIN is not accepted",
                    "write JOIN … ON dimension.key = column",
                ),
                None,
            ),
            _ => (self.refuse(place, "this kind of join is not PostgreSQL's", ""), None),
        };
        let table = self.table(join.relation, select);
        let on = match constraint {
            Some(JoinConstraint::On(expr)) => self.row_expr(&expr, "JOIN … ON"),
            Some(JoinConstraint::Using(columns)) => {
                let column = columns.first().map_or_else(|| "key".to_owned(), ToString::to_string);
                self.refuse(
                    place,
                    "USING is not accepted",
                    format!(
                        "write ON with both tables' names: ON dimension.{column} = fact.{column}"
                    ),
                )
            }
            Some(JoinConstraint::Natural) => self.refuse(
                place,
                "NATURAL JOIN is not accepted",
                "its meaning changes with every new column; write ON dimension.key = column",
            ),
            Some(JoinConstraint::None) => {
                self.refuse(place, "a JOIN without ON", "write ON dimension.key = column")
            }
            None => Err(Refused),
        };
        Ok(JoinRef { kind: kind?, table: table?, on: on? })
    }

    fn table(&mut self, factor: TableFactor, select: Place) -> Lowered<TableRef> {
        let place = factor_place(&factor, select);
        match factor {
            TableFactor::Table {
                name,
                alias,
                args,
                with_hints,
                version,
                with_ordinality,
                partitions,
                json_path,
                sample,
                index_hints,
            } => {
                if args.is_some() || with_ordinality {
                    return self.refuse(
                        place,
                        format!("table function \"{name}\" is not accepted"),
                        "select from tables",
                    );
                }
                if sample.is_some() {
                    self.note(place, "TABLESAMPLE is not accepted: it picks rows by chance", "");
                }
                if !with_hints.is_empty()
                    || version.is_some()
                    || !partitions.is_empty()
                    || json_path.is_some()
                    || !index_hints.is_empty()
                {
                    self.note(place, "PostgreSQL does not know this clause of a table", "");
                }
                let mut parts = self.object_name(&name, place)?;
                let (Some(name), schema, None) = (parts.pop(), parts.pop(), parts.pop()) else {
                    return self.refuse(
                        place,
                        format!("table name \"{name}\" has too many parts"),
                        "write table or schema.table",
                    );
                };
                let alias = self.table_alias(alias, place)?;
                Ok(TableRef { schema, name, alias })
            }
            TableFactor::Derived { lateral, .. } => {
                let what = if lateral { "a LATERAL subquery" } else { "a subquery" };
                self.refuse(
                    place,
                    format!("{what} in FROM is not accepted"),
                    "join tables by their keys",
                )
            }
            TableFactor::NestedJoin { .. } => self.refuse(
                place,
                "parentheses around joins",
                "write the joins one after the other, each with its ON",
            ),
            TableFactor::TableFunction { .. }
            | TableFactor::Function { .. }
            | TableFactor::UNNEST { .. }
            | TableFactor::JsonTable { .. }
            | TableFactor::XmlTable { .. } => {
                self.refuse(place, "a function in FROM is not accepted", "select from tables")
            }
            _ => self.refuse(place, "this source of rows is not accepted", "select from tables"),
        }
    }

    fn table_alias(
        &mut self,
        alias: Option<sql::TableAlias>,
        table: Place,
    ) -> Lowered<Option<Name>> {
        let Some(alias) = alias else { return Ok(None) };
        let place = start_of(alias.name.span, table);
        if !alias.columns.is_empty() || alias.at.is_some() {
            self.note(place, "column names after a table's alias", "rename with … AS name");
        }
        self.ident(&alias.name, place, false).map(Some)
    }
}

fn factor_place(factor: &TableFactor, select: Place) -> Place {
    match factor {
        TableFactor::Table { name, .. } => start_of(name.span(), select),
        TableFactor::Derived { subquery, .. } => start_of_body(&subquery.body),
        TableFactor::NestedJoin { table_with_joins, .. } => {
            factor_place(&table_with_joins.relation, select)
        }
        _ => select,
    }
}
