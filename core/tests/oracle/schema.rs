//! Random schemas, and views and transactions over them: a fact table with a column of every type,
//! and two dimensions, one of which can be reached through the other.

use crate::expressions::{Scope, TABLE, expression, literal};
use crate::random::Random;
use crate::{cell, column_type, quoted};
use walview_core::catalog::{Catalog, Collation, Column, ReplicaIdentity, Table, UniqueKey};
use walview_core::value::Type;

pub(crate) struct Schema {
    pub(crate) tables: Vec<TableSpec>,
    major: u32,
}

pub(crate) struct TableSpec {
    pub(crate) name: &'static str,
    columns: Vec<ColumnSpec>,
    identity: Identity,
}

/// `kind` is a letter of [`TABLE`].
struct ColumnSpec {
    name: String,
    kind: &'static str,
    not_null: bool,
    /// Values that meet those of other columns of the kind, instead of any.
    key: bool,
}

#[derive(Clone, Copy)]
enum Identity {
    Default,
    Full,
    /// The unique index over `k`.
    Index,
}

/// Of what keys and references can be.
const KEYS: &[&str] = &["i8", "i4", "i2", "s", "v10", "c5", "u", "d", "n122", "by", "m"];
/// Different keys of each kind, where it has as many.
const KEY_VALUES: usize = 10;
/// Columns that a view may group by, because they are never NULL.
const GROUPS: &[(&str, &str)] = &[
    ("gs", "s"),
    ("gi", "i4"),
    ("gm", "m"),
    ("gd", "d"),
    ("gc", "c5"),
    ("gn", "n122"),
    ("gb", "b"),
    ("gv", "v10"),
];
/// What groups can be made of after NULL is replaced.
const GROUPABLE: &[&str] = &["i2", "i4", "i8", "s", "v10", "b", "d", "ts", "tz", "u", "m", "by"];
const SUMMABLE: &[&str] = &["i2", "i4", "i8", "n", "n122"];

fn key_value(kind: &str, n: usize) -> String {
    let texts = ["a", "b", "é", "ab", "A", "日本", "%", ":", "a:b", "{}"];
    match kind {
        "s" | "v10" | "c5" => format!("'{}'", texts[n]),
        "u" => format!("'00000000-0000-0000-0000-00000000000{n}'"),
        "d" => format!("'2024-02-{}'", n + 20),
        "n122" => format!("'{n}.50'"),
        "by" => format!("'\\x0{n}'"),
        "m" => format!("'{}'", ["sad", "ok", "happy", "a"][n % 4]),
        "b" => ["true", "false"][n % 2].to_owned(),
        _ => n.to_string(),
    }
}

fn sql_type(kind: &str) -> &'static str {
    TABLE.iter().find(|(name, _)| *name == kind).unwrap().1
}

impl ColumnSpec {
    fn new(name: &str, kind: &'static str, not_null: bool, key: bool) -> Self {
        Self { name: name.to_owned(), kind, not_null, key }
    }

    fn value(&self, random: &mut Random, major: u32) -> String {
        loop {
            let value = if !self.key {
                // Now and then so long that it is stored out of line.
                if self.kind == "s" && random.one_in(9) {
                    return format!("repeat('{}', {})", random.pick(&["ab", "é", "x "]), 4_000);
                }
                cell(random, self.kind, major)
            } else if !self.not_null && random.one_in(6) {
                "NULL".to_owned()
            } else {
                key_value(self.kind, random.below(KEY_VALUES))
            };
            if !self.not_null || value != "NULL" {
                return value;
            }
        }
    }
}

