//! Reading the texts that `ClickHouse` prints: types, keys and clauses, quotes left alone.

/// A piece of an expression, as far as commas, words and brackets matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    at: usize,
    c: char,
    depth: i32,
}

/// The characters outside quotes, with the depth of brackets around them.
fn outside_quotes(text: &str) -> impl Iterator<Item = Place> {
    let (mut quote, mut escaped, mut depth) = (None, false, 0_i32);
    text.char_indices().filter_map(move |(at, c)| {
        if let Some(open) = quote {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                // A doubled quote closes and opens again, which comes to the same.
                c if c == open => quote = None,
                _ => {}
            }
            return None;
        }
        match c {
            '\'' | '"' | '`' => {
                quote = Some(c);
                return None;
            }
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            _ => {}
        }
        Some(Place { at, c, depth })
    })
}

/// What commas separate, brackets and quotes kept whole.
pub(super) fn split_commas(text: &str) -> Vec<&str> {
    let (mut parts, mut from) = (Vec::new(), 0);
    for place in outside_quotes(text).filter(|place| place.c == ',' && place.depth == 0) {
        parts.push(text.get(from..place.at).unwrap_or_default().trim());
        from = place.at + 1;
    }
    let last = text.get(from..).unwrap_or_default().trim();
    if !(parts.is_empty() && last.is_empty()) {
        parts.push(last);
    }
    parts
}

/// `Name(arguments)`; without brackets the arguments are `None`.
pub(super) fn call(text: &str) -> Option<(&str, Option<&str>)> {
    let text = text.trim();
    match text.split_once('(') {
        None => Some((text, None)),
        Some((name, rest)) => {
            let inner = rest.strip_suffix(')')?;
            let closed = outside_quotes(inner).all(|place| place.depth >= 0);
            closed.then_some((name.trim(), Some(inner)))
        }
    }
}

/// What stands between the bracket that a text begins with and the one that closes it.
pub(super) fn arguments(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('(')?;
    let end = outside_quotes(inner).find(|place| place.depth < 0)?;
    inner.get(..end.at)
}

/// Without brackets around the whole.
pub(super) fn unwrapped(text: &str) -> &str {
    match arguments(text) {
        Some(inner) if inner.len() + 2 == text.len() => unwrapped(inner),
        _ => text,
    }
}

/// Where a word stands by itself, outside quotes, at most `depth` brackets deep.
fn find_word(text: &str, word: &str, depth: i32) -> Option<usize> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    outside_quotes(text).filter(|place| place.depth <= depth).map(|place| place.at).find(|at| {
        let (before, from) = text.split_at_checked(*at).unwrap_or((text, ""));
        from.strip_prefix(word).is_some_and(|after| {
            !after.starts_with(is_word) && !before.ends_with(is_word) && !before.ends_with('.')
        })
    })
}

pub(super) fn has_word(text: &str, word: &str) -> bool {
    find_word(text, word, i32::MAX).is_some()
}

/// A clause of an engine's text, up to the next of `ends`.
pub(super) fn clause<'a>(text: &'a str, word: &str, ends: &[&str]) -> Option<&'a str> {
    let at = find_word(text, word, 0)?;
    let rest = text.get(at + word.len()..)?;
    let end = ends.iter().filter_map(|end| find_word(rest, end, 0)).min().unwrap_or(rest.len());
    Some(rest.get(..end)?.trim())
}

/// An identifier, without the backticks that it may stand in.
pub(super) fn identifier(text: &str) -> String {
    match text.strip_prefix('`').and_then(|inner| inner.strip_suffix('`')) {
        Some(inner) => unescaped(inner, '`'),
        None => text.to_owned(),
    }
}

/// The text of a literal between single quotes.
pub(super) fn string_literal(text: &str) -> Option<String> {
    let inner = text.trim().strip_prefix('\'')?.strip_suffix('\'')?;
    Some(unescaped(inner, '\''))
}

fn unescaped(inner: &str, quote: char) -> String {
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('b') => out.push('\u{8}'),
                Some('f') => out.push('\u{c}'),
                Some('n') => out.push('\n'),
                Some('r') => out.push('\r'),
                Some('t') => out.push('\t'),
                Some('0') => out.push('\0'),
                other => out.extend(other),
            },
            c if c == quote => {
                // Doubled.
                chars.next();
                out.push(quote);
            }
            c => out.push(c),
        }
    }
    out
}

/// Without white space outside quotes, and without backticks around plain names.
pub(super) fn squeezed(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut quote = None;
    for c in text.chars() {
        match c {
            '`' if quote.is_none() => {}
            c if c.is_whitespace() && quote.is_none() => {}
            c => {
                if c == '\'' {
                    quote = if quote.is_none() { Some(c) } else { None };
                }
                out.push(c);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quotes_and_brackets_are_left_whole() {
        assert_eq!(split_commas("a, f(b, c), 'd, e', `f,g`"), ["a", "f(b, c)", "'d, e'", "`f,g`"]);
        assert_eq!(split_commas(""), [""; 0]);
        assert_eq!(call("Decimal(9, 2)"), Some(("Decimal", Some("9, 2"))));
        assert_eq!(call("String"), Some(("String", None)));
        assert_eq!(call("a(b)(c)"), None);
        assert_eq!(arguments("('/p)', f(a), b) ORDER BY (c)"), Some("'/p)', f(a), b"));
        assert_eq!(arguments(" ORDER BY (c)"), None);
        assert_eq!(unwrapped("((id))"), "id");
        assert_eq!(unwrapped("(a), (b)"), "(a), (b)");
        let engine =
            "MergeTree ORDER BY f(TTL) TTL d + toIntervalDay(1), e TO VOLUME 'TTL' SETTINGS a = 1";
        assert_eq!(
            clause(engine, "TTL", &["SETTINGS"]),
            Some("d + toIntervalDay(1), e TO VOLUME 'TTL'")
        );
        assert!(has_word("(`a` Int8, CONSTRAINT c CHECK a > 0)", "CONSTRAINT"));
        assert!(!has_word("(`CONSTRAINT` Int8 COMMENT 'CONSTRAINT', CONSTRAINTS)", "CONSTRAINT"));
        assert_eq!(string_literal("'it\\'s'").as_deref(), Some("it's"));
        assert_eq!(string_literal("'it''s\\\\'").as_deref(), Some("it's\\"));
        assert_eq!(identifier("`odd \\` name`"), "odd ` name");
        assert_eq!(squeezed("( toYYYYMM(`a`), 'b  c' )"), "(toYYYYMM(a),'b  c')");
    }

    proptest! {
        #[test]
        fn foreign_texts_do_not_panic(text: String) {
            split_commas(&text);
            call(&text);
            arguments(&text);
            clause(&text, "TTL", &["SETTINGS"]);
            squeezed(&text);
            string_literal(&text);
            identifier(&text);
        }
    }
}
