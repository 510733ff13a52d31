//! Expressions of sqlparser's tree to `ast`: what is refused without a catalog.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "sqlparser knows many dialects: what is not named is refused"
)]

use super::ast::{Node, NodeKind};
use super::lower::{Lower, Lowered, Refused, start_of};
use super::lower_atom::{date_time_field, is_array_agg, is_condition, start_span};
use crate::diagnostic::Place;
use sqlparser::ast::{
    self as sql, BinaryOperator, CastKind, CeilFloorKind, DateTimeField, Expr, TrimWhereField,
    UnaryOperator,
};

/// Levels of one expression. Lists of AND and OR count as one level.
const EXPR_DEPTH_MAX: usize = 100;

pub(super) const SUBQUERY_REMEDY: &str = "join the table by its key";

impl Lower {
    pub(super) fn expr(&mut self, expr: &Expr) -> Lowered<Node> {
        self.expr_at(expr, 0)
    }

    /// Where an expression starts. sqlparser's own spans recurse and miss some tokens.
    pub(super) fn place_of(&self, expr: &Expr, otherwise: Place) -> Place {
        start_of(start_span(expr), otherwise)
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each kind of expression")]
    pub(super) fn expr_at(&mut self, expr: &Expr, depth: usize) -> Lowered<Node> {
        let place = self.place_of(expr, Place { line: 1, column: 1 });
        if depth > EXPR_DEPTH_MAX {
            return self.refuse(place, "the expression is nested too deeply", "simplify it");
        }
        let depth = depth + 1;
        let kind = match expr {
            Expr::Nested(inner) => return self.expr_at(inner, depth),
            Expr::Identifier(ident) => {
                NodeKind::Column(vec![self.ident(ident, start_of(ident.span, place), false)?])
            }
            Expr::CompoundIdentifier(parts) => {
                let mut names = Vec::new();
                for (index, ident) in parts.iter().enumerate() {
                    let name = self.ident(ident, start_of(ident.span, place), index > 0)?;
                    names.push(name);
                }
                if names.len() > 3 {
                    return self.refuse(
                        place,
                        "column name with too many parts",
                        "write table.column",
                    );
                }
                NodeKind::Column(names)
            }
            Expr::Value(value) => self.literal(value, place)?,
            Expr::UnaryOp { op, expr } => self.unary(*op, expr, place, depth)?,
            Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
                NodeKind::And(self.chain(left, right, &BinaryOperator::And, depth)?)
            }
            Expr::BinaryOp { left, op: BinaryOperator::Or, right } => {
                NodeKind::Or(self.chain(left, right, &BinaryOperator::Or, depth)?)
            }
            Expr::BinaryOp { left, op, right } => {
                let op = self.operator(op, place);
                let left = self.operand(left, depth);
                let right = self.operand(right, depth);
                NodeKind::Binary(op?, left?, right?)
            }
            Expr::IsNull(inner) => {
                NodeKind::IsNull { node: self.operand(inner, depth)?, negated: false }
            }
            Expr::IsNotNull(inner) => {
                NodeKind::IsNull { node: self.operand(inner, depth)?, negated: true }
            }
            Expr::IsUnknown(inner) => {
                NodeKind::IsUnknown { node: self.operand(inner, depth)?, negated: false }
            }
            Expr::IsNotUnknown(inner) => {
                NodeKind::IsUnknown { node: self.operand(inner, depth)?, negated: true }
            }
            Expr::IsTrue(inner) => self.is_bool(inner, true, false, depth)?,
            Expr::IsNotTrue(inner) => self.is_bool(inner, true, true, depth)?,
            Expr::IsFalse(inner) => self.is_bool(inner, false, false, depth)?,
            Expr::IsNotFalse(inner) => self.is_bool(inner, false, true, depth)?,
            Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right) => {
                let negated = matches!(expr, Expr::IsNotDistinctFrom(..));
                let left = self.operand(left, depth);
                let right = self.operand(right, depth);
                NodeKind::Distinct { left: left?, right: right?, negated }
            }
            Expr::InList { expr: inner, list, negated } => {
                let node = self.operand(inner, depth);
                let list = self.exprs(list, depth);
                let (node, list) = (node?, list?);
                if list.is_empty() {
                    return self.refuse(place, "IN with an empty list", "");
                }
                NodeKind::In { node, list, negated: *negated }
            }
            Expr::Between { expr: inner, negated, low, high } => {
                let node = self.operand(inner, depth);
                let low = self.operand(low, depth);
                let high = self.operand(high, depth);
                NodeKind::Between { node: node?, low: low?, high: high?, negated: *negated }
            }
            Expr::Like { negated, any, expr: inner, pattern, escape_char } => {
                if *any {
                    return self.refuse(place, "LIKE ANY is not accepted", "write several LIKE");
                }
                if escape_char.is_some() {
                    return self.refuse(
                        place,
                        "LIKE … ESCAPE is not accepted",
                        "a backslash escapes % and _ without it",
                    );
                }
                let node = self.operand(inner, depth);
                let pattern = self.operand(pattern, depth);
                NodeKind::Like { node: node?, pattern: pattern?, negated: *negated }
            }
            Expr::ILike { .. } => {
                return self.refuse(
                    place,
                    "ILIKE follows the server's rules for letters and cannot be kept exactly",
                    "write lower(x COLLATE \"C\") LIKE …, which folds ASCII letters",
                );
            }
            Expr::Case { operand, conditions, else_result, .. } => {
                self.case(operand.as_deref(), conditions, else_result.as_deref(), depth)?
            }
            Expr::Cast { kind, expr: inner, data_type, format } => {
                if !matches!(kind, CastKind::Cast | CastKind::DoubleColon) || format.is_some() {
                    return self.refuse(
                        place,
                        "this cast is not PostgreSQL's",
                        "write CAST(x AS type)",
                    );
                }
                let node = self.operand(inner, depth);
                let ty = self.type_name(data_type, place);
                NodeKind::Cast(node?, ty?)
            }
            Expr::TypedString(typed) => {
                let ty = self.type_name(&typed.data_type, place);
                let literal = self.literal(&typed.value, place)?;
                if typed.uses_odbc_syntax || !matches!(literal, NodeKind::Text(_)) {
                    return self.refuse(
                        place,
                        "this literal is not PostgreSQL's",
                        "write type 'value'",
                    );
                }
                NodeKind::Cast(Node::boxed(place, literal), ty?)
            }
            Expr::Interval(interval) => self.interval(interval, place)?,
            Expr::Extract { field, expr: inner, .. } => {
                NodeKind::Extract(date_time_field(field), Box::new(self.expr_at(inner, depth)?))
            }
            Expr::Ceil { expr: inner, field } | Expr::Floor { expr: inner, field } => {
                let name = if matches!(expr, Expr::Ceil { .. }) { "ceil" } else { "floor" };
                if !matches!(field, CeilFloorKind::DateTimeField(DateTimeField::NoDateTime)) {
                    return self.refuse(place, format!("\"{name}\" takes one argument"), "");
                }
                NodeKind::Call(name.to_owned(), vec![self.expr_at(inner, depth)?])
            }
            Expr::Substring { expr: inner, substring_from, substring_for, .. } => {
                let Some(from) = substring_from.as_deref() else {
                    return self.refuse(
                        place,
                        "substring without FROM",
                        "write substring(x FROM start FOR length)",
                    );
                };
                let mut args = vec![inner.as_ref(), from];
                args.extend(substring_for.as_deref());
                NodeKind::Call("substring".to_owned(), self.each(args.into_iter(), depth)?)
            }
            Expr::Trim { trim_where, trim_what, expr: inner, trim_characters } => {
                let name = match trim_where {
                    None | Some(TrimWhereField::Both) => "btrim",
                    Some(TrimWhereField::Leading) => "ltrim",
                    Some(TrimWhereField::Trailing) => "rtrim",
                };
                let mut args = vec![inner.as_ref()];
                args.extend(trim_what.as_deref());
                args.extend(trim_characters.iter().flatten());
                NodeKind::Call(name.to_owned(), self.each(args.into_iter(), depth)?)
            }
            Expr::Collate { expr: inner, collation } => {
                let node = self.operand(inner, depth)?;
                let names = self.object_name(collation, place)?;
                let name = names.last().map_or("", |name| name.text.as_str());
                let schema_fits = match names.as_slice() {
                    [_] => true,
                    [schema, _] => schema.text == "pg_catalog",
                    _ => false,
                };
                if !schema_fits || name != "C" {
                    return self.refuse(
                        place,
                        format!("collation \"{name}\" is not accepted"),
                        "write COLLATE \"C\" (with quotes), which compares and orders bytes",
                    );
                }
                NodeKind::CollateC(node)
            }
            Expr::Function(function) => return self.function(function, place, depth),
            Expr::Subquery(_) | Expr::InSubquery { .. } => {
                return self.refuse(place, "a subquery is not accepted in a view", SUBQUERY_REMEDY);
            }
            Expr::Exists { .. } => {
                return self.refuse(place, "EXISTS is not accepted in a view", SUBQUERY_REMEDY);
            }
            Expr::AnyOp { .. } | Expr::AllOp { .. } => {
                return self.refuse(place, "ANY and ALL are not accepted", "write x IN (a, b)");
            }
            Expr::AtTimeZone { .. } => {
                return self.refuse(
                    place,
                    "AT TIME ZONE is not accepted",
                    "write x::timestamp or x::timestamptz: sessions are in UTC",
                );
            }
            Expr::CompoundFieldAccess { root, .. } => {
                return if is_array_agg(root) {
                    self.refuse(place, "(array_agg(… ORDER BY …))[1] is not supported yet", "")
                } else {
                    self.refuse(
                        place,
                        "subscripts and fields are not accepted",
                        "for json write x -> 'key' or x -> 0",
                    )
                };
            }
            Expr::JsonAccess { .. } => {
                return self.refuse(place, "this path is not PostgreSQL's", "write x -> 'key'");
            }
            Expr::SimilarTo { .. } | Expr::RLike { .. } => {
                return self.refuse(
                    place,
                    "regular expressions are not accepted",
                    "write LIKE, or split_part",
                );
            }
            Expr::Tuple(_) => {
                return self.refuse(
                    place,
                    "rows in parentheses are not accepted",
                    "write the columns one by one",
                );
            }
            Expr::GroupingSets(_) | Expr::Cube(_) | Expr::Rollup(_) => {
                return self.refuse(
                    place,
                    "GROUPING SETS, CUBE and ROLLUP are not accepted",
                    super::lower::GROUPING_REMEDY,
                );
            }
            Expr::Array(_) => {
                return self.refuse(place, "arrays are not accepted in expressions", "");
            }
            Expr::Wildcard(_) | Expr::QualifiedWildcard(..) => {
                return self.refuse(place, "* is not an expression", "name the column");
            }
            Expr::Position { .. } => return self.unknown_function("position", place),
            Expr::Overlay { .. } => return self.unknown_function("overlay", place),
            Expr::Convert { .. } => return self.unknown_function("convert", place),
            _ => return self.refuse(place, "this expression is not accepted in a view", ""),
        };
        Ok(Node::new(place, kind))
    }

    fn exprs(&mut self, exprs: &[Expr], depth: usize) -> Lowered<Vec<Node>> {
        self.each(exprs.iter(), depth)
    }

    /// All of them, so that each one's errors are found.
    pub(super) fn each<'a>(
        &mut self,
        exprs: impl Iterator<Item = &'a Expr>,
        depth: usize,
    ) -> Lowered<Vec<Node>> {
        let lowered: Vec<Lowered<Node>> = exprs.map(|expr| self.expr_at(expr, depth)).collect();
        lowered.into_iter().collect()
    }

    /// An operand of an operator that binds tighter than NOT. PostgreSQL does not chain
    /// comparisons (`a < b < c`) and reads `a = NOT b` as an error; sqlparser takes both.
    fn operand(&mut self, expr: &Expr, depth: usize) -> Lowered<Box<Node>> {
        if is_condition(expr) {
            let place = self.place_of(expr, Place { line: 1, column: 1 });
            return self.refuse(
                place,
                "a condition as an operand",
                "put parentheses around it, so that both readings agree",
            );
        }
        self.expr_at(expr, depth).map(Box::new)
    }

    /// `a AND b AND c`, which the parser nests to the left.
    fn chain(
        &mut self,
        left: &Expr,
        right: &Expr,
        op: &BinaryOperator,
        depth: usize,
    ) -> Lowered<Vec<Node>> {
        let mut exprs = vec![right];
        let mut rest = left;
        while let Expr::BinaryOp { left, op: inner, right } = rest
            && inner == op
        {
            exprs.push(right);
            rest = left;
        }
        exprs.push(rest);
        self.each(exprs.into_iter().rev(), depth)
    }

    fn is_bool(
        &mut self,
        inner: &Expr,
        value: bool,
        negated: bool,
        depth: usize,
    ) -> Lowered<NodeKind> {
        Ok(NodeKind::IsBool { node: self.operand(inner, depth)?, value, negated })
    }

    fn unary(
        &mut self,
        op: UnaryOperator,
        inner: &Expr,
        place: Place,
        depth: usize,
    ) -> Lowered<NodeKind> {
        match op {
            UnaryOperator::Not => Ok(NodeKind::Not(Box::new(self.expr_at(inner, depth)?))),
            UnaryOperator::Plus => Ok(NodeKind::Plus(self.operand(inner, depth)?)),
            UnaryOperator::Minus => {
                let node = self.operand(inner, depth)?;
                match &node.kind {
                    // PostgreSQL's grammar folds the sign into a number, so that -2147483648 is
                    // an integer.
                    NodeKind::Number(digits) => Ok(NodeKind::Number(
                        digits
                            .strip_prefix('-')
                            .map_or_else(|| format!("-{digits}"), str::to_owned),
                    )),
                    _ => Ok(NodeKind::Negate(node)),
                }
            }
            UnaryOperator::PGAbs => {
                self.refuse(place, "operator @ is not accepted", "write abs(x)")
            }
            UnaryOperator::AtDashAt
            | UnaryOperator::BangNot
            | UnaryOperator::BitwiseNot
            | UnaryOperator::DoubleAt
            | UnaryOperator::Hash
            | UnaryOperator::PGCubeRoot
            | UnaryOperator::PGPostfixFactorial
            | UnaryOperator::PGPrefixFactorial
            | UnaryOperator::PGSquareRoot
            | UnaryOperator::QuestionDash
            | UnaryOperator::QuestionPipe => {
                self.refuse(place, format!("operator {op} is not accepted"), "")
            }
        }
    }

    fn case(
        &mut self,
        operand: Option<&Expr>,
        conditions: &[sql::CaseWhen],
        otherwise: Option<&Expr>,
        depth: usize,
    ) -> Lowered<NodeKind> {
        let operand = operand.map(|expr| self.expr_at(expr, depth).map(Box::new)).transpose();
        let mut branches = Vec::new();
        let mut refused = false;
        for when in conditions {
            let condition = self.expr_at(&when.condition, depth);
            let result = self.expr_at(&when.result, depth);
            match (condition, result) {
                (Ok(condition), Ok(result)) => branches.push((condition, result)),
                _ => refused = true,
            }
        }
        let otherwise = otherwise.map(|expr| self.expr_at(expr, depth).map(Box::new)).transpose();
        if refused {
            return Err(Refused);
        }
        Ok(NodeKind::Case { operand: operand?, branches, otherwise: otherwise? })
    }
}
