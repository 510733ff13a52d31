//! From sqlparser's tree to `ast`: the shape of a view, checked without a catalog.
//!
//! ```text
//! text ─► tokens ─► sqlparser's tree ─► Select   (this module: clauses; `lower_expr`: expressions)
//!                                   └─► Diagnostics, as many as there are
//! ```
//!
//! Invariant: every field of the tree's nodes is either used or refused. sqlparser reads many
//! dialects; what it reads where PostgreSQL would read something else is refused too.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "sqlparser knows many dialects: what is not named is refused"
)]

use super::ast::{Item, Name, Node, NodeKind, Select};
use super::words;
use crate::diagnostic::{Diagnostic, Place};
use sqlparser::ast::{
    self as sql, Distinct, Expr, GroupByExpr, Ident, LimitClause, ObjectName, ObjectNamePart,
    OrderByKind, Query, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, SetOperator,
    Statement,
};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer};

/// Bytes of one view's text. Views are written by hand; the limit bounds the parser's work.
const SQL_BYTES_MAX: usize = 64 * 1024;

/// A part that was refused; its diagnostic is in the list.
pub(super) struct Refused;

pub(super) type Lowered<T> = Result<T, Refused>;

pub(super) struct Lower {
    pub(super) diagnostics: Vec<Diagnostic>,
    /// Places of names that follow AS.
    after_as: Vec<Place>,
}

pub(super) fn lower(text: &str) -> Result<Select, Vec<Diagnostic>> {
    if text.len() > SQL_BYTES_MAX {
        let message = format!("the view's SQL is longer than {SQL_BYTES_MAX} bytes");
        return Err(vec![Diagnostic::new(START, message, "split the view")]);
    }
    let tokens =
        Tokenizer::new(&PostgreSqlDialect {}, text).tokenize_with_location().map_err(|error| {
            vec![Diagnostic::new(at(error.location), lower_first(&error.message), "")]
        })?;
    let after_as = names_after_as(&tokens);
    let statements = Parser::new(&PostgreSqlDialect {})
        .with_tokens_with_locations(tokens)
        .parse_statements()
        .map_err(|error| vec![syntax_error(&error, text)])?;
    let mut this = Lower { diagnostics: Vec::new(), after_as };
    let select = this.statements(statements);
    match select {
        Ok(select) if this.diagnostics.is_empty() => Ok(select),
        _ => {
            this.diagnostics.sort();
            this.diagnostics.dedup();
            Err(this.diagnostics)
        }
    }
}

const START: Place = Place { line: 1, column: 1 };

pub(super) fn at(location: Location) -> Place {
    let count = |number: u64| u32::try_from(number).unwrap_or(u32::MAX).max(1);
    Place { line: count(location.line), column: count(location.column) }
}

/// Tokens without white space: where a name follows AS.
fn names_after_as(tokens: &[TokenWithSpan]) -> Vec<Place> {
    let mut after = false;
    let mut places = Vec::new();
    for token in tokens {
        match &token.token {
            Token::Whitespace(_) => {}
            Token::Word(word) => {
                if after {
                    places.push(at(token.span.start));
                }
                after = word.quote_style.is_none() && word.value.eq_ignore_ascii_case("as");
            }
            _ => after = false,
        }
    }
    places
}

fn syntax_error(error: &ParserError, sql: &str) -> Diagnostic {
    let text = match error {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text.as_str(),
        ParserError::RecursionLimitExceeded => {
            return Diagnostic::new(START, "the SQL is nested too deeply", "simplify it");
        }
    };
    let (message, place) = match text.rsplit_once(" at Line: ") {
        Some((message, place)) => (message, parse_place(place)),
        None => (text, None),
    };
    let place = place.unwrap_or_else(|| end_of(sql));
    Diagnostic::new(place, format!("syntax error: {}", lower_first(message)), "")
}

/// Where a text ends that the parser found too short.
fn end_of(sql: &str) -> Place {
    let sql = sql.trim_end();
    let line = sql.lines().count().max(1);
    let column = sql.lines().last().map_or(0, |line| line.chars().count()) + 1;
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Place { line: count(line), column: count(column) }
}

fn parse_place(text: &str) -> Option<Place> {
    let (line, column) = text.split_once(", Column: ")?;
    Some(Place { line: line.trim().parse().ok()?, column: column.trim().parse().ok()? })
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}

