//! json and jsonb, held as PostgreSQL's text of them.
//!
//! A json keeps its text verbatim; a jsonb's text is canonical (keys by length then bytes, one blank
//! behind `:` and `,`), and so is every part of it: that is why one way of taking parts out, by
//! cutting the text, serves both.
//!
//! Invariant: a function here reads the whole document, because PostgreSQL finds an error behind
//! the part that is asked for too.

use super::Numeric;
use super::error::{SqlState, ValueError};
use std::fmt::Write as _;

/// Nesting that is followed; PostgreSQL stops at `max_stack_depth`, some thousand levels.
const DEPTH_MAX: usize = 1_000;

/// One step of `->`, `->>` or `#>>`.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    Key(&'a str),
    /// Negative counts from the end.
    Index(i64),
    /// Of a path: a key in an object, an index in an array.
    Either(&'a str),
}

/// Is it json? As `json_in`.
pub fn validate(text: &str) -> Result<(), ValueError> {
    let mut lexer = Lexer::new(text, false);
    lexer.value(0)?;
    lexer.end()
}

/// PostgreSQL's canonical text of a jsonb. As `jsonb_in` and `jsonb_out`.
pub fn to_jsonb(text: &str) -> Result<String, ValueError> {
    let mut lexer = Lexer::new(text, true);
    let tree = lexer.tree(0)?;
    lexer.end()?;
    let mut out = String::with_capacity(text.len());
    write_tree(&tree, &mut out);
    Ok(out)
}

/// The part that `steps` lead to, as it stands in the text; `None` where there is none.
pub fn get<'a>(text: &'a str, steps: &[Step<'_>]) -> Result<Option<&'a str>, ValueError> {
    let mut lexer = Lexer::new(text, true);
    let mut found = None;
    lexer.find(steps, 0, &mut found)?;
    lexer.end()?;
    Ok(found)
}

/// What `->>` makes of a part: a string without quotes and escapes, `None` for null, else its text.
pub fn as_text(part: &str) -> Result<Option<String>, ValueError> {
    if part == "null" {
        return Ok(None);
    }
    if part.starts_with('"') {
        return Lexer::new(part, true).string().map(Some);
    }
    Ok(Some(part.to_owned()))
}

/// Appends a JSON string with PostgreSQL's escapes.
pub fn write_string(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Writing to a String cannot fail.
            c if c < ' ' => write!(out, "\\u{:04x}", u32::from(c)).unwrap_or_default(),
            c => out.push(c),
        }
    }
    out.push('"');
}

enum Tree {
    Null,
    Bool(bool),
    Number(Numeric),
    String(String),
    Array(Vec<Self>),
    Object(Vec<(String, Self)>),
}

fn write_tree(tree: &Tree, out: &mut String) {
    match tree {
        Tree::Null => out.push_str("null"),
        Tree::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Tree::Number(number) => number.write(out),
        Tree::String(text) => write_string(text, out),
        Tree::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push_str(", ");
                }
                write_tree(item, out);
            }
            out.push(']');
        }
        Tree::Object(members) => {
            out.push('{');
            for (at, (key, member)) in members.iter().enumerate() {
                if at > 0 {
                    out.push_str(", ");
                }
                write_string(key, out);
                out.push_str(": ");
                write_tree(member, out);
            }
            out.push('}');
        }
    }
}

fn syntax() -> ValueError {
    ValueError::syntax("json")
}

fn unsupported_escape() -> ValueError {
    ValueError::new(SqlState::UntranslatableCharacter, "unsupported Unicode escape sequence")
}

/// PostgreSQL's JSON lexer. `decode`: strings are decoded, so that an escape without a character
/// (`\u0000`, half a surrogate pair) is an error, as it is wherever PostgreSQL needs the string;
/// `json_in` alone lets it pass.
struct Lexer<'a> {
    text: &'a str,
    at: usize,
    decode: bool,
}

