//! Functions on text (in characters), LIKE, hashes, parts of json.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "dispatch on values and functions: whatever is not listed is refused alike"
)]

use super::eval::{EvalError, unexpected};
use super::{Func, TrimSide};
use crate::value::json::{self, Step};
use crate::value::{SqlState, Type, Value, ValueError, hex_into};
use md5::{Digest, Md5};
use sha2::Sha256;

pub(super) fn unary(func: Func, x: &Value, ty: &Type) -> Result<Value, EvalError> {
    let Value::Text(text) = x else {
        return match (func, x) {
            (Func::Length, Value::Bytea(bytes)) => count(bytes.len()),
            _ => Err(unexpected(func)),
        };
    };
    let text = text.as_str();
    Ok(match func {
        // The length of a char(n) does not count its padding.
        Func::Length if matches!(ty, Type::Char(_)) => {
            count(text.trim_end_matches(' ').chars().count())?
        }
        Func::Length => count(text.chars().count())?,
        Func::Lower => Value::Text(text.to_ascii_lowercase().into()),
        Func::Upper => Value::Text(text.to_ascii_uppercase().into()),
        Func::Md5 => hex(&Md5::digest(text.as_bytes())),
        Func::Sha256Hex => hex(&Sha256::digest(text.as_bytes())),
        _ => return Err(unexpected(func)),
    })
}

fn count(length: usize) -> Result<Value, EvalError> {
    i64::try_from(length).map(Value::Int).ok().ok_or_else(|| unexpected(Func::Length))
}

fn hex(bytes: &[u8]) -> Value {
    let mut out = String::new();
    hex_into(bytes, &mut out);
    Value::Text(out.into())
}

pub(super) fn binary(func: Func, x: &Value, y: &Value, ty: &Type) -> Result<Value, EvalError> {
    match (func, x, y) {
        (Func::Concat, Value::Text(x), Value::Text(y)) => {
            let mut out = x.clone();
            out.push_str(y);
            Ok(Value::Text(out))
        }
        (Func::Concat, Value::Bytea(x), Value::Bytea(y)) => {
            Ok(Value::Bytea([x.as_slice(), y].concat()))
        }
        (Func::Like, Value::Text(x), Value::Text(pattern)) => like(x, pattern).map(Value::Bool),
        (Func::Trim(side), Value::Text(x), Value::Text(chars)) => {
            let listed = |c: char| chars.contains(c);
            let trimmed = match side {
                TrimSide::Both => x.trim_matches(listed),
                TrimSide::Leading => x.trim_start_matches(listed),
                TrimSide::Trailing => x.trim_end_matches(listed),
            };
            Ok(text(trimmed))
        }
        (Func::Left, Value::Text(x), Value::Int(n)) => {
            let at = edge(x, *n);
            Ok(text(x.get(..at).unwrap_or_default()))
        }
        (Func::Right, Value::Text(x), Value::Int(n)) => {
            // right(x, 2) begins where left(x, -2) ends, and the other way round.
            let at = match *n {
                0 => x.len(),
                // PostgreSQL's own -n overflows and stays negative: nothing is left out.
                n if n == i64::from(i32::MIN) => 0,
                n => edge(x, n.saturating_neg()),
            };
            Ok(text(x.get(at..).unwrap_or_default()))
        }
        (Func::Substring, Value::Text(x), Value::Int(from)) => substring(x, *from, None),
        (Func::JsonGet, Value::Text(x), key) => {
            Ok(json_part(x, key, ty)?.map_or(Value::Null, text))
        }
        (Func::JsonGetText, Value::Text(x), key) => json_text(json_part(x, key, ty)?),
        (Func::JsonPathText, Value::Text(x), Value::Text(path)) => {
            let path = parse_path(path)?;
            // A NULL in the path leads nowhere.
            let Some(path) = path.iter().map(Option::as_deref).collect::<Option<Vec<_>>>() else {
                return Ok(Value::Null);
            };
            let steps: Vec<Step<'_>> = path.into_iter().map(Step::Either).collect();
            json_text(json::get(x, &steps)?)
        }
        _ => Err(unexpected(func)),
    }
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

/// The byte behind the first n characters; for a negative n the byte before the last |n|.
fn edge(text: &str, n: i64) -> usize {
    let skip = usize::try_from(n.unsigned_abs()).unwrap_or(usize::MAX);
    if n >= 0 {
        text.char_indices().nth(skip).map_or(text.len(), |(at, _)| at)
    } else {
        text.char_indices().rev().nth(skip - 1).map_or(0, |(at, _)| at)
    }
}

/// Characters `from` to `from + length`, counted from 1; what lies before the text counts too.
pub(super) fn substring(x: &str, from: i64, length: Option<i64>) -> Result<Value, EvalError> {
    if length.is_some_and(|length| length < 0) {
        return Err(ValueError::new(
            SqlState::SubstringError,
            "negative substring length not allowed",
        ));
    }
    let rest = x.get(edge(x, from.saturating_sub(1).max(0))..).unwrap_or_default();
    let Some(length) = length else {
        return Ok(text(rest));
    };
    let shown = from.saturating_add(length).saturating_sub(from.max(1)).max(0);
    Ok(text(rest.get(..edge(rest, shown)).unwrap_or_default()))
}

/// Field n counted from 1, or from the end where n is negative.
pub(super) fn split_part(x: &str, by: &str, n: i64) -> Result<Value, EvalError> {
    if n == 0 {
        return Err(ValueError::new(
            SqlState::InvalidParameterValue,
            "field position must not be zero",
        ));
    }
    if by.is_empty() {
        // Nothing separates: the text is field 1 and also field -1.
        return Ok(text(if n.unsigned_abs() == 1 { x } else { "" }));
    }
    let skip = usize::try_from(n.unsigned_abs() - 1).unwrap_or(usize::MAX);
    if n > 0 {
        return Ok(text(x.split(by).nth(skip).unwrap_or_default()));
    }
    // Fields are found from the front, also where they are counted from the end: with the
    // separator "aa", "aaa" is '' and 'a'.
    let fields: Vec<&str> = x.split(by).collect();
    let field = fields.len().checked_sub(skip + 1).and_then(|at| fields.get(at));
    Ok(text(field.copied().unwrap_or_default()))
}

/// PostgreSQL's `MatchText`, with one place to come back to instead of recursion: what follows a
/// later `%` never needs an earlier one.
fn like(text: &str, pattern: &str) -> Result<bool, EvalError> {
    let dangling = || {
        ValueError::new(
            SqlState::InvalidEscapeSequence,
            "LIKE pattern must not end with escape character",
        )
    };
    let (mut t, mut p) = (text.as_bytes(), pattern.as_bytes());
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        let matched = match (p, t) {
            ([b'%', rest @ ..], _) => {
                p = rest;
                if p.is_empty() {
                    return Ok(true);
                }
                if !t.is_empty() && dangles_behind(p, t) {
                    return Err(dangling());
                }
                retry = Some((t, p));
                continue;
            }
            ([], []) => return Ok(true),
            // The text has ended and the pattern wants more: no later start can help.
            (_, []) => return Ok(false),
            ([b'\\'], _) => return Err(dangling()),
            ([b'\\', literal, p_rest @ ..], [byte, t_rest @ ..]) => {
                (literal == byte).then_some((p_rest, t_rest))
            }
            ([b'_', p_rest @ ..], _) => Some((p_rest, skip_char(t))),
            ([literal, p_rest @ ..], [byte, t_rest @ ..]) => {
                (literal == byte).then_some((p_rest, t_rest))
            }
            ([], _) => None,
        };
        match (matched, retry) {
            (Some((p_rest, t_rest)), _) => (p, t) = (p_rest, t_rest),
            (None, Some((from, behind))) => {
                let from = skip_char(from);
                retry = Some((from, behind));
                (t, p) = (from, behind);
            }
            (None, None) => return Ok(false),
        }
    }
}

