//! Redis targets: keys, members and stream entries for the rows of a result.
//!
//! ```text
//!  Spec ── bind(view) ──► Target ── render(change) ──► Op … ── encode ──► outbox
//! ```
//!
//! Invariants:
//! - one result row has one slot (a key, or a key and a member), and no two rows share one:
//!   template and member hold a key of the result, and templates are injective;
//! - operations are absolute; what an old row held elsewhere is removed before the new is written.

mod bind;
mod op;

pub use op::{Action, Op, OpRef, coalesce};

use super::format::{write_json, write_json_string, write_text};
use super::template::Template;
use super::{Change, Columns, Commit, Event, Events, Field, RenderError, same_fields, value_of};
use crate::plan::View;
use crate::position::Position;
use crate::value::{Type, Value};
use bind::{bind_shape, check_reserved, needs_old};

/// A Redis target as the pipeline file says it, names not yet looked up in the view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    pub template: Template,
    pub shape: SpecShape,
    /// Columns shown, in order; `None` is all.
    pub fields: Option<Vec<String>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpecShape {
    /// One string key per result row. `empty_zero`: a vanished row's counter stays at 0.
    String {
        value: String,
        empty_zero: bool,
    },
    Hash,
    /// A plain string holding JSON. `numbers_text`: integers as JSON strings.
    Json {
        numbers_text: bool,
    },
    Set {
        member: String,
    },
    ZSet {
        member: String,
        score: String,
    },
    /// `maxlen`: `None` does not trim.
    Stream {
        events: Events,
        maxlen: Option<u64>,
    },
}

/// Redis's types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    String,
    Hash,
    Set,
    ZSet,
    Stream,
}

/// A Redis target bound to its view.
#[derive(Clone, Debug)]
pub struct Target {
    template: Template,
    /// The template's columns, as often as they stand in it.
    key: Vec<Field>,
    shape: Shape,
    /// What a reader of the target sees of a row, besides its key.
    shown: Vec<Field>,
    view: String,
    needs_old: bool,
}

#[derive(Clone, Debug)]
enum Shape {
    String {
        value: Field,
        empty_zero: bool,
    },
    Hash,
    Json {
        numbers_text: bool,
    },
    Set {
        member: Field,
    },
    ZSet {
        member: Field,
        score: Field,
    },
    /// `identity`: the result's key among the columns shown, which a delete's entry still shows.
    Stream {
        events: Events,
        maxlen: Option<u64>,
        identity: Vec<usize>,
    },
}

impl Target {
    /// # Errors
    /// Everything that is wrong with the target, one sentence each.
    pub fn bind(spec: &Spec, view: &View) -> Result<Self, Vec<String>> {
        let mut columns = Columns::new(view);
        check_reserved(&spec.template, &mut columns.errors);
        let key: Vec<Field> = spec
            .template
            .columns()
            .filter_map(|name| columns.find(name, "the key template"))
            .collect();
        for field in &key {
            columns.must_not_be_null(field, "the key template");
        }
        let bound = bind_shape(spec, view, &mut columns);
        if let Some((shape, _)) = &bound {
            let mut used: Vec<&Field> = key.iter().collect();
            let (place, remedy) = match shape {
                Shape::Set { member } | Shape::ZSet { member, .. } => {
                    used.push(member);
                    ("the key template and the member", "add it to the template")
                }
                Shape::String { .. } | Shape::Hash | Shape::Json { .. } | Shape::Stream { .. } => {
                    ("the key template", "add it to the template")
                }
            };
            if !matches!(shape, Shape::Stream { .. }) {
                columns.must_hold_key(&used, place, remedy);
            }
        }
        let target = bound.map(|(shape, shown)| Self {
            needs_old: needs_old(&shape, &key, view),
            template: spec.template.clone(),
            key,
            shape,
            shown,
            view: view.name.clone(),
        });
        columns.done(target)
    }

    #[must_use]
    pub fn template(&self) -> &Template {
        &self.template
    }

