//! Redis targets: keys, members and stream entries for the rows of a result.
//!
//! ```text
//!  Spec ── bind(view) ──► Target ── render(change) ──► encoded Op … ──► outbox
//! ```
//!
//! Invariants:
//! - one result row has one slot (a key, or a key and a member), and no two rows share one:
//!   template and member hold a key of the result, and templates are injective;
//! - operations are absolute; what an old row held elsewhere is removed before the new is written.

mod bind;
mod op;

pub use op::{Action, Encoded, Fields, Op, OpRef, coalesce, gather};

use super::format::{write_json, write_json_string, write_text};
use super::template::Template;
use super::{
    Change, Columns, Commit, Event, Events, Field, RenderError, Scratch, same_fields, value_of,
};
use crate::plan::View;
use crate::position::Position;
use crate::value::{Type, Value};
use bind::{bind_shape, check_reserved, needs_old};
use op::put_field;

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

    /// What the store must do for one change of the result, as encoded operations that are appended
    /// to `out`.
    ///
    /// # Errors
    /// Where the new row has no place in the target. What the old row held is removed then, too.
    pub fn render(
        &self,
        target: u16,
        change: &Change<'_>,
        at: Position,
        commit: &Commit,
        scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) -> Result<(), RenderError> {
        if let Shape::Stream { events, maxlen, identity } = &self.shape {
            let entry = Entry { target, at, commit, events: *events, maxlen: *maxlen, identity };
            return self.event(change, &entry, scratch, out);
        }
        if let (Some(old), Some(new)) = (change.old, change.new)
            && same_fields(&self.key, old, new)
            && same_fields(&self.shown, old, new)
        {
            return Ok(());
        }
        let Scratch { old, new, text, .. } = scratch;
        // A row that could not be rendered was parked and holds nothing.
        let held = change.old.is_some_and(|row| self.slot(row, old).is_ok());
        let start = out.len();
        let rendered = match change.new {
            Some(row) => self.moved(change.old.filter(|_| held), old, row, new).and_then(|()| {
                if held && old != new {
                    self.vanish(target, old, out);
                }
                if !self.hold(target, new, row, text, out)? {
                    self.remove(target, new, out);
                }
                Ok(())
            }),
            None => {
                if held {
                    self.vanish(target, old, out);
                }
                Ok(())
            }
        };
        if rendered.is_err() {
            out.truncate(start);
            if held {
                self.vanish(target, old, out);
            }
        }
        rendered
    }

    /// The operation that makes the store hold a row of the result; `None` where it must hold
    /// nothing for it (a NULL value or score), and for streams, which hold events.
    ///
    /// # Errors
    /// Where the row has no place in the target: it is parked.
    pub fn expected(&self, row: &[Value]) -> Result<Option<Action>, RenderError> {
        let (mut scratch, mut bytes) = (Scratch::default(), Vec::new());
        let Scratch { new, text, .. } = &mut scratch;
        self.slot(row, new)?;
        self.hold(0, new, row, text, &mut bytes)?;
        let op = OpRef::decode_all(&bytes).next().and_then(Result::ok);
        Ok(op.and_then(|op| op.whole().ok()).map(|op| op.action))
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
        let mut key = String::with_capacity(48);
        self.write_key(row, &mut key)?;
        Ok(key)
    }

    fn write_key(&self, row: &[Value], out: &mut String) -> Result<(), RenderError> {
        let mut fields = self.key.iter();
        self.template.render(
            |_, out| match fields.next() {
                Some(field) => not_null(row, field).map(|value| write_text(value, &field.ty, out)),
                None => Ok(()),
            },
            out,
        )
    }

    /// Where a row stands.
    fn slot(&self, row: &[Value], slot: &mut Slot) -> Result<(), RenderError> {
        slot.key.clear();
        slot.member.clear();
        if let Shape::Set { member } | Shape::ZSet { member, .. } = &self.shape {
            write_text(not_null(row, member)?, &member.ty, &mut slot.member);
        }
        self.write_key(row, &mut slot.key)
    }

    /// Where a row stands that takes the place of one which stands in the slot `from`.
    fn moved(
        &self,
        old: Option<&[Value]>,
        from: &Slot,
        row: &[Value],
        slot: &mut Slot,
    ) -> Result<(), RenderError> {
        let member = match &self.shape {
            Shape::Set { member } | Shape::ZSet { member, .. } => Some(member),
            Shape::String { .. } | Shape::Hash | Shape::Json { .. } | Shape::Stream { .. } => None,
        };
        let stays = |old: &[Value]| {
            same_fields(&self.key, old, row)
                && member.is_none_or(|field| value_of(old, field) == value_of(row, field))
        };
        if !old.is_some_and(stays) {
            return self.slot(row, slot);
        }
        // Nearly always: a key is not written twice.
        slot.key.clone_from(&from.key);
        slot.member.clone_from(&from.member);
        Ok(())
    }

    /// Appends what makes the store hold a row in its slot; `false` where it must hold nothing.
    fn hold(
        &self,
        target: u16,
        Slot { key, member }: &Slot,
        row: &[Value],
        text: &mut String,
        out: &mut Vec<u8>,
    ) -> Result<bool, RenderError> {
        text.clear();
        match &self.shape {
            Shape::String { value: field, .. } => {
                let Some(value) = held(row, field) else { return Ok(false) };
                write_text(value, &field.ty, text);
                Encoded::Set { value: text }.put(target, key, out);
            }
            Shape::Hash => {
                let fields = count_held(&self.shown, row);
                if fields == 0 {
                    return Ok(false);
                }
                let all = fields == self.shown.len();
                Encoded::HashReplace { fields, all }.put(target, key, out);
                put_held(&self.shown, row, text, out);
            }
            Shape::Json { numbers_text } => {
                write_object(self.shown.iter(), row, *numbers_text, text);
                Encoded::Set { value: text }.put(target, key, out);
            }
            Shape::Set { .. } => Encoded::SetAdd { member }.put(target, key, out),
            Shape::ZSet { score, .. } => {
                let Some(score) = score_of(row, score, text)? else { return Ok(false) };
                Encoded::ZAdd { member, score }.put(target, key, out);
            }
            Shape::Stream { .. } => return Ok(false),
        }
        Ok(true)
    }

    /// Appends what a row that goes leaves.
    fn vanish(&self, target: u16, slot: &Slot, out: &mut Vec<u8>) {
        if matches!(self.shape, Shape::String { empty_zero: true, .. }) {
            Encoded::Set { value: "0" }.put(target, &slot.key, out);
        } else {
            self.remove(target, slot, out);
        }
    }

    fn remove(&self, target: u16, Slot { key, member }: &Slot, out: &mut Vec<u8>) {
        let encoded = match &self.shape {
            Shape::Set { .. } => Encoded::SetRem { member },
            Shape::ZSet { .. } => Encoded::ZRem { member },
            Shape::String { .. } | Shape::Hash | Shape::Json { .. } | Shape::Stream { .. } => {
                Encoded::Del
            }
        };
        encoded.put(target, key, out);
    }

    /// Appends a change's stream entry, where readers want it.
    fn event(
        &self,
        change: &Change<'_>,
        entry: &Entry<'_>,
        scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) -> Result<(), RenderError> {
        let (event, row) = match (change.old, change.new) {
            (None, Some(new)) => (Event::Insert, new),
            (Some(old), Some(new)) => {
                if same_fields(&self.shown, old, new) {
                    return Ok(());
                }
                (Event::Update, new)
            }
            (Some(old), None) => (Event::Delete, old),
            (None, None) => return Ok(()),
        };
        let (wanted, name) = match event {
            Event::Insert => (entry.events.insert, "insert"),
            Event::Update => (entry.events.update, "update"),
            Event::Delete => (entry.events.delete, "delete"),
        };
        if !wanted {
            return Ok(());
        }
        let Scratch { new: Slot { key, .. }, text, .. } = scratch;
        key.clear();
        self.write_key(row, key)?;
        let id = entry.at.stream_id().ok_or(RenderError::Position(entry.at))?;
        let shown = self
            .shown
            .iter()
            .filter(|field| event != Event::Delete || entry.identity.contains(&field.index));
        let fields = count_held(shown.clone(), row) + 3 + usize::from(change.old.is_some());
        Encoded::StreamAdd { id, maxlen: entry.maxlen, fields }.put(entry.target, key, out);
        put_held(shown, row, text, out);
        put_field("_op", name, out);
        put_field("_view", &self.view, out);
        text.clear();
        let committed_at = Value::TimestampTz(entry.commit.committed_at);
        write_text(&committed_at, &Type::TimestampTz, text);
        put_field("_committed_at", text, out);
        if let Some(old) = change.old {
            let changed = self.shown.iter().filter(|field| {
                change.new.is_none_or(|new| value_of(old, field) != value_of(new, field))
            });
            text.clear();
            write_object(changed, old, false, text);
            put_field("_old", text, out);
        }
        Ok(())
    }
}

