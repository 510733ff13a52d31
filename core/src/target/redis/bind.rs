//! Looking up in its view what a target names, and refusing what it could not keep.

use super::super::template::Template;
use super::super::{Columns, Field};
use super::{Shape, Spec, SpecShape};
use crate::plan::View;
use crate::value::Type;

/// Columns of a stream entry that are not the view's.
const STREAM_META: [&str; 6] = ["_op", "_view", "_committed_at", "_old", "_from", "_to"];

/// The pipeline's own keys stand under `walview:`.
pub(super) fn check_reserved(template: &Template, errors: &mut Vec<String>) {
    if let Ok(own) = Template::parse("walview:{pipeline}:{what}")
        && own.overlaps(template)
    {
        errors.push(
            "the key template can meet walview's own keys \"walview:…\"; choose another prefix"
                .to_owned(),
        );
    }
}

pub(super) fn bind_shape(
    spec: &Spec,
    view: &View,
    columns: &mut Columns<'_>,
) -> Option<(Shape, Vec<Field>)> {
    let single = |columns: &mut Columns<'_>, shape: &str| {
        if spec.fields.is_some() {
            columns.errors.push(format!(
                "\"fields\" has no meaning for a {shape}; it is for hash, json and stream"
            ));
        }
    };
    let fields = spec.fields.as_deref();
    Some(match &spec.shape {
        SpecShape::String { value, empty_zero } => {
            single(columns, "string");
            let value = columns.find(value, "\"value\"")?;
            if *empty_zero && !is_number(&value.ty) {
                columns.errors.push(format!(
                    "\"empty: zero\" needs a number as value, and column \"{}\" is none",
                    value.name
                ));
            }
            (Shape::String { value: value.clone(), empty_zero: *empty_zero }, vec![value])
        }
        SpecShape::Hash => (Shape::Hash, columns.shown(fields)),
        SpecShape::Json { numbers_text } => {
            (Shape::Json { numbers_text: *numbers_text }, columns.shown(fields))
        }
        SpecShape::Set { member } => {
            single(columns, "set");
            let member = columns.find(member, "\"member\"")?;
            columns.must_not_be_null(&member, "\"member\"");
            (Shape::Set { member: member.clone() }, vec![member])
        }
        SpecShape::ZSet { member, score } => {
            single(columns, "zset");
            let member = columns.find(member, "\"member\"");
            let score = columns.find(score, "\"score\"");
            let (member, score) = (member?, score?);
            columns.must_not_be_null(&member, "\"member\"");
            if !is_number(&score.ty) {
                columns.errors.push(format!(
                    "\"score\" must be a number, and column \"{0}\" is none; for a time write \
                     extract(epoch FROM {0})",
                    score.name
                ));
            }
            let shown = vec![member.clone(), score.clone()];
            (Shape::ZSet { member, score }, shown)
        }
        SpecShape::Stream { events, maxlen } => {
            let shown = columns.shown(fields);
            for field in shown.iter().filter(|field| STREAM_META.contains(&field.name.as_str())) {
                columns.errors.push(format!(
                    "column \"{}\" has the name of a field that every stream entry has; rename it \
                     with AS",
                    field.name
                ));
            }
            if !(events.insert || events.update || events.delete) {
                columns
                    .errors
                    .push("\"events\" is empty; name insert, update or delete".to_owned());
            }
            if *maxlen == Some(0) {
                columns.errors.push("\"maxlen\" must be at least 1".to_owned());
            }
            let identity = view.key.clone();
            (Shape::Stream { events: *events, maxlen: *maxlen, identity }, shown)
        }
    })
}

fn is_number(ty: &Type) -> bool {
    matches!(
        ty,
        Type::Int2 | Type::Int4 | Type::Int8 | Type::Float4 | Type::Float8 | Type::Numeric(_)
    )
}

/// A slot moves where it depends on more than the key, or where values that are equal in SQL have
/// two faces (1.0 and 1.00).
pub(super) fn needs_old(shape: &Shape, key: &[Field], view: &View) -> bool {
    let moves = |field: &Field| {
        !view.key.contains(&field.index)
            || matches!(
                field.ty,
                Type::Numeric(None)
                    | Type::Float4
                    | Type::Float8
                    | Type::Char(_)
                    | Type::Interval
                    | Type::Jsonb
                    | Type::Other { .. }
            )
    };
    match shape {
        Shape::Stream { events, .. } => events.update || events.delete,
        Shape::Set { member } | Shape::ZSet { member, .. } => {
            key.iter().any(moves) || moves(member)
        }
        Shape::String { .. } | Shape::Hash | Shape::Json { .. } => key.iter().any(moves),
    }
}