/// PostgreSQL moves over what follows a `%` as far as it is `%` and `_`, and then finds an escape
/// without a character before it looks at the text.
fn dangles_behind(pattern: &[u8], text: &[u8]) -> bool {
    let Some((b'\\', wild)) = pattern.split_last() else {
        return false;
    };
    let chars = text.iter().filter(|&&byte| byte & 0xc0 != 0x80).count();
    wild.iter().all(|byte| matches!(byte, b'%' | b'_'))
        && wild.iter().filter(|&&byte| byte == b'_').count() <= chars
}

/// The bytes behind the first character.
fn skip_char(bytes: &[u8]) -> &[u8] {
    let length = bytes.iter().skip(1).take_while(|&&byte| byte & 0xc0 == 0x80).count() + 1;
    bytes.get(length..).unwrap_or_default()
}

/// A jsonb that is no object or array is stored as an array of one element, and `->` with an index
/// does not look further: `'5'::jsonb -> 0` is 5, though `'5'::json -> 0` is NULL.
fn json_part<'a>(x: &'a str, key: &Value, ty: &Type) -> Result<Option<&'a str>, EvalError> {
    match key {
        Value::Text(key) => json::get(x, &[Step::Key(key)]),
        Value::Int(0 | -1) if *ty == Type::Jsonb && !x.starts_with(['{', '[']) => Ok(Some(x)),
        Value::Int(index) => json::get(x, &[Step::Index(*index)]),
        _ => Err(unexpected(Func::JsonGet)),
    }
}

fn json_text(part: Option<&str>) -> Result<Value, EvalError> {
    let Some(part) = part else {
        return Ok(Value::Null);
    };
    Ok(json::as_text(part)?.map_or(Value::Null, |text| Value::Text(text.into())))
}

/// A text[] in PostgreSQL's text, of one dimension: `{a,"b c",NULL}`.
fn parse_path(path: &str) -> Result<Vec<Option<String>>, EvalError> {
    let malformed =
        || ValueError::new(SqlState::InvalidTextRepresentation, "malformed array literal");
    let inner = path
        .trim()
        .strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'))
        .ok_or_else(malformed)?;
    let mut elements = Vec::new();
    if inner.trim().is_empty() {
        return Ok(elements);
    }
    let mut chars = inner.chars().peekable();
    loop {
        while chars.next_if(char::is_ascii_whitespace).is_some() {}
        let mut element = String::new();
        let quoted = chars.next_if_eq(&'"').is_some();
        loop {
            match chars.next_if(|c| quoted || *c != ',') {
                Some('"') if quoted => break,
                Some('\\') => element.push(chars.next().ok_or_else(malformed)?),
                Some('{' | '}' | '"') if !quoted => return Err(malformed()),
                Some(c) => element.push(c),
                None if quoted => return Err(malformed()),
                None => break,
            }
        }
        if quoted {
            while chars.next_if(char::is_ascii_whitespace).is_some() {}
            elements.push(Some(element));
        } else {
            let element = element.trim_end();
            if element.is_empty() {
                return Err(malformed());
            }
            let null = element.eq_ignore_ascii_case("null");
            elements.push((!null).then(|| element.to_owned()));
        }
        match chars.next() {
            Some(',') => {}
            None => return Ok(elements),
            Some(_) => return Err(malformed()),
        }
    }
}
