//! Just enough of ClickHouse's grammar to know what to do with a text: where an INSERT's rows begin,
//! which format was asked for, whether there is one statement.
//!
//! Works on bytes, because rows may follow the text and need not be UTF-8. Nothing here judges the
//! SQL: what is not recognised goes to the engine as it came.

use std::ops::Range;

/// What a text asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Statement {
    /// No statement: only blanks and comments.
    Empty,
    /// An INSERT that takes rows from the request.
    Insert {
        /// End of the part that goes to the engine: before FORMAT or VALUES.
        head: usize,
        /// `None` when the text names no format.
        format: Option<String>,
        /// First byte of the rows; the text's end when they all follow it.
        rows: usize,
    },
    /// Anything else.
    Query {
        /// True if it may produce a long result.
        select: bool,
        /// The FORMAT clause at its end.
        format: Option<String>,
    },
    /// More than one statement.
    Several,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(Range<usize>),
    /// A quoted string or identifier.
    Quoted,
    Symbol(u8, usize),
}

impl Statement {
    /// Looks at a text, which may be the beginning of a longer one: see
    /// [`Statement::is_settled`].
    pub(crate) fn parse(text: &[u8]) -> Self {
        let mut tokens = Tokens { text, at: 0 };
        let Some(first) = tokens.next() else {
            return Self::Empty;
        };
        if is_word(text, &first, "INSERT") {
            parse_insert(text, tokens)
        } else {
            parse_query(text, &first, tokens)
        }
    }

    /// True if more text cannot change the answer.
    pub(crate) fn is_settled(&self, length: usize) -> bool {
        matches!(self, Self::Insert { rows, .. } if *rows < length)
    }
}

/// True if the text is, or may become, an INSERT.
pub(crate) fn begins_insert(text: &[u8]) -> bool {
    let first = Tokens { text, at: 0 }.next();
    first.is_none_or(|first| is_word(text, &first, "INSERT"))
}

/// True for what only a session would keep: `SET`, `USE`, temporary tables. Lost in silence, they
/// would change what later statements mean.
pub(crate) fn needs_session(text: &[u8]) -> bool {
    let mut words = Tokens { text, at: 0 };
    let Some(first) = words.next() else {
        return false;
    };
    let is = |token: &Token, names: &[&str]| names.iter().any(|name| is_word(text, token, name));
    let second = words.find(|token| !is(token, &["OR", "REPLACE"]));
    is(&first, &["SET", "USE"])
        || is(&first, &["CREATE"]) && second.is_some_and(|second| is(&second, &["TEMPORARY"]))
}

fn parse_insert(text: &[u8], mut tokens: Tokens<'_>) -> Statement {
    let mut depth = 0_usize;
    let mut after_open = false;
    while let Some(token) = tokens.next() {
        let is = |word| is_word(text, &token, word);
        let inner_select = depth == 1 && after_open;
        after_open = false;
        match &token {
            Token::Symbol(b'(', _) => {
                depth += 1;
                after_open = true;
            }
            Token::Symbol(b')', _) => depth = depth.saturating_sub(1),
            Token::Word(_)
                if (depth == 0 || inner_select) && (is("SELECT") || is("WITH"))
                    || depth == 0 && (is("INFILE") || is("WATCH")) =>
            {
                return parse_query(text, &token, tokens);
            }
            Token::Word(word) if depth == 0 && is("VALUES") => {
                return Statement::Insert {
                    head: word.start,
                    format: Some("Values".to_owned()),
                    rows: word.end,
                };
            }
            Token::Word(word) if depth == 0 && is("FORMAT") => {
                let head = word.start;
                if let Some(Token::Word(name)) = tokens.next() {
                    let rows = rows_after_format(text, name.end);
                    return Statement::Insert { head, format: Some(lossy(text, name)), rows };
                }
            }
            Token::Word(_) | Token::Quoted | Token::Symbol(..) => {}
        }
    }
    let end = text.iter().rposition(|byte| !byte.is_ascii_whitespace() && *byte != b';');
    Statement::Insert { head: end.map_or(0, |at| at + 1), format: None, rows: text.len() }
}

/// Blanks up to and including one line end belong to the FORMAT clause.
fn rows_after_format(text: &[u8], mut at: usize) -> usize {
    let mut skip = |bytes: &[u8], many: bool| {
        while text.get(at).is_some_and(|byte| bytes.contains(byte)) {
            at += 1;
            if !many {
                break;
            }
        }
        at
    };
    skip(b" \t\x0c", true);
    skip(b"\r", false);
    skip(b"\n", false)
}