    /// What kind of thing a key of it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.shape {
            Shape::String { .. } | Shape::Json { .. } => Kind::String,
            Shape::Hash => Kind::Hash,
            Shape::Set { .. } => Kind::Set,
            Shape::ZSet { .. } => Kind::ZSet,
            Shape::Stream { .. } => Kind::Stream,
        }
    }

    #[must_use]
    pub fn is_stream(&self) -> bool {
        matches!(self.shape, Shape::Stream { .. })
    }

    /// Whether the row before an update or a delete must be given whole. Where not, a delete needs
    /// the key's columns only, and an update may come without its old row; but a stream of inserts
    /// must then be told apart from inserts by giving the new row as the old one too.
    #[must_use]
    pub fn needs_old(&self) -> bool {
        self.needs_old
    }

    /// What the store must do for one change of the result, appended to `out`.
    ///
    /// # Errors
    /// Where the new row has no place in the target. What the old row held is removed then, too.
    pub fn render(
        &self,
        target: u16,
        change: &Change<'_>,
        at: Position,
        commit: &Commit,
        out: &mut Vec<Op>,
    ) -> Result<(), RenderError> {
        let mut push = |action| out.push(Op { target, action });
        if let Shape::Stream { events, maxlen, identity } = &self.shape {
            if let Some(entry) = self.event(change, *events, identity, at, commit)? {
                let (key, id, fields) = entry;
                push(Action::StreamAdd { key, id, fields, maxlen: *maxlen });
            }
            return Ok(());
        }
        if let (Some(old), Some(new)) = (change.old, change.new)
            && same_fields(&self.key, old, new)
            && same_fields(&self.shown, old, new)
        {
            return Ok(());
        }
        // A row that could not be rendered was parked and holds nothing.
        let old = change.old.and_then(|row| self.slot(row).ok());
        let new = match change.new {
            Some(row) => match self.slot(row).and_then(|slot| Ok((self.content(row)?, slot))) {
                Ok((content, slot)) => Some((content, slot)),
                Err(error) => {
                    if let Some(old) = old {
                        push(self.vanish(old));
                    }
                    return Err(error);
                }
            },
            None => None,
        };
        if let Some(old) = old
            && new.as_ref().is_none_or(|(_, slot)| *slot != old)
        {
            push(self.vanish(old));
        }
        if let Some((content, slot)) = new {
            push(match content {
                Some(content) => put(slot, content),
                None => remove(slot, &self.shape),
            });
        }
        Ok(())
    }

    /// The operation that makes the store hold a row of the result; `None` where it must hold
    /// nothing for it (a NULL value or score), and for streams, which hold events.
    ///
    /// # Errors
    /// Where the row has no place in the target: it is parked.
    pub fn expected(&self, row: &[Value]) -> Result<Option<Action>, RenderError> {
        if self.is_stream() {
            return Ok(None);
        }
        let slot = self.slot(row)?;
        Ok(self.content(row)?.map(|content| put(slot, content)))
    }

    /// The entry that says to readers of the stream `key` that events after the one with the id
    /// `from` may be missing, up to the entry itself. Its id sorts after every event up to `to`, and
    /// before every later one. `None` for what is no stream, and where `to` fits no id.
    #[must_use]
    pub fn gap(&self, key: &str, from: (u64, u64), to: Position) -> Option<Action> {
        let Shape::Stream { maxlen, .. } = &self.shape else {
            return None;
        };
        let id = to.stream_id()?;
        let text = |(high, low): (u64, u64)| format!("{high}-{low}");
        let field = |name: &str, value: String| (name.to_owned(), value);
        let fields = vec![
            field("_op", "gap".to_owned()),
            field("_view", self.view.clone()),
            field("_from", text(from)),
            field("_to", text(id)),
        ];
        Some(Action::StreamAdd { key: key.to_owned(), id, fields, maxlen: *maxlen })
    }

    /// Whether the store may hold this although no row asks for it: a vanished counter's 0.
    #[must_use]
    pub fn may_remain(&self, held: &Action) -> bool {
        matches!(
            (&self.shape, held),
            (Shape::String { empty_zero: true, .. }, Action::Set { value, .. }) if value == "0"
        )
    }

    /// The key that a row of the result leads to.
    ///
    /// # Errors
    /// Where the row has no place in the target.
    pub fn key(&self, row: &[Value]) -> Result<String, RenderError> {
        let mut fields = self.key.iter();
        let mut key = String::with_capacity(48);
        self.template.render(
            |_, out| match fields.next() {
                Some(field) => not_null(row, field).map(|value| write_text(value, &field.ty, out)),
                None => Ok(()),
            },
            &mut key,
        )?;
        Ok(key)
    }

    fn slot(&self, row: &[Value]) -> Result<Slot, RenderError> {
        let member = match &self.shape {
            Shape::Set { member } | Shape::ZSet { member, .. } => {
                Some(text_of(not_null(row, member)?, &member.ty))
            }
            Shape::String { .. } | Shape::Hash | Shape::Json { .. } | Shape::Stream { .. } => None,
        };
        Ok(Slot { key: self.key(row)?, member })
    }

    /// What the slot of a row holds; `None` for nothing.
    fn content(&self, row: &[Value]) -> Result<Option<Content>, RenderError> {
        Ok(match &self.shape {
            Shape::String { value: field, .. } => {
                held(row, field).map(|value| Content::Text(text_of(value, &field.ty)))
            }
            Shape::Hash => {
                let fields = flat(&self.shown, row);
                (!fields.is_empty()).then_some(Content::Fields(fields))
            }
            Shape::Json { numbers_text } => {
                let mut text = String::with_capacity(32 * self.shown.len());
                write_object(self.shown.iter(), row, *numbers_text, &mut text);
                Some(Content::Text(text))
            }
            Shape::Set { .. } => Some(Content::Member),
            Shape::ZSet { score, .. } => score_of(row, score)?.map(Content::Score),
            Shape::Stream { .. } => None,
        })
    }

    fn vanish(&self, slot: Slot) -> Action {
        if matches!(self.shape, Shape::String { empty_zero: true, .. }) {
            put(slot, Content::Text("0".to_owned()))
        } else {
            remove(slot, &self.shape)
        }
    }

    /// Key, id and fields of a change's stream entry.
    #[expect(clippy::type_complexity, reason = "the parts of one entry, used once")]
    fn event(
        &self,
        change: &Change<'_>,
        events: Events,
        identity: &[usize],
        at: Position,
        commit: &Commit,
    ) -> Result<Option<(String, (u64, u64), Vec<(String, String)>)>, RenderError> {
        let (event, row) = match (change.old, change.new) {
            (None, Some(new)) => (Event::Insert, new),
            (Some(old), Some(new)) => {
                if same_fields(&self.shown, old, new) {
                    return Ok(None);
                }
                (Event::Update, new)
            }
            (Some(old), None) => (Event::Delete, old),
            (None, None) => return Ok(None),
        };
        let (wanted, name) = match event {
            Event::Insert => (events.insert, "insert"),
            Event::Update => (events.update, "update"),
            Event::Delete => (events.delete, "delete"),
        };
        if !wanted {
            return Ok(None);
        }
        let key = self.key(row)?;
        let id = at.stream_id().ok_or(RenderError::Position(at))?;
        let mut fields = match event {
            Event::Insert | Event::Update => flat(&self.shown, row),
            Event::Delete => {
                flat(self.shown.iter().filter(|field| identity.contains(&field.index)), row)
            }
        };
        fields.push(("_op".to_owned(), name.to_owned()));
        fields.push(("_view".to_owned(), self.view.clone()));
        let committed_at = Value::TimestampTz(commit.committed_at);
        fields.push(("_committed_at".to_owned(), text_of(&committed_at, &Type::TimestampTz)));
        if let Some(old) = change.old {
            let changed = self.shown.iter().filter(|field| {
                change.new.is_none_or(|new| value_of(old, field) != value_of(new, field))
            });
            let mut text = String::new();
            write_object(changed, old, false, &mut text);
            fields.push(("_old".to_owned(), text));
        }
        Ok(Some((key, id, fields)))
    }
}

