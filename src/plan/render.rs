//! A plan for people: what will be made first, then what is missing, with statements to paste.

use super::report::{
    PipelinePlan, Problem, SlotPlan, StartKind, StatePlan, StorePlan, TablePlan, Verdict, ViewPlan,
};
use crate::state::JOURNAL_BYTES_MAX;
use std::fmt::Write as _;

/// `excerpts`: the file's own errors, as `check` shows them.
pub(super) fn render(plan: &PipelinePlan, excerpts: Option<&str>) -> String {
    let mut out = String::new();
    header(plan, &mut out);
    tables(&plan.tables, &mut out);
    views(plan, &mut out);
    for note in &plan.notes {
        line(&mut out, "note", note);
    }
    if plan.problems.is_empty() {
        statements(plan, &mut out);
    } else {
        problems(plan, excerpts, &mut out);
    }
    out.push_str(&closing(plan));
    out
}

fn line(out: &mut String, label: &str, text: &str) {
    // Writing to a String cannot fail.
    writeln!(out, "{label:<12}{text}").unwrap_or_default();
}

fn header(plan: &PipelinePlan, out: &mut String) {
    let name = plan.pipeline.as_deref().unwrap_or("-");
    line(out, "pipeline", &format!("{name} ({})", plan.file));
    if let Some(start) = plan.start {
        line(out, "start", start_text(start));
    }
    if let Some(source) = &plan.source {
        line(
            out,
            "source",
            &format!(
                "PostgreSQL {} at \"{}\", database \"{}\", role \"{}\"",
                source.version, source.address, source.database, source.role
            ),
        );
    }
    if let Some(publication) = &plan.publication {
        let step = match publication.step {
            "create" => "will be made",
            "alter" => "will be altered",
            _ => "sends all that the views use",
        };
        line(out, "publication", &format!("{}: {step}", publication.name));
    }
    if let Some(slot) = &plan.slot {
        slot_lines(slot, out);
    }
    if let Some(state) = &plan.state {
        line(out, "state", &state_text(state));
    }
    for store in &plan.stores {
        store_lines(store, out);
    }
}

fn start_text(start: StartKind) -> &'static str {
    match start {
        StartKind::First => "the first: tables are copied and the stores filled",
        StartKind::Over => {
            "over again, since the first snapshot did not end: tables are copied, the stores filled"
        }
        StartKind::Resume => "goes on where the last run ended; nothing is copied",
        StartKind::Running => "runs already; nothing to do",
    }
}

fn slot_lines(slot: &SlotPlan, out: &mut String) {
    let step = match slot.step {
        "create" => "will be made".to_owned(),
        "replace" => "will be made anew".to_owned(),
        _ => {
            let retained = slot
                .retained_bytes
                .map_or_else(String::new, |b| format!(", holds {} back", size(b)));
            let holder =
                slot.held_by.as_ref().map_or_else(String::new, |held| format!(", read by {held}"));
            format!("{}{retained}{holder}", slot.wal_status.unwrap_or("there"))
        }
    };
    let format = match (slot.format, &slot.text_only) {
        (None, _) => String::new(),
        (Some(format), None) => format!(", values in {format}"),
        (Some(format), Some(column)) => format!(", values in {format} because of {column}"),
    };
    line(
        out,
        "slot",
        &format!(
            "{}: {step}{format} ({} of {} slots and {} of {} WAL senders in use)",
            slot.name, slot.slots_used, slot.slots_max, slot.senders_used, slot.senders_max
        ),
    );
    let limit = match slot.wal_kept_bytes_max {
        None => {
            "while walview stands still WAL piles up without limit (max_slot_wal_keep_size = -1)"
                .to_owned()
        }
        Some(bytes) => format!(
            "more than {} of WAL behind, and the slot is lost: rebuild (max_slot_wal_keep_size)",
            size(bytes)
        ),
    };
    line(out, "", &limit);
    if let Some(seconds) = slot.idle_seconds_max {
        let text = format!(
            "{} without a reader, and the slot is lost too (idle_replication_slot_timeout)",
            duration(seconds)
        );
        line(out, "", &text);
    }
    let rate = match slot.wal_bytes_per_day {
        Some(bytes) => {
            format!("the server writes about {} of WAL a day (pg_stat_wal)", size(bytes))
        }
        None => {
            "WAL a day is not known: compare SELECT wal_bytes FROM pg_stat_wal today and tomorrow"
                .to_owned()
        }
    };
    line(out, "", &rate);
}