impl<'a> Lexer<'a> {
    fn new(text: &'a str, decode: bool) -> Self {
        Self { text, at: 0, decode }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn accept(&mut self, byte: u8) -> bool {
        self.skip_space();
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Result<(), ValueError> {
        if self.accept(byte) { Ok(()) } else { Err(syntax()) }
    }

    fn end(&mut self) -> Result<(), ValueError> {
        self.skip_space();
        if self.at == self.text.len() { Ok(()) } else { Err(syntax()) }
    }

    fn slice(&self, from: usize) -> &'a str {
        self.text.get(from..self.at).unwrap_or_default()
    }

    /// Runs `item` on each element of an array or member of an object, behind its opening bracket.
    fn list(
        &mut self,
        close: u8,
        mut item: impl FnMut(&mut Self) -> Result<(), ValueError>,
    ) -> Result<(), ValueError> {
        if self.accept(close) {
            return Ok(());
        }
        loop {
            item(self)?;
            if self.accept(close) {
                return Ok(());
            }
            self.expect(b',')?;
        }
    }

    fn key(&mut self) -> Result<String, ValueError> {
        self.skip_space();
        let key = self.string()?;
        self.expect(b':')?;
        Ok(key)
    }

    /// Reads one value and gives its text.
    fn value(&mut self, depth: usize) -> Result<&'a str, ValueError> {
        self.skip_space();
        let from = self.at;
        match self.peek() {
            Some(b'{') => {
                self.open(depth)?;
                self.list(b'}', |lexer| {
                    lexer.key()?;
                    lexer.value(depth + 1).map(drop)
                })?;
            }
            Some(b'[') => {
                self.open(depth)?;
                self.list(b']', |lexer| lexer.value(depth + 1).map(drop))?;
            }
            _ => self.scalar()?,
        }
        Ok(self.slice(from))
    }

    fn open(&mut self, depth: usize) -> Result<(), ValueError> {
        self.at += 1;
        if depth < DEPTH_MAX {
            return Ok(());
        }
        Err(ValueError::new(SqlState::FeatureNotSupported, "json is nested too deeply"))
    }

