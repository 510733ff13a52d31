//! Which views cannot go on, now that the catalogs say something else than before.
//!
//! A pure comparison of two fingerprints, the last one that was accepted and a new one. What a view
//! does not use never stops it. Where a change cannot be told from one that loses rows, the view
//! stops: a stopped view is better than a wrong number.

use crate::source::fingerprint::{
    ColumnPrint, Fingerprint, LabelPrint, MemberPrint, OwnAlter, PartPrint, TablePrint,
};
use walview_core::catalog::{Catalog, Table};
use walview_core::engine::{Layout, TableLayout, ViewLayout};
use walview_core::plan::ViewKind;

/// What brings a view back, whatever stopped it.
pub const REMEDY: &str = "correct the table or the view, then: walview rebuild";

/// What the views are made of.
#[derive(Clone, Copy)]
pub struct Uses<'a> {
    pub layout: &'a Layout,
    /// The one that the layout was bound to.
    pub catalog: &'a Catalog,
    /// By view, the inputs of which `*` shows every column.
    pub stars: &'a [Vec<usize>],
    /// Partitioned tables that the log truncated as a whole since the last fingerprint.
    pub truncated: &'a [u32],
    /// Memberships that Walview itself replaced, or was about to.
    pub own: &'a [OwnAlter],
}

/// The views that must stop: (view, why). A view may be named more than once.
#[must_use]
pub fn stops(uses: Uses<'_>, before: &Fingerprint, now: &Fingerprint) -> Vec<(usize, String)> {
    let mut found = Found { uses, stops: Vec::new() };
    for (index, layout) in uses.layout.tables.iter().enumerate() {
        let of = |print: &'_ Fingerprint| {
            let named = |table: &&TablePrint| table.qualified() == layout.qualified();
            print.tables.iter().find(named).cloned()
        };
        let (Some(before), Some(now), Some(catalog)) =
            (of(before), of(now), uses.catalog.by_oid(layout.oid))
        else {
            continue;
        };
        found.table(Looked { index, layout, catalog, before: &before, now: &now });
    }
    found.publication(before, now);
    found.stops
}

struct Found<'a> {
    uses: Uses<'a>,
    stops: Vec<(usize, String)>,
}

/// One table, then and now.
#[derive(Clone, Copy)]
struct Looked<'a> {
    index: usize,
    layout: &'a TableLayout,
    catalog: &'a Table,
    before: &'a TablePrint,
    now: &'a TablePrint,
}

impl Looked<'_> {
    /// `attnum` of a captured column.
    fn attnum(&self, column: usize) -> Option<i16> {
        let column = self.layout.columns.get(column)?.catalog;
        Some(self.catalog.columns.get(column)?.attnum)
    }

    fn attnums(&self, columns: &[usize]) -> Vec<i16> {
        columns.iter().filter_map(|column| self.attnum(*column)).collect()
    }

    fn names(&self, columns: &[usize]) -> String {
        let names = columns.iter().filter_map(|column| self.layout.columns.get(*column));
        names.map(|column| format!("\"{}\"", column.name)).collect::<Vec<_>>().join(", ")
    }
}