/// Where a row of the result stands in the store.
#[derive(Debug, PartialEq, Eq)]
struct Slot {
    key: String,
    member: Option<String>,
}

enum Content {
    Text(String),
    Fields(Vec<(String, String)>),
    Member,
    Score(String),
}

fn put(slot: Slot, content: Content) -> Action {
    let Slot { key, member } = slot;
    let member = member.unwrap_or_default();
    match content {
        Content::Text(value) => Action::Set { key, value },
        Content::Fields(fields) => Action::HashReplace { key, fields },
        Content::Member => Action::SetAdd { key, member },
        Content::Score(score) => Action::ZAdd { key, member, score },
    }
}

fn remove(slot: Slot, shape: &Shape) -> Action {
    let Slot { key, member } = slot;
    let member = member.unwrap_or_default();
    match shape {
        Shape::Set { .. } => Action::SetRem { key, member },
        Shape::ZSet { .. } => Action::ZRem { key, member },
        Shape::String { .. } | Shape::Hash | Shape::Json { .. } | Shape::Stream { .. } => {
            Action::Del { key }
        }
    }
}

/// The value of a field that is not NULL.
fn held<'a>(row: &'a [Value], field: &Field) -> Option<&'a Value> {
    Some(value_of(row, field)).filter(|value| !matches!(value, Value::Null))
}

