//! Casts, written and implied, and the values of literals.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "types that are not named take the general way"
)]

use super::ast::{Node, TypeName};
use super::bind::{Binder, Binding};
use super::casts;
use super::scope::{Bound, Coll};
use super::types::{Base, type_name};
use super::words;
use crate::diagnostic::Place;
use crate::expr::{Expr, ExprKind};
use crate::value::{Type, Value};

impl Binder<'_> {
    pub(super) fn collate(&mut self, inner: &Node, place: Place) -> Binding<Bound> {
        let inner = self.settled(inner)?;
        if !inner.base().is_string() {
            let message = format!("collations are not for type {}", type_name(&inner.expr.ty));
            return self.refuse(place, message, "COLLATE belongs to text");
        }
        // A cast to its own type changes nothing, and keeps `x COLLATE "C"` and `x` apart where
        // PostgreSQL does: as expressions of GROUP BY.
        let ty = inner.expr.ty.clone();
        let expr = Expr { kind: ExprKind::Cast(Box::new(inner.expr)), ty };
        Ok(Bound { place, expr, collation: Coll::ExplicitC, ..inner })
    }

    pub(super) fn named_type(&mut self, name: &TypeName) -> Binding<Type> {
        let (schema, name) = match name {
            TypeName::Known(ty) => return Ok(ty.clone()),
            TypeName::Named { schema, name } => (schema, name),
        };
        let columns = || self.catalog.tables.iter().flat_map(|table| table.columns.iter());
        let enums = || {
            columns().filter_map(|column| match &column.ty {
                Type::Enum { oid, name, .. } => Some((*oid, name.as_str(), &column.ty)),
                _ => None,
            })
        };
        let wanted = match schema {
            Some(schema) => format!("{}.{}", schema.text, name.text),
            None => name.text.clone(),
        };
        let bare =
            |full: &str| full.rsplit('.').next().unwrap_or(full).trim_matches('"').to_owned();
        let mut fitting: Vec<(u32, &Type)> = enums()
            .filter(|(_, full, _)| *full == wanted || bare(full) == name.text)
            .map(|(oid, _, ty)| (oid, ty))
            .collect();
        fitting.sort_by_key(|(oid, _)| *oid);
        fitting.dedup_by_key(|(oid, _)| *oid);
        if let [(_, ty)] = fitting.as_slice() {
            return Ok((*ty).clone());
        }
        let remedy = words::did_you_mean(&name.text, enums().map(|(_, name, _)| name))
            .unwrap_or_else(|| {
                "cast to a built-in type, or to an enum that a column of these tables has"
                    .to_owned()
            });
        self.refuse(name.place, format!("type \"{wanted}\" is not accepted in a cast"), remedy)
    }

    pub(super) fn explicit_cast(
        &mut self,
        inner: Bound,
        ty: &Type,
        place: Place,
    ) -> Binding<Bound> {
        if inner.unknown {
            return self.literal_cast(inner, ty);
        }
        let (from, to) = (inner.base(), Base::of(ty));
        // What is carried is what PostgreSQL's cast through text gives.
        let carried = inner.carried().is_some_and(|carried| carried.castable);
        let checked = match ty {
            Type::Text if carried => Ok(()),
            _ => casts::explicit(from, to),
        };
        if let Err(refusal) = checked {
            let message = format!(
                "a cast from {} to {} {}",
                type_name(&inner.expr.ty),
                type_name(ty),
                refusal.message
            );
            return self.refuse(place, message, refusal.remedy);
        }
        if from == Base::Enum && to == Base::Enum && inner.expr.ty != *ty {
            let message = format!("a cast from {} to {}", type_name(&inner.expr.ty), type_name(ty));
            return self.refuse(place, message, "write x::text::type");
        }
        if inner.expr.ty == *ty {
            return Ok(inner);
        }
        let collation =
            if to.is_string() && from.is_string() { inner.collation } else { Coll::None };
        let expr = Expr { kind: ExprKind::Cast(Box::new(inner.expr)), ty: ty.clone() };
        Ok(Bound { place, expr, nullable: inner.nullable, collation, unknown: false })
    }

    /// `'…'::type`. An explicit cast cuts a text to its length, where input would refuse it.
    fn literal_cast(&mut self, literal: Bound, ty: &Type) -> Binding<Bound> {
        let limited = matches!(ty, Type::Varchar(Some(_)) | Type::Char(_));
        if limited && !literal.is_null_literal() {
            let kind = ExprKind::Cast(Box::new(literal.expr));
            let expr = Expr { kind, ty: ty.clone() };
            return Ok(Bound { expr, unknown: false, ..literal });
        }
        self.coerce(literal, ty)
    }

    /// An implicit cast, where `types::implicit` has allowed it, or a literal's value.
    pub(super) fn coerce(&mut self, bound: Bound, ty: &Type) -> Binding<Bound> {
        let place = bound.place;
        if bound.unknown {
            if bound.is_null_literal() {
                return Ok(Bound::constant(place, Value::Null, ty.clone()));
            }
            let text = bound.literal_text().unwrap_or_default().to_owned();
            if let Type::Other { name, carried, .. } = ty {
                // Other literals are PostgreSQL's to read: '{ 1 }' is printed as {1}.
                if carried.element.is_none() || text != "{}" {
                    return self.refuse(
                        place,
                        format!("literals of type \"{name}\" are not accepted"),
                        "NULL is one of every type, '{}' of every array; or compare x::text",
                    );
                }
            }
            return match Value::parse(ty, &text) {
                Ok(value) => Ok(Bound::constant(place, value, ty.clone())),
                Err(error) => {
                    let remedy = casts::literal_remedy(ty);
                    self.refuse(place, format!("literal '{text}': {}", error.message), remedy)
                }
            };
        }
        let (from, to) = (bound.base(), Base::of(ty));
        // varchar and text are the same bytes; char loses its blanks.
        if from == to || (matches!(from, Base::Text | Base::Varchar) && to.is_string()) {
            return Ok(bound);
        }
        if let ExprKind::Const(value) = &bound.expr.kind
            && from.is_number()
            && to.is_number()
            && let Ok(value) = Value::parse(ty, &value.to_text(&bound.expr.ty))
        {
            return Ok(Bound::constant(place, value, ty.clone()));
        }
        let collation = bound.collation;
        let expr = Expr { kind: ExprKind::Cast(Box::new(bound.expr)), ty: ty.clone() };
        Ok(Bound { place, expr, nullable: bound.nullable, collation, unknown: false })
    }
}