impl Found<'_> {
    /// Every view that reads the table.
    fn all(&mut self, table: usize, why: &str) {
        for view in users(self.uses.layout, table, None) {
            self.stops.push((view, format!("{why}; {REMEDY}")));
        }
    }

    fn table(&mut self, table: Looked<'_>) {
        let label = format!("table \"{}\"", table.layout.qualified());
        let Looked { index, now, .. } = table;
        if now.oid != Some(table.layout.oid) {
            let what = match (now.oid, &now.was) {
                (None, None) => "was dropped".to_owned(),
                (Some(_), None) => "was dropped and created again".to_owned(),
                (None, Some(name)) => format!("is called {name} now"),
                (Some(_), Some(name)) => {
                    format!("is called {name} now, and another table has its name")
                }
            };
            return self.all(index, &format!("{label} {what}"));
        }
        if now.hidden {
            let remedy = "ALTER ROLE … BYPASSRLS for walview's role, then: walview rebuild";
            for view in users(self.uses.layout, index, None) {
                let why = format!("row level security hides rows of {label} from walview");
                self.stops.push((view, format!("{why}; {remedy}")));
            }
        }
        if now.persistence.as_deref() != Some("p") {
            self.all(index, &format!("{label} is unlogged now, so its changes are not in the log"));
        }
        if now.heirs > table.before.heirs {
            self.all(index, &format!("tables inherit from {label} now, whose rows it shows too"));
        }
        self.columns(table, &label);
        self.keys(table, &label);
        self.parts(table, &label);
        self.member(table, &label);
    }

    fn columns(&mut self, table: Looked<'_>, label: &str) {
        for column in 0..table.layout.columns.len() {
            let Some(attnum) = table.attnum(column) else {
                continue;
            };
            let Some(before) = table.before.column(attnum) else {
                continue;
            };
            let Some(what) = column_changed(before, table) else {
                continue;
            };
            // A row is known by its identity: without it the table cannot be followed at all.
            let all = table.layout.identity.contains(&column);
            let why = format!("column \"{}\" of {label} {what}", before.name);
            for view in users(self.uses.layout, table.index, (!all).then_some(column)) {
                self.stops.push((view, format!("{why}; {REMEDY}")));
            }
        }
        let added =
            table.now.columns.iter().find(|column| table.before.column(column.attnum).is_none());
        let Some(added) = added else { return };
        for view in showing_all(self.uses.layout, self.uses.stars, table.index) {
            self.stops.push((view, has_new_column(&table.layout.qualified(), &added.name)));
        }
    }

    /// What rows are known by, what joins go by, and what changes carry.
    fn keys(&mut self, table: Looked<'_>, label: &str) {
        let identity = table.attnums(&table.layout.identity);
        if !table.now.is_unique_over(&identity) {
            let names = table.names(&table.layout.identity);
            return self.all(
                table.index,
                &format!(
                    "the unique key over {names} of {label} was dropped, or is deferrable now"
                ),
            );
        }
        // With none at all the application's own UPDATE and DELETE fail: no change is lost.
        let carried = table.now.carried();
        if carried.as_ref().is_some_and(|carried| {
            !carried.is_empty() && !identity.iter().all(|column| carried.contains(column))
        }) {
            let names = table.names(&table.layout.identity);
            let why = "has another REPLICA IDENTITY, so its changes no longer say";
            self.all(table.index, &format!("{label} {why} {names}, which rows are known by"));
        }
        for (index, view) in self.uses.layout.views.iter().enumerate() {
            for join in view.inputs.iter().filter_map(|input| input.join.as_ref()) {
                let Some(edge) = self.uses.layout.edges.get(join.edge) else {
                    continue;
                };
                let columns = table.layout.access_columns(edge.access);
                if edge.parent == table.index && !table.now.is_unique_over(&table.attnums(columns))
                {
                    let names = table.names(columns);
                    let why = format!(
                        "the unique key over {names} of {label}, which the view joins by, was \
                         dropped, or is deferrable now"
                    );
                    self.stops.push((index, format!("{why}; {REMEDY}")));
                }
            }
            let primary = |print: &TablePrint| print.keys.iter().any(|key| key.primary);
            if let ViewKind::Groups { by, by_key, .. } = &view.kind
                && *by_key < by.len()
                && view.inputs.iter().any(|input| input.table == table.index)
                && primary(table.before)
                && !primary(table.now)
            {
                let why = format!("{label} has no primary key now, which the view groups by");
                self.stops.push((index, format!("{why}; {REMEDY}")));
            }
        }
    }

    /// Rows that come and go with whole partitions send nothing.
    fn parts(&mut self, table: Looked<'_>, label: &str) {
        let (before, now) = (&table.before.parts, &table.now.parts);
        let mut touched = Vec::new();
        for part in before {
            match now.iter().find(|now| now.oid == part.oid) {
                None => {
                    return self.all(
                        table.index,
                        &format!(
                            "partition {} of {label} was detached or dropped with its rows",
                            part.name
                        ),
                    );
                }
                Some(now) if now.version != part.version => {
                    return self.all(
                        table.index,
                        &format!(
                            "partition {} of {label} was detached and attached again",
                            part.name
                        ),
                    );
                }
                Some(now) if now.file != part.file => touched.push(part),
                Some(_) => {}
            }
        }
        let new =
            |part: &&PartPrint| !part.made && !before.iter().any(|before| before.oid == part.oid);
        if let Some(part) = now.iter().find(new) {
            let what = "was attached, with whatever rows it had";
            return self.all(table.index, &format!("partition {} of {label} {what}", part.name));
        }
        let leaves = before.iter().filter(|part| part.file != 0).count();
        let as_a_whole = self.uses.truncated.contains(&table.layout.oid) && touched.len() == leaves;
        if let Some(part) = touched.first()
            && !as_a_whole
        {
            let what = "was truncated or rewritten by itself, which the log does not tell";
            self.all(table.index, &format!("partition {} of {label} {what}", part.name));
        }
    }

    fn member(&mut self, table: Looked<'_>, label: &str) {
        let Some(member) = &table.now.member else {
            return self.all(
                table.index,
                &format!("the publication no longer sends {label} (was it dropped by hand, or by a DROP … CASCADE?)"),
            );
        };
        if member.filtered {
            return self.all(table.index, &format!("the publication filters the rows of {label}"));
        }
        // The row that makes the table a member is another one: it was out in between.
        let row = |member: &MemberPrint| (member.row, member.version);
        if table.before.member.as_ref().is_some_and(|before| {
            row(before) != row(member) && !is_ours(self.uses.own, table.layout.oid, before, member)
        }) {
            return self.all(
                table.index,
                &format!("the publication of {label} was altered, and changes may be missing"),
            );
        }
        let Some(listed) = &member.columns else {
            return;
        };
        for column in 0..table.layout.columns.len() {
            if table.attnum(column).is_some_and(|attnum| listed.contains(&attnum)) {
                continue;
            }
            let all = table.layout.identity.contains(&column);
            let name = table.names(&[column]);
            let why = format!("the publication no longer sends column {name} of {label}");
            for view in users(self.uses.layout, table.index, (!all).then_some(column)) {
                self.stops.push((view, format!("{why}; {REMEDY}")));
            }
        }
    }

    /// What the publication sends at all. One that is gone ends the stream: `sessions::clock_of`.
    fn publication(&mut self, before: &Fingerprint, now: &Fingerprint) {
        let (Some(before), Some(publication)) = (&before.publication, &now.publication) else {
            return;
        };
        let why = if !publication.operations {
            "the publication no longer sends every operation"
        } else if before.version != publication.version {
            "the publication was altered, and changes may be missing"
        } else {
            ""
        };
        for (index, table) in self.uses.layout.tables.iter().enumerate() {
            let parts = now.tables.iter().find(|now| now.qualified() == table.qualified());
            let partitioned =
                parts.is_some_and(|now| !now.parts.is_empty()) && !publication.via_root;
            let why = if partitioned && why.is_empty() {
                "the publication sends the changes of partitions under their own names now"
            } else {
                why
            };
            if !why.is_empty() {
                self.all(index, why);
            }
        }
    }
}

