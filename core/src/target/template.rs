//! Key templates: `bet_count:{status}`.
//!
//! A template is a way to write the key columns of a result row as one Redis key, such that two
//! rows never meet on one key, and such that a key tells whether a template could have made it:
//! only those are ever deleted.
//!
//! Invariants:
//! - a template starts with a literal, and a literal stands between any two columns;
//! - a written value holds none of `%`, `:`, `{`, `}`, a control character, or the first character
//!   of the literal that follows, but percent-encoded. So reading left to right finds where each
//!   value ends: the key determines the values.

use std::fmt::{self, Write as _};

/// A parsed template. Literals and columns alternate, a literal first; `{{` and `}}` were literal
/// braces. Built by [`Template::parse`] only, which holds the invariants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pub parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Literal(String),
    /// The name of a result column.
    Column(String),
}

/// As it is written in a pipeline file.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                Part::Literal(text) => {
                    f.write_str(&text.replace('{', "{{").replace('}', "}}"))?;
                }
                Part::Column(name) => write!(f, "{{{name}}}")?,
            }
        }
        Ok(())
    }
}

impl Template {
    /// # Errors
    /// One sentence that says what is wrong and what to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts: Vec<Part> = Vec::new();
        let mut literal = String::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '{' | '}' if chars.peek() == Some(&c) => {
                    chars.next();
                    literal.push(c);
                }
                '{' => {
                    let column = column_name(&mut chars, text)?;
                    push_column(&mut parts, &mut literal, column, text)?;
                }
                '}' => {
                    return Err(format!(
                        "key template \"{text}\" has a \"}}\" without a \"{{\"; write \"}}}}\" for a literal brace"
                    ));
                }
                c if c.is_control() => {
                    return Err(format!("key template {text:?} holds a control character"));
                }
                c => literal.push(c),
            }
        }
        if !literal.is_empty() {
            push_literal(&mut parts, literal, text)?;
        }
        if !matches!(parts.first(), Some(Part::Literal(_))) {
            return Err(format!(
                "key template \"{text}\" must start with a literal prefix, so that its keys can be \
                 found again; write for example \"rows:{text}\""
            ));
        }
        Ok(Self { parts })
    }

    /// What every key starts with.
    #[must_use]
    pub fn prefix(&self) -> &str {
        match self.parts.first() {
            Some(Part::Literal(text)) => text,
            Some(Part::Column(_)) | None => "",
        }
    }

    /// The only key, where the template has no columns.
    #[must_use]
    pub fn single_key(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// The names of its columns, as often as they stand there.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Column(name) => Some(name.as_str()),
            Part::Literal(_) => None,
        })
    }

    /// Writes a key. `value` appends the text of a column, or fails.
    ///
    /// # Errors
    /// What `value` fails with.
    pub fn render<E>(
        &self,
        mut value: impl FnMut(&str, &mut String) -> Result<(), E>,
        out: &mut String,
    ) -> Result<(), E> {
        for (index, part) in self.parts.iter().enumerate() {
            match part {
                Part::Literal(text) => out.push_str(text),
                Part::Column(name) => {
                    let start = out.len();
                    value(name, out)?;
                    let stop = self.stop_after(index);
                    let is_plain =
                        |byte: &u8| byte.is_ascii_alphanumeric() && stop != Some(char::from(*byte));
                    if out.as_bytes().get(start..).is_some_and(|text| text.iter().all(is_plain)) {
                        continue;
                    }
                    if out
                        .get(start..)
                        .is_some_and(|text| text.chars().any(|c| must_escape(c, stop)))
                    {
                        let raw = out.split_off(start);
                        escape(&raw, stop, out);
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether this template can have made `key`: the exact shape, each value in the one form that
    /// [`Template::render`] writes.
    #[must_use]
    pub fn matches(&self, key: &str) -> bool {
        let mut rest = key;
        for (index, part) in self.parts.iter().enumerate() {
            let after = match part {
                Part::Literal(text) => rest.strip_prefix(text.as_str()),
                Part::Column(_) => skip_value(rest, self.stop_after(index)),
            };
            match after {
                Some(after) => rest = after,
                None => return false,
            }
        }
        rest.is_empty()
    }

    /// Whether some key could come from both. Conservative: true where it is not certain. Values
    /// never hold `:`, so two keys can only be equal segment by segment.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.segments(), other.segments());
        ours.len() == theirs.len()
            && ours.iter().zip(&theirs).all(|(a, b)| match (a.columns, b.columns) {
                (false, false) => a.head == b.head,
                _ => {
                    prefixes(&a.head, &b.head)
                        && suffixes(a.tail(), b.tail())
                        && (a.columns || a.head.len() >= b.head.len() + b.tail.len())
                        && (b.columns || b.head.len() >= a.head.len() + a.tail.len())
                }
            })
    }

    /// The first character of the literal after the column at `index`.
    fn stop_after(&self, index: usize) -> Option<char> {
        match self.parts.get(index + 1) {
            Some(Part::Literal(text)) => text.chars().next(),
            Some(Part::Column(_)) | None => None,
        }
    }

    fn segments(&self) -> Vec<Segment> {
        let mut segments = vec![Segment::default()];
        for part in &self.parts {
            match part {
                Part::Literal(text) => {
                    for (index, piece) in text.split(':').enumerate() {
                        if index > 0 {
                            segments.push(Segment::default());
                        }
                        if let Some(last) = segments.last_mut() {
                            if last.columns { &mut last.tail } else { &mut last.head }
                                .push_str(piece);
                        }
                    }
                }
                Part::Column(_) => {
                    if let Some(last) = segments.last_mut() {
                        last.columns = true;
                        last.tail.clear();
                    }
                }
            }
        }
        segments
    }
}

/// What stands between two `:` of a template: literal text before its first column and after its
/// last.
#[derive(Default)]
struct Segment {
    head: String,
    columns: bool,
    tail: String,
}

impl Segment {
    fn tail(&self) -> &str {
        if self.columns { &self.tail } else { &self.head }
    }
}

fn prefixes(a: &str, b: &str) -> bool {
    a.starts_with(b) || b.starts_with(a)
}

fn suffixes(a: &str, b: &str) -> bool {
    a.ends_with(b) || b.ends_with(a)
}

fn column_name(chars: &mut impl Iterator<Item = char>, text: &str) -> Result<String, String> {
    let mut name = String::new();
    for c in chars {
        match c {
            '}' => {
                let name = name.trim();
                return if name.is_empty() {
                    Err(format!("key template \"{text}\" has an empty \"{{}}\"; name a column"))
                } else {
                    Ok(name.to_owned())
                };
            }
            '{' => break,
            c => name.push(c),
        }
    }
    Err(format!(
        "key template \"{text}\" has a \"{{\" without a \"}}\"; write \"{{{{\" for a literal brace"
    ))
}

fn push_column(
    parts: &mut Vec<Part>,
    literal: &mut String,
    column: String,
    text: &str,
) -> Result<(), String> {
    if !literal.is_empty() {
        push_literal(parts, std::mem::take(literal), text)?;
    } else if let Some(Part::Column(before)) = parts.last() {
        return Err(format!(
            "key template \"{text}\" has nothing between \"{{{before}}}\" and \"{{{column}}}\", so two \
             rows could get one key; write \"{{{before}}}:{{{column}}}\""
        ));
    }
    parts.push(Part::Column(column));
    Ok(())
}

/// `%` right after a column could be read as the start of an escape.
fn push_literal(parts: &mut Vec<Part>, literal: String, text: &str) -> Result<(), String> {
    if literal.starts_with('%') && matches!(parts.last(), Some(Part::Column(_))) {
        return Err(format!(
            "key template \"{text}\" has a \"%\" right after a column; use \":\" there"
        ));
    }
    parts.push(Part::Literal(literal));
    Ok(())
}

fn must_escape(c: char, stop: Option<char>) -> bool {
    matches!(c, '%' | ':' | '{' | '}') || c.is_control() || Some(c) == stop
}

fn escape(value: &str, stop: Option<char>, out: &mut String) {
    for c in value.chars() {
        if must_escape(c, stop) {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                // Writing to a string does not fail.
                write!(out, "%{byte:02X}").ok();
            }
        } else {
            out.push(c);
        }
    }
}

/// The rest after a value as [`escape`] writes it, up to `stop` or the end. `None` where something
/// stands there that `escape` does not write.
fn skip_value(text: &str, stop: Option<char>) -> Option<&str> {
    let mut rest = text;
    loop {
        let Some(c) = rest.chars().next() else {
            return Some(rest);
        };
        if c == '%' {
            let (encoded, after) = escaped_char(rest)?;
            if !must_escape(encoded, stop) {
                return None;
            }
            rest = after;
        } else if Some(c) == stop {
            return Some(rest);
        } else if must_escape(c, stop) {
            return None;
        } else {
            rest = rest.get(c.len_utf8()..)?;
        }
    }
}

/// One character in percent-encoded form, upper-case digits, and what follows.
fn escaped_char(text: &str) -> Option<(char, &str)> {
    let mut bytes = [0_u8; 4];
    let mut rest = text;
    for len in 1..=4 {
        rest = rest.strip_prefix('%')?;
        let digits = rest.get(..2)?;
        if !digits.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b)) {
            return None;
        }
        *bytes.get_mut(len - 1)? = u8::from_str_radix(digits, 16).ok()?;
        rest = rest.get(2..)?;
        if let Ok(decoded) = std::str::from_utf8(bytes.get(..len)?) {
            return Some((decoded.chars().next()?, rest));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot parse its own template fails")]

    use super::*;
    use proptest::prelude::*;

    fn key(template: &Template, values: &[&str]) -> String {
        let mut index = 0;
        let mut out = String::new();
        template
            .render::<std::convert::Infallible>(
                |_, text| {
                    text.push_str(values[index]);
                    index += 1;
                    Ok(())
                },
                &mut out,
            )
            .unwrap();
        out
    }

    #[test]
    fn parses_literals_columns_and_braces() {
        let template = Template::parse("a:{{x}}:{ id }").unwrap();
        assert_eq!(
            template.parts,
            [Part::Literal("a:{x}:".to_owned()), Part::Column("id".to_owned())]
        );
        assert_eq!(template.prefix(), "a:{x}:");
        assert_eq!(template.single_key(), None);
        assert_eq!(Template::parse("recent_bets").unwrap().single_key(), Some("recent_bets"));
        for bad in ["", "{id}", "a{", "a}", "a{}", "a:{x", "a:{x}{y}", "a{x}%{y}", "a{b{c}}", "a\n"]
        {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn values_are_escaped_where_they_could_meet_a_literal() {
        let template = Template::parse("k:{a}-{b}").unwrap();
        assert_eq!(key(&template, &["x-y", "x-y"]), "k:x%2Dy-x-y");
        assert_eq!(key(&template, &["50%:{}", "\n"]), "k:50%25%3A%7B%7D-%0A");
        assert!(template.matches("k:x%2Dy-x-y"));
        for foreign in
            ["k:x", "k:x-a:b", "k:%41-b", "k:%2d-b", "k:a-%zz", "k:a-%", "j:a-b", "k:a-\n"]
        {
            assert!(!template.matches(foreign), "{foreign}");
        }
    }

    #[test]
    fn overlap_is_by_segments() {
        let check = |a: &str, b: &str| {
            let (a, b) = (Template::parse(a).unwrap(), Template::parse(b).unwrap());
            assert_eq!(a.overlaps(&b), b.overlaps(&a));
            a.overlaps(&b)
        };
        assert!(check("a:{x}", "a:{y}"));
        assert!(check("a:{x}", "a:total"));
        assert!(check("a:x{b}", "a:{c}y"));
        assert!(!check("a:{x}", "a:{x}:b"));
        assert!(!check("a:{x}:b", "a:{x}:c"));
        assert!(!check("a:x{b}", "a:y{b}"));
        assert!(!check("a:x", "a:xx{b}x"));
        assert!(!check("recent_bets", "recent_bets2"));
    }

    proptest! {
        #[test]
        fn keys_are_injective_and_recognised(
            literals in prop::collection::vec("[a-c0-9:%{}é-]{1,3}", 3),
            a in prop::collection::vec("[a-c0-9:%{}é\n-]{0,4}", 2),
            b in prop::collection::vec("[a-c0-9:%{}é\n-]{0,4}", 2),
        ) {
            let quoted: Vec<String> =
                literals.iter().map(|l| l.replace('{', "{{").replace('}', "}}")).collect();
            let text = format!("{}{{x}}{}{{y}}{}", quoted[0], quoted[1], quoted[2]);
            let Ok(template) = Template::parse(&text) else { return Ok(()) };
            let (first, second) = (key(&template, &[&a[0], &a[1]]), key(&template, &[&b[0], &b[1]]));
            prop_assert!(template.matches(&first), "{} does not match {}", text, first);
            prop_assert_eq!(first == second, a == b, "{}: {} and {}", text, first, second);
        }

        #[test]
        fn what_meets_is_said_to_overlap(
            a in "[ab:]{1,3}\\{x\\}(:[ab]{0,2}\\{y\\})?[ab:]{0,2}",
            b in "[ab:]{1,3}\\{x\\}(:[ab]{0,2}\\{y\\})?[ab:]{0,2}",
            values in prop::collection::vec("[ab]{0,2}", 2),
        ) {
            let (a, b) = (Template::parse(&a).unwrap(), Template::parse(&b).unwrap());
            let made = key(&a, &[&values[0], &values[1]]);
            if b.matches(&made) {
                prop_assert!(a.overlaps(&b), "{:?} {:?} meet on {}", a, b, made);
            }
        }

        #[test]
        fn foreign_keys_do_not_panic(key in "\\PC{0,12}") {
            let other = Template::parse("x:{a}-{b}").unwrap().matches(&key);
            prop_assert!(!other || key.starts_with("x:"));
        }
    }
}