fn not_null<'a>(row: &'a [Value], field: &Field) -> Result<&'a Value, RenderError> {
    held(row, field).ok_or_else(|| RenderError::NullKey { column: field.name.clone() })
}

fn text_of(value: &Value, ty: &Type) -> String {
    let mut text = String::new();
    write_text(value, ty, &mut text);
    text
}

/// Names and texts of the fields that are not NULL.
fn flat<'a>(fields: impl IntoIterator<Item = &'a Field>, row: &[Value]) -> Vec<(String, String)> {
    fields
        .into_iter()
        .filter_map(|field| {
            let value = held(row, field)?;
            Some((field.name.clone(), text_of(value, &field.ty)))
        })
        .collect()
}

fn write_object<'a>(
    fields: impl Iterator<Item = &'a Field>,
    row: &[Value],
    numbers_text: bool,
    out: &mut String,
) {
    out.push('{');
    for (index, field) in fields.enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_json_string(&field.name, out);
        out.push(':');
        write_json(value_of(row, field), &field.ty, numbers_text, out);
    }
    out.push('}');
}

/// A score as Redis reads it: a double, and never NaN. `None` for NULL.
fn score_of(row: &[Value], field: &Field) -> Result<Option<String>, RenderError> {
    let value = value_of(row, field);
    if matches!(value, Value::Null) {
        return Ok(None);
    }
    let unfit = |why| RenderError::Unfit { column: field.name.clone(), why };
    let text = text_of(value, &field.ty);
    match text.as_str() {
        "Infinity" => return Ok(Some("inf".to_owned())),
        "-Infinity" => return Ok(Some("-inf".to_owned())),
        _ => {}
    }
    match text.parse::<f64>() {
        Ok(score) if score.is_nan() => Err(unfit("a Redis score cannot be NaN")),
        Ok(score) if score.is_infinite() => Err(unfit("it is beyond what a Redis score holds")),
        // Redis refuses digits that underflow to a subnormal.
        Ok(score)
            if score.is_subnormal()
                || (score == 0.0 && text.bytes().any(|b| (b'1'..=b'9').contains(&b))) =>
        {
            Ok(Some("0".to_owned()))
        }
        Ok(_) => Ok(Some(text)),
        Err(_) => Err(unfit("it is not a number")),
    }
}

#[cfg(test)]
mod tests;
