//! Expressions of sqlparser's tree to `ast`: what is refused without a catalog.

use super::ast::{Node, NodeKind, Op, TypeName};
use super::functions;
use super::lower::{Lower, Lowered, Refused, WINDOW_REMEDY, start_of};
use super::words;
use crate::diagnostic::Place;
use crate::plan::AggregateFunc;
use sqlparser::ast::{
    self as sql, BinaryOperator, CastKind, CeilFloorKind, DateTimeField, DuplicateTreatment, Expr,
    FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArguments, Spanned,
    TrimWhereField, UnaryOperator, Value, ValueWithSpan,
};

/// Levels of one expression. Lists of AND and OR count as one level.
const EXPR_DEPTH_MAX: usize = 100;

const SUBQUERY_REMEDY: &str = "join the table by its key";

impl Lower {
    pub(super) fn expr(&mut self, expr: &Expr) -> Lowered<Node> {
        self.expr_at(expr, 0)
    }

    /// Where an expression starts. sqlparser's own spans recurse and miss some tokens.
    pub(super) fn place_of(&self, expr: &Expr, otherwise: Place) -> Place {
        start_of(start_span(expr), otherwise)
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "what is not named here is refused")]
    #[expect(clippy::too_many_lines, reason = "one arm for each kind of expression")]
    fn expr_at(&mut self, expr: &Expr, depth: usize) -> Lowered<Node> {
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
                    return self.refuse(place, "this cast is not PostgreSQL's", "write CAST(x AS type)");
                }
                let node = self.operand(inner, depth);
                let ty = self.type_name(data_type, place);
                NodeKind::Cast(node?, ty?)
            }
            Expr::TypedString(typed) => {
                let ty = self.type_name(&typed.data_type, place);
                let literal = self.literal(&typed.value, place)?;
                if typed.uses_odbc_syntax || !matches!(literal, NodeKind::Text(_)) {
                    return self.refuse(place, "this literal is not PostgreSQL's", "write type 'value'");
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
    fn each<'a>(
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

    #[expect(clippy::wildcard_enum_match_arm, reason = "every other operator is refused")]
    fn operator(&mut self, op: &BinaryOperator, place: Place) -> Lowered<Op> {
        Ok(match op {
            BinaryOperator::Plus => Op::Add,
            BinaryOperator::Minus => Op::Sub,
            BinaryOperator::Multiply => Op::Mul,
            BinaryOperator::Divide => Op::Div,
            BinaryOperator::Modulo => Op::Mod,
            BinaryOperator::Eq => Op::Eq,
            BinaryOperator::NotEq => Op::Ne,
            BinaryOperator::Lt => Op::Lt,
            BinaryOperator::LtEq => Op::Le,
            BinaryOperator::Gt => Op::Gt,
            BinaryOperator::GtEq => Op::Ge,
            BinaryOperator::StringConcat => Op::Concat,
            BinaryOperator::Arrow => Op::Arrow,
            BinaryOperator::LongArrow => Op::LongArrow,
            BinaryOperator::HashLongArrow => Op::HashLongArrow,
            BinaryOperator::HashArrow => {
                return self.refuse(
                    place,
                    "operator #> is not accepted",
                    "write x -> 'a' -> 'b', or x #>> '{a,b}' for text",
                );
            }
            BinaryOperator::PGRegexMatch
            | BinaryOperator::PGRegexIMatch
            | BinaryOperator::PGRegexNotMatch
            | BinaryOperator::PGRegexNotIMatch => {
                return self.refuse(
                    place,
                    "regular expressions are not accepted",
                    "write LIKE, or split_part",
                );
            }
            BinaryOperator::PGExp | BinaryOperator::BitwiseXor => {
                return self.refuse(place, "operator ^ is not accepted", "multiply instead");
            }
            other => {
                let symbol = other.to_string();
                let remedy = if symbol.len() > 1 && symbol.ends_with(['-', '+']) {
                    "put a space in front of the sign"
                } else {
                    ""
                };
                return self.refuse(place, format!("operator {symbol} is not accepted"), remedy);
            }
        })
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

    #[expect(clippy::wildcard_enum_match_arm, reason = "every other literal is refused")]
    fn literal(&mut self, value: &ValueWithSpan, place: Place) -> Lowered<NodeKind> {
        Ok(match &value.value {
            Value::Number(digits, false) => {
                let plain = digits
                    .chars()
                    .all(|char| char.is_ascii_digit() || matches!(char, '.' | 'e' | 'E' | '+' | '-'));
                if !plain {
                    return self.refuse(
                        place,
                        format!("number \"{digits}\" means different things to different versions of PostgreSQL"),
                        "write it with decimal digits only",
                    );
                }
                NodeKind::Number(digits.clone())
            }
            Value::SingleQuotedString(text) => NodeKind::Text(text.clone()),
            Value::EscapedStringLiteral(text) => NodeKind::Text(text.clone()),
            Value::DollarQuotedString(text) => NodeKind::Text(text.value.clone()),
            Value::Boolean(value) => NodeKind::Bool(*value),
            Value::Null => NodeKind::Null,
            Value::Placeholder(name) => {
                return self.refuse(
                    place,
                    format!("parameter \"{name}\" is not accepted"),
                    "write the value; a view has no parameters",
                );
            }
            _ => return self.refuse(place, "this kind of literal is not accepted", "write 'text'"),
        })
    }

    fn interval(&mut self, interval: &sql::Interval, place: Place) -> Lowered<NodeKind> {
        let text = match interval.value.as_ref() {
            Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), .. })
                if interval.leading_field.is_none()
                    && interval.leading_precision.is_none()
                    && interval.last_field.is_none()
                    && interval.fractional_seconds_precision.is_none() =>
            {
                text.clone()
            }
            _ => {
                return self.refuse(
                    place,
                    "this form of interval is not accepted",
                    "write interval '1 hour'",
                );
            }
        };
        let ty = TypeName::Known(crate::value::Type::Interval);
        Ok(NodeKind::Cast(Node::boxed(place, NodeKind::Text(text)), ty))
    }

    fn function(&mut self, function: &sql::Function, place: Place, depth: usize) -> Lowered<Node> {
        let mut names = Vec::new();
        for part in &function.name.0 {
            match part.as_ident() {
                Some(ident) => {
                    names.push(self.ident(ident, start_of(ident.span, place), true)?.text);
                }
                None => return self.refuse(place, "this call is not PostgreSQL's", ""),
            }
        }
        let name = match names.as_slice() {
            [name] => name.clone(),
            [schema, name] if schema == "pg_catalog" => name.clone(),
            _ => {
                return self.refuse(
                    place,
                    format!("function \"{}\" is not accepted", names.join(".")),
                    "only PostgreSQL's own functions can be computed outside of it",
                );
            }
        };
        if words::is_session_word(&name) {
            return self.volatile(&name, place);
        }
        if function.over.is_some() {
            return self.refuse(
                place,
                format!("window function \"{name}\" is not accepted"),
                WINDOW_REMEDY,
            );
        }
        if function.uses_odbc_syntax
            || !matches!(function.parameters, FunctionArguments::None)
            || !function.within_group.is_empty()
            || function.null_treatment.is_some()
        {
            return self.refuse(place, format!("this form of \"{name}\" is not accepted"), "");
        }
        if let Some(aggregate) = functions::aggregate(&name) {
            return self.aggregate(&name, aggregate, function, place, depth);
        }
        if function.filter.is_some() {
            return self.refuse(
                place,
                format!("FILTER on \"{name}\", which is not an aggregate"),
                "use CASE WHEN … THEN … END",
            );
        }
        let args = self.arguments(&name, &function.args, place, depth)?;
        self.call(name, args, place).map(|kind| Node::new(place, kind))
    }

    fn arguments(
        &mut self,
        name: &str,
        arguments: &FunctionArguments,
        place: Place,
        depth: usize,
    ) -> Lowered<Vec<Node>> {
        let list = match arguments {
            FunctionArguments::List(list) => list,
            FunctionArguments::None => return Ok(Vec::new()),
            FunctionArguments::Subquery(_) => {
                return self.refuse(place, "a subquery is not accepted in a view", SUBQUERY_REMEDY);
            }
        };
        if list.duplicate_treatment.is_some() || !list.clauses.is_empty() {
            return self.refuse(
                place,
                format!("\"{name}\" is not an aggregate: DISTINCT and ORDER BY do not belong here"),
                "",
            );
        }
        let mut args = Vec::new();
        let mut refused = false;
        for arg in &list.args {
            match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => {
                    match self.expr_at(expr, depth) {
                        Ok(node) => args.push(node),
                        Err(Refused) => refused = true,
                    }
                }
                FunctionArg::Unnamed(_)
                | FunctionArg::Named { .. }
                | FunctionArg::ExprNamed { .. } => {
                    return self.refuse(
                        place,
                        format!("\"{name}\" takes plain arguments only"),
                        "",
                    );
                }
            }
        }
        if refused { Err(Refused) } else { Ok(args) }
    }

    fn call(&mut self, name: String, args: Vec<Node>, place: Place) -> Lowered<NodeKind> {
        match name.as_str() {
            "coalesce" | "greatest" | "least" => {
                if args.is_empty() {
                    return self.refuse(place, format!("\"{name}\" without arguments"), "");
                }
                Ok(match name.as_str() {
                    "coalesce" => NodeKind::Coalesce(args),
                    "greatest" => NodeKind::Greatest(args),
                    _ => NodeKind::Least(args),
                })
            }
            "nullif" => match <[Node; 2]>::try_from(args) {
                Ok([left, right]) => Ok(NodeKind::NullIf(Box::new(left), Box::new(right))),
                Err(_) => self.refuse(place, "\"nullif\" takes two arguments", ""),
            },
            _ if functions::is_known(&name) => Ok(NodeKind::Call(name, args)),
            _ => self.unknown_function(&name, place),
        }
    }

    fn unknown_function<T>(&mut self, name: &str, place: Place) -> Lowered<T> {
        if functions::is_volatile(name) {
            return self.volatile(name, place);
        }
        let remedy = functions::instead(name)
            .map(str::to_owned)
            .or_else(|| words::did_you_mean(name, functions::names()))
            .unwrap_or_else(|| format!("known functions: {}", functions::listed()));
        self.refuse(place, format!("function \"{name}\" is not accepted in a view"), remedy)
    }

    fn volatile<T>(&mut self, name: &str, place: Place) -> Lowered<T> {
        self.refuse(
            place,
            format!("\"{name}\" depends on the clock, the session or chance"),
            "a view may depend on its rows only: store the value in a column",
        )
    }

    fn aggregate(
        &mut self,
        name: &str,
        aggregate: functions::Aggregate,
        function: &sql::Function,
        place: Place,
        depth: usize,
    ) -> Lowered<Node> {
        let func = match aggregate {
            functions::Aggregate::Supported(func) => func,
            functions::Aggregate::NotYet => {
                return self.refuse(place, format!("aggregate \"{name}\" is not supported yet"), "");
            }
            functions::Aggregate::Never => {
                return self.refuse(
                    place,
                    format!("aggregate \"{name}\" is not accepted in a view"),
                    "aggregates are count, sum and avg",
                );
            }
        };
        let FunctionArguments::List(list) = &function.args else {
            return self.refuse(place, format!("\"{name}\" without arguments"), "");
        };
        if list.duplicate_treatment == Some(DuplicateTreatment::Distinct) {
            return self.refuse(place, format!("{name}(DISTINCT …) is not supported yet"), "");
        }
        for clause in &list.clauses {
            if !matches!(clause, FunctionArgumentClause::OrderBy(_)) {
                return self.refuse(place, format!("this form of \"{name}\" is not accepted"), "");
            }
            return self.refuse(
                place,
                format!("ORDER BY inside \"{name}\" has no effect"),
                "remove it",
            );
        }
        let argument = match list.args.as_slice() {
            [FunctionArg::Unnamed(FunctionArgExpr::Wildcard)] if func == AggregateFunc::Count => {
                None
            }
            [FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))] => {
                Some(Box::new(self.expr_at(expr, depth)?))
            }
            _ => return self.refuse(place, format!("\"{name}\" takes one argument"), ""),
        };
        let filter = match &function.filter {
            Some(filter) => Some(Box::new(self.expr_at(filter, depth)?)),
            None => None,
        };
        for inner in argument.iter().chain(&filter) {
            if inner.has_aggregate() {
                return self.refuse(
                    inner.place,
                    "an aggregate inside an aggregate",
                    "write it once, over the rows",
                );
            }
        }
        let name = functions::aggregate_name(func);
        Ok(Node::new(place, NodeKind::Aggregate { func, name, argument, filter }))
    }
}