impl Schema {
    pub(crate) fn random(random: &mut Random, major: u32) -> Self {
        let (key1, key2, unique2) = (random.pick(KEYS), random.pick(KEYS), random.pick(KEYS));
        let mut fact: Vec<ColumnSpec> = vec![
            ColumnSpec::new("id", random.pick(KEYS), true, true),
            ColumnSpec::new("r1", key1, random.one_in(3), true),
            ColumnSpec::new("r2", unique2, false, true),
            ColumnSpec::new("r4", key1, false, true),
        ];
        fact.extend(GROUPS.iter().map(|(name, kind)| ColumnSpec::new(name, kind, true, true)));
        fact.extend(TABLE.iter().map(|(name, _)| ColumnSpec::new(name, name, false, false)));
        let some = |random: &mut Random, mut columns: Vec<ColumnSpec>| {
            for (name, _) in TABLE {
                if random.one_in(3) {
                    columns.push(ColumnSpec::new(name, name, random.one_in(4), false));
                }
            }
            columns
        };
        let d1 = some(
            random,
            vec![
                ColumnSpec::new("id", key1, true, true),
                ColumnSpec::new("r3", key2, false, true),
                ColumnSpec::new("gs", "s", true, true),
            ],
        );
        let d2 = some(
            random,
            vec![
                ColumnSpec::new("id", key2, true, true),
                ColumnSpec::new("k", unique2, true, true),
            ],
        );
        let mut identity = |index: bool| match random.below(4) {
            0 => Identity::Full,
            1 if index => Identity::Index,
            _ => Identity::Default,
        };
        let tables = vec![
            TableSpec { name: "fact", columns: fact, identity: identity(false) },
            TableSpec { name: "d1", columns: d1, identity: identity(false) },
            TableSpec { name: "d2", columns: d2, identity: identity(true) },
        ];
        Self { tables, major }
    }

    pub(crate) fn create(&self) -> String {
        let mut script = String::new();
        for table in &self.tables {
            let columns: Vec<String> = table
                .columns
                .iter()
                .map(|column| {
                    let not_null = if column.not_null { " NOT NULL" } else { "" };
                    format!("{} {}{not_null}", column.name, sql_type(column.kind))
                })
                .collect();
            let name = table.name;
            script.push_str(&format!(
                "CREATE TABLE {name} ({}, PRIMARY KEY (id));\n",
                columns.join(", ")
            ));
            if name == "d2" {
                script.push_str("CREATE UNIQUE INDEX d2_k ON d2 (k);\n");
            }
            if table.columns.iter().any(|column| column.name == "s") {
                script.push_str(&format!("ALTER TABLE {name} ALTER s SET STORAGE EXTERNAL;\n"));
            }
            match table.identity {
                Identity::Default => {}
                Identity::Full => {
                    script.push_str(&format!("ALTER TABLE {name} REPLICA IDENTITY FULL;\n"));
                }
                Identity::Index => {
                    script.push_str("ALTER TABLE d2 REPLICA IDENTITY USING INDEX d2_k;\n");
                }
            }
        }
        script.push_str("CREATE PUBLICATION p FOR TABLE fact, d1, d2;\n");
        script
    }

    pub(crate) fn drop(&self) -> String {
        "DROP PUBLICATION p;\nDROP TABLE fact, d1, d2;\n".to_owned()
    }

    pub(crate) fn catalog(&self) -> Catalog {
        let tables = self.tables.iter().zip(1..).map(|(table, oid)| {
            let columns = table.columns.iter().zip(1..).map(|(column, attnum)| {
                let ty = column_type(column.kind, 70_000);
                let text = matches!(ty, Type::Text | Type::Varchar(_) | Type::Char(_));
                Column {
                    type_oid: 0,
                    type_modifier: -1,
                    name: column.name.clone(),
                    attnum,
                    ty,
                    not_null: column.not_null,
                    collation: if text { Collation::C } else { Collation::None },
                    generated: false,
                    toastable: text,
                    added: None,
                }
            });
            let key = |name: &str, column: &str, primary: bool| UniqueKey {
                name: name.to_owned(),
                columns: vec![table.columns.iter().position(|c| c.name == column).unwrap()],
                primary,
            };
            let mut unique_keys = vec![key("id", "id", true)];
            if table.name == "d2" {
                unique_keys.push(key("k", "k", false));
            }
            let columns: Vec<Column> = columns.collect();
            let unique = columns.iter().position(|column| column.name == "k");
            Table {
                oid,
                schema: "public".to_owned(),
                name: table.name.to_owned(),
                columns,
                unique_keys,
                replica_identity: match table.identity {
                    Identity::Default => ReplicaIdentity::Default,
                    Identity::Full => ReplicaIdentity::Full,
                    Identity::Index => ReplicaIdentity::Index(vec![unique.unwrap()]),
                },
            }
        });
        let mut catalog = Catalog::default();
        catalog.tables.extend(tables);
        catalog
    }

