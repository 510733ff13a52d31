//! The canonical text of a pipeline: what state stores, to tell whether the file changed its meaning.
//!
//! Two files have the same text if and only if they define the same results in the same places:
//! comments, layout and order of options play no part, nor do URLs and passwords (a server that moved
//! is the same server; what it holds is checked by marks and system identifiers).
//! Everything is written as JSON strings, so no text can pass for two others.
//!
//! The order of views and targets is kept: emitted changes are numbered in that order (design 3.1).

use std::fmt::Write as _;

use walview_core::target::template::{Part, Template};
use walview_core::target::{clickhouse, redis};

use super::connect::Connections;
use super::{Pipeline, TargetKind, TargetSpec, ViewSpec};

/// Grows when the text of an unchanged pipeline would otherwise differ.
const CANONICAL_VERSION: u32 = 1;

impl Pipeline {
    /// The definition, one fact a line. Schema and databases may come from variables, so their
    /// resolved names are part of it.
    #[must_use]
    pub fn canonical(&self, connections: &Connections) -> String {
        let mut out = String::new();
        line(&mut out, "walview", &[&CANONICAL_VERSION.to_string()]);
        line(&mut out, "pipeline", &[self.name.as_str()]);
        line(&mut out, "schema", &[&connections.source.schema]);
        for store in &connections.stores {
            let database = store.database.as_deref().unwrap_or_default();
            line(&mut out, "store", &[store.name.as_str(), store.kind.as_str(), database]);
        }
        for view in &self.views {
            out.push_str(&self.canonical_view(view));
        }
        out
    }

    /// A short name for [`Self::canonical`], to tell whether two are the same (FNV-1a).
    #[must_use]
    pub fn definition_hash(&self, connections: &Connections) -> String {
        let text = self.canonical(connections);
        let hash = text.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
        });
        format!("{hash:016x}")
    }

    /// The part that is one view's: what tells a changed view from an unchanged one.
    #[must_use]
    pub fn canonical_view(&self, view: &ViewSpec) -> String {
        let mut out = String::new();
        line(&mut out, "view", &[view.name.as_str()]);
        line(&mut out, "sql", &[&canonical_sql(&view.sql.text)]);
        for target in &view.targets {
            self.write_target(&mut out, target);
        }
        out
    }

    fn write_target(&self, out: &mut String, target: &TargetSpec) {
        let store = self.stores.get(target.store).map_or("", |store| store.name.as_str());
        line(out, "to", &[store]);
        match &target.kind {
            TargetKind::Redis(spec) => write_redis(out, spec),
            TargetKind::ClickHouse(spec) => write_clickhouse(out, spec),
        }
    }
}

fn write_redis(out: &mut String, spec: &redis::Spec) {
    let template = canonical_template(&spec.template);
    let flag = |name: &str, on: bool| if on { name.to_owned() } else { String::new() };
    match &spec.shape {
        redis::SpecShape::String { value, empty_zero } => {
            line(out, "string", &[&template, value, &flag("empty_zero", *empty_zero)]);
        }
        redis::SpecShape::Hash => line(out, "hash", &[&template]),
        redis::SpecShape::Json { numbers_text } => {
            line(out, "json", &[&template, &flag("numbers_text", *numbers_text)]);
        }
        redis::SpecShape::Set { member } => line(out, "set", &[&template, member]),
        redis::SpecShape::ZSet { member, score } => {
            line(out, "zset", &[&template, member, score]);
        }
        redis::SpecShape::Stream { events, maxlen } => {
            let events = [
                flag("insert", events.insert),
                flag("update", events.update),
                flag("delete", events.delete),
            ];
            let maxlen = maxlen.map(|n| n.to_string()).unwrap_or_default();
            line(out, "stream", &[&template, &events.join(","), &maxlen]);
        }
    }
    write_fields(out, spec.fields.as_deref());
}

