//! YAML text to a tree that knows where each node stands and how each scalar was written.
//!
//! Read from parser events, not through serde: a deserializer stops at the first fault and does not
//! say whether a scalar was a literal block, and both matter here (all errors at once; SQL only as
//! `sql: |`).
//!
//! Invariants:
//! - bounded: no anchors, aliases, tags or directives (so a small file cannot grow into a large
//!   tree), nesting up to [`NESTING_MAX`], one document;
//! - a fault inside a node leaves [`Value::Refused`] in its place, and reading goes on; only broken
//!   syntax ends it.

use std::borrow::Cow;

use granit_parser::{ErrorKind, Event, Marker, Parser, ScalarStyle, ScanError, Span, StrInput};
use walview_core::diagnostic::{Diagnostic, Place};

/// Levels of nesting. The format itself needs eight.
const NESTING_MAX: usize = 24;

/// A text and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text {
    pub(super) place: Place,
    pub(super) text: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<(Text, Node)>),
    /// Something that is not accepted and already reported.
    Refused,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scalar {
    pub(super) text: String,
    pub(super) style: Style,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Quoted,
    /// `|`: line n of the text is line `first_line + n` of the file, `indent` characters in.
    Literal {
        first_line: u32,
        indent: u32,
    },
    /// `>`
    Folded,
}

/// The tree of a file, and what is wrong with its YAML. `None` where the syntax is broken or nothing
/// is there; `problems` then say why.
pub(super) fn parse(text: &str, problems: &mut Vec<Diagnostic>) -> Option<Node> {
    let options = granit_parser::options! {
        disallow_directives: true,
        emit_unresolved_aliases: true,
        emit_comments: false,
        flow_nesting_limit: NESTING_MAX,
        block_nesting_limit: NESTING_MAX,
    };
    let parser = Parser::new_from_str_with_options(text, options);
    let mut reader = Reader { parser, problems };
    match reader.document() {
        Ok(node) => node,
        Err(error) => {
            problems.push(syntax_problem(&error, text));
            None
        }
    }
}

struct Reader<'t, 'p> {
    parser: Parser<'t, StrInput<'t>>,
    problems: &'p mut Vec<Diagnostic>,
}