    pub(crate) fn round(self, random: &mut Random) -> Round {
        let views = (0..8).map(|_| ViewSpec::random(random, &self)).collect();
        let before = (0..random.below(30)).map(|_| self.insert(random)).map(attempt).collect();
        let steps = (0..10).map(|_| self.step(random)).collect();
        Round { schema: self, views, before, steps }
    }

    fn table(&self, random: &mut Random) -> &TableSpec {
        &self.tables[[0, 0, 0, 1, 1, 2][random.below(6)]]
    }

    /// One to three transactions, perhaps interleaved.
    fn step(&self, random: &mut Random) -> Vec<String> {
        let mut lines = Vec::new();
        let interleaved = random.one_in(4);
        if interleaved {
            self.transaction(random, &mut lines);
            lines.push("PREPARE TRANSACTION 'early';".to_owned());
        }
        for _ in 0..=random.below(2) {
            self.transaction(random, &mut lines);
            lines.push(random.pick(&["COMMIT;", "COMMIT;", "COMMIT;", "ROLLBACK;"]).to_owned());
        }
        if interleaved {
            lines.push("COMMIT PREPARED 'early';".to_owned());
        }
        lines
    }

    fn transaction(&self, random: &mut Random, lines: &mut Vec<String>) {
        lines.push("BEGIN;".to_owned());
        lines.push("SET LOCAL lock_timeout = '5ms';".to_owned());
        if random.one_in(3) {
            // Where clocks are changed: what a client means by 02:30 is the server's matter.
            let zone = random.pick(&["Europe/Berlin", "America/New_York", "Asia/Kolkata"]);
            lines.push(format!("SET LOCAL TimeZone = '{zone}';"));
        }
        for _ in 0..=random.below(9) {
            let statement = attempt(self.statement(random));
            if random.one_in(8) {
                lines.extend(["SAVEPOINT a;".to_owned(), statement]);
                lines.push("ROLLBACK TO a;".to_owned());
            } else {
                lines.push(statement);
            }
        }
    }

    fn statement(&self, random: &mut Random) -> String {
        let table = self.table(random);
        let name = table.name;
        let some = {
            let by = &table.columns[random.below(4).min(table.columns.len() - 1)];
            match random.below(8) {
                0 => String::new(),
                1..=3 if by.key => {
                    format!(" WHERE {} = {}", by.name, key_value(by.kind, random.below(KEY_VALUES)))
                }
                _ => {
                    let kind = table.columns[0].kind;
                    let keys: Vec<String> = (0..=random.below(4))
                        .map(|_| key_value(kind, random.below(KEY_VALUES)))
                        .collect();
                    format!(" WHERE id IN ({})", keys.join(", "))
                }
            }
        };
        match random.below(24) {
            0..=9 => self.insert(random),
            10..=13 => {
                let assignments: Vec<String> = (0..=random.below(3))
                    .map(|_| {
                        let column = &table.columns[random.below(table.columns.len())];
                        format!("{} = {}", column.name, column.value(random, self.major))
                    })
                    .collect();
                format!("UPDATE {name} SET {}{some}", assignments.join(", "))
            }
            14 | 18 => format!("UPDATE {name} SET id = id{some}"),
            15 => {
                let kind = table.columns[0].kind;
                let [a, b] = [0, 1].map(|_| key_value(kind, random.below(KEY_VALUES)));
                format!("UPDATE {name} SET id = {a} WHERE id = {b}")
            }
            16 => format!("INSERT INTO {name} SELECT * FROM {name} ON CONFLICT DO NOTHING"),
            17 if random.one_in(4) => {
                format!("TRUNCATE {}", random.pick(&["d1, d2", "fact", "d1", "d2, fact"]))
            }
            _ => format!("DELETE FROM {name}{some}"),
        }
    }

    fn insert(&self, random: &mut Random) -> String {
        let table = self.table(random);
        // Two of one key in a statement fail without ON CONFLICT.
        let plain = random.one_in(3);
        let rows: Vec<String> = (0..=random.below(if plain { 1 } else { 4 }))
            .map(|_| {
                let values = table.columns.iter().map(|column| column.value(random, self.major));
                format!("({})", values.collect::<Vec<_>>().join(", "))
            })
            .collect();
        let updates: Vec<String> = table
            .columns
            .iter()
            .skip(1)
            .filter(|_| random.one_in(3))
            .map(|column| format!("{0} = excluded.{0}", column.name))
            .collect();
        let conflict = if plain {
            String::new()
        } else if rows.len() == 1 && !updates.is_empty() {
            format!(" ON CONFLICT (id) DO UPDATE SET {}", updates.join(", "))
        } else {
            " ON CONFLICT DO NOTHING".to_owned()
        };
        format!("INSERT INTO {} VALUES {}{conflict}", table.name, rows.join(", "))
    }
}

