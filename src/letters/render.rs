//! What people read of `dead-letters`.

use super::{Action, Done, Info, KeyPart, Outcome, PipelineLetters};
use std::fmt::Write;

/// Keys are cut here, so that a line stays one.
const KEY_SHOWN_CHARS: usize = 60;

pub(super) fn list(found: &PipelineLetters) -> String {
    let mut out = String::new();
    // Writing to a String does not fail.
    writeln!(out, "{}: {} dead letters, {} dropped", found.pipeline, found.total, found.dropped)
        .ok();
    for count in &found.counts {
        let place = place(&count.view, count.store.as_deref(), count.target.as_deref());
        let dropped = if count.dropped { ", dropped" } else { "" };
        writeln!(out, "  {:>8}  {place}: {}{dropped}", count.letters, count.reason).ok();
    }
    if found.letters.is_empty() {
        return out;
    }
    writeln!(out, "{:<16}  {:<27}  {:<24}  KEY", "ID", "COMMITTED AT", "VIEW").ok();
    for letter in &found.letters {
        writeln!(
            out,
            "{:<16}  {:<27}  {:<24}  {}{}",
            letter.id,
            letter.committed_at.as_deref().unwrap_or("-"),
            letter.view,
            key(&letter.key),
            if letter.dropped { "  (dropped)" } else { "" }
        )
        .ok();
    }
    let named = found.letters.len() as u64;
    let listed_dropped = found.letters.iter().any(|letter| letter.dropped);
    let all = found.total + if listed_dropped { found.dropped } else { 0 };
    if named < all {
        writeln!(out, "… and {} more: --limit N", all - named).ok();
    }
    out
}

pub(super) fn show(done: &Done) -> String {
    let mut out = String::new();
    for letter in &done.letters {
        head(letter, &mut out);
        writeln!(out, "  at      {}", letter.position).ok();
        if let Some(at) = &letter.committed_at {
            writeln!(out, "  commit  {at}").ok();
        }
        let rows = letter.rows.as_deref().unwrap_or_default();
        if rows.is_empty() {
            writeln!(out, "  its row is gone").ok();
        }
        for row in rows {
            writeln!(out, "  {}", row.of).ok();
            for part in &row.columns {
                let value = part.value.as_deref().unwrap_or("NULL");
                writeln!(out, "    {} = {value}", part.column).ok();
            }
        }
    }
    unknown(done, &mut out);
    out
}

pub(super) fn done(done: &Done, action: Action) -> String {
    let mut out = String::new();
    for letter in &done.letters {
        if let Some(Outcome::Still(reason)) = &letter.outcome {
            let place = place(&letter.view, letter.store.as_deref(), letter.target.as_deref());
            writeln!(out, "{}  {place}  {}: {reason}", letter.id, key(&letter.key)).ok();
        }
    }
    unknown(done, &mut out);
    let pipeline = &done.pipeline;
    if action == Action::Drop {
        writeln!(
            out,
            "{pipeline}: {} dropped; their rows stay out until they change",
            done.dropped
        )
        .ok();
        return out;
    }
    writeln!(
        out,
        "{pipeline}: {} delivered, {} cannot be delivered still, {} gone meanwhile",
        done.delivered, done.still, done.gone
    )
    .ok();
    if done.still > 0 {
        let next = "correct the rows at the source, or let them be: walview dead-letters drop";
        writeln!(out, "{next}").ok();
    }
    out
}

fn head(letter: &Info, out: &mut String) {
    let place = place(&letter.view, letter.store.as_deref(), letter.target.as_deref());
    let dropped = if letter.dropped { "  (dropped)" } else { "" };
    writeln!(out, "{}  {place}  {}{dropped}", letter.id, key(&letter.key)).ok();
    writeln!(out, "  {}", letter.reason).ok();
}

fn unknown(done: &Done, out: &mut String) {
    if !done.unknown.is_empty() {
        let ids = done.unknown.join(", ");
        writeln!(out, "no dead letter (any more): {ids}; see walview dead-letters list").ok();
    }
}

fn place(view: &str, store: Option<&str>, target: Option<&str>) -> String {
    match (store, target) {
        (Some(store), Some(target)) => format!("{view} → {store} {target}"),
        _ => view.to_owned(),
    }
}

/// `id=5 day=2026-01-01`, on one line.
fn key(parts: &[KeyPart]) -> String {
    if parts.is_empty() {
        return "the only row".to_owned();
    }
    let parts = parts
        .iter()
        .map(|part| format!("{}={}", part.column, part.value.as_deref().unwrap_or("NULL")));
    let text = parts.collect::<Vec<_>>().join(" ");
    let shown: String =
        text.chars().take(KEY_SHOWN_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if shown.chars().count() < text.chars().count() { format!("{shown}…") } else { shown }
}
