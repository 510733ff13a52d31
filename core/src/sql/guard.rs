//! A view's own text with one more condition on its fact, for whoever compares: PostgreSQL fails on
//! a statement as a whole where one row cannot be evaluated, and Walview leaves that row out.
//!
//! PostgreSQL evaluates WHERE before the SELECT list and aggregates, but its conditions in an order
//! of its own; inside CASE the order is as written. Conditions of ON may run before WHERE: a row
//! that fails there cannot be left out.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "of a text whose shape is known, only the words that begin a clause matter"
)]

use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Location, Token, Tokenizer};

/// `text`, a view's SQL, without the facts for which `guard` holds.
pub(super) fn leaving_out(text: &str, guard: &str) -> Option<String> {
    splice(text, |filter| match filter {
        Some(filter) => format!("CASE WHEN {guard} THEN FALSE ELSE (\n{filter}\n) END"),
        None => format!("NOT ({guard})"),
    })
}

/// `text` over the facts alone for which `guard` holds.
pub(super) fn only(text: &str, guard: &str) -> Option<String> {
    splice(text, |filter| match filter {
        Some(filter) => {
            format!("({guard}) AND CASE WHEN {guard} THEN (\n{filter}\n) ELSE FALSE END")
        }
        None => guard.to_owned(),
    })
}

/// Replaces what WHERE says, or adds WHERE. `None` where the text is not a view's.
fn splice(text: &str, filter: impl FnOnce(Option<&str>) -> String) -> Option<String> {
    let text = text.trim_end().trim_end_matches(';');
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, text).tokenize_with_location().ok()?;
    let (mut depth, mut found, mut end) = (0_i32, None, text.len());
    for token in &tokens {
        match &token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            Token::Word(word) if depth == 0 && word.quote_style.is_none() => match word.keyword {
                Keyword::WHERE => {
                    let (start, after) = (token.span.start, token.span.end);
                    found = Some((offset(text, start)?, offset(text, after)?));
                }
                Keyword::GROUP | Keyword::HAVING | Keyword::ORDER | Keyword::LIMIT => {
                    end = offset(text, token.span.start)?;
                    break;
                }
                _ => {}
            },
            _ => {}
        }
    }
    let (head, condition) = match found {
        Some((start, after)) => (text.get(..start)?, Some(text.get(after..end)?)),
        None => (text.get(..end)?, None),
    };
    // On lines of their own: a comment in the text ends with its line.
    Some(format!("{head}\nWHERE {}\n{}", filter(condition), text.get(end..)?))
}

/// Bytes before a place; sqlparser counts lines and characters from 1.
fn offset(text: &str, place: Location) -> Option<usize> {
    let line = usize::try_from(place.line.checked_sub(1)?).ok()?;
    let column = usize::try_from(place.column.checked_sub(1)?).ok()?;
    let start = match line {
        0 => 0,
        _ => text.match_indices('\n').nth(line - 1)?.0 + 1,
    };
    let rest = text.get(start..)?;
    Some(start + rest.char_indices().nth(column).map_or(rest.len(), |(at, _)| at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_put_before_the_texts_own() {
        let text = "SELECT b.id, -- Größe, WHERE\n  count(*) FILTER (WHERE b.x > 1) AS n\n\
                    FROM bets b /* GROUP */ WHERE b.\"where\" = 'ORDER' -- last\nGROUP BY b.id;\n";
        let left = leaving_out(text, "b.id IN ('5')");
        let head = "SELECT b.id, -- Größe, WHERE\n  count(*) FILTER (WHERE b.x > 1) AS n\n\
                    FROM bets b /* GROUP */ ";
        assert_eq!(
            left,
            Some(format!(
                "{head}\nWHERE CASE WHEN b.id IN ('5') THEN FALSE ELSE (\n b.\"where\" = 'ORDER' \
                 -- last\n\n) END\nGROUP BY b.id"
            ))
        );
        assert_eq!(
            only(text, "b.id = '5'"),
            Some(format!(
                "{head}\nWHERE (b.id = '5') AND CASE WHEN b.id = '5' THEN (\n b.\"where\" = \
                 'ORDER' -- last\n\n) ELSE FALSE END\nGROUP BY b.id"
            ))
        );
        let bare = "SELECT id FROM bets -- all";
        let left = leaving_out(bare, "id = '1'");
        assert_eq!(left, Some("SELECT id FROM bets -- all\nWHERE NOT (id = '1')\n".to_owned()));
        assert_eq!(
            only(bare, "FALSE"),
            Some("SELECT id FROM bets -- all\nWHERE FALSE\n".to_owned())
        );
    }
}