/// Conditions bind looser than the operators that `Lower::operand` serves.
#[expect(clippy::wildcard_enum_match_arm, reason = "a list of the kinds that matter")]
fn is_condition(expr: &Expr) -> bool {
    match expr {
        Expr::BinaryOp { op, .. } => matches!(
            op,
            BinaryOperator::And
                | BinaryOperator::Or
                | BinaryOperator::Eq
                | BinaryOperator::NotEq
                | BinaryOperator::Lt
                | BinaryOperator::LtEq
                | BinaryOperator::Gt
                | BinaryOperator::GtEq
        ),
        Expr::UnaryOp { op, .. } => *op == UnaryOperator::Not,
        Expr::IsNull(_)
        | Expr::IsNotNull(_)
        | Expr::IsUnknown(_)
        | Expr::IsNotUnknown(_)
        | Expr::IsTrue(_)
        | Expr::IsNotTrue(_)
        | Expr::IsFalse(_)
        | Expr::IsNotFalse(_)
        | Expr::IsDistinctFrom(..)
        | Expr::IsNotDistinctFrom(..)
        | Expr::InList { .. }
        | Expr::Between { .. }
        | Expr::Like { .. } => true,
        _ => false,
    }
}

fn is_array_agg(mut expr: &Expr) -> bool {
    while let Expr::Nested(inner) = expr {
        expr = inner;
    }
    matches!(expr, Expr::Function(function) if function.name.to_string().eq_ignore_ascii_case("array_agg"))
}

