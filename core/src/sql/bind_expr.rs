//! Expressions: names to columns, operators and functions to `Func`, implicit casts written out.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "types that are not named take the general way"
)]

use super::ast::{Name, Node, NodeKind, Op};
use super::bind::{Binder, Binding, Refused};
use super::operators::{self, Operator};
use super::scope::{Bound, Coll};
use super::types::{self, Base, Choice, type_name};
use crate::diagnostic::Place;
use crate::expr::{Expr, ExprKind, Func};
use crate::value::{Carried, Type, Value};

impl Binder<'_> {
    pub(super) fn expr(&mut self, node: &Node) -> Binding<Bound> {
        let place = node.place;
        match &node.kind {
            NodeKind::Column(parts) => self.column(parts),
            NodeKind::Number(digits) => self.number(digits, place),
            NodeKind::Text(text) => Ok(Bound::unknown(place, Value::Text(text.as_str().into()))),
            NodeKind::Null => Ok(Bound::unknown(place, Value::Null)),
            NodeKind::Bool(value) => Ok(Bound::constant(place, Value::Bool(*value), Type::Bool)),
            NodeKind::Negate(inner) => self.negate(inner, true, place),
            NodeKind::Plus(inner) => self.negate(inner, false, place),
            NodeKind::Not(inner) => {
                let inner = self.condition(inner, "NOT")?;
                Ok(self.boolean(place, inner.nullable, ExprKind::Not(Box::new(inner.expr))))
            }
            NodeKind::And(nodes) | NodeKind::Or(nodes) => {
                let and = matches!(node.kind, NodeKind::And(_));
                let bounds = self.conditions(nodes, if and { "AND" } else { "OR" })?;
                let nullable = bounds.iter().any(|bound| bound.nullable);
                let exprs = bounds.into_iter().map(|bound| bound.expr).collect();
                let kind = if and { ExprKind::And(exprs) } else { ExprKind::Or(exprs) };
                Ok(self.boolean(place, nullable, kind))
            }
            NodeKind::Binary(op, left, right) => {
                let (left, right) = self.two(left, right)?;
                self.binary(*op, left, right, place)
            }
            NodeKind::IsNull { node: inner, negated } => {
                let inner = self.expr(inner)?;
                if inner.carried().is_some_and(|carried| carried.composite) {
                    return self.refuse(
                        place,
                        format!("IS NULL of {} asks for each of its columns", shown(&inner)),
                        "count(x) and coalesce ask whether there is a value",
                    );
                }
                Ok(self.is_null(inner, *negated, place))
            }
            NodeKind::IsUnknown { node: inner, negated } => {
                let inner = self.condition(inner, "IS UNKNOWN")?;
                Ok(self.is_null(inner, *negated, place))
            }
            NodeKind::IsBool { node: inner, value, negated } => {
                let inner = self.condition(inner, "IS TRUE")?;
                let is = ExprKind::IsBool(Box::new(inner.expr), *value);
                let bound = self.boolean(place, false, is);
                Ok(if *negated { self.not(bound) } else { bound })
            }
            NodeKind::Distinct { left, right, negated } => {
                let (left, right) = self.two(left, right)?;
                let equal = self.binary(Op::Eq, left, right, place)?;
                self.distinct(equal, *negated, place)
            }
            NodeKind::In { node: inner, list, negated } => {
                let bound = self.in_list(inner, list, place)?;
                Ok(if *negated { self.not(bound) } else { bound })
            }
            NodeKind::Between { node: inner, low, high, negated } => {
                let inner = self.expr(inner);
                let (low, high) = self.two(low, high)?;
                let inner = inner?;
                let low = self.binary(Op::Ge, inner.clone(), low, place)?;
                let high = self.binary(Op::Le, inner, high, place)?;
                let nullable = low.nullable || high.nullable;
                let both = ExprKind::And(vec![low.expr, high.expr]);
                let bound = self.boolean(place, nullable, both);
                Ok(if *negated { self.not(bound) } else { bound })
            }
            NodeKind::Like { node: inner, pattern, negated } => {
                let (inner, pattern) = self.two(inner, pattern)?;
                let bound = self.like(inner, pattern, place)?;
                Ok(if *negated { self.not(bound) } else { bound })
            }
            NodeKind::Case { operand, branches, otherwise } => {
                self.case(operand.as_deref(), branches, otherwise.as_deref(), place)
            }
            NodeKind::Coalesce(nodes) => {
                let bounds = self.exprs(nodes)?;
                let nullable = bounds.iter().all(|bound| bound.nullable);
                let (ty, bounds, collation) = self.common("COALESCE", bounds, place)?;
                let exprs = bounds.into_iter().map(|bound| bound.expr).collect();
                let expr = Expr { kind: ExprKind::Coalesce(exprs), ty };
                Ok(Bound { place, expr, nullable, collation, unknown: false })
            }
            NodeKind::NullIf(left, right) => {
                let (left, right) = self.two(left, right)?;
                self.null_if(left, right, place)
            }
            NodeKind::Greatest(nodes) => self.extreme(nodes, true, place),
            NodeKind::Least(nodes) => self.extreme(nodes, false, place),
            NodeKind::Cast(inner, ty) => {
                let inner = self.expr(inner);
                let ty = self.named_type(ty)?;
                self.explicit_cast(inner?, &ty, place)
            }
            NodeKind::Call(name, args) => self.call(name, args, place),
            NodeKind::Extract(field, inner) => self.extract(field, inner, place),
            NodeKind::CollateC(inner) => self.collate(inner, place),
            NodeKind::Aggregate { func, name, argument, filter } => {
                self.aggregate(*func, name, argument.as_deref(), filter.as_deref(), place)
            }
        }
    }

    /// An expression in its final place: an untyped literal is text there.
    pub(super) fn settled(&mut self, node: &Node) -> Binding<Bound> {
        let bound = self.expr(node)?;
        if bound.unknown { self.coerce(bound, &Type::Text) } else { Ok(bound) }
    }

    /// All of them, so that each one's errors are found.
    pub(super) fn exprs(&mut self, nodes: &[Node]) -> Binding<Vec<Bound>> {
        let bounds: Vec<Binding<Bound>> = nodes.iter().map(|node| self.expr(node)).collect();
        bounds.into_iter().collect()
    }

    pub(super) fn two(&mut self, left: &Node, right: &Node) -> Binding<(Bound, Bound)> {
        let left = self.expr(left);
        let right = self.expr(right);
        Ok((left?, right?))
    }

    fn column(&mut self, parts: &[Name]) -> Binding<Bound> {
        let place = parts.first().map_or(Place::default(), |name| name.place);
        match self.scope.column(parts) {
            Ok(column) => {
                self.seen.push((column, place));
                Ok(self.scope.bound(column, place))
            }
            Err(diagnostic) => self.fail(diagnostic),
        }
    }

    fn number(&mut self, digits: &str, place: Place) -> Binding<Bound> {
        if let Ok(value) = digits.parse::<i64>() {
            let ty = if i32::try_from(value).is_ok() { Type::Int4 } else { Type::Int8 };
            return Ok(Bound::constant(place, Value::Int(value), ty));
        }
        let ty = Type::Numeric(None);
        match Value::parse(&ty, digits) {
            Ok(value) => Ok(Bound::constant(place, value, ty)),
            Err(error) => self.refuse(place, format!("number \"{digits}\": {}", error.message), ""),
        }
    }

    fn negate(&mut self, inner: &Node, minus: bool, place: Place) -> Binding<Bound> {
        let inner = self.expr(inner)?;
        let taken = inner.base().is_number() || (minus && inner.base() == Base::Interval);
        if !taken {
            let sign = if minus { "-" } else { "+" };
            return self.refuse(
                place,
                format!("operator {sign} of \"{}\" is not accepted", shown(&inner)),
                "it takes numbers",
            );
        }
        if !minus {
            return Ok(inner);
        }
        let ty = without_modifier(&inner.expr.ty);
        let expr = Expr { kind: ExprKind::Call(Func::Neg, vec![inner.expr]), ty };
        Ok(Bound { place, expr, nullable: inner.nullable, collation: Coll::None, unknown: false })
    }

    pub(super) fn boolean(&self, place: Place, nullable: bool, kind: ExprKind) -> Bound {
        let expr = Expr { kind, ty: Type::Bool };
        Bound { place, expr, nullable, collation: Coll::None, unknown: false }
    }

    pub(super) fn not(&self, inner: Bound) -> Bound {
        self.boolean(inner.place, inner.nullable, ExprKind::Not(Box::new(inner.expr)))
    }

    fn is_null(&self, inner: Bound, negated: bool, place: Place) -> Bound {
        let bound = self.boolean(place, false, ExprKind::IsNull(Box::new(inner.expr)));
        if negated { self.not(bound) } else { bound }
    }

    /// A boolean where SQL asks for one.
    pub(super) fn condition(&mut self, node: &Node, clause: &str) -> Binding<Bound> {
        let bound = self.expr(node)?;
        match bound.base() {
            Base::Bool => Ok(bound),
            Base::Unknown => self.coerce(bound, &Type::Bool),
            _ => self.refuse(
                bound.place,
                format!("argument of {clause} must be boolean, not {}", type_name(&bound.expr.ty)),
                "write a condition",
            ),
        }
    }

    fn conditions(&mut self, nodes: &[Node], clause: &str) -> Binding<Vec<Bound>> {
        let bounds: Vec<Binding<Bound>> =
            nodes.iter().map(|node| self.condition(node, clause)).collect();
        bounds.into_iter().collect()
    }

    /// `=` was resolved as an operator; the same sides under IS [NOT] DISTINCT FROM.
    fn distinct(&mut self, equal: Bound, negated: bool, place: Place) -> Binding<Bound> {
        let ExprKind::Call(Func::Eq, mut sides) = equal.expr.kind else {
            return Err(Refused);
        };
        let (Some(right), Some(left)) = (sides.pop(), sides.pop()) else {
            return Err(Refused);
        };
        let kind = ExprKind::NotDistinct(Box::new(left), Box::new(right));
        let bound = self.boolean(place, false, kind);
        Ok(if negated { bound } else { self.not(bound) })
    }

    /// PostgreSQL compares with the common type of the left side and all elements without
    /// columns, where there are several; else element by element.
    fn in_list(&mut self, inner: &Node, list: &[Node], place: Place) -> Binding<Bound> {
        let inner = self.expr(inner);
        let elements = self.exprs(list)?;
        let inner = inner?;
        let constant: Vec<bool> = list.iter().map(|node| !node.has_column()).collect();
        let shared = if constant.iter().filter(|constant| **constant).count() > 1 {
            let mut all = vec![&inner];
            let constants = elements.iter().zip(&constant).filter(|(_, constant)| **constant);
            all.extend(constants.map(|(element, _)| element));
            self.shared_type(&all)
        } else {
            None
        };
        let mut exprs = Vec::new();
        let mut nullable = false;
        for (element, constant) in elements.into_iter().zip(constant) {
            let element = match &shared {
                // One by one it is compared as char too, and may be longer than the column.
                Some(Type::Char(_)) if element.unknown || element.base() == Base::Bpchar => element,
                Some(Type::Char(_)) => {
                    let message = "IN mixes char with other types";
                    return self.refuse(element.place, message, "cast to text: x::text IN (…)");
                }
                Some(ty) if constant => self.coerce(element, ty)?,
                _ => element,
            };
            let equal = self.binary(Op::Eq, inner.clone(), element, place)?;
            nullable |= equal.nullable;
            exprs.push(equal.expr);
        }
        match <[Expr; 1]>::try_from(exprs) {
            Ok([only]) => Ok(self.boolean(place, nullable, only.kind)),
            Err(exprs) => Ok(self.boolean(place, nullable, ExprKind::Or(exprs))),
        }
    }

    fn like(&mut self, inner: Bound, pattern: Bound, place: Place) -> Binding<Bound> {
        let operator = self.resolve("LIKE", operators::LIKE, &inner, &pattern, place)?;
        let collation = inner.collation.merge(pattern.collation);
        if operator.args[0] == Base::Bytea {
            return self.refuse(place, "LIKE over bytea is not accepted", "");
        }
        self.deterministic(collation, place)?;
        let nullable = inner.nullable || pattern.nullable;
        // The blanks of char(n) count here: the left side is not cast to text.
        let inner = if inner.unknown { self.coerce(inner, &Type::Text)? } else { inner };
        let pattern = self.coerce(pattern, &Type::Text)?;
        let kind = ExprKind::Call(Func::Like, vec![inner.expr, pattern.expr]);
        Ok(self.boolean(place, nullable, kind))
    }

    pub(super) fn not_of_carried<T>(&mut self, bound: &Bound) -> Binding<T> {
        let remedy = match bound.carried() {
            Some(Carried { canonical: true, castable: true, .. }) => {
                "it may be shown, counted, grouped by and compared by = with its like; x::text is text"
            }
            Some(Carried { canonical: true, .. }) => {
                "it may be shown, counted, grouped by and compared by = with its like"
            }
            Some(Carried { composite: true, castable: true, .. }) => {
                "it may be shown and counted; x::text is text"
            }
            Some(Carried { castable: true, .. }) => {
                "it may be shown, counted and tested for NULL; x::text is text"
            }
            _ => "such a column may be shown, counted and tested for NULL",
        };
        let name = type_name(&bound.expr.ty);
        let message = format!("Walview does not compute with type \"{name}\"");
        self.refuse(bound.place, message, remedy)
    }

    pub(super) fn resolve(
        &mut self,
        symbol: &str,
        candidates: &'static [Operator],
        left: &Bound,
        right: &Bound,
        place: Place,
    ) -> Binding<&'static Operator> {
        let args = [left.base(), right.base()];
        if args.contains(&Base::Other) {
            let side = if args[0] == Base::Other { left } else { right };
            return self.not_of_carried(side);
        }
        let assumed = match args {
            [Base::Unknown, known] | [known, Base::Unknown] => [known, known],
            both => both,
        };
        if let Some(exact) = candidates.iter().find(|candidate| candidate.args == assumed) {
            return Ok(exact);
        }
        match types::select(candidates, |operator| &operator.args, &args) {
            Choice::One(operator) => Ok(operator),
            Choice::None => self.refuse(
                place,
                format!("operator does not exist: {} {symbol} {}", shown(left), shown(right)),
                "cast one side to the other's type: x::type",
            ),
            Choice::Ambiguous => self.refuse(
                place,
                format!("operator is not unique: {} {symbol} {}", shown(left), shown(right)),
                "say the literal's type: interval '1 day', date '2026-01-31', 'x'::text",
            ),
        }
    }
}

/// The type as messages name it.
pub(super) fn shown(bound: &Bound) -> String {
    if bound.unknown { "unknown".to_owned() } else { type_name(&bound.expr.ty) }
}

pub(super) fn without_modifier(ty: &Type) -> Type {
    match ty {
        Type::Numeric(_) => Type::Numeric(None),
        Type::Varchar(_) => Type::Varchar(None),
        ty => ty.clone(),
    }
}