fn state_text(state: &StatePlan) -> String {
    let holds = match state.holds {
        "live" => "holds this pipeline",
        "unfinished" => "holds an unfinished snapshot, which is thrown away",
        "in_use" => "in use",
        _ => "nothing yet",
    };
    let mut text = format!("{}: {holds}", state.folder);
    if let Some(position) = &state.durable_to {
        write!(text, ", durable to {position}").unwrap_or_default();
    }
    if let Some(bytes) = state.bytes_estimated {
        let journal = size(JOURNAL_BYTES_MAX);
        write!(text, "; will take about {}, and up to {journal} for its journal", size(bytes))
            .unwrap_or_default();
    }
    if let Some(bytes) = state.bytes_free {
        write!(text, "; {} free", size(bytes)).unwrap_or_default();
    }
    text
}

fn store_lines(store: &StorePlan, out: &mut String) {
    let mut parts = vec![store.server.clone().unwrap_or_else(|| "did not answer".to_owned())];
    parts.extend(store.facts.iter().cloned());
    line(out, "store", &format!("{}: {}", store.store, parts.join(", ")));
    if let Some((keys, bytes)) = store.keys_max.zip(store.bytes_max) {
        let text =
            format!("the views: at most about {} keys and members, {}", count(keys), size(bytes));
        line(out, "", &text);
    }
}

fn tables(tables: &[TablePlan], out: &mut String) {
    if tables.is_empty() {
        return;
    }
    row(out, 32, &["TABLE", "ROWS", "ON DISK", "COLUMNS", "KEPT IN STATE", "VIEWS"]);
    for table in tables {
        let rows = table.rows.map_or_else(|| "unknown".to_owned(), count);
        let kept = table.state_bytes.map_or_else(|| "unknown".to_owned(), size);
        let columns = format!("{} of {}", table.columns.len(), table.columns_all);
        let views = table.views.len().to_string();
        row(out, 32, &[&table.table, &rows, &size(table.bytes), &columns, &kept, &views]);
    }
    let why = "all rows of these tables are kept, in the columns in use: a change then knows the old row and \
               its joins.\nREPLICA IDENTITY FULL saves none of it today.";
    for text in why.lines() {
        writeln!(out, "  {text}").unwrap_or_default();
    }
}

fn row(out: &mut String, first: usize, cells: &[&str]) {
    let mut text = String::new();
    for (index, cell) in cells.iter().enumerate() {
        let width = if index == 0 { first } else { 14 };
        write!(text, "{cell:<width$} ").unwrap_or_default();
    }
    out.push_str(text.trim_end());
    out.push('\n');
}

fn views(plan: &PipelinePlan, out: &mut String) {
    if plan.views.is_empty() {
        return;
    }
    writeln!(out, "{:<26} {:<34} TARGET", "VIEW", "ONE ROW FOR EACH").unwrap_or_default();
    for view in &plan.views {
        let mut name = view.view.as_str();
        let mut each = each_text(view);
        for target in &view.targets {
            let step = match (target.step, target.removed) {
                ("create", _) => "new".to_owned(),
                ("keep", _) => "kept".to_owned(),
                (step, removed) => {
                    let about = if target.removed_estimated { "about " } else { "" };
                    let what = if target.statements.is_empty() { "emptied" } else { "made anew" };
                    let what = if step == "replace" { "made anew" } else { what };
                    format!("{what}, REMOVES {about}{} that stand there", count(removed))
                }
            };
            writeln!(out, "{name:<26} {each:<34} {}: {} ({step})", target.store, target.target)
                .unwrap_or_default();
            name = "";
            each = String::new();
        }
        if view.targets.is_empty() {
            writeln!(out, "{name:<26} {each}").unwrap_or_default();
        }
    }
}

fn each_text(view: &ViewPlan) -> String {
    let at_most = view.rows_max.map_or_else(String::new, |rows| format!(", <= {}", count(rows)));
    match view.kind {
        "one" => "(a single row)".to_owned(),
        _ => format!("{}{at_most}", view.key.join(", ")),
    }
}