fn date_time_field(field: &DateTimeField) -> String {
    match field {
        DateTimeField::Custom(ident) => ident.value.to_lowercase(),
        field => field.to_string().to_lowercase(),
    }
}

/// Follows the leftmost child instead of visiting the whole tree.
#[expect(clippy::wildcard_enum_match_arm, reason = "the rest is small or has a span of its own")]
fn start_span(mut expr: &Expr) -> sqlparser::tokenizer::Span {
    loop {
        expr = match expr {
            Expr::BinaryOp { left, .. } => left,
            Expr::Nested(inner)
            | Expr::IsNull(inner)
            | Expr::IsNotNull(inner)
            | Expr::IsUnknown(inner)
            | Expr::IsNotUnknown(inner)
            | Expr::IsTrue(inner)
            | Expr::IsNotTrue(inner)
            | Expr::IsFalse(inner)
            | Expr::IsNotFalse(inner)
            | Expr::IsDistinctFrom(inner, _)
            | Expr::IsNotDistinctFrom(inner, _) => inner,
            Expr::InList { expr: inner, .. }
            | Expr::InSubquery { expr: inner, .. }
            | Expr::Between { expr: inner, .. }
            | Expr::Like { expr: inner, .. }
            | Expr::ILike { expr: inner, .. }
            | Expr::SimilarTo { expr: inner, .. }
            | Expr::Collate { expr: inner, .. }
            | Expr::Cast { expr: inner, .. }
            | Expr::UnaryOp { expr: inner, .. }
            | Expr::Extract { expr: inner, .. }
            | Expr::AtTimeZone { timestamp: inner, .. }
            | Expr::AnyOp { left: inner, .. }
            | Expr::AllOp { left: inner, .. }
            | Expr::CompoundFieldAccess { root: inner, .. }
            | Expr::Substring { expr: inner, .. }
            | Expr::Trim { expr: inner, .. }
            | Expr::Ceil { expr: inner, .. }
            | Expr::Floor { expr: inner, .. } => inner,
            Expr::Case { case_token, .. } => return case_token.0.span,
            Expr::Interval(interval) => &interval.value,
            Expr::Function(function) => {
                return function
                    .name
                    .0
                    .first()
                    .map_or(sqlparser::tokenizer::Span::empty(), Spanned::span);
            }
            other => return other.span(),
        };
    }
}

