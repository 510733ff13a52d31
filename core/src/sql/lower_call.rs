//! Calls of functions and aggregates in sqlparser's tree.

use super::ast::{Node, NodeKind};
use super::functions;
use super::lower::{Lower, Lowered, Refused, WINDOW_REMEDY, start_of};
use super::lower_expr::SUBQUERY_REMEDY;
use super::words;
use crate::diagnostic::Place;
use crate::plan::AggregateFunc;
use sqlparser::ast::{
    self as sql, DuplicateTreatment, FunctionArg, FunctionArgExpr, FunctionArgumentClause,
    FunctionArguments,
};

impl Lower {
    pub(super) fn function(
        &mut self,
        function: &sql::Function,
        place: Place,
        depth: usize,
    ) -> Lowered<Node> {
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

    pub(super) fn unknown_function<T>(&mut self, name: &str, place: Place) -> Lowered<T> {
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
                return self.refuse(
                    place,
                    format!("aggregate \"{name}\" is not supported yet"),
                    "",
                );
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
        if let Some(clause) = list.clauses.first() {
            if matches!(clause, FunctionArgumentClause::OrderBy(_)) {
                let message = format!("ORDER BY inside \"{name}\" has no effect");
                return self.refuse(place, message, "remove it");
            }
            return self.refuse(place, format!("this form of \"{name}\" is not accepted"), "");
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
