//! PostgreSQL's text of arrays, read into elements.
//!
//! Documentation: "Arrays", section "Array Input and Output Syntax". `array_out` writes the bounds
//! only where one is not 1, braces for each dimension, `NULL` without quotes for a null element, and
//! quotes around whatever could be read as anything else.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::{Type, Value};
use std::borrow::Cow;

/// One element, or one row of a further dimension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    Null,
    /// An element's own text, without quotes and escapes.
    Text(Cow<'a, str>),
    Array(Vec<Item<'a>>),
}

/// PostgreSQL's `MAXDIM`.
const DIMENSIONS_MAX: usize = 6;

/// The items of an array whose indexes all begin at 1. `None` for one that begins elsewhere
/// (`[0:1]={1,2}`), which a list cannot tell from one that does not, and for any other text.
#[must_use]
pub fn items(text: &str) -> Option<Vec<Item<'_>>> {
    let mut reader = Reader { rest: text };
    let items = reader.array(1)?;
    reader.rest.is_empty().then_some(items)
}

/// An element's value. A label that was added since the types were read is its own text, too.
#[must_use]
pub fn element(ty: &Type, text: &str) -> Option<Value> {
    if let Type::Enum { .. } = ty {
        return Some(Value::Text(text.into()));
    }
    Value::from_server(ty, text).ok()
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn skip(&mut self, c: char) -> bool {
        match self.rest.strip_prefix(c) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn array(&mut self, depth: usize) -> Option<Vec<Item<'a>>> {
        if depth > DIMENSIONS_MAX || !self.skip('{') {
            return None;
        }
        let mut items = Vec::new();
        if self.skip('}') {
            return Some(items);
        }
        loop {
            items.push(self.item(depth)?);
            if self.skip('}') {
                return Some(items);
            }
            if !self.skip(',') {
                return None;
            }
        }
    }

    fn item(&mut self, depth: usize) -> Option<Item<'a>> {
        if self.rest.starts_with('{') {
            return self.array(depth.checked_add(1)?).map(Item::Array);
        }
        if self.skip('"') {
            return self.quoted().map(Item::Text);
        }
        let end = self.rest.find([',', '}', '{', '"', '\\'])?;
        let (text, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        Some(match text {
            "" => return None,
            "NULL" => Item::Null,
            text => Item::Text(Cow::Borrowed(text)),
        })
    }

    fn quoted(&mut self) -> Option<Cow<'a, str>> {
        let mut owned: Option<String> = None;
        loop {
            let end = self.rest.find(['"', '\\'])?;
            let (piece, rest) = self.rest.split_at_checked(end)?;
            let mut chars = rest.chars();
            let stop = chars.next()?;
            if stop == '"' {
                self.rest = chars.as_str();
                return Some(match owned {
                    None => Cow::Borrowed(piece),
                    Some(mut text) => {
                        text.push_str(piece);
                        Cow::Owned(text)
                    }
                });
            }
            let text = owned.get_or_insert_default();
            text.push_str(piece);
            text.push(chars.next()?);
            self.rest = chars.as_str();
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a text that is not read fails its test")]

    use super::*;
    use proptest::prelude::*;

    fn text(text: &str) -> Item<'_> {
        Item::Text(text.into())
    }

    #[test]
    fn elements_nulls_and_dimensions_are_told_apart() {
        assert_eq!(items("{}"), Some(vec![]));
        assert_eq!(items("{1,NULL}"), Some(vec![text("1"), Item::Null]));
        assert_eq!(items(r#"{"NULL","",nUll}"#), Some(vec![text("NULL"), text(""), text("nUll")]));
        assert_eq!(items(r#"{"a\"b\\c","{x}, y"}"#), Some(vec![text(r#"a"b\c"#), text("{x}, y")]));
        let row = |a, b| Item::Array(vec![text(a), text(b)]);
        assert_eq!(items("{{1,2},{3,4}}"), Some(vec![row("1", "2"), row("3", "4")]));
        for other in ["[0:1]={1,2}", "", "{", "{1", "{1,}", "{,1}", "{1}x", r#"{"a}"#, r#"{"a\"#] {
            assert_eq!(items(other), None, "{other}");
        }
    }

    /// As `array_out` quotes.
    fn written(elements: &[Option<String>]) -> String {
        let element = |element: &Option<String>| match element {
            None => "NULL".to_owned(),
            Some(text) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
        };
        format!("{{{}}}", elements.iter().map(element).collect::<Vec<_>>().join(","))
    }

    proptest! {
        #[test]
        fn what_is_quoted_comes_back(elements: Vec<Option<String>>) {
            let text = written(&elements);
            let read = items(&text).unwrap();
            let back: Vec<Option<String>> = read
                .into_iter()
                .map(|item| match item {
                    Item::Text(text) => Some(text.into_owned()),
                    Item::Null | Item::Array(_) => None,
                })
                .collect();
            prop_assert_eq!(back, elements);
        }

        #[test]
        fn foreign_text_does_not_panic(text in "[{}\\[\\]:=,\"\\\\a0 ]*") {
            drop(items(&text));
        }
    }
}