impl<'t> Reader<'t, '_> {
    fn next(&mut self) -> Result<(Event<'t>, Span), ScanError> {
        let end = || ScanError::new(Marker::default(), "the text ends too early");
        self.parser.next_event().unwrap_or_else(|| Err(end()))
    }

    fn refuse(&mut self, place: Place, message: &str, remedy: &str) -> Node {
        self.problems.push(Diagnostic::new(place, message, remedy));
        Node { place, value: Value::Refused }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "whatever begins no document is a node's first event"
    )]
    fn document(&mut self) -> Result<Option<Node>, ScanError> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentEnd => {}
                Event::StreamEnd => return Ok(root),
                Event::DocumentStart(..) if root.is_some() => {
                    self.refuse(
                        place_of(span.start),
                        "a second YAML document begins here",
                        "write one pipeline per file",
                    );
                    // Faults of the second document would only confuse.
                    return Ok(None);
                }
                Event::DocumentStart(..) => {
                    let (event, span) = self.next()?;
                    root = Some(self.node(event, span)?);
                }
                event => root = Some(self.node(event, span)?),
            }
        }
    }

    /// The node that begins with `event`, read to its end.
    fn node(&mut self, event: Event<'t>, span: Span) -> Result<Node, ScanError> {
        let place = place_of(span.start);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let node = Node { place, value: scalar(text, style, span, tag.is_some()) };
                Ok(self.without_properties(node, anchor, tag.is_some()))
            }
            Event::SequenceStart(_, anchor, tag) => {
                let mut list = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        (event, span) => list.push(self.node(event, span)?),
                    }
                }
                let node = Node { place, value: Value::List(list) };
                Ok(self.without_properties(node, anchor, tag.is_some()))
            }
            Event::MappingStart(_, anchor, tag) => {
                let value = Value::Map(self.entries()?);
                Ok(self.without_properties(Node { place, value }, anchor, tag.is_some()))
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => Ok(self.refuse(
                place,
                "a YAML alias (*name) is not accepted",
                "write the value out, or quote a text that begins with *",
            )),
            Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(..)
            | Event::DocumentEnd
            | Event::Anchor(..)
            | Event::SequenceEnd
            | Event::MappingEnd
            | _ => Err(ScanError::new(span.start, "a value is missing here")),
        }
    }

    /// The node is kept: what is inside may be wrong too.
    fn without_properties(&mut self, node: Node, anchor: usize, tagged: bool) -> Node {
        if anchor != 0 {
            self.refuse(
                node.place,
                "a YAML anchor (&name) is not accepted",
                "write the value out, or quote a text that begins with &",
            );
        }
        if tagged {
            self.refuse(
                node.place,
                "a YAML tag (!name) is not accepted",
                "leave it out, or quote a text that begins with !",
            );
        }
        node
    }

    fn entries(&mut self) -> Result<Vec<(Text, Node)>, ScanError> {
        let mut entries: Vec<(Text, Node)> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                return Ok(entries);
            }
            let key = self.node(event, span)?;
            let (event, span) = self.next()?;
            let value = self.node(event, span)?;
            match key.value {
                Value::Scalar(scalar) => {
                    let key = Text { place: key.place, text: scalar.text };
                    if let Some((first, _)) = entries.iter().find(|(k, _)| k.text == key.text) {
                        let message = format!("key {} is here twice", quoted(&key.text));
                        let remedy =
                            format!("remove one; the first is in line {}", first.place.line);
                        self.problems.push(Diagnostic::new(key.place, message, remedy));
                    } else {
                        entries.push((key, value));
                    }
                }
                Value::Refused => {}
                // `{status}` without quotes is a YAML mapping with a key and nothing else.
                Value::Null | Value::List(_) | Value::Map(_) => {
                    self.refuse(key.place, "a key must be a name", "quote texts that hold braces");
                }
            }
        }
    }
}

fn scalar(text: Cow<'_, str>, style: ScalarStyle, span: Span, tagged: bool) -> Value {
    let style = match style {
        ScalarStyle::Plain if !tagged && ["", "~", "null"].contains(&text.as_ref()) => {
            return Value::Null;
        }
        ScalarStyle::Plain => Style::Plain,
        ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Style::Quoted,
        ScalarStyle::Folded => Style::Folded,
        ScalarStyle::Literal => {
            // The span starts at the first line that is not blank; blank lines before it are in the
            // text too.
            let blank = text.chars().take_while(|c| *c == '\n').count();
            let start = place_of(span.start);
            Style::Literal {
                first_line: start.line.saturating_sub(u32::try_from(blank).unwrap_or(u32::MAX)),
                indent: start.column.saturating_sub(1),
            }
        }
    };
    Value::Scalar(Scalar { text: text.into_owned(), style })
}

/// The parser's columns count from 0.
fn place_of(marker: Marker) -> Place {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Place { line: number(marker.line().max(1)), column: number(marker.col().saturating_add(1)) }
}

/// A key as messages show it. Whoever leaves out a line break can make a key of a URL.
pub(super) fn quoted(key: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 60;
    if key.contains("://") || key.chars().count() > SHOWN_CHARS_MAX {
        return "(not shown)".to_owned();
    }
    format!("\"{}\"", key.escape_debug())
}