fn parse_query(text: &[u8], first: &Token, mut tokens: Tokens<'_>) -> Statement {
    let mut select = matches!(first, Token::Symbol(b'(', _))
        || ["SELECT", "WITH", "FROM", "VALUES"].iter().any(|word| is_word(text, first, word));
    let mut format = None;
    let mut depth = usize::from(matches!(first, Token::Symbol(b'(', _)));
    while let Some(token) = tokens.next() {
        match &token {
            Token::Symbol(b'(' | b'[' | b'{', _) => depth += 1,
            Token::Symbol(b')' | b']' | b'}', _) => depth = depth.saturating_sub(1),
            Token::Symbol(b';', _) => {
                return match tokens.next() {
                    Some(_) => Statement::Several,
                    None => Statement::Query { select, format },
                };
            }
            Token::Word(_) if depth == 0 && is_word(text, &token, "FORMAT") => {
                // FORMAT is no reserved word: it is the clause only at the end of a statement.
                let at = tokens.at;
                let name = tokens.next();
                let next = tokens.next();
                let ends = match &next {
                    None | Some(Token::Symbol(b';', _)) => true,
                    Some(next) => is_word(text, next, "SETTINGS"),
                };
                tokens.at = at;
                if let (true, Some(Token::Word(name))) = (ends, name) {
                    format = Some(lossy(text, name));
                }
            }
            // Totals and extremes follow the blocks: such results are not cut into blocks.
            Token::Word(_) if is_word(text, &token, "TOTALS") => select = false,
            Token::Word(_) | Token::Quoted | Token::Symbol(..) => {}
        }
    }
    Statement::Query { select, format }
}

fn is_word(text: &[u8], token: &Token, word: &str) -> bool {
    let Token::Word(range) = token else {
        return false;
    };
    text.get(range.clone()).is_some_and(|found| found.eq_ignore_ascii_case(word.as_bytes()))
}

fn lossy(text: &[u8], range: Range<usize>) -> String {
    String::from_utf8_lossy(text.get(range).unwrap_or_default()).into_owned()
}

struct Tokens<'a> {
    text: &'a [u8],
    at: usize,
}