/// What fails leaves nothing, as a failed statement in a savepoint.
fn attempt(statement: String) -> String {
    format!("DO $do$ BEGIN {statement}; EXCEPTION WHEN OTHERS THEN NULL; END $do$;")
}

pub(crate) struct Round {
    pub(crate) schema: Schema,
    pub(crate) views: Vec<ViewSpec>,
    /// Statements before the slot.
    pub(crate) before: Vec<String>,
    pub(crate) steps: Vec<Vec<String>>,
}

pub(crate) struct ViewSpec {
    distinct: bool,
    /// Expression and name.
    columns: Vec<(String, String)>,
    /// `$F$` stands for the fact table.
    from: String,
    filter: String,
    group: String,
}

impl ViewSpec {
    fn random(random: &mut Random, schema: &Schema) -> Self {
        let mut columns = schema.columns(0, "f");
        let mut from = "$F$ f".to_owned();
        let mut inner = Vec::new();
        let mut join =
            |random: &mut Random, from: &mut String, on: &str, table: usize, alias: &str| {
                let side = random.pick(&["LEFT JOIN", "LEFT JOIN", "JOIN"]);
                from.push_str(&format!(" {side} {} {alias} ON {on}", schema.tables[table].name));
                let own = schema.columns(table, alias);
                if random.one_in(4) {
                    from.push_str(&format!(" AND {}", condition(random, &own)));
                }
                if side == "JOIN" {
                    inner.push(alias.to_owned());
                }
                columns.extend(own);
            };
        if random.one_in(2) {
            join(random, &mut from, "d1.id = f.r1", 1, "d1");
            if random.one_in(2) {
                join(random, &mut from, "d2.id = d1.r3", 2, "d2");
            }
        }
        if random.one_in(3) {
            join(random, &mut from, "e1.id = f.r4", 1, "e1");
        }
        if random.one_in(3) {
            join(random, &mut from, "e2.k = f.r2", 2, "e2");
        }
        let filter = if random.one_in(2) {
            format!(" WHERE {}", condition(random, &columns))
        } else {
            String::new()
        };
        let mut scope = Scope::over(random, columns, schema.major);
        let any = |scope: &mut Scope<'_>| {
            let ty = TABLE[scope.below(TABLE.len())].0;
            let depth = scope.below(3);
            expression(scope, ty, depth)
        };
        let mut view =
            Self { distinct: false, columns: Vec::new(), from, filter, group: String::new() };
        let kind = scope.below(5);
        if kind < 2 {
            view.push("f.id".to_owned());
            for _ in 0..=scope.below(5) {
                let column = any(&mut scope);
                view.push(column);
            }
            return view;
        }
        let groups: Vec<String> = (0..scope.below(3)).map(|_| grouping(&mut scope)).collect();
        for group in &groups {
            view.push(group.clone());
        }
        if kind == 2 {
            view.distinct = !groups.is_empty();
            if view.distinct {
                return view;
            }
        }
        view.push("count(*)".to_owned());
        for _ in 0..scope.below(4) {
            let aggregate = aggregate(&mut scope);
            view.push(aggregate);
        }
        if !groups.is_empty() {
            view.group = format!(" GROUP BY {}", groups.join(", "));
        }
        view
    }

    fn push(&mut self, column: String) {
        let name = format!("c{}", self.columns.len());
        self.columns.push((column, name));
    }

    fn text(&self) -> String {
        let columns: Vec<String> =
            self.columns.iter().map(|(column, name)| format!("{column} AS {name}")).collect();
        let distinct = if self.distinct { "DISTINCT " } else { "" };
        let (columns, from) = (columns.join(", "), &self.from);
        format!("SELECT {distinct}{columns} FROM {from}{}{}", self.filter, self.group)
    }

    pub(crate) fn sql(&self) -> String {
        self.text().replace("$F$", "fact")
    }

    /// The rows as one text each, and whether a fact can be evaluated at all.
    pub(crate) fn questions(&self, names: &[&str]) -> (String, String) {
        let cells: Vec<String> = names
            .iter()
            .map(|name| {
                format!("CASE WHEN q.{name} IS NULL THEN E'\\x02' ELSE format('%s', q.{name}) END")
            })
            .collect();
        let line = cells.join(" || E'\\x1f' || ");
        let template = format!("SELECT {line} FROM ({} OFFSET 0) q", self.text());
        (template.clone(), template)
    }
}

