//! Expressions that bring several types to one: CASE, coalesce, nullif, greatest, least.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "types that are not named take the general way"
)]

use super::ast::{Node, Op};
use super::bind::{Binder, Binding, Refused};
use super::bind_expr::shown;
use super::operators;
use super::scope::{Bound, Coll};
use super::types::{self, Base};
use crate::diagnostic::Place;
use crate::expr::{Expr, ExprKind};
use crate::value::{Type, Value};

impl Binder<'_> {
    pub(super) fn case(
        &mut self,
        operand: Option<&Node>,
        branches: &[(Node, Node)],
        otherwise: Option<&Node>,
        place: Place,
    ) -> Binding<Bound> {
        let operand = operand.map(|node| self.settled(node)).transpose();
        let mut conditions = Vec::new();
        // PostgreSQL asks ELSE first for the type.
        let mut results = vec![match otherwise {
            Some(node) => self.expr(node),
            None => Ok(Bound::unknown(place, Value::Null)),
        }];
        let operand = operand?;
        for (condition, result) in branches {
            conditions.push(match &operand {
                None => self.condition(condition, "CASE WHEN"),
                Some(operand) => self
                    .expr(condition)
                    .and_then(|value| self.binary(Op::Eq, operand.clone(), value, condition.place)),
            });
            results.push(self.expr(result));
        }
        let conditions: Vec<Bound> = conditions.into_iter().collect::<Binding<_>>()?;
        let results: Vec<Bound> = results.into_iter().collect::<Binding<_>>()?;
        let nullable = results.iter().any(|bound| bound.nullable);
        let (ty, results, collation) = self.common("CASE", results, place)?;
        let mut results = results.into_iter().map(|bound| bound.expr);
        let Some(otherwise) = results.next() else {
            return Err(Refused);
        };
        let branches = conditions.into_iter().map(|bound| bound.expr).zip(results).collect();
        let kind = ExprKind::Case { branches, otherwise: Box::new(otherwise) };
        Ok(Bound { place, expr: Expr { kind, ty }, nullable, collation, unknown: false })
    }

    /// The result has the type of the left side as `=` takes it, which is not always the type in
    /// which the two are compared: `nullif(date, timestamp)` is a date.
    pub(super) fn null_if(&mut self, left: Bound, right: Bound, place: Place) -> Binding<Bound> {
        let candidates = operators::candidates(Op::Eq);
        let operator = self.resolve("=", candidates, &left, &right, place)?;
        let equal = self.binary(Op::Eq, left.clone(), right, place)?;
        let ExprKind::Call(_, sides) = &equal.expr.kind else {
            return Err(Refused);
        };
        let [first, second] = sides.as_slice() else {
            return Err(Refused);
        };
        let collation = left.collation;
        let shown = match operator.args[0] {
            Base::AnyEnum => first.clone(),
            Base::Bpchar if left.unknown || left.base() != Base::Bpchar => {
                return self.refuse(place, "nullif of a literal and char", "cast to text: x::text");
            }
            base => self.coerce_base(left, base)?.expr,
        };
        let ty = match &shown.ty {
            Type::Varchar(_) => Type::Text,
            ty => ty.clone(),
        };
        let kind = if shown == *first {
            ExprKind::NullIf(Box::new(first.clone()), Box::new(second.clone()))
        } else {
            let null = Expr { kind: ExprKind::Const(Value::Null), ty: ty.clone() };
            let branches = vec![(equal.expr.clone(), null)];
            ExprKind::Case { branches, otherwise: Box::new(shown) }
        };
        Ok(Bound { place, expr: Expr { kind, ty }, nullable: true, collation, unknown: false })
    }

    pub(super) fn extreme(
        &mut self,
        nodes: &[Node],
        greatest: bool,
        place: Place,
    ) -> Binding<Bound> {
        let name = if greatest { "GREATEST" } else { "LEAST" };
        let bounds = self.exprs(nodes)?;
        let nullable = bounds.iter().all(|bound| bound.nullable);
        let (ty, bounds, collation) = self.common(name, bounds, place)?;
        self.comparable(&ty, collation, true, place)?;
        if matches!(ty, Type::Char(_)) {
            return self.refuse(place, format!("{name} of char is not accepted"), "cast to text");
        }
        let exprs = bounds.into_iter().map(|bound| bound.expr).collect();
        let kind = if greatest { ExprKind::Greatest(exprs) } else { ExprKind::Least(exprs) };
        Ok(Bound { place, expr: Expr { kind, ty }, nullable, collation, unknown: false })
    }

    /// The common type of `bounds` with their modifier where all have the same, and all of them
    /// brought to it.
    pub(super) fn common(
        &mut self,
        what: &str,
        bounds: Vec<Bound>,
        place: Place,
    ) -> Binding<(Type, Vec<Bound>, Coll)> {
        let refs: Vec<&Bound> = bounds.iter().collect();
        let Some(ty) = self.shared_type(&refs) else {
            let bases: Vec<Base> = bounds.iter().map(Bound::base).collect();
            let known = bounds.iter().find(|bound| !bound.unknown).or(bounds.first());
            let other = types::common(&bases).err().and_then(|index| bounds.get(index));
            let other = other.or_else(|| {
                bounds.iter().rev().find(|bound| {
                    !bound.unknown && Some(&bound.expr.ty) != known.map(|known| &known.expr.ty)
                })
            });
            let names = [known, other].map(|bound| bound.map_or_else(String::new, shown));
            return self.refuse(
                other.map_or(place, |bound| bound.place),
                format!("{what} types {} and {} cannot be matched", names[0], names[1]),
                "cast one of them to the other's type",
            );
        };
        let collation = bounds.iter().fold(Coll::None, |all, bound| all.merge(bound.collation));
        let modified =
            bounds.iter().all(|bound| !bound.unknown && bound.expr.ty == bounds[0].expr.ty);
        let ty = if modified { bounds[0].expr.ty.clone() } else { ty };
        if matches!(ty, Type::Char(_)) && !modified {
            return self.refuse(
                place,
                format!("{what} mixes char of different lengths"),
                "cast them to text: x::text",
            );
        }
        let mut coerced = Vec::new();
        for bound in bounds {
            coerced.push(self.coerce(bound, &ty)?);
        }
        Ok((ty, coerced, collation))
    }

    /// Without modifier; for char the length of one of them.
    pub(super) fn shared_type(&self, bounds: &[&Bound]) -> Option<Type> {
        let bases: Vec<Base> = bounds.iter().map(|bound| bound.base()).collect();
        let common = types::common(&bases).ok()?;
        if !bases.iter().all(|base| types::implicit(*base, common)) {
            return None;
        }
        match common {
            Base::Enum | Base::Other => {
                let mut known = bounds.iter().filter(|bound| !bound.unknown);
                let first = known.next()?;
                known.all(|bound| bound.expr.ty == first.expr.ty).then(|| first.expr.ty.clone())
            }
            Base::Bpchar => bounds
                .iter()
                .find(|bound| bound.base() == Base::Bpchar)
                .map(|bound| bound.expr.ty.clone()),
            base => base.to_type(),
        }
    }
}
