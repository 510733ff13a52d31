//! Expressions: names to columns, operators and functions to `Func`, implicit casts written out.

use super::ast::{Name, Node, NodeKind, Op, TypeName};
use super::bind::{Binder, Binding, Refused};
use super::casts;
use super::functions::{self, Function};
use super::operators::{self, Operator};
use super::scope::{Bound, Coll};
use super::types::{self, Base, Choice, type_name};
use super::words;
use crate::diagnostic::Place;
use crate::expr::{Expr, ExprKind, Func};
use crate::value::{Type, Value};

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
    fn exprs(&mut self, nodes: &[Node]) -> Binding<Vec<Bound>> {
        let bounds: Vec<Binding<Bound>> = nodes.iter().map(|node| self.expr(node)).collect();
        bounds.into_iter().collect()
    }

    fn two(&mut self, left: &Node, right: &Node) -> Binding<(Bound, Bound)> {
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
        if !inner.base().is_number() {
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

    fn not(&self, inner: Bound) -> Bound {
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
        let ExprKind::Call(Func::Eq, mut sides) = equal.expr.kind else { return Err(Refused) };
        let (Some(right), Some(left)) = (sides.pop(), sides.pop()) else { return Err(Refused) };
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

    fn case(
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
        let Some(otherwise) = results.next() else { return Err(Refused) };
        let branches = conditions.into_iter().map(|bound| bound.expr).zip(results).collect();
        let kind = ExprKind::Case { branches, otherwise: Box::new(otherwise) };
        Ok(Bound { place, expr: Expr { kind, ty }, nullable, collation, unknown: false })
    }

    /// The result has the type of the left side as `=` takes it, which is not always the type in
    /// which the two are compared: `nullif(date, timestamp)` is a date.
    fn null_if(&mut self, left: Bound, right: Bound, place: Place) -> Binding<Bound> {
        let candidates = operators::candidates(Op::Eq);
        let operator = self.resolve("=", candidates, &left, &right, place)?;
        let equal = self.binary(Op::Eq, left.clone(), right, place)?;
        let ExprKind::Call(_, sides) = &equal.expr.kind else { return Err(Refused) };
        let [first, second] = sides.as_slice() else { return Err(Refused) };
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

    fn extreme(&mut self, nodes: &[Node], greatest: bool, place: Place) -> Binding<Bound> {
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
                bounds.iter().rev().find(|bound| !bound.unknown && Some(&bound.expr.ty) != known.map(|known| &known.expr.ty))
            });
            let names = [known, other].map(|bound| bound.map_or_else(String::new, shown));
            return self.refuse(
                other.map_or(place, |bound| bound.place),
                format!("{what} types {} and {} cannot be matched", names[0], names[1]),
                "cast one of them to the other's type",
            );
        };
        let collation = bounds.iter().fold(Coll::None, |all, bound| all.merge(bound.collation));
        let modified = bounds.iter().all(|bound| !bound.unknown && bound.expr.ty == bounds[0].expr.ty);
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
    fn shared_type(&self, bounds: &[&Bound]) -> Option<Type> {
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
            return self.refuse(
                side.place,
                format!("Walview does not compute with type \"{}\"", type_name(&side.expr.ty)),
                "such a column may be shown, counted and tested for NULL",
            );
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

    fn call(&mut self, name: &str, args: &[Node], place: Place) -> Binding<Bound> {
        if matches!(name, "encode" | "sha256" | "convert_to") {
            return self.sha256(name, args, place);
        }
        let bounds = self.exprs(args)?;
        let function = self.overload(name, functions::overloads(name), &bounds, place)?;
        let Some(func) = function.func else {
            return self.refuse(
                place,
                format!("\"{name}\" is not accepted for these types"),
                "see the list of functions that views know",
            );
        };
        let collation = bounds.iter().fold(Coll::None, |all, bound| all.merge(bound.collation));
        if matches!(func, Func::Lower | Func::Upper) && !collation.is_c() {
            return self.refuse(
                place,
                format!("\"{name}\" follows the server's rules for letters"),
                format!("write {name}(x COLLATE \"C\"), which changes ASCII letters only"),
            );
        }
        let nullable = bounds.iter().any(|bound| bound.nullable);
        let mut exprs = Vec::new();
        for (bound, base) in bounds.into_iter().zip(function.args) {
            // length(char) counts without the blanks, as the cast to text drops them.
            let ty = base.to_type().unwrap_or(Type::Text);
            exprs.push(self.coerce(bound, &ty)?.expr);
        }
        match func {
            Func::Trim(_) if exprs.len() == 1 => {
                exprs.push(Expr {
                    kind: ExprKind::Const(Value::Text(" ".into())),
                    ty: Type::Text,
                });
            }
            Func::DateTrunc => self.date_trunc_field(&mut exprs, place)?,
            _ => {}
        }
        let ty = function.result.to_type().unwrap_or(Type::Text);
        let expr = Expr { kind: ExprKind::Call(func, exprs), ty };
        Ok(Bound { place, expr, nullable, collation, unknown: false })
    }

    fn overload(
        &mut self,
        name: &str,
        overloads: &'static [Function],
        args: &[Bound],
        place: Place,
    ) -> Binding<&'static Function> {
        let bases: Vec<Base> = args.iter().map(Bound::base).collect();
        if let Some(other) = args.iter().find(|bound| bound.base() == Base::Other) {
            return self.refuse(
                other.place,
                format!("Walview does not compute with type \"{}\"", type_name(&other.expr.ty)),
                "such a column may be shown, counted and tested for NULL",
            );
        }
        let types = || args.iter().map(shown).collect::<Vec<_>>().join(", ");
        match types::select(overloads, |function| function.args, &bases) {
            Choice::One(function) => Ok(function),
            Choice::None => {
                let message = format!("function does not exist: {name}({})", types());
                self.refuse(place, message, "cast the arguments, or check their number")
            }
            Choice::Ambiguous => {
                let message = format!("function is not unique: {name}({})", types());
                self.refuse(place, message, "cast the arguments: x::type")
            }
        }
    }

    /// `encode(sha256(convert_to(x, 'UTF8')), 'hex')`, the one accepted use of these three.
    fn sha256(&mut self, name: &str, args: &[Node], place: Place) -> Binding<Bound> {
        fn two<'a>(node: &'a Node, wanted: &str) -> Option<(&'a Node, &'a str)> {
            match &node.kind {
                NodeKind::Call(name, args) if name == wanted => match args.as_slice() {
                    [first, Node { kind: NodeKind::Text(text), .. }] => Some((first, text)),
                    _ => None,
                },
                _ => None,
            }
        }
        let whole = Node::new(place, NodeKind::Call(name.to_owned(), args.to_vec()));
        let argument = two(&whole, "encode")
            .filter(|(_, format)| *format == "hex")
            .and_then(|(hash, _)| match &hash.kind {
                NodeKind::Call(name, args) if name == "sha256" => args.first().filter(|_| args.len() == 1),
                _ => None,
            })
            .and_then(|text| two(text, "convert_to"))
            .filter(|(_, encoding)| matches!(*encoding, "UTF8" | "utf8" | "UTF-8" | "utf-8"))
            .map(|(argument, _)| argument.clone());
        let Some(argument) = argument else {
            return self.refuse(
                place,
                format!("\"{name}\" is accepted in one form only"),
                "write encode(sha256(convert_to(x, 'UTF8')), 'hex')",
            );
        };
        let argument = self.expr(&argument)?;
        if !types::implicit(argument.base(), Base::Text) {
            return self.refuse(
                place,
                format!("function does not exist: convert_to({}, unknown)", shown(&argument)),
                "cast the argument to text",
            );
        }
        let argument = self.coerce(argument, &Type::Text)?;
        let expr = Expr {
            kind: ExprKind::Call(Func::Sha256Hex, vec![argument.expr]),
            ty: Type::Text,
        };
        Ok(Bound { place, expr, nullable: argument.nullable, collation: Coll::None, unknown: false })
    }

    fn date_trunc_field(&mut self, exprs: &mut [Expr], place: Place) -> Binding<()> {
        let field = match exprs.first_mut() {
            Some(Expr { kind: ExprKind::Const(Value::Text(field)), .. }) => field,
            _ => {
                return self.refuse(
                    place,
                    "the field of date_trunc must be a literal",
                    "write date_trunc('hour', x)",
                );
            }
        };
        match canonical_field(&field.to_lowercase()) {
            Some(canonical) if TRUNC_FIELDS.contains(&canonical) => {
                *field = canonical.into();
                Ok(())
            }
            _ => {
                let message = format!("date_trunc does not know the field \"{field}\"");
                self.refuse(place, message, format!("fields: {}", TRUNC_FIELDS.join(", ")))
            }
        }
    }

    fn extract(&mut self, field: &str, inner: &Node, place: Place) -> Binding<Bound> {
        let inner = self.expr(inner)?;
        let literal = Bound::unknown(place, Value::Text(field.into()));
        let args = [Bound { unknown: false, ..literal }, inner];
        let function = self.overload("extract", functions::EXTRACT, &args, place)?;
        let [_, inner] = args;
        let fields: &[&str] = match function.args {
            [_, Base::Date] => EXTRACT_DATE,
            [_, Base::Timestamp | Base::TimestampTz] => EXTRACT_TIMESTAMP,
            [_, Base::Time] => EXTRACT_TIME,
            [_, Base::Interval] => EXTRACT_INTERVAL,
            _ => &[],
        };
        let Some(field) = canonical_field(field).filter(|field| fields.contains(field)) else {
            return self.refuse(
                place,
                format!("extract does not know the field \"{field}\" of {}", shown(&inner)),
                format!("fields: {}", fields.join(", ")),
            );
        };
        let ty = function.args.get(1).and_then(|base| base.to_type()).unwrap_or(Type::TimestampTz);
        let inner = self.coerce(inner, &ty)?;
        let field = Expr { kind: ExprKind::Const(Value::Text(field.into())), ty: Type::Text };
        let expr = Expr {
            kind: ExprKind::Call(Func::Extract, vec![field, inner.expr]),
            ty: Type::Numeric(None),
        };
        // The infinities have no fields but epoch and the like: NULL.
        Ok(Bound { place, expr, nullable: true, collation: Coll::None, unknown: false })
    }

    fn collate(&mut self, inner: &Node, place: Place) -> Binding<Bound> {
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

    fn named_type(&mut self, name: &TypeName) -> Binding<Type> {
        let (schema, name) = match name {
            TypeName::Known(ty) => return Ok(ty.clone()),
            TypeName::Named { schema, name } => (schema, name),
        };
        let columns = || self.catalog.tables.iter().flat_map(|table| table.columns.iter());
        let enums = || columns().filter_map(|column| match &column.ty {
            Type::Enum { oid, name, .. } => Some((*oid, name.as_str(), &column.ty)),
            _ => None,
        });
        let wanted = match schema {
            Some(schema) => format!("{}.{}", schema.text, name.text),
            None => name.text.clone(),
        };
        let bare = |full: &str| full.rsplit('.').next().unwrap_or(full).trim_matches('"').to_owned();
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
                "cast to a built-in type, or to an enum that a column of these tables has".to_owned()
            });
        self.refuse(name.place, format!("type \"{wanted}\" is not accepted in a cast"), remedy)
    }

    fn explicit_cast(&mut self, inner: Bound, ty: &Type, place: Place) -> Binding<Bound> {
        if inner.unknown {
            return self.literal_cast(inner, ty);
        }
        let (from, to) = (inner.base(), Base::of(ty));
        if let Err(refusal) = casts::explicit(from, to) {
            let message = format!(
                "a cast from {} to {} {}",
                type_name(&inner.expr.ty),
                type_name(ty),
                refusal.message
            );
            return self.refuse(place, message, refusal.remedy);
        }
        if from == Base::Enum && to == Base::Enum && inner.expr.ty != *ty {
            let message =
                format!("a cast from {} to {}", type_name(&inner.expr.ty), type_name(ty));
            return self.refuse(place, message, "write x::text::type");
        }
        if inner.expr.ty == *ty {
            return Ok(inner);
        }
        let collation = if to.is_string() && from.is_string() { inner.collation } else { Coll::None };
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

const TRUNC_FIELDS: &[&str] = &[
    "microseconds",
    "milliseconds",
    "second",
    "minute",
    "hour",
    "day",
    "week",
    "month",
    "quarter",
    "year",
    "decade",
    "century",
    "millennium",
];
const EXTRACT_DATE: &[&str] = &[
    "day", "month", "year", "quarter", "week", "dow", "doy", "isodow", "isoyear", "decade",
    "century", "millennium", "julian", "epoch",
];
const EXTRACT_TIMESTAMP: &[&str] = &[
    "microseconds", "milliseconds", "second", "minute", "hour", "day", "month", "year", "quarter",
    "week", "dow", "doy", "isodow", "isoyear", "decade", "century", "millennium", "julian",
    "epoch",
];
const EXTRACT_TIME: &[&str] = &["microseconds", "milliseconds", "second", "minute", "hour", "epoch"];
const EXTRACT_INTERVAL: &[&str] = &[
    "microseconds", "milliseconds", "second", "minute", "hour", "day", "month", "quarter", "year",
    "decade", "century", "millennium", "epoch",
];

/// PostgreSQL's own names for a field (`datetktbl`), brought to one spelling.
fn canonical_field(name: &str) -> Option<&'static str> {
    Some(match name {
        "microsecond" | "microseconds" => "microseconds",
        "millisecond" | "milliseconds" => "milliseconds",
        "second" | "seconds" => "second",
        "minute" | "minutes" => "minute",
        "hour" | "hours" => "hour",
        "day" | "days" => "day",
        "week" | "weeks" => "week",
        "month" | "months" => "month",
        "quarter" => "quarter",
        "year" | "years" => "year",
        "decade" | "decades" => "decade",
        "century" | "centuries" => "century",
        "millennium" | "millennia" => "millennium",
        "dow" => "dow",
        "doy" => "doy",
        "isodow" => "isodow",
        "isoyear" => "isoyear",
        "julian" => "julian",
        "epoch" => "epoch",
        _ => return None,
    })
}