/// Whether our own ALTERs alone lead from one membership to the other.
fn is_ours(own: &[OwnAlter], table: u32, before: &MemberPrint, now: &MemberPrint) -> bool {
    let of_table = || own.iter().filter(|alter| alter.table == table);
    let Some(mut alter) = of_table().find(|alter| alter.from == (before.row, before.version))
    else {
        return false;
    };
    // Each leads to a row whose version is its transaction; an abandoned one leads nowhere.
    for _ in 0..own.len() {
        if alter.xid == now.version {
            return true;
        }
        let Some(next) = of_table().find(|next| next.from.1 == alter.xid) else {
            break;
        };
        alter = next;
    }
    of_table().any(|alter| alter.from == (before.row, before.version) && alter.xid == now.version)
}

/// What happened to a column, in words that follow its name.
fn column_changed(before: &ColumnPrint, table: Looked<'_>) -> Option<String> {
    let Some(now) = table.now.column(before.attnum) else {
        let again = table.now.columns.iter().any(|column| column.name == before.name);
        return Some(if again { "was dropped and added again" } else { "was dropped" }.to_owned());
    };
    if now.name != before.name {
        return Some(format!("was renamed to \"{}\"", now.name));
    }
    if (now.type_oid, now.type_modifier) != (before.type_oid, before.type_modifier) {
        return Some(format!("changed its type from {} to {}", before.type_name, now.type_name));
    }
    if now.collation != before.collation {
        return Some("changed its collation".to_owned());
    }
    if let Some(label) = before.labels.iter().find(|label| !has(&now.labels, label)) {
        return Some(format!("is of type {}, whose labels were renamed", label.of));
    }
    // In the order of before, labels that were added left aside.
    let order = now.labels.iter().filter(|now| before.labels.iter().any(|b| b.oid == now.oid));
    if !order.map(|label| label.oid).eq(before.labels.iter().map(|label| label.oid))
        || now.made_of != before.made_of
    {
        return Some("is of a type that was altered".to_owned());
    }
    // VACUUM FULL, CLUSTER and TRUNCATE keep the TOAST table, and the column's row with it.
    let (then, here) = (table.before, table.now);
    let rewritten = then.file != here.file
        && (then.toast != here.toast || here.toast.is_none_or(|toast| toast == 0));
    (rewritten && now.version != before.version).then(|| {
        "was rewritten (ALTER COLUMN … TYPE … USING), so every row may hold another value"
            .to_owned()
    })
}

