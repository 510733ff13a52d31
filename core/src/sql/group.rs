//! Aggregate views: GROUP BY, DISTINCT, and the outputs over groups and aggregates.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "nodes and types that are not named take the general way"
)]

use super::ast::{Item, Node, NodeKind, Select};
use super::bind::{Binder, Binding, Output, Refused, column};
use super::bind_expr::shown;
use super::scope::{Bound, Coll};
use super::types::{Base, type_name};
use crate::diagnostic::{Diagnostic, Place};
use crate::expr::{ColumnRef, Expr, ExprKind};
use crate::plan::{Aggregate, AggregateFunc, OutputColumn, ViewKind};
use crate::value::Type;

/// Stands for the list of aggregates while an output is over the tables.
const AGGREGATES: usize = usize::MAX;

/// The group's expressions and aggregates as inputs of the output's expressions.
const OUTPUT_BY: usize = 0;
const OUTPUT_AGGREGATES: usize = 1;

struct Grouping {
    by: Vec<Expr>,
    by_key: usize,
}

impl Binder<'_> {
    /// Over the tables for now: a column of the pseudo-input `AGGREGATES`.
    pub(super) fn aggregate(
        &mut self,
        func: AggregateFunc,
        name: &str,
        argument: Option<&Node>,
        filter: Option<&Node>,
        place: Place,
    ) -> Binding<Bound> {
        let before = self.seen.len();
        let argument = argument.map(|node| self.settled(node)).transpose();
        let filter = filter.map(|node| self.condition(node, "FILTER")).transpose();
        // Inside an aggregate every column may be used.
        self.seen.truncate(before);
        let (argument, filter) = (argument?, filter?);
        let ty = match &argument {
            None => Type::Int8,
            Some(argument) => self.aggregate_type(func, name, argument, place)?,
        };
        let empty = match func {
            AggregateFunc::Count => false,
            AggregateFunc::Sum | AggregateFunc::Avg => {
                !self.grouped
                    || filter.is_some()
                    || argument.as_ref().is_none_or(|argument| argument.nullable)
            }
        };
        let aggregate = Aggregate {
            func,
            argument: argument.map(|bound| bound.expr),
            filter: filter.map(|bound| bound.expr),
            ty: ty.clone(),
        };
        let column = match self.aggregates.iter().position(|known| *known == aggregate) {
            Some(index) => index,
            None => {
                self.aggregates.push(aggregate);
                self.aggregates.len() - 1
            }
        };
        let column = ColumnRef { input: AGGREGATES, column };
        let expr = Expr { kind: ExprKind::Column(column), ty };
        Ok(Bound { place, expr, nullable: empty, collation: Coll::None, unknown: false })
    }

    fn aggregate_type(
        &mut self,
        func: AggregateFunc,
        name: &str,
        argument: &Bound,
        place: Place,
    ) -> Binding<Type> {
        let base = argument.base();
        match (func, base) {
            (AggregateFunc::Count, _) => Ok(Type::Int8),
            (AggregateFunc::Sum, Base::Int2 | Base::Int4) => Ok(Type::Int8),
            (_, Base::Int2 | Base::Int4 | Base::Int8 | Base::Numeric) => Ok(Type::Numeric(None)),
            (_, Base::Float4 | Base::Float8) => {
                let digits = if base == Base::Float4 { 6 } else { 15 };
                self.refuse(
                    place,
                    format!(
                        "{name} over {} depends on the order of the rows",
                        type_name(&argument.expr.ty)
                    ),
                    format!("write {name}(x::numeric): the cast rounds to {digits} digits"),
                )
            }
            (_, Base::Interval) => {
                self.refuse(place, format!("{name} over interval is not supported yet"), "")
            }
            _ => self.refuse(
                place,
                format!("function does not exist: {name}({})", shown(argument)),
                format!("{name} takes integers and numeric"),
            ),
        }
    }

    pub(super) fn groups(
        &mut self,
        select: &Select,
        outputs: Binding<Vec<Output>>,
    ) -> Binding<(Vec<OutputColumn>, ViewKind, Vec<usize>, String)> {
        let grouping = if select.distinct {
            outputs
                .as_ref()
                .map_err(|Refused| Refused)
                .and_then(|outputs| self.distinct_by(outputs))
        } else {
            self.group_by(select)
        };
        let (outputs, mut grouping) = (outputs?, grouping?);
        let columns: Vec<OutputColumn> = outputs.iter().map(column).collect();
        let mut output = Vec::new();
        let mut refused = false;
        for item in outputs {
            let mut expr = item.bound.expr;
            match self.over_groups(&mut expr, &mut grouping, &item.seen, item.bound.place) {
                Ok(()) => output.push(expr),
                Err(Refused) => refused = true,
            }
        }
        if refused {
            return Err(Refused);
        }
        let (key, hint) = self.group_key(&output, &grouping);
        let aggregates = std::mem::take(&mut self.aggregates);
        let Grouping { by, by_key } = grouping;
        Ok((columns, ViewKind::Groups { by, by_key, aggregates, output }, key, hint))
    }

    fn distinct_by(&mut self, outputs: &[Output]) -> Binding<Grouping> {
        let mut by: Vec<Expr> = Vec::new();
        let mut refused = false;
        for output in outputs {
            refused |= self.groupable(&output.bound, "DISTINCT").is_err();
            if !by.contains(&output.bound.expr) {
                by.push(output.bound.expr.clone());
            }
        }
        if refused { Err(Refused) } else { Ok(Grouping { by_key: by.len(), by }) }
    }

    fn group_by(&mut self, select: &Select) -> Binding<Grouping> {
        let mut by: Vec<Expr> = Vec::new();
        let mut refused = false;
        for node in &select.group_by {
            let bound = self
                .group_item(node, &select.items)
                .and_then(|node| self.settled(node))
                .and_then(|bound| self.groupable(&bound, "GROUP BY").map(|()| bound));
            match bound {
                Ok(bound) if !by.contains(&bound.expr) => by.push(bound.expr),
                Ok(_) => {}
                Err(Refused) => refused = true,
            }
        }
        if refused { Err(Refused) } else { Ok(Grouping { by_key: by.len(), by }) }
    }

    /// PostgreSQL's reading of an item: a number is an output column's place; a bare name is a
    /// column of the tables, else an output column's name; all else is an expression.
    fn group_item<'n>(&mut self, node: &'n Node, items: &'n [Item]) -> Binding<&'n Node> {
        let target = match &node.kind {
            NodeKind::Number(digits) => {
                if items.iter().any(|item| matches!(item, Item::Star { .. })) {
                    return self.refuse(
                        node.place,
                        "a place in GROUP BY together with *",
                        "write the expression",
                    );
                }
                let item = digits.parse::<usize>().ok().and_then(|place| place.checked_sub(1));
                match item.and_then(|index| items.get(index)) {
                    Some(Item::Expr { node, .. }) => node,
                    _ => {
                        return self.refuse(
                            node.place,
                            format!("GROUP BY place {digits} is not in the SELECT list"),
                            "write the expression",
                        );
                    }
                }
            }
            NodeKind::Text(_) | NodeKind::Null | NodeKind::Bool(_) => {
                return self.refuse(
                    node.place,
                    "a constant in GROUP BY",
                    "leave GROUP BY out for one group over all rows",
                );
            }
            NodeKind::Column(parts) => match parts.as_slice() {
                [name] if !self.scope.has_column(&name.text) => {
                    let alias = items.iter().find_map(|item| match item {
                        Item::Expr { node, name: output } if output.text == name.text => Some(node),
                        _ => None,
                    });
                    alias.unwrap_or(node)
                }
                _ => node,
            },
            _ => node,
        };
        if target.has_aggregate() {
            return self.refuse(
                node.place,
                "an aggregate in GROUP BY is not allowed",
                "group by the columns that the aggregates are over",
            );
        }
        Ok(target)
    }

    /// Values that are equal must be the same to every reader.
    fn groupable(&mut self, bound: &Bound, clause: &str) -> Binding<()> {
        let ty = &bound.expr.ty;
        let remedy = match Base::of(ty) {
            Base::Numeric if *ty == Type::Numeric(None) => {
                "1.0 and 1.00 are one group with two faces: cast first, x::numeric(12,2)"
            }
            Base::Float4 | Base::Float8 => "0 and -0 are one group: cast first, x::numeric(12,2)",
            Base::Interval => {
                "1 day and 24 hours are one group with two faces: group by extract(epoch FROM x)::bigint"
            }
            Base::Json | Base::Jsonb => "group by its text: x ->> 'key', or x::text",
            Base::Other => match bound.carried() {
                Some(carried) if carried.canonical && bound.collation.is_deterministic() => {
                    return Ok(());
                }
                Some(carried) if carried.castable => {
                    "equal values may have different texts: group by x::text"
                }
                _ => "Walview does not compare this type",
            },
            base if base.is_string() && !bound.collation.is_deterministic() => {
                "its collation is not deterministic: write x COLLATE \"C\""
            }
            _ => return Ok(()),
        };
        let message = format!("{clause} over {} is not accepted", type_name(ty));
        self.refuse(bound.place, message, remedy)
    }

    /// Rewrites an output from the tables to the group's expressions and aggregates.
    fn over_groups(
        &mut self,
        expr: &mut Expr,
        grouping: &mut Grouping,
        seen: &[(ColumnRef, Place)],
        place: Place,
    ) -> Binding<()> {
        if let Some(index) =
            grouping.by.iter().take(grouping.by_key).position(|known| known == expr)
        {
            expr.kind = ExprKind::Column(ColumnRef { input: OUTPUT_BY, column: index });
            return Ok(());
        }
        let ExprKind::Column(column) = expr.kind else {
            let mut refused = false;
            expr.children_mut(&mut |child| {
                refused |= self.over_groups(child, grouping, seen, place).is_err();
            });
            return if refused { Err(Refused) } else { Ok(()) };
        };
        if column.input == AGGREGATES {
            let output = ColumnRef { input: OUTPUT_AGGREGATES, column: column.column };
            expr.kind = ExprKind::Column(output);
            return Ok(());
        }
        if self.depends(column, grouping) {
            let index = match grouping.by.iter().position(|known| known == expr) {
                Some(index) => index,
                None => {
                    grouping.by.push(expr.clone());
                    grouping.by.len() - 1
                }
            };
            expr.kind = ExprKind::Column(ColumnRef { input: OUTPUT_BY, column: index });
            return Ok(());
        }
        let named = seen.iter().find(|(known, _)| *known == column).map(|(_, place)| *place);
        let remedy = match self
            .scope
            .inputs
            .get(column.input)
            .and_then(|input| input.table.primary_key())
        {
            Some(_) if grouping.by_key == 0 => "add GROUP BY".to_owned(),
            Some(key) => {
                let table = self.scope.inputs[column.input].table;
                let names: Vec<String> = key
                    .columns
                    .iter()
                    .map(|own| self.scope.describe(ColumnRef { input: column.input, column: *own }))
                    .collect();
                format!("add it, or the primary key of \"{}\" ({})", table.name, names.join(", "))
            }
            None => "add it".to_owned(),
        };
        let name = self.scope.describe(column);
        self.diagnostics.push(Diagnostic::new(
            named.unwrap_or(place),
            format!("column \"{name}\" must be in GROUP BY or inside an aggregate"),
            remedy,
        ));
        Err(Refused)
    }

    /// Whether the primary key of the column's table is grouped, so that a group has one value.
    fn depends(&self, column: ColumnRef, grouping: &Grouping) -> bool {
        let Some(input) = self.scope.inputs.get(column.input) else {
            return false;
        };
        let Some(key) = input.table.primary_key() else {
            return false;
        };
        key.columns.iter().all(|own| {
            let wanted = ExprKind::Column(ColumnRef { input: column.input, column: *own });
            grouping.by.iter().take(grouping.by_key).any(|expr| expr.kind == wanted)
        })
    }

    fn group_key(&self, output: &[Expr], grouping: &Grouping) -> (Vec<usize>, String) {
        let mut key = Vec::new();
        let mut missing = Vec::new();
        for index in 0..grouping.by_key {
            let wanted = ExprKind::Column(ColumnRef { input: OUTPUT_BY, column: index });
            match output.iter().position(|expr| expr.kind == wanted) {
                Some(place) => key.push(place),
                None => missing.push(match &grouping.by[index].kind {
                    ExprKind::Column(column) => self.scope.describe(*column),
                    _ => format!("GROUP BY expression {}", index + 1),
                }),
            }
        }
        if missing.is_empty() {
            return (key, String::new());
        }
        (Vec::new(), format!("add {} to the SELECT list", missing.join(", ")))
    }
}