impl Tokens<'_> {
    fn rest(&self) -> &[u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Moves behind the next `end`, or to the text's end.
    fn skip_past(&mut self, end: &[u8]) {
        let found = self.rest().windows(end.len()).position(|window| window == end);
        self.at = found.map_or(self.text.len(), |found| self.at + found + end.len());
    }

    fn skip_blanks_and_comments(&mut self) {
        loop {
            let rest = self.rest();
            let Some(byte) = rest.first() else { return };
            if byte.is_ascii_whitespace() || *byte == 0x0b {
                self.at += 1;
            } else if rest.starts_with(b"--") || rest.starts_with(b"# ") || rest.starts_with(b"#!")
            {
                self.skip_past(b"\n");
            } else if rest.starts_with(b"/*") {
                self.at += 2;
                self.skip_past(b"*/");
            } else {
                return;
            }
        }
    }

    fn skip_quoted(&mut self, quote: u8) {
        self.at += 1;
        while let Some(&byte) = self.text.get(self.at) {
            self.at += 1;
            if byte == b'\\' {
                self.at += 1;
            } else if byte == quote {
                // A doubled quote stands for itself.
                if self.text.get(self.at) != Some(&quote) {
                    return;
                }
                self.at += 1;
            }
        }
        self.at = self.text.len();
    }

    /// `$tag$ ... $tag$`; false if there is none here.
    fn skip_heredoc(&mut self) -> bool {
        let rest = self.rest();
        let Some(end) = rest.iter().skip(1).position(|byte| *byte == b'$') else {
            return false;
        };
        let tag = rest.get(..end + 2).unwrap_or_default().to_vec();
        if !tag.iter().all(|byte| *byte == b'$' || *byte == b'_' || byte.is_ascii_alphanumeric()) {
            return false;
        }
        self.at += tag.len();
        self.skip_past(&tag);
        true
    }
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        self.skip_blanks_and_comments();
        let start = self.at;
        let byte = *self.text.get(start)?;
        let in_word = |byte: &u8| *byte == b'_' || byte.is_ascii_alphanumeric() || *byte >= 0x80;
        if matches!(byte, b'\'' | b'"' | b'`') {
            self.skip_quoted(byte);
            return Some(Token::Quoted);
        }
        if byte == b'$' && self.skip_heredoc() {
            return Some(Token::Quoted);
        }
        let length = self.rest().iter().take_while(|byte| in_word(byte)).count();
        self.at += length.max(1);
        Some(if length > 0 { Token::Word(start..self.at) } else { Token::Symbol(byte, start) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn insert(text: &str, head: &str, format: Option<&str>, rows: &str) {
        let Statement::Insert { head: end, format: found, rows: at } =
            Statement::parse(text.as_bytes())
        else {
            panic!("no insert: {text}")
        };
        assert_eq!(&text.as_bytes()[..end], head.as_bytes(), "{text}");
        assert_eq!(found.as_deref(), format, "{text}");
        assert_eq!(&text.as_bytes()[at..], rows.as_bytes(), "{text}");
    }

    #[track_caller]
    fn query(text: &str, select: bool, format: Option<&str>) {
        let expect = Statement::Query { select, format: format.map(str::to_owned) };
        assert_eq!(Statement::parse(text.as_bytes()), expect, "{text}");
    }

    #[test]
    fn finds_where_the_rows_begin() {
        insert("INSERT INTO t FORMAT CSV\n1,2\n", "INSERT INTO t ", Some("CSV"), "1,2\n");
        insert(
            "insert into t (a, b) values (1,2)",
            "insert into t (a, b) ",
            Some("Values"),
            " (1,2)",
        );
        insert(
            "INSERT INTO t(`values`, \"format\")",
            "INSERT INTO t(`values`, \"format\")",
            None,
            "",
        );
        insert("INSERT INTO t; ", "INSERT INTO t", None, "");
        insert(
            "/* x */ INSERT INTO d.t SETTINGS a='FORMAT x' FORMAT Native \n\n",
            "/* x */ INSERT INTO d.t SETTINGS a='FORMAT x' ",
            Some("Native"),
            "\n",
        );
        insert(
            "INSERT INTO FUNCTION f(a, 'select') FORMAT CSV",
            "INSERT INTO FUNCTION f(a, 'select') ",
            Some("CSV"),
            "",
        );
    }

    #[test]
    fn an_insert_from_a_query_takes_no_rows() {
        query("INSERT INTO t SELECT 1 FORMAT CSV", true, Some("CSV"));
        query("INSERT INTO t (SELECT 1)", true, None);
        query("INSERT INTO t (a) WITH x AS (SELECT 1) SELECT * FROM x", true, None);
    }

    #[test]
    fn finds_the_format_at_the_end_only() {
        query("SELECT format FROM t", true, None);
        query("SELECT 1 FORMAT JSON", true, Some("JSON"));
        query("SELECT 1 format json settings max_threads = 1", true, Some("json"));
        query("SELECT 'x FORMAT CSV' -- FORMAT TSV", true, None);
        query("SELECT $a$ FORMAT CSV $a$;", true, None);
        query("SHOW TABLES", false, None);
        query("SELECT a, count() FROM t GROUP BY a WITH TOTALS FORMAT CSV", false, Some("CSV"));
    }

    #[test]
    fn knows_what_only_a_session_keeps() {
        for text in [
            " /* x */ set a = 1",
            "USE d",
            "CREATE TEMPORARY TABLE t (a Int8)",
            "create or replace temporary table t (a Int8)",
        ] {
            assert!(needs_session(text.as_bytes()), "{text}");
        }
        for text in ["SELECT 1", "CREATE TABLE temporary (a Int8)", "CREATE OR REPLACE VIEW v", ""]
        {
            assert!(!needs_session(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn counts_statements() {
        assert_eq!(Statement::parse(b"SELECT 1; SELECT 2"), Statement::Several);
        assert_eq!(Statement::parse(b" -- nothing\n/* at all */"), Statement::Empty);
        query("SELECT ';';  -- end", true, None);
    }

    #[test]
    fn a_cut_text_is_not_settled() {
        for text in
            ["INS", "INSERT INTO t FORMAT CS", "INSERT INTO t (a, 'x", "INSERT INTO t VALUES"]
        {
            assert!(!Statement::parse(text.as_bytes()).is_settled(text.len()), "{text}");
        }
        assert!(
            begins_insert(b"  ") && begins_insert(b"/*x*/ insert") && !begins_insert(b"SELECT")
        );
    }
}