fn has(labels: &[LabelPrint], label: &LabelPrint) -> bool {
    labels.contains(label)
}

/// A table, by its OID, that has a column more than before, and the column's name, where views that
/// go on show every column of it.
#[must_use]
pub fn grown(
    uses: Uses<'_>,
    stopped: &[Option<String>],
    before: &Fingerprint,
    now: &Fingerprint,
) -> Option<(u32, String)> {
    uses.layout.tables.iter().enumerate().find_map(|(index, table)| {
        let added = now.table(table.oid)?.added_since(before.table(table.oid)?).next()?;
        let mut views = showing_all(uses.layout, uses.stars, index).into_iter();
        views.find(|view| stopped.get(*view).is_some_and(Option::is_none))?;
        Some((table.oid, added.name.clone()))
    })
}

/// The views that show every column of `table`.
#[must_use]
pub fn showing_all(layout: &Layout, stars: &[Vec<usize>], table: usize) -> Vec<usize> {
    let shows = |(view, stars): (&ViewLayout, &Vec<usize>)| {
        let mut inputs = stars.iter().filter_map(|input| view.inputs.get(*input));
        inputs.any(|input| input.table == table)
    };
    let views = layout.views.iter().zip(stars).enumerate();
    views.filter(|(_, view)| shows(*view)).map(|(index, _)| index).collect()
}

/// Why a view stops that shows every column of `table` where `column` cannot be taken in.
#[must_use]
pub fn has_new_column(table: &str, column: &str) -> String {
    format!(
        "table \"{table}\" has a new column \"{column}\", which * shows; to take it in: walview \
         rebuild"
    )
}

/// The views that read `column` of `table`; all that read the table where it is `None`.
#[must_use]
pub fn users(layout: &Layout, table: usize, column: Option<usize>) -> Vec<usize> {
    let uses = |view: &ViewLayout| {
        view.inputs.iter().zip(&view.relevant).any(|(input, relevant)| {
            input.table == table && column.is_none_or(|column| relevant.contains(&column))
        })
    };
    (0..).zip(&layout.views).filter(|(_, view)| uses(view)).map(|(index, _)| index).collect()
}