/// Where a row of the result stands in the store.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Slot {
    key: String,
    /// Empty where the slot is the whole key.
    member: String,
}

/// What is said of a stream's entry besides the change.
struct Entry<'a> {
    target: u16,
    at: Position,
    commit: &'a Commit,
    events: Events,
    maxlen: Option<u64>,
    identity: &'a [usize],
}

/// The value of a field that is not NULL.
fn held<'a>(row: &'a [Value], field: &Field) -> Option<&'a Value> {
    Some(value_of(row, field)).filter(|value| !matches!(value, Value::Null))
}

fn not_null<'a>(row: &'a [Value], field: &Field) -> Result<&'a Value, RenderError> {
    held(row, field).ok_or_else(|| RenderError::NullKey { column: field.name.clone() })
}

/// How many of the fields are not NULL.
fn count_held<'a>(fields: impl IntoIterator<Item = &'a Field>, row: &[Value]) -> usize {
    fields.into_iter().filter(|field| held(row, field).is_some()).count()
}

/// Appends names and texts of the fields that are not NULL.
fn put_held<'a>(
    fields: impl IntoIterator<Item = &'a Field>,
    row: &[Value],
    text: &mut String,
    out: &mut Vec<u8>,
) {
    for field in fields {
        if let Some(value) = held(row, field) {
            text.clear();
            write_text(value, &field.ty, text);
            put_field(&field.name, text, out);
        }
    }
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

/// A score as Redis reads it: a double, and never NaN. `None` for NULL. Uses `text`, which is empty.
fn score_of<'a>(
    row: &[Value],
    field: &Field,
    text: &'a mut String,
) -> Result<Option<&'a str>, RenderError> {
    let value = value_of(row, field);
    if matches!(value, Value::Null) {
        return Ok(None);
    }
    let unfit = |why| RenderError::Unfit { column: field.name.clone(), why };
    write_text(value, &field.ty, text);
    match text.as_str() {
        "Infinity" => return Ok(Some("inf")),
        "-Infinity" => return Ok(Some("-inf")),
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
            Ok(Some("0"))
        }
        Ok(_) => Ok(Some(text)),
        Err(_) => Err(unfit("it is not a number")),
    }
}

#[cfg(test)]
mod tests;