fn write_clickhouse(out: &mut String, spec: &clickhouse::Spec) {
    line(out, "table", &[&spec.table, spec.partition_by.as_deref().unwrap_or_default()]);
    line(out, "order_by", &texts(&spec.order_by));
    let mut types: Vec<&(String, String)> = spec.types.iter().collect();
    types.sort();
    for (column, ty) in types {
        line(out, "type", &[column, ty]);
    }
    write_fields(out, spec.fields.as_deref());
    if spec.unfit_text {
        line(out, "unfit", &["text"]);
    }
}

fn write_fields(out: &mut String, fields: Option<&[String]>) {
    if let Some(fields) = fields {
        line(out, "fields", &texts(fields));
    }
}

fn texts(list: &[String]) -> Vec<&str> {
    list.iter().map(String::as_str).collect()
}

fn line(out: &mut String, word: &str, texts: &[&str]) {
    out.push_str(word);
    for text in texts {
        // Writing to a String cannot fail.
        write!(out, " {}", serde_json::Value::from(*text)).unwrap_or_default();
    }
    out.push('\n');
}

fn canonical_template(template: &Template) -> String {
    let part = |part: &Part| match part {
        Part::Literal(text) => text.replace('{', "{{").replace('}', "}}"),
        Part::Column(name) => format!("{{{name}}}"),
    };
    template.parts.iter().map(part).collect()
}

/// SQL without comments, white space outside quotes as one space. Does not fold the case of words: a
/// view that was only re-typed in capitals counts as changed, which costs a resync, never a wrong
/// result.
fn canonical_sql(text: &str) -> String {
    if text.contains(['\\', '$']) {
        // `E'…'` and `$$…$$` quote by rules of their own; left as it stands, nothing can go wrong.
        return text.trim().to_owned();
    }
    let mut out = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let taken = if c.is_whitespace() || rest.starts_with("--") || rest.starts_with("/*") {
            if !out.ends_with(' ') {
                out.push(' ');
            }
            blank_bytes(rest, c)
        } else {
            let taken = token_bytes(rest, c);
            out.push_str(rest.get(..taken).unwrap_or_default());
            taken
        };
        rest = rest.get(taken.max(1)..).unwrap_or_default();
    }
    out.trim().to_owned()
}

/// Bytes of one comment or one white space character.
fn blank_bytes(rest: &str, first: char) -> usize {
    if rest.starts_with("--") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if !rest.starts_with("/*") {
        return first.len_utf8();
    }
    // PostgreSQL's comments nest.
    let (mut depth, mut at) = (0_usize, 0_usize);
    loop {
        let tail = rest.get(at..).unwrap_or_default();
        let Some(c) = tail.chars().next() else {
            return rest.len();
        };
        if tail.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if tail.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += c.len_utf8();
        }
    }
}

/// Bytes of a quoted text, or of one character. A doubled quote inside reads as two texts side by
/// side, which comes to the same.
fn token_bytes(rest: &str, first: char) -> usize {
    match first {
        '\'' | '"' => rest
            .char_indices()
            .skip(1)
            .find(|(_, c)| *c == first)
            .map_or(rest.len(), |(at, _)| at + 1),
        _ => first.len_utf8(),
    }
}

#[cfg(test)]
mod tests {
    use super::canonical_sql;

    #[test]
    fn comments_and_layout_play_no_part() {
        let plain = canonical_sql("SELECT a, '--  x' AS b FROM t");
        for same in [
            "SELECT a, '--  x' AS b -- why\n  FROM t\n",
            "\n\tSELECT a,\n '--  x'\n /* a /* b */ ' */ AS b FROM t -- end",
        ] {
            assert_eq!(canonical_sql(same), plain, "{same}");
        }
        for other in ["SELECT a, '-- x' AS b FROM t", "SELECT a, '--  x' AS \"b \" FROM t"] {
            assert_ne!(canonical_sql(other), plain, "{other}");
        }
        for odd in ["'", "/*", "/* /*", "a -- b", "E'\\'  x'", "\"ä"] {
            canonical_sql(odd);
        }
    }
}
