//! Words of PostgreSQL's grammar, and the nearest word to a misspelt one.
//!
//! sqlparser reads more words as names than PostgreSQL does. What it would read differently is
//! refused here, so that a view means the same to both. Lists: `pg_get_keywords()` of
//! PostgreSQL 15 (later versions only took words away from these or are unaffected).

use super::ast::Name;
use crate::diagnostic::{Diagnostic, Place};

/// Reserved: neither a column nor a table without quotes (catcode `R` and `T`).
const RESERVED: &[&str] = &[
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "authorization",
    "binary",
    "both",
    "case",
    "cast",
    "check",
    "collate",
    "collation",
    "column",
    "concurrently",
    "constraint",
    "create",
    "cross",
    "current_schema",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "false",
    "fetch",
    "for",
    "foreign",
    "freeze",
    "from",
    "full",
    "grant",
    "group",
    "having",
    "ilike",
    "in",
    "initially",
    "inner",
    "intersect",
    "into",
    "is",
    "isnull",
    "join",
    "lateral",
    "leading",
    "left",
    "like",
    "limit",
    "natural",
    "not",
    "notnull",
    "null",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "outer",
    "overlaps",
    "placing",
    "primary",
    "references",
    "returning",
    "right",
    "select",
    "similar",
    "some",
    "symmetric",
    "table",
    "tablesample",
    "then",
    "to",
    "trailing",
    "true",
    "union",
    "unique",
    "using",
    "variadic",
    "verbose",
    "when",
    "where",
    "window",
    "with",
];

/// Read without parentheses as functions of the session or the clock.
const SESSION: &[&str] = &[
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "localtime",
    "localtimestamp",
    "session_user",
    "system_user",
    "user",
];

/// As an output name these need AS (`barelabel` is false).
const NEEDS_AS: &[&str] = &[
    "array",
    "as",
    "char",
    "character",
    "create",
    "day",
    "except",
    "fetch",
    "filter",
    "for",
    "from",
    "grant",
    "group",
    "having",
    "hour",
    "intersect",
    "into",
    "isnull",
    "limit",
    "minute",
    "month",
    "notnull",
    "offset",
    "on",
    "order",
    "over",
    "overlaps",
    "precision",
    "returning",
    "second",
    "to",
    "union",
    "varying",
    "where",
    "window",
    "with",
    "within",
    "without",
    "year",
];

/// `NAMEDATALEN - 1`: PostgreSQL cuts longer identifiers off.
const IDENTIFIER_BYTES_MAX: usize = 63;

pub(super) fn is_session_word(word: &str) -> bool {
    SESSION.contains(&word)
}

pub(super) fn needs_as(word: &str) -> bool {
    NEEDS_AS.contains(&word)
}

/// Folds an identifier as PostgreSQL does, which touches ASCII letters only.
pub(super) fn fold(
    ident: &sqlparser::ast::Ident,
    place: Place,
    label: bool,
) -> Result<Name, Diagnostic> {
    let text = match ident.quote_style {
        None => ident.value.to_ascii_lowercase(),
        Some('"') => ident.value.clone(),
        Some(_) => {
            return Err(Diagnostic::new(
                place,
                format!("'{}' stands where a name is expected", ident.value),
                "write names without quotes, or in double quotes",
            ));
        }
    };
    if text.len() > IDENTIFIER_BYTES_MAX {
        return Err(Diagnostic::new(
            place,
            format!("name \"{text}\" is longer than {IDENTIFIER_BYTES_MAX} bytes"),
            "PostgreSQL would cut it off; write a shorter one",
        ));
    }
    if text.is_empty() {
        return Err(Diagnostic::new(place, "empty name", ""));
    }
    if ident.quote_style.is_none() && !label {
        if is_session_word(&text) {
            return Err(Diagnostic::new(
                place,
                format!("\"{text}\" depends on the session or the clock"),
                format!(
                    "a view may depend on its rows only; a column of this name is \"{text}\" in \
                     double quotes"
                ),
            ));
        }
        if RESERVED.contains(&text.as_str()) {
            return Err(Diagnostic::new(
                place,
                format!("\"{text}\" is a reserved word of PostgreSQL"),
                "put it in double quotes where it is a name",
            ));
        }
    }
    Ok(Name { text, place })
}

/// ` did you mean "x"?` for the nearest candidate, where one is near enough.
pub(super) fn did_you_mean<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    let length = word.chars().count();
    if length < 2 {
        return None;
    }
    let limit = (length / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| format!("did you mean \"{candidate}\"?"))
}

/// Levenshtein's distance, with a swap of neighbours as one step.
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().flat_map(char::to_lowercase).collect();
    let right: Vec<char> = right.chars().flat_map(char::to_lowercase).collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in right.iter().enumerate() {
            let mut best = (last[j] + usize::from(a != b)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == right[j - 1] && left[i - 1] == *b {
                best = best.min(before_last[j - 1] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{did_you_mean, distance};

    #[test]
    fn distances() {
        assert_eq!(distance("amount", "amout"), 1);
        assert_eq!(distance("amount", "amuont"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn suggestions_are_near() {
        let suggestion = did_you_mean("amout", ["id", "amount", "user_id"]);
        assert_eq!(suggestion.as_deref(), Some("did you mean \"amount\"?"));
        assert_eq!(did_you_mean("zzz", ["id", "amount"]), None);
    }
}