impl Lower {
    pub(super) fn refuse<T>(
        &mut self,
        place: Place,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Lowered<T> {
        self.diagnostics.push(Diagnostic::new(place, message, remedy));
        Err(Refused)
    }

    /// Records a refusal and goes on, to find more.
    pub(super) fn note(
        &mut self,
        place: Place,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.diagnostics.push(Diagnostic::new(place, message, remedy));
    }

    fn statements(&mut self, statements: Vec<Statement>) -> Lowered<Select> {
        let mut statements = statements.into_iter();
        let Some(first) = statements.next() else {
            return self.refuse(START, "the view's SQL is empty", "write one SELECT");
        };
        if let Some(second) = statements.next() {
            let place = match second {
                Statement::Query(query) => start_of_body(&query.body),
                _ => START,
            };
            self.note(place, "more than one statement", "a view is one SELECT");
        }
        match first {
            Statement::Query(query) => self.query(*query),
            _ => self.refuse(START, "this statement is not a SELECT", "a view is one SELECT"),
        }
    }

    fn query(&mut self, query: Query) -> Lowered<Select> {
        let Query {
            with,
            body,
            order_by,
            limit_clause,
            fetch,
            locks,
            for_clause,
            settings,
            format_clause,
            pipe_operators,
        } = query;
        let body_place = start_of_body(&body);
        if let Some(with) = with {
            self.note(
                at(with.with_token.0.span.start),
                "WITH is not accepted in a view",
                "write one SELECT over tables",
            );
        }
        let limited = limit_clause.is_some() || fetch.is_some();
        if let Some(order_by) = order_by {
            let place = match &order_by.kind {
                OrderByKind::Expressions(exprs) => {
                    exprs.first().map_or(body_place, |first| self.place_of(&first.expr, body_place))
                }
                OrderByKind::All(_) => body_place,
            };
            if limited {
                self.note(place, "ORDER BY … LIMIT is not supported yet", "");
            } else {
                self.note(
                    place,
                    "ORDER BY without LIMIT has no effect in a view",
                    "remove it: a view's result has no order; stores sort when they are read",
                );
            }
        } else if limited {
            let place = match &limit_clause {
                Some(
                    LimitClause::LimitOffset { limit: Some(limit), .. }
                    | LimitClause::OffsetCommaLimit { limit, .. },
                ) => self.place_of(limit, body_place),
                _ => body_place,
            };
            self.note(place, "LIMIT without ORDER BY shows rows that nobody chose", "remove it");
        }
        for (present, what) in [
            (!locks.is_empty(), "FOR UPDATE and FOR SHARE are"),
            (for_clause.is_some(), "FOR XML and FOR JSON are"),
            (settings.is_some(), "SETTINGS is"),
            (format_clause.is_some(), "FORMAT is"),
            (!pipe_operators.is_empty(), "|> is"),
        ] {
            if present {
                self.note(body_place, format!("{what} not accepted in a view"), "remove it");
            }
        }
        self.body(*body, body_place)
    }

    fn body(&mut self, body: SetExpr, place: Place) -> Lowered<Select> {
        match body {
            SetExpr::Select(select) => self.select(*select),
            SetExpr::Query(query) => {
                self.note(place, "parentheses around the SELECT", "write it without them");
                self.query(*query)
            }
            SetExpr::SetOperation { op, right, .. } => {
                let name = match op {
                    SetOperator::Union => "UNION",
                    SetOperator::Except | SetOperator::Minus => "EXCEPT",
                    SetOperator::Intersect => "INTERSECT",
                };
                self.refuse(
                    start_of_body(&right),
                    format!("{name} is not accepted in a view"),
                    "write one view for each SELECT; several views may feed one store",
                )
            }
            SetExpr::Values(_) => {
                self.refuse(place, "VALUES is not accepted in a view", "select from a table")
            }
            SetExpr::Table(_) => {
                self.refuse(place, "TABLE is not accepted in a view", "write SELECT * FROM it")
            }
            _ => self.refuse(place, "this is not a SELECT", "a view is one SELECT"),
        }
    }

    fn select(&mut self, select: sql::Select) -> Lowered<Select> {
        let place = at(select.select_token.0.span.start);
        self.refuse_clauses(&select, place);
        let sql::Select { distinct, projection, from, selection, group_by, .. } = select;
        let distinct = match distinct {
            None | Some(Distinct::All) => false,
            Some(Distinct::Distinct) => true,
            Some(Distinct::On(on)) => {
                let place = on.first().map_or(place, |first| self.place_of(first, place));
                self.note(place, "DISTINCT ON is not supported yet", "");
                false
            }
        };
        if projection.is_empty() {
            self.note(place, "the SELECT list is empty", "name the columns to show");
        }
        let mut items = Vec::new();
        for item in projection {
            if let Ok(item) = self.item(item, place) {
                items.push(item);
            }
        }
        self.refuse_duplicate_names(&items);
        let tables = self.from(from, place);
        let filter = match selection {
            Some(expr) => self.row_expr(&expr, "WHERE").map(Some),
            None => Ok(None),
        };
        let group_by = self.group_by(group_by, place);
        if distinct && let Ok(group_by) = &group_by {
            let grouped = !group_by.is_empty();
            let aggregate = items
                .iter()
                .any(|item| matches!(item, Item::Expr { node, .. } if node.has_aggregate()));
            if grouped || aggregate {
                self.note(
                    place,
                    "DISTINCT together with GROUP BY or aggregates is not accepted",
                    "remove DISTINCT and select the grouped columns",
                );
            }
        }
        let (from, joins) = tables?;
        Ok(Select { distinct, items, from, joins, filter: filter?, group_by: group_by? })
    }

    fn refuse_clauses(&mut self, select: &sql::Select, place: Place) {
        if let Some(having) = &select.having {
            self.note(
                self.place_of(having, place),
                "HAVING is not accepted in a view",
                "show the column and filter where the store is read",
            );
        }
        if !select.named_window.is_empty() {
            self.note(place, "WINDOW is not accepted in a view", WINDOW_REMEDY);
        }
        if let Some(into) = &select.into {
            let place = into.targets.first().map_or(place, |target| self.place_of(target, place));
            self.note(place, "SELECT INTO is not a view", "remove INTO");
        }
        let foreign = select.select_modifiers.is_some()
            || select.top.is_some()
            || select.top_before_distinct
            || select.exclude.is_some()
            || !select.lateral_views.is_empty()
            || select.prewhere.is_some()
            || !select.connect_by.is_empty()
            || !select.cluster_by.is_empty()
            || !select.distribute_by.is_empty()
            || !select.sort_by.is_empty()
            || select.qualify.is_some()
            || select.value_table_mode.is_some()
            || select.flavor != sql::SelectFlavor::Standard;
        if foreign {
            self.note(place, "this SELECT has a clause that PostgreSQL does not know", "remove it");
        }
    }

    fn item(&mut self, item: SelectItem, select: Place) -> Lowered<Item> {
        match item {
            SelectItem::UnnamedExpr(expr) => {
                let node = self.expr(&expr)?;
                match &node.kind {
                    NodeKind::Column(parts) if let Some(name) = parts.last() => {
                        let name = name.clone();
                        Ok(Item::Expr { node, name })
                    }
                    _ => self.refuse(
                        node.place,
                        "this output column has no name of its own",
                        "give it one: … AS name",
                    ),
                }
            }
            SelectItem::ExprWithAlias { expr, alias } => {
                let node = self.expr(&expr);
                let place = start_of(alias.span, select);
                let bare = alias.quote_style.is_none() && !self.after_as.contains(&place);
                if bare && words::needs_as(&alias.value.to_ascii_lowercase()) {
                    self.note(
                        place,
                        format!("\"{}\" needs AS in front of it", alias.value),
                        "PostgreSQL reads this word as part of its grammar",
                    );
                }
                let name = self.ident(&alias, place, true)?;
                Ok(Item::Expr { node: node?, name })
            }
            SelectItem::ExprWithAliases { expr, .. } => {
                let place = self.place_of(&expr, select);
                self.refuse(place, "several names for one expression", "write … AS name")
            }
            SelectItem::Wildcard(options) => {
                let place = at(options.wildcard_token.0.span.start);
                self.star_options(&options, place);
                Ok(Item::Star { table: None, place })
            }
            SelectItem::QualifiedWildcard(kind, options) => {
                self.star_options(&options, select);
                match kind {
                    SelectItemQualifiedWildcardKind::ObjectName(name) => {
                        let table = self.object_name(&name, select)?;
                        let place = table.first().map_or(select, |first| first.place);
                        Ok(Item::Star { table: Some(table), place })
                    }
                    SelectItemQualifiedWildcardKind::Expr(expr) => {
                        let place = self.place_of(&expr, select);
                        self.refuse(place, ".* of an expression", "write the columns")
                    }
                }
            }
        }
    }

    fn star_options(&mut self, options: &sql::WildcardAdditionalOptions, place: Place) {
        if options.opt_ilike.is_some()
            || options.opt_exclude.is_some()
            || options.opt_except.is_some()
            || options.opt_replace.is_some()
            || options.opt_rename.is_some()
            || options.opt_alias.is_some()
        {
            self.note(place, "PostgreSQL has no options after *", "write the columns");
        }
    }

    fn refuse_duplicate_names(&mut self, items: &[Item]) {
        let mut seen: Vec<&str> = Vec::new();
        for item in items {
            let Item::Expr { name, .. } = item else {
                continue;
            };
            if seen.contains(&name.text.as_str()) {
                self.note(
                    name.place,
                    format!("two output columns are named \"{}\"", name.text),
                    "give one of them another name: … AS name",
                );
            }
            seen.push(&name.text);
        }
    }

    fn group_by(&mut self, group_by: GroupByExpr, select: Place) -> Lowered<Vec<Node>> {
        let (exprs, modifiers) = match group_by {
            GroupByExpr::All(_) => {
                return self.refuse(
                    select,
                    "GROUP BY ALL is not PostgreSQL's",
                    "write the expressions",
                );
            }
            GroupByExpr::Expressions(exprs, modifiers) => (exprs, modifiers),
        };
        if !modifiers.is_empty() {
            self.note(select, "modifiers after GROUP BY are not accepted", GROUPING_REMEDY);
        }
        let mut nodes = Vec::new();
        let mut refused = false;
        for expr in exprs {
            match self.row_expr(&expr, "GROUP BY") {
                Ok(node) => nodes.push(node),
                Err(Refused) => refused = true,
            }
        }
        if refused { Err(Refused) } else { Ok(nodes) }
    }

    /// An expression over rows, where aggregates have no place.
    pub(super) fn row_expr(&mut self, expr: &Expr, clause: &str) -> Lowered<Node> {
        let node = self.expr(expr)?;
        if node.has_aggregate() {
            return self.refuse(
                node.place,
                format!("an aggregate in {clause} is not allowed"),
                "aggregates belong to the SELECT list",
            );
        }
        Ok(node)
    }

    pub(super) fn object_name(&mut self, name: &ObjectName, near: Place) -> Lowered<Vec<Name>> {
        let mut parts = Vec::new();
        for part in &name.0 {
            match part {
                ObjectNamePart::Identifier(ident) => {
                    parts.push(self.ident(ident, start_of(ident.span, near), false)?);
                }
                ObjectNamePart::Function(_) => {
                    return self.refuse(near, "a function stands where a name is expected", "");
                }
            }
        }
        Ok(parts)
    }

    /// `label`: after AS or a dot, where reserved words are names.
    pub(super) fn ident(&mut self, ident: &Ident, place: Place, label: bool) -> Lowered<Name> {
        words::fold(ident, place, label).map_err(|diagnostic| {
            self.diagnostics.push(diagnostic);
            Refused
        })
    }
}

pub(super) const WINDOW_REMEDY: &str =
    "aggregate with GROUP BY, or compute it where the store is read";
pub(super) const GROUPING_REMEDY: &str = "write one view for each grouping";

pub(super) fn start_of(span: Span, otherwise: Place) -> Place {
    if span.start.line == 0 { otherwise } else { at(span.start) }
}

/// sqlparser's own spans of queries recurse through every expression; these do not.
pub(super) fn start_of_body(mut body: &SetExpr) -> Place {
    loop {
        body = match body {
            SetExpr::Select(select) => return at(select.select_token.0.span.start),
            SetExpr::Query(query) => &query.body,
            SetExpr::SetOperation { left, .. } => left,
            _ => return START,
        };
    }
}