impl Lower {
    #[expect(clippy::wildcard_enum_match_arm, reason = "every other type is refused")]
    fn type_name(&mut self, ty: &sql::DataType, place: Place) -> Lowered<TypeName> {
        use crate::value::Type;
        use sql::{CharacterLength, DataType, ExactNumberInfo, TimezoneInfo};
        let length = |length: &Option<CharacterLength>| match length {
            None => Ok(None),
            Some(CharacterLength::IntegerLength { length, unit: None }) => match u32::try_from(*length) {
                Ok(length @ 1..=10_485_760) => Ok(Some(length)),
                _ => Err(()),
            },
            Some(_) => Err(()),
        };
        let known = match ty {
            DataType::Bool | DataType::Boolean => Ok(Type::Bool),
            DataType::Int2(None) | DataType::SmallInt(None) => Ok(Type::Int2),
            DataType::Int(None) | DataType::Int4(None) | DataType::Integer(None) => Ok(Type::Int4),
            DataType::Int8(None) | DataType::BigInt(None) => Ok(Type::Int8),
            DataType::Float4 | DataType::Real => Ok(Type::Float4),
            DataType::Float8
            | DataType::DoublePrecision
            | DataType::Float(ExactNumberInfo::None) => Ok(Type::Float8),
            DataType::Float(ExactNumberInfo::Precision(1..=24)) => Ok(Type::Float4),
            DataType::Float(ExactNumberInfo::Precision(25..=53)) => Ok(Type::Float8),
            DataType::Numeric(info) | DataType::Decimal(info) | DataType::Dec(info) => {
                let modifier = match info {
                    ExactNumberInfo::None => Ok(None),
                    ExactNumberInfo::Precision(precision) => numeric(*precision, 0).map(Some),
                    ExactNumberInfo::PrecisionAndScale(precision, scale) => {
                        numeric(*precision, *scale).map(Some)
                    }
                };
                modifier.map(Type::Numeric)
            }
            DataType::Text => Ok(Type::Text),
            DataType::Varchar(limit)
            | DataType::CharacterVarying(limit)
            | DataType::CharVarying(limit) => length(limit).map(Type::Varchar),
            DataType::Char(limit) | DataType::Character(limit) => {
                length(limit).map(|limit| Type::Char(limit.unwrap_or(1)))
            }
            DataType::Bytea => Ok(Type::Bytea),
            DataType::Date => Ok(Type::Date),
            DataType::Time(None, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
                Ok(Type::Time)
            }
            DataType::Timestamp(None, zone) => Ok(match zone {
                TimezoneInfo::None | TimezoneInfo::WithoutTimeZone => Type::Timestamp,
                TimezoneInfo::WithTimeZone | TimezoneInfo::Tz => Type::TimestampTz,
            }),
            DataType::Interval { fields: None, precision: None } => Ok(Type::Interval),
            DataType::Uuid => Ok(Type::Uuid),
            DataType::JSON => Ok(Type::Json),
            DataType::JSONB => Ok(Type::Jsonb),
            DataType::Custom(name, modifiers) if modifiers.is_empty() => {
                let mut names = self.object_name(name, place)?;
                return match (names.pop(), names.pop(), names.pop()) {
                    (Some(name), schema, None) => Ok(TypeName::Named { schema, name }),
                    _ => self.refuse(place, format!("type name \"{name}\" has too many parts"), ""),
                };
            }
            _ => Err(()),
        };
        match known {
            Ok(ty) => Ok(TypeName::Known(ty)),
            Err(()) => self.refuse(
                place,
                format!("a cast to \"{ty}\" is not accepted"),
                "cast to a number, text, boolean, date, time, timestamp, timestamptz, interval, \
                 uuid or an enum, without a precision for times",
            ),
        }
    }
}

fn numeric(precision: u64, scale: i64) -> Result<(u16, i16), ()> {
    match (u16::try_from(precision), i16::try_from(scale)) {
        (Ok(precision @ 1..=1000), Ok(scale @ -1000..=1000)) => Ok((precision, scale)),
        _ => Err(()),
    }
}