impl Schema {
    /// The columns of a table as an expression reads them, by kind.
    fn columns(&self, table: usize, alias: &str) -> Vec<(&'static str, String)> {
        let columns = &self.tables[table].columns;
        columns.iter().map(|column| (column.kind, format!("{alias}.{}", column.name))).collect()
    }
}

/// Never NULL, so that a key can be made of it; sometimes only the front end can tell.
fn grouping(scope: &mut Scope<'_>) -> String {
    match scope.below(3) {
        0 => {
            let ty = GROUPABLE[scope.below(GROUPABLE.len())];
            let depth = scope.below(2);
            let inner = expression(scope, ty, depth);
            format!("coalesce({inner}, {})", literal(scope, ty))
        }
        _ => format!("f.{}", GROUPS[scope.below(GROUPS.len())].0),
    }
}

fn aggregate(scope: &mut Scope<'_>) -> String {
    let ty = SUMMABLE[scope.below(SUMMABLE.len())];
    let depth = scope.below(3);
    let argument = expression(scope, ty, depth);
    let filter = if scope.one_in(4) {
        let columns = scope.columns.clone();
        format!(" FILTER (WHERE {})", condition(scope, &columns))
    } else {
        String::new()
    };
    match scope.below(5) {
        0 => format!("count({argument}){filter}"),
        1 | 2 => format!("avg({argument}){filter}"),
        _ => format!("sum({argument}){filter}"),
    }
}

/// A condition that cannot fail.
fn condition(random: &mut Random, columns: &[(&'static str, String)]) -> String {
    const COMPARED: &[&str] =
        &["b", "i2", "i4", "i8", "n", "n122", "f8", "s", "v10", "c5", "d", "ts", "tz", "iv", "m"];
    let known = |kind: &str| COMPARED.contains(&kind);
    let candidates: Vec<&(&str, String)> = columns.iter().filter(|(k, _)| known(k)).collect();
    let (kind, column) = candidates[random.below(candidates.len())];
    match random.below(8) {
        0 => format!("{column} IS NULL"),
        1 => format!("{column} IS NOT NULL"),
        2 => format!("NOT ({})", condition(random, columns)),
        3 => {
            let op = random.pick(&["AND", "OR"]);
            format!("({} {op} {})", condition(random, columns), condition(random, columns))
        }
        4 if matches!(*kind, "s" | "v10" | "c5") => {
            let pattern = random.pick(&["%a%", "_", "a%", "%é", "%\\_%", "日%"]);
            format!("{column} LIKE '{pattern}'")
        }
        5 => {
            let [a, b] = [0, 1].map(|_| constant(random, kind));
            format!("{column} IN ({a}, {b})")
        }
        6 => {
            let same: Vec<&&(&str, String)> =
                candidates.iter().filter(|(other, _)| other == kind).collect();
            let other = &same[random.below(same.len())].1;
            format!("{column} {} {other}", random.pick(&["=", "<", "IS DISTINCT FROM"]))
        }
        _ => {
            let op = random.pick(&["=", "<>", "<", "<=", ">", ">=", "IS DISTINCT FROM"]);
            format!("{column} {op} {}", constant(random, kind))
        }
    }
}

fn constant(random: &mut Random, kind: &str) -> String {
    match kind {
        "d" => "date '2024-02-26'".to_owned(),
        "ts" => "timestamp '2001-01-01 00:00:00'".to_owned(),
        "tz" => "timestamptz '2001-01-01 00:00:00+00'".to_owned(),
        "iv" => "interval '1 mon 2 days'".to_owned(),
        "n" => random.pick(&["0", "1.50", "-2.5"]).to_owned(),
        "f8" => random.pick(&["0", "2.5"]).to_owned(),
        "s" | "v10" | "c5" => quoted(random.pick(&["a", "b", "é", "ab", " ", "日本"])),
        _ => key_value(kind, random.below(KEY_VALUES)),
    }
}