/// What will be run, where nothing is in the way.
fn statements(plan: &PipelinePlan, out: &mut String) {
    let publication = plan.publication.iter().flat_map(|publication| &publication.statements);
    let publication: Vec<&String> = publication.collect();
    let targets = plan.views.iter().flat_map(|view| &view.targets);
    let tables: Vec<&String> = targets.flat_map(|target| &target.statements).collect();
    for (place, list) in [("PostgreSQL", publication), ("ClickHouse", tables)] {
        if list.is_empty() {
            continue;
        }
        writeln!(out, "\nrun will do in {place}:").unwrap_or_default();
        for statement in list {
            writeln!(out, "  {statement};").unwrap_or_default();
        }
    }
}

fn problems(plan: &PipelinePlan, excerpts: Option<&str>, out: &mut String) {
    out.push_str("\nin the way:\n");
    if let Some(excerpts) = excerpts {
        out.push_str(excerpts);
    }
    let of_file = |problem: &&Problem| problem.place.starts_with(&plan.file);
    let others: Vec<&Problem> = plan.problems.iter().filter(|problem| !of_file(problem)).collect();
    for problem in &others {
        let remedy = match (&problem.remedy, problem.statements.is_empty()) {
            (Some(remedy), true) => format!("; {remedy}"),
            _ => String::new(),
        };
        writeln!(out, "  {}: {}{remedy}", problem.place, problem.message).unwrap_or_default();
    }
    // One block for each who may run it.
    let mut blocks: Vec<(String, Option<&str>, Vec<&str>)> = Vec::new();
    for problem in others.iter().filter(|problem| !problem.statements.is_empty()) {
        let server = match problem.place.as_str() {
            "source" => "PostgreSQL",
            place => place,
        };
        let by = problem.by.as_deref().unwrap_or("its owner");
        let head = format!("on {server}, as {by}");
        let list = problem.statements.iter().map(String::as_str);
        match blocks.iter_mut().find(|(known, ..)| *known == head) {
            Some((_, then, have)) => {
                *then = then.or(problem.then.as_deref());
                have.extend(list);
            }
            None => blocks.push((head, problem.then.as_deref(), list.collect())),
        }
    }
    for (head, then, list) in blocks {
        let then = then.map_or_else(String::new, |then| format!("; then {then}"));
        writeln!(out, "\n{head}{then}:").unwrap_or_default();
        for statement in list {
            // Redis's commands end with the line.
            let end = if head.contains("Redis") { "" } else { ";" };
            writeln!(out, "  {statement}{end}").unwrap_or_default();
        }
    }
}

fn closing(plan: &PipelinePlan) -> String {
    let name = plan.pipeline.as_deref().unwrap_or(&plan.file);
    let many = plan.problems.len();
    let things = if many == 1 { "1 thing" } else { &format!("{many} things") };
    match plan.result {
        Verdict::Ready if plan.start == Some(StartKind::Running) => {
            format!("\n{name}: runs, nothing is in the way")
        }
        Verdict::Ready => format!("\n{name}: ready, walview run would start"),
        Verdict::Problems => {
            format!("\n{name}: not ready, {things} in the way; nothing was changed")
        }
        Verdict::Unknown => {
            format!("\n{name}: cannot be told, {things} did not answer; nothing was changed")
        }
    }
}

/// `1.2 GB`: decimal units, two digits that mean something.
fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] =
        [(1_000_000_000_000, "TB"), (1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    for (unit, name) in UNITS {
        if bytes >= unit {
            let tenths = bytes / (unit / 10);
            let (whole, tenth) = (tenths / 10, tenths % 10);
            return if whole >= 10 {
                format!("{whole} {name}")
            } else {
                format!("{whole}.{tenth} {name}")
            };
        }
    }
    format!("{bytes} bytes")
}

/// `1,234,567`.
fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_counts_and_times_are_short() {
        assert_eq!(
            [0, 999, 1_000, 9_990_000, 24_600_000, 3_400_000_000_000].map(size),
            ["0 bytes", "999 bytes", "1.0 kB", "9.9 MB", "24 MB", "3.4 TB"]
        );
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([90, 600, 7_200, 172_800].map(duration), ["90 s", "10 min", "2 h", "2 days"]);
    }
}
