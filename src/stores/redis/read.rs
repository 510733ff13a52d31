//! The reading side: what a target holds, page by page.

use super::super::StoreError;
use super::error::server_error;
use super::{SCAN_COUNT, open, send};
use ::redis::aio::MultiplexedConnection;
use ::redis::{Pipeline, Value as Reply};
use walview_core::target::redis::{Action, Kind, Target};

/// Hands everything that a target's keys hold to `each`, as the operation that would write it; what
/// changes meanwhile may come twice or not at all. Streams are not read.
///
/// # Errors
/// As [`super::Store::connect`]'s; a key of another type is an error, too.
pub async fn read_all(
    url: &str,
    target: &Target,
    mut each: impl FnMut(Action),
) -> Result<(), StoreError> {
    if target.is_stream() {
        return Ok(());
    }
    let mut connection = open(url).await?;
    let template = target.template();
    if let Some(key) = template.single_key() {
        return read_keys(&mut connection, target.kind(), &[key.to_owned()], &mut each).await;
    }
    let mut cursor = "0".to_owned();
    loop {
        let (next, mut keys) =
            scan(&mut connection, template.prefix(), &cursor, SCAN_COUNT).await?;
        keys.retain(|key| template.matches(key));
        read_keys(&mut connection, target.kind(), &keys, &mut each).await?;
        if next == "0" {
            return Ok(());
        }
        cursor = next;
    }
}

/// One page of the keys that start with `prefix`, and the next cursor. Keys that are not UTF-8 are
/// nobody's of ours.
pub(super) async fn scan(
    connection: &mut MultiplexedConnection,
    prefix: &str,
    cursor: &str,
    count: usize,
) -> Result<(String, Vec<String>), StoreError> {
    let mut pattern = String::with_capacity(prefix.len() + 1);
    for c in prefix.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\' | '^' | '-') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('*');
    let mut pipeline = Pipeline::new();
    pipeline.cmd("SCAN").arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(count);
    let (next, items) = page(send(connection, &pipeline).await?)?;
    Ok((next, items.into_iter().filter_map(text).collect()))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "every other reply is unexpected")]
async fn read_keys(
    connection: &mut MultiplexedConnection,
    kind: Kind,
    keys: &[String],
    each: &mut impl FnMut(Action),
) -> Result<(), StoreError> {
    match kind {
        Kind::String | Kind::Hash => {
            let command = if kind == Kind::Hash { "HGETALL" } else { "GET" };
            let mut pipeline = Pipeline::new();
            for key in keys {
                pipeline.cmd(command).arg(key);
            }
            if pipeline.is_empty() {
                return Ok(());
            }
            for (key, reply) in keys.iter().zip(send(connection, &pipeline).await?) {
                match reply {
                    Reply::BulkString(value) => each(Action::Set {
                        key: key.clone(),
                        value: String::from_utf8_lossy(&value).into_owned(),
                    }),
                    Reply::Array(items) if !items.is_empty() => {
                        each(Action::HashReplace { key: key.clone(), fields: pairs(items) });
                    }
                    Reply::Map(fields) if !fields.is_empty() => each(Action::HashReplace {
                        key: key.clone(),
                        fields: fields
                            .into_iter()
                            .filter_map(|(name, value)| Some((text(name)?, text(value)?)))
                            .collect(),
                    }),
                    // Gone since the page was read.
                    Reply::Nil | Reply::Array(_) | Reply::Map(_) => {}
                    other => return Err(unexpected(&other)),
                }
            }
        }
        Kind::Set | Kind::ZSet => {
            for key in keys {
                read_members(connection, kind, key, each).await?;
            }
        }
        Kind::Stream => {}
    }
    Ok(())
}

async fn read_members(
    connection: &mut MultiplexedConnection,
    kind: Kind,
    key: &str,
    each: &mut impl FnMut(Action),
) -> Result<(), StoreError> {
    let command = if kind == Kind::Set { "SSCAN" } else { "ZSCAN" };
    let mut cursor = "0".to_owned();
    loop {
        let mut pipeline = Pipeline::new();
        pipeline.cmd(command).arg(key).arg(&cursor).arg("COUNT").arg(SCAN_COUNT);
        let (next, items) = page(send(connection, &pipeline).await?)?;
        if kind == Kind::Set {
            for member in items.into_iter().filter_map(text) {
                each(Action::SetAdd { key: key.to_owned(), member });
            }
        } else {
            for (member, score) in pairs(items) {
                each(Action::ZAdd { key: key.to_owned(), member, score });
            }
        }
        if next == "0" {
            return Ok(());
        }
        cursor = next;
    }
}

fn page(replies: Vec<Reply>) -> Result<(String, Vec<Reply>), StoreError> {
    let reply = replies.into_iter().next().unwrap_or(Reply::Nil);
    let Reply::Array(parts) = reply else {
        return Err(unexpected(&reply));
    };
    let mut parts = parts.into_iter();
    match (parts.next().and_then(text), parts.next()) {
        (Some(next), Some(Reply::Array(items) | Reply::Set(items))) => Ok((next, items)),
        (_, other) => Err(unexpected(&other.unwrap_or(Reply::Nil))),
    }
}

fn pairs(items: Vec<Reply>) -> Vec<(String, String)> {
    let mut items = items.into_iter().filter_map(text);
    let mut pairs = Vec::new();
    while let (Some(name), Some(value)) = (items.next(), items.next()) {
        pairs.push((name, value));
    }
    pairs
}

#[expect(clippy::wildcard_enum_match_arm, reason = "every other reply is unexpected")]
fn text(reply: Reply) -> Option<String> {
    match reply {
        Reply::BulkString(bytes) => String::from_utf8(bytes).ok(),
        Reply::SimpleString(text) => Some(text),
        Reply::Int(number) => Some(number.to_string()),
        Reply::Double(number) => Some(number.to_string()),
        _ => None,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "every other reply is unexpected")]
fn unexpected(reply: &Reply) -> StoreError {
    match reply {
        Reply::ServerError(error) if error.code() == "WRONGTYPE" => StoreError::stop(
            "a key of the view holds a value of another type, written by someone else",
            "remove the foreign key, then: walview rebuild",
        ),
        Reply::ServerError(error) => server_error(error.code(), error.details()),
        _ => StoreError::retry("Redis answered with something else"),
    }
}