fn syntax_problem(error: &ScanError, text: &str) -> Diagnostic {
    let mut place = place_of(*error.marker());
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "about a hundred kinds, and the parser adds more; most say it all themselves"
    )]
    let (message, remedy) = match error.kind() {
        // Marked where the text before it begins; the tab leads one of the next lines.
        ErrorKind::TabInPlainScalar => {
            place = first_tab(text, place).unwrap_or(place);
            ("a tab stands where YAML wants spaces".to_owned(), "indent with spaces".to_owned())
        }
        ErrorKind::TabInBlockIndentation
        | ErrorKind::TabNotAllowed
        | ErrorKind::TabInIndentation
        | ErrorKind::TabAtBlockScalarStart => {
            ("a tab stands where YAML wants spaces".to_owned(), "indent with spaces".to_owned())
        }
        ErrorKind::MappingValueNotAllowed | ErrorKind::InvalidColonPlacement => (
            "\": \" inside a text that is not quoted".to_owned(),
            "quote the text, or begin a new line".to_owned(),
        ),
        ErrorKind::FlowMappingValueAdjacentCollection
        | ErrorKind::ExpectedFlowMappingSeparator
        | ErrorKind::ExpectedFlowSequenceSeparator => (
            "\",\" or the closing bracket was expected".to_owned(),
            "quote texts that hold braces: \"bets:{id}\", \"${NAME}\"".to_owned(),
        ),
        ErrorKind::UnclosedFlowCollection { open } => {
            (format!("\"{open}\" is never closed"), String::new())
        }
        ErrorKind::ExpectedBlockMappingKey | ErrorKind::SimpleKeyExpected => (
            "a key was expected".to_owned(),
            "is this line indented like its neighbours?".to_owned(),
        ),
        ErrorKind::UnexpectedCharacter { character } => {
            (unexpected_character(*character), "quote the text".to_owned())
        }
        ErrorKind::RecursionLimitExceeded => {
            (format!("nested deeper than {NESTING_MAX} levels"), String::new())
        }
        ErrorKind::DirectiveDisallowed => {
            ("a YAML directive (%) is not accepted".to_owned(), "leave it out".to_owned())
        }
        _ => (error.info(), String::new()),
    };
    Diagnostic::new(place, format!("not YAML: {message}"), remedy)
}

/// The first tab that is part of a line's indentation, from `place` on.
fn first_tab(text: &str, place: Place) -> Option<Place> {
    let number = |n: usize| u32::try_from(n + 1).unwrap_or(u32::MAX);
    let skipped = usize::try_from(place.line).unwrap_or(usize::MAX);
    text.lines().enumerate().skip(skipped).find_map(|(index, line)| {
        let (before, _) = line.split_once('\t')?;
        let leads = before.chars().all(|c| c == ' ');
        leads.then(|| Place { line: number(index), column: number(before.chars().count()) })
    })
}

fn unexpected_character(character: char) -> String {
    if character.is_control() {
        format!("the control character U+{:04X}", u32::from(character))
    } else {
        format!("a text cannot begin with \"{character}\"")
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use super::*;

    fn tree(text: &str) -> Node {
        let mut problems = Vec::new();
        let node = parse(text, &mut problems);
        assert_eq!(problems, Vec::new());
        node.unwrap()
    }

    /// Every line of a literal block, as its style says, is where it says in the file.
    #[test]
    fn literal_blocks_know_where_they_stand() {
        let texts = [
            "sql: |\n  SELECT 1\n    FROM é\n",
            "sql: |   # a comment\n\n\n  SELECT 1\n\n  FROM x\n",
            "a:\n  - sql: |-\n        SELECT 1\n\n\n",
            "sql: |2\n    SELECT 1\n  FROM x\n",
            "sql:\n  |\n   SELECT 1\r\n   FROM x\r\n",
            "  sql: |+\n     x\n\n",
        ];
        for text in texts {
            let mut node = &tree(text);
            while let Value::Map(entries) = &node.value {
                node = &entries.first().unwrap().1;
                if let Value::List(list) = &node.value {
                    node = list.first().unwrap();
                }
            }
            let Value::Scalar(scalar) = &node.value else { panic!("{text}") };
            let Style::Literal { first_line, indent } = scalar.style else { panic!("{text}") };
            for (index, line) in scalar.text.lines().enumerate() {
                let number = usize::try_from(first_line).unwrap() + index;
                let in_file = text.lines().nth(number - 1).unwrap();
                let shown: String =
                    in_file.chars().skip(usize::try_from(indent).unwrap()).collect();
                assert_eq!(shown, line, "{text:?}");
            }
        }
    }
}