    /// Moves over a string, number or word.
    fn scalar(&mut self) -> Result<(), ValueError> {
        match self.peek() {
            Some(b'"') => self.string().map(drop),
            Some(b'-' | b'0'..=b'9') => self.number().map(drop),
            _ => {
                let rest = self.text.get(self.at..).unwrap_or_default();
                let word = ["null", "true", "false"].into_iter().find(|w| rest.starts_with(w));
                self.at += word.ok_or_else(syntax)?.len();
                if self.peek().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_' || b > 127) {
                    return Err(syntax());
                }
                Ok(())
            }
        }
    }

    fn number(&mut self) -> Result<&'a str, ValueError> {
        let from = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        if self.peek().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_' || b > 127) {
            return Err(syntax());
        }
        Ok(self.slice(from))
    }

    fn digits(&mut self) -> Result<(), ValueError> {
        let from = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at > from { Ok(()) } else { Err(syntax()) }
    }

    /// Reads a string; what it gives is meaningful only with `decode`.
    fn string(&mut self) -> Result<String, ValueError> {
        if self.peek() != Some(b'"') {
            return Err(syntax());
        }
        self.at += 1;
        let mut out = String::new();
        loop {
            let from = self.at;
            while self.peek().is_some_and(|b| b >= b' ' && b != b'"' && b != b'\\') {
                self.at += 1;
            }
            if self.decode {
                out.push_str(self.slice(from));
            }
            let byte = self.peek();
            self.at += 1;
            match byte {
                Some(b'"') => return Ok(out),
                Some(b'\\') => self.escape(&mut out)?,
                _ => return Err(syntax()),
            }
        }
    }

    fn escape(&mut self, out: &mut String) -> Result<(), ValueError> {
        let byte = self.peek();
        self.at += 1;
        out.push(match byte {
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let unit = self.hex4()?;
                if !self.decode {
                    return Ok(());
                }
                self.unicode(unit)?
            }
            _ => return Err(syntax()),
        });
        Ok(())
    }

    fn unicode(&mut self, unit: u32) -> Result<char, ValueError> {
        if unit == 0 {
            return Err(unsupported_escape());
        }
        let code = if (0xd800..0xdc00).contains(&unit) {
            if !self.text.get(self.at..).unwrap_or_default().starts_with("\\u") {
                return Err(syntax());
            }
            self.at += 2;
            let low = self.hex4()?;
            if !(0xdc00..0xe000).contains(&low) {
                return Err(syntax());
            }
            0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00)
        } else {
            unit
        };
        char::from_u32(code).ok_or_else(syntax)
    }

    fn hex4(&mut self) -> Result<u32, ValueError> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16));
            unit = unit * 16 + digit.ok_or_else(syntax)?;
            self.at += 1;
        }
        Ok(unit)
    }

    fn tree(&mut self, depth: usize) -> Result<Tree, ValueError> {
        self.skip_space();
        let from = self.at;
        Ok(match self.peek() {
            Some(b'{') => {
                self.open(depth)?;
                let mut members: Vec<(String, Tree)> = Vec::new();
                self.list(b'}', |lexer| {
                    let key = lexer.key()?;
                    members.push((key, lexer.tree(depth + 1)?));
                    Ok(())
                })?;
                // Of equal keys the last one stays: with the order turned around, the first.
                members.reverse();
                members.sort_by(|(a, _), (b, _)| (a.len(), a).cmp(&(b.len(), b)));
                members.dedup_by(|later, first| later.0 == first.0);
                Tree::Object(members)
            }
            Some(b'[') => {
                self.open(depth)?;
                let mut items = Vec::new();
                self.list(b']', |lexer| {
                    items.push(lexer.tree(depth + 1)?);
                    Ok(())
                })?;
                Tree::Array(items)
            }
            Some(b'"') => Tree::String(self.string()?),
            Some(b'-' | b'0'..=b'9') => Tree::Number(self.number()?.parse()?),
            _ => {
                self.scalar()?;
                match self.slice(from) {
                    "null" => Tree::Null,
                    word => Tree::Bool(word == "true"),
                }
            }
        })
    }

    /// Sets `found` to the last part that the steps lead to: of equal keys in a json the later one
    /// wins, but only where the rest of the path leads on from it, as in PostgreSQL.
    fn find(
        &mut self,
        steps: &[Step<'_>],
        depth: usize,
        found: &mut Option<&'a str>,
    ) -> Result<(), ValueError> {
        let Some((step, rest)) = steps.split_first() else {
            *found = Some(self.value(depth)?);
            return Ok(());
        };
        self.skip_space();
        match self.peek() {
            Some(b'{') => {
                self.open(depth)?;
                self.list(b'}', |lexer| {
                    let key = lexer.key()?;
                    if matches!(step, Step::Key(wanted) | Step::Either(wanted) if *wanted == key) {
                        lexer.find(rest, depth + 1, found)
                    } else {
                        lexer.value(depth + 1).map(drop)
                    }
                })
            }
            Some(b'[') => {
                let wanted = self.wanted_index(*step, depth)?;
                self.open(depth)?;
                let mut index = 0_i64;
                self.list(b']', |lexer| {
                    let here = wanted == Some(index);
                    index += 1;
                    if here {
                        lexer.find(rest, depth + 1, found)
                    } else {
                        lexer.value(depth + 1).map(drop)
                    }
                })
            }
            _ => self.scalar(),
        }
    }

    /// The index that a step means in the array that begins here.
    fn wanted_index(&mut self, step: Step<'_>, depth: usize) -> Result<Option<i64>, ValueError> {
        let index = match step {
            Step::Key(_) => return Ok(None),
            Step::Index(index) => index,
            Step::Either(text) => {
                let text = text.trim_start_matches(super::text::is_space);
                let Ok(index) = text.parse::<i32>() else {
                    return Ok(None);
                };
                i64::from(index)
            }
        };
        if index >= 0 {
            return Ok(Some(index));
        }
        let from = self.at;
        self.open(depth)?;
        let mut count = 0_i64;
        self.list(b']', |lexer| {
            count += 1;
            lexer.value(depth + 1).map(drop)
        })?;
        self.at = from;
        Ok(count.checked_add(index).filter(|index| *index >= 0))
    }
}
