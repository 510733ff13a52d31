//! One column of every type, with the values at its edges: from a snapshot and from the stream the
//! same in both stores, and equal to what PostgreSQL prints, whatever the role's settings and the
//! database's encoding are.
//!
//! The table of `docs/types.md` is made of what the stores were seen to hold, so it cannot lie.

mod kinds;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use kinds::{KINDS, Kind, SETUP, WIDE};
use redis::AsyncCommands as _;
use serde_json::Value as Json;
use walview::demo::servers::postgres::Db;
use walview::source::{SourceConfig, catalog, connect};
use walview_core::value::Type;

use crate::end_to_end::SMALL;
use crate::oracles::verify;
use crate::plan::plan;
use crate::world::{LIVE_LIMIT, World};

/// What a role may say of its sessions, all of it against us.
const HOSTILE: &[(&str, &str)] = &[
    ("timezone", "'Asia/Kolkata'"),
    ("datestyle", "'German, DMY'"),
    ("intervalstyle", "'sql_standard'"),
    ("bytea_output", "'escape'"),
    ("extra_float_digits", "-15"),
    ("lc_monetary", "'C.UTF-8'"),
    ("xmloption", "'document'"),
    ("xmlbinary", "'hex'"),
    ("quote_all_identifiers", "on"),
    ("standard_conforming_strings", "off"),
    ("transform_null_equals", "on"),
    ("array_nulls", "off"),
    ("search_path", "'pg_temp'"),
    ("client_encoding", "'LATIN1'"),
];

/// Of these, what no value of the table shows.
const PINNED: &[(&str, &str)] = &[
    ("lc_monetary", "C"),
    ("quote_all_identifiers", "off"),
    ("standard_conforming_strings", "on"),
    ("transform_null_equals", "off"),
];

/// For the oracle's own session; not what Walview pins, but what its text means.
const PLAIN: &str = "SET timezone = 'UTC'; SET datestyle = 'ISO, YMD'; SET intervalstyle = 'postgres'; \
    SET bytea_output = 'hex'; SET extra_float_digits = 1; SET lc_monetary = 'C'; \
    SET xmloption = 'content'; SET quote_all_identifiers = off; SET standard_conforming_strings = on; \
    SET transform_null_equals = off; SET array_nulls = on; SET search_path = public; \
    SET client_encoding = 'UTF8'";

/// What the stream brings has the snapshot's id and this.
const STREAMED: i32 = 1_000;

#[tokio::test]
async fn every_type_is_the_same_everywhere() {
    let types = Types::start("betting", true).await;
    types.document().await;
    types.check_rules().await;
    types.stop().await;
}

/// The server converts what it sends: bytes of another encoding never arrive.
#[tokio::test]
async fn every_type_from_a_latin1_database() {
    Types::start("latin", false).await.stop().await;
}

/// Where every captured column can be read in binary, values come so, from the snapshot and from the
/// stream. The table's other columns are not captured.
#[tokio::test]
async fn every_type_that_comes_in_binary() {
    let mut types = Types::new("betting", true).await;
    let found = types.catalog().await;
    let binary: Vec<usize> =
        (0..KINDS.len()).filter(|at| found[&column(*at)].has_binary()).collect();
    assert!(binary.len() > 30, "{} of {}", binary.len(), KINDS.len());
    types.world.set_pipeline(&pipeline_of(&binary));
    types.world.start().await;
    types.compare_binary(&binary).await;
    assert!(asked_for(&types.client).await.contains("binary 'true'"));
    types.copy_rows().await;
    types.compare_binary(&binary).await;
    types.touch_rows().await;
    types.compare_binary(&binary).await;
    assert_eq!(verify(&types.world), (Some(0), true), "verify");
    types.stop().await;
}

/// An array of a type without a send function ends a binary stream, although no view reads it. Values
/// come as text from there, in the middle of a transaction that has been cut.
#[tokio::test]
async fn what_cannot_be_sent_in_binary_comes_as_text() {
    let mut world = World::betting(SMALL).await;
    let db = world.db().await;
    // Under FULL a column is published although no view reads it.
    db.batch_execute("ALTER TABLE bets REPLICA IDENTITY FULL").await.unwrap();
    world.start().await;
    world.assert_equal().await;
    assert!(asked_for(&db).await.contains("binary 'true'"));
    db.batch_execute("ALTER TABLE bets ADD COLUMN grants aclitem[]").await.unwrap();
    let long = "INSERT INTO bets (user_id, event_id, amount, odds, grants)
        SELECT 1 + i % 30, 1 + i % 20, 1 + i % 7, 2,
               CASE WHEN i = 24000 THEN '{walview=r/walview}'::aclitem[] END
        FROM generate_series(1, 25000) i";
    db.batch_execute(long).await.unwrap();
    world.assert_equal().await;
    assert!(asked_for(&db).await.contains("binary 'false'"));
    world.stop().await;
    db.batch_execute("UPDATE bets SET amount = amount + 1 WHERE id % 100 = 0").await.unwrap();
    db.batch_execute("DELETE FROM bets WHERE grants IS NOT NULL").await.unwrap();
    world.start().await;
    world.assert_equal().await;
    world.stop().await;
}

/// What the replication session sent as its command. A pipeline is live before it streams.
async fn asked_for(db: &Db) -> String {
    let sql = "SELECT query FROM pg_stat_activity WHERE query LIKE 'START_REPLICATION %'";
    let since = Instant::now();
    loop {
        if let Some(row) = db.query_opt(sql, &[]).await.unwrap() {
            return row.get(0);
        }
        assert!(since.elapsed() < LIVE_LIMIT, "nothing streams");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A literal of a row, and its form in JSON where that is not a string of its text.
type Cells = Vec<Option<(&'static str, Option<&'static str>)>>;

struct Row {
    fits: bool,
    cells: Cells,
}

/// The fits, one that is all NULL, the unfit one by one, and the wide.
fn rows(wide: bool) -> Vec<Row> {
    let most = KINDS.iter().map(|kind| kind.fit.len()).max().unwrap_or(0);
    let fit = |kind: &Kind, at: usize| {
        let at = at % kind.fit.len();
        Some((kind.fit[at], kind.json.get(at).copied()))
    };
    let mut rows: Vec<Row> = (0..most)
        .map(|at| Row { fits: true, cells: KINDS.iter().map(|kind| fit(kind, at)).collect() })
        .collect();
    rows.push(Row { fits: true, cells: vec![None; KINDS.len()] });
    for (column, kind) in KINDS.iter().enumerate() {
        for value in kind.unfit {
            let mut cells = vec![None; KINDS.len()];
            cells[column] = Some((*value, None));
            rows.push(Row { fits: false, cells });
        }
    }
    if wide {
        let cells = KINDS.iter().map(|kind| {
            let (_, value) = WIDE.iter().find(|(ty, _)| *ty == kind.ty)?;
            Some((*value, (kind.ty == "text[]").then_some("[\"Привет\",\"🎲\"]")))
        });
        rows.push(Row { fits: true, cells: cells.collect() });
    }
    rows
}

fn column(at: usize) -> String {
    format!("k{at:02}")
}

fn column_of(ty: &str) -> String {
    column(KINDS.iter().position(|kind| kind.ty == ty).expect("a type of the list"))
}

const HEAD: &str = r#"
pipeline: betting
source: { url: "${BETTING_DATABASE_URL}" }
stores:
  redis: { url: "${REDIS_URL}" }
  clickhouse: { url: "${CLICKHOUSE_URL}", database: betting }
"#;

fn pipeline() -> String {
    let columns: Vec<String> = (0..KINDS.len()).map(column).collect();
    let strings: Vec<String> = columns.iter().map(|name| format!("{name}: String")).collect();
    let (numbers, words, inet) = (column_of("integer[]"), column_of("text[]"), column_of("inet"));
    format!(
        r#"{HEAD}views:
  - name: every
    sql: |
      SELECT id, {} FROM every
    to:
      - redis: {{ hash: "hash:{{id}}" }}
      - redis: {{ json: "json:{{id}}" }}
      - clickhouse: {{ table: typed, order_by: [id] }}
      - clickhouse: {{ table: kept, order_by: [id], unfit: text }}
      - clickhouse: {{ table: texts, order_by: [id], types: {{ {} }} }}
  - name: lists
    sql: |
      SELECT id, coalesce({numbers}, '{{}}') AS numbers, coalesce({words}, '{{}}') AS words FROM every
    to:
      - clickhouse:
          table: lists
          order_by: [id]
          types: {{ numbers: "Array(Nullable(Int32))", words: "Array(Nullable(String))" }}
  - name: groups
    sql: |
      SELECT {inet} AS address, {numbers}::text AS numbers, count(*) AS n, count({words}) AS words
      FROM every WHERE {inet} IS NOT NULL AND {numbers} IS NOT NULL AND {inet} = {inet}
      GROUP BY {inet}, {numbers}::text
    to:
      - redis: {{ string: "group:{{address}}:{{numbers}}", value: n }}
"#,
        columns.join(", "),
        strings.join(", "),
    )
}

/// Some of the columns, as text.
fn pipeline_of(kinds: &[usize]) -> String {
    let columns: Vec<String> = kinds.iter().copied().map(column).collect();
    let strings: Vec<String> = columns.iter().map(|name| format!("{name}: String")).collect();
    format!(
        r#"{HEAD}views:
  - name: every
    sql: |
      SELECT id, {} FROM every
    to:
      - redis: {{ hash: "hash:{{id}}" }}
      - clickhouse: {{ table: texts, order_by: [id], types: {{ {} }} }}
"#,
        columns.join(", "),
        strings.join(", "),
    )
}

/// A value as Walview's text of it, written by PostgreSQL.
fn shown(ty: &str, column: &str) -> String {
    let iso = |zone: &str| {
        format!(
            "CASE WHEN isfinite({column}) AND extract(year FROM {column}) >= 1 \
             THEN to_char({column}, 'YYYY-MM-DD\"T\"HH24:MI:SS.US{zone}') ELSE format('%s', {column}) END"
        )
    };
    let text = match ty {
        "boolean" => format!("CASE WHEN {column} THEN 'true' ELSE 'false' END"),
        "bytea" => format!("translate(encode({column}, 'base64'), E'\\n', '')"),
        "timestamptz" => iso("\"Z\""),
        "timestamp" | "timestamp(0)" => iso(""),
        // The output function, which is not what every cast to text is.
        _ => format!("format('%s', {column})"),
    };
    // `IS NULL` of a row asks for its columns.
    format!("CASE WHEN num_nulls({column}) = 0 THEN {text} END")
}

/// What ClickHouse is asked for, and what PostgreSQL, so that both answer the same.
fn typed(found: &str, ty: &str, name: &str) -> (String, String) {
    let plain = format!("toString({name})");
    match found {
        "String" | "LowCardinality(String)" => {
            let bytes = match ty {
                "bytea" => name.to_owned(),
                _ => format!("convert_to({}, 'UTF8')", shown(ty, name)),
            };
            (format!("hex({name})"), format!("upper(encode({bytes}, 'hex'))"))
        }
        "Date32" => (plain, format!("{name}::text")),
        "DateTime64(6, 'UTC')" => (plain, format!("to_char({name}, 'YYYY-MM-DD HH24:MI:SS.US')")),
        // ClickHouse leaves zeros at the end out.
        decimal if decimal.starts_with("Decimal") => (plain, format!("trim_scale({name})::text")),
        // Both print the fewest digits, but not in the same form.
        "Float32" | "Float64" => {
            (format!("concat('~', {plain})"), format!("'~' || {}", shown(ty, name)))
        }
        _ => (plain, shown(ty, name)),
    }
}

type Table = BTreeMap<i32, Vec<Option<String>>>;

struct Types {
    world: World,
    client: Db,
    rows: Vec<Row>,
}

impl Types {
    /// The table and its rows.
    async fn new(database: &str, wide: bool) -> Self {
        let mut world = World::betting(SMALL).await;
        let admin = Db::connect(&world.postgres.admin_url("postgres")).await.unwrap();
        if database == "latin" {
            let sql = "CREATE DATABASE latin OWNER walview ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0";
            admin.batch_execute(sql).await.unwrap();
            let url = world.postgres.url().replace("/betting", "/latin");
            world.set_env("BETTING_DATABASE_URL", url);
        }
        for (name, value) in HOSTILE {
            let sql = format!("ALTER ROLE walview SET {name} = {value}");
            admin.batch_execute(&sql).await.unwrap();
        }
        let url = world.options.env.iter().find(|(name, _)| name == "BETTING_DATABASE_URL");
        let client = Db::connect(&url.unwrap().1).await.unwrap();
        client.batch_execute(PLAIN).await.unwrap();
        let types = Self { world, client, rows: rows(wide) };
        types.create().await;
        types
    }

    /// Snapshot, stream, and everything compared.
    async fn start(database: &str, wide: bool) -> Self {
        let mut types = Self::new(database, wide).await;
        types.world.set_pipeline(&pipeline());
        let text_only = format!("values in text because of column \"{}\" of", column_of("money"));
        plan(&types.world).await.has(&[&text_only]);
        types.world.start().await;
        types.compare(&[0]).await;
        assert!(asked_for(&types.client).await.contains("binary 'false'"));
        types.copy_rows().await;
        types.compare(&[0, STREAMED]).await;
        types.touch_rows().await;
        types.compare(&[0, STREAMED]).await;
        assert_eq!(verify(&types.world), (Some(0), true), "verify");
        types
    }

    async fn copy_rows(&self) {
        let copy = format!("INSERT INTO every SELECT id + {STREAMED}, {} FROM every", columns());
        self.client.batch_execute(&copy).await.unwrap();
    }

    /// Rows that were there already come whole, too.
    async fn touch_rows(&self) {
        let text = column_of("text");
        let touch = format!("UPDATE every SET {text} = {text} WHERE id < {STREAMED}");
        self.client.batch_execute(&touch).await.unwrap();
    }

    async fn stop(mut self) {
        self.world.stop().await;
    }

    async fn create(&self) {
        self.client.batch_execute(SETUP).await.unwrap();
        let declared: Vec<String> = KINDS
            .iter()
            .enumerate()
            .map(|(at, kind)| format!("{} {}", column(at), kind.ty))
            .collect();
        let mut sql = format!("CREATE TABLE every (id int PRIMARY KEY, {});", declared.join(", "));
        for (id, row) in self.rows.iter().enumerate() {
            let cells = row.cells.iter().map(|cell| match cell {
                Some((text, _)) => format!("'{}'", text.replace('\'', "''")),
                None => "NULL".to_owned(),
            });
            let cells: Vec<String> = cells.collect();
            writeln!(sql, "INSERT INTO every VALUES ({id}, {});", cells.join(", ")).unwrap();
        }
        self.client.batch_execute(&sql).await.unwrap();
    }

    /// Everything in both stores against PostgreSQL; `offsets` are those of the ids.
    async fn compare(&mut self, offsets: &[i32]) {
        self.world.caught_up().await;
        let text = |at: usize| shown(KINDS[at].ty, &column(at));
        let expected = self.postgres((0..KINDS.len()).map(text).collect(), "true").await;
        assert_eq!(expected.len(), self.rows.len() * offsets.len());
        self.compare_redis(&expected).await;
        let hex = |at: usize| typed("String", KINDS[at].ty, &column(at));
        let (ours, theirs) = (0..KINDS.len()).map(hex).unzip();
        let held = self.clickhouse("texts", ours).await;
        assert_same("texts", &held, &self.postgres(theirs, "true").await);
        self.compare_typed(offsets).await;
        self.compare_lists(offsets).await;
        self.compare_groups().await;
        let parked = self.rows.iter().filter(|row| !row.fits).count() * offsets.len();
        let status = self.world.service().status().await.unwrap();
        let of = |name: &str| status.views.iter().find(|view| view.name == name).unwrap();
        assert_eq!(of("every").dead_letters, parked as u64, "parked");
    }

    /// Some columns in both stores against PostgreSQL.
    async fn compare_binary(&mut self, kinds: &[usize]) {
        self.world.caught_up().await;
        let texts = kinds.iter().map(|at| shown(KINDS[*at].ty, &column(*at))).collect();
        let expected = self.postgres(texts, "true").await;
        let mut redis = self.world.redis.connect().await.unwrap();
        for (id, texts) in &expected {
            let held: HashMap<String, String> = redis.hgetall(format!("hash:{id}")).await.unwrap();
            for (at, text) in kinds.iter().zip(texts) {
                assert_eq!(held.get(&column(*at)), text.as_ref(), "hash:{id} {}", KINDS[*at].ty);
            }
        }
        let hex = |at: &usize| typed("String", KINDS[*at].ty, &column(*at));
        let (ours, theirs) = kinds.iter().map(hex).unzip();
        let held = self.clickhouse("texts", ours).await;
        assert_same("texts", &held, &self.postgres(theirs, "true").await);
    }

    async fn compare_redis(&self, expected: &Table) {
        let mut redis = self.world.redis.connect().await.unwrap();
        for (id, texts) in expected {
            let held: HashMap<String, String> = redis.hgetall(format!("hash:{id}")).await.unwrap();
            let raw: String = redis.get(format!("json:{id}")).await.unwrap();
            let json: Json = serde_json::from_str(&raw).unwrap();
            assert_eq!(held["id"], id.to_string());
            let row = &self.rows[usize::try_from(id % STREAMED).unwrap()];
            for (at, kind) in KINDS.iter().enumerate() {
                let (name, text) = (column(at), texts[at].as_deref());
                assert_eq!(held.get(&name).map(String::as_str), text, "hash:{id} {}", kind.ty);
                let wanted = match (text, row.cells[at]) {
                    (None, _) => Json::Null,
                    (Some(_), Some((_, Some(array)))) => serde_json::from_str(array).unwrap(),
                    (Some(text), _) => match kind.ty {
                        "boolean" | "smallint" | "integer" | "bigint" => text.parse().unwrap(),
                        "json" | "jsonb" => {
                            // Digit by digit, which a parsed number is not.
                            assert!(raw.contains(text), "json:{id} {}", kind.ty);
                            serde_json::from_str(text).unwrap()
                        }
                        _ => Json::String(text.to_owned()),
                    },
                };
                assert_eq!(json[&name], wanted, "json:{id} {}", kind.ty);
            }
        }
    }

    /// The types that ClickHouse gets by default: the rows that fit, each value as it is.
    async fn compare_typed(&self, offsets: &[i32]) {
        let found = self.column_types("typed").await;
        let both = (0..KINDS.len()).map(|at| {
            let name = column(at);
            typed(&found[&name], KINDS[at].ty, &name)
        });
        let (ours, theirs): (Vec<String>, Vec<String>) = both.unzip();
        let fits = self.rows.iter().enumerate().filter(|(_, row)| row.fits);
        let ids: Vec<String> = fits
            .flat_map(|(id, _)| offsets.iter().map(move |offset| (id, offset)))
            .map(|(id, offset)| (i32::try_from(id).unwrap() + offset).to_string())
            .collect();
        let theirs = self.postgres(theirs, &format!("id IN ({})", ids.join(", "))).await;
        assert_same("typed", &self.clickhouse("typed", ours.clone()).await, &theirs);
        self.compare_kept(ours, &theirs, offsets).await;
    }

    /// With `unfit: text` all rows are there: the others have NULL and, beside it, a text.
    async fn compare_kept(&self, mut ours: Vec<String>, fit: &Table, offsets: &[i32]) {
        let mut wanted = fit.clone();
        for row in wanted.values_mut() {
            row.push(Some(String::new()));
        }
        for (id, row) in self.rows.iter().enumerate().filter(|(_, row)| !row.fits) {
            let at = row.cells.iter().position(Option::is_some).unwrap();
            let id = i32::try_from(id).unwrap();
            let text = vec![shown(KINDS[at].ty, &column(at))];
            let text = self.postgres(text, &format!("id = {id}")).await[&id][0].clone().unwrap();
            let mut texts = vec![None; KINDS.len()];
            texts.push(Some(format!("{{\"{}\":\"{text}\"}}", column(at))));
            wanted.extend(offsets.iter().map(|offset| (id + offset, texts.clone())));
        }
        ours.push("_unfit".to_owned());
        assert_same("kept", &self.clickhouse("kept", ours).await, &wanted);
    }

    /// `Array(…)` where it was asked for; arrays of other shapes are away.
    async fn compare_lists(&self, offsets: &[i32]) {
        let held = self
            .clickhouse("lists", vec!["toString(numbers)".to_owned(), "length(words)".to_owned()])
            .await;
        let (numbers, words) = (column_of("integer[]"), column_of("text[]"));
        let list = format!("coalesce({numbers}, '{{}}')");
        let theirs = vec![
            format!("'[' || array_to_string({list}, ',', 'NULL') || ']'"),
            format!("coalesce(cardinality({words}), 0)::text"),
        ];
        let flat =
            format!("coalesce(array_ndims({list}) = 1 AND array_lower({list}, 1) = 1, true)");
        let theirs = self.postgres(theirs, &flat).await;
        assert!(theirs.len() < self.rows.len() * offsets.len(), "none has another shape");
        assert_same("lists", &held, &theirs);
    }

    async fn compare_groups(&self) {
        let (inet, numbers) = (column_of("inet"), column_of("integer[]"));
        let sql = format!(
            "SELECT count(*)::text FROM every WHERE {inet} IS NOT NULL AND {numbers} IS NOT NULL \
             GROUP BY {inet}, {numbers}::text ORDER BY 1"
        );
        let rows = self.client.query(&sql, &[]).await.unwrap();
        let wanted: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let mut redis = self.world.redis.connect().await.unwrap();
        let keys: Vec<String> = redis.keys("group:*").await.unwrap();
        let mut counts: Vec<String> = redis.mget(&keys).await.unwrap();
        counts.sort();
        assert_eq!(counts, wanted);
    }

    async fn postgres(&self, texts: Vec<String>, condition: &str) -> Table {
        let sql = format!("SELECT id, {} FROM every WHERE {condition}", texts.join(", "));
        let rows = self.client.query(&sql, &[]).await.unwrap();
        rows.iter()
            .map(|row| (row.get(0), (1..=texts.len()).map(|at| row.get(at)).collect()))
            .collect()
    }

    async fn clickhouse(&self, table: &str, texts: Vec<String>) -> Table {
        let sql = format!("SELECT id, {} FROM betting.{table} FORMAT TSV", texts.join(", "));
        let answer = self.world.clickhouse.query(&sql).await.unwrap();
        let row = |line: &str| {
            let (id, rest) = line.split_once('\t').unwrap();
            let fields = rest.split('\t').map(|text| (text != "\\N").then(|| text.to_owned()));
            (id.parse().unwrap(), fields.collect())
        };
        answer.lines().map(row).collect()
    }

    /// By name, without `Nullable`.
    async fn column_types(&self, table: &str) -> HashMap<String, String> {
        let sql = format!(
            "SELECT name, type FROM system.columns WHERE database = 'betting' AND table = '{table}' \
             FORMAT TSVRaw"
        );
        let answer = self.world.clickhouse.query(&sql).await.unwrap();
        let of = |line: &str| {
            let (name, ty) = line.split_once('\t').unwrap();
            let inner = ty.strip_prefix("Nullable(").and_then(|ty| ty.strip_suffix(')'));
            let plain = inner
                .unwrap_or(ty)
                .replace("LowCardinality(Nullable(String))", "LowCardinality(String)");
            (name.to_owned(), plain)
        };
        answer.lines().map(of).collect()
    }

    /// The types of the columns, as Walview reads them.
    async fn catalog(&self) -> HashMap<String, Type> {
        let url = self.world.options.env.iter().find(|(name, _)| name == "BETTING_DATABASE_URL");
        let config = SourceConfig::from_url(&url.unwrap().1, None).unwrap();
        let session = connect(&config).await.unwrap();
        // No other locale need be installed here that prints money otherwise.
        for (name, wanted) in PINNED {
            let found: String =
                session.query_one(&format!("SHOW {name}"), &[]).await.unwrap().get(0);
            assert_eq!(found, *wanted, "{name}");
        }
        let tables = [("public".to_owned(), "every".to_owned())];
        let catalog = catalog::load(&session, &tables).await.unwrap();
        session.close().await;
        let columns = &catalog.tables[0].columns;
        columns.iter().map(|column| (column.name.clone(), column.ty.clone())).collect()
    }

    /// What is believed of types that are carried as text, over all pairs of values.
    async fn check_rules(&self) {
        let types = self.catalog().await;
        let (mut canonical, mut castable) = (0, 0);
        for (at, kind) in KINDS.iter().enumerate() {
            let name = column(at);
            let Some(carried) = types[&name].carried() else { continue };
            let mut wrong = Vec::new();
            if carried.canonical {
                canonical += 1;
                let grouped = format!("SELECT {name} FROM every GROUP BY {name}");
                self.client
                    .query(&format!("SELECT count(*) FROM ({grouped}) g"), &[])
                    .await
                    .unwrap();
                wrong.push(format!(
                    "FROM every a, every b WHERE num_nulls(a.{name}, b.{name}) = 0 \
                     AND (a.{name} = b.{name}) <> (format('%s', a.{name}) = format('%s', b.{name}))"
                ));
            }
            if carried.castable {
                castable += 1;
                wrong.push(format!(
                    "FROM every WHERE num_nulls({name}) = 0 AND {name}::text <> format('%s', {name})"
                ));
            }
            for wrong in wrong {
                let sql = format!("SELECT count(*) {wrong}");
                let found: i64 = self.client.query_one(&sql, &[]).await.unwrap().get(0);
                assert_eq!(found, 0, "{}: {sql}", kind.ty);
            }
        }
        assert!(canonical > 20 && castable > 40, "{canonical} canonical, {castable} castable");
    }

    /// The table of the documents, from what was seen.
    async fn document(&self) {
        let (found, types) = (self.column_types("typed").await, self.catalog().await);
        let mut redis = self.world.redis.connect().await.unwrap();
        let held: HashMap<String, String> = redis.hgetall("hash:0").await.unwrap();
        let json: String = redis.get("json:0").await.unwrap();
        let json: Json = serde_json::from_str(&json).unwrap();
        let mut lines = Vec::new();
        for (at, kind) in KINDS.iter().enumerate() {
            let name = column(at);
            let form = match &json[&name] {
                Json::Bool(_) => "boolean",
                Json::Number(_) => "number",
                Json::Array(_) => "array",
                Json::Object(_) => "the value",
                Json::String(_) | Json::Null => "string",
            };
            lines.push(format!(
                "| {} | {} | {} | {form} | {} | {} |",
                code(kind.ty),
                code(&found[&name]),
                code(&held[&name]),
                use_of(&types[&name]),
                kind.unfit.iter().map(|text| code(text)).collect::<Vec<_>>().join(", "),
            ));
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/types.md");
        let document = std::fs::read_to_string(path).unwrap();
        let (head, rest) = document.split_once("|---|---|---|---|---|---|\n").unwrap();
        let (table, tail) = rest.split_once("\n\n").unwrap();
        let actual = lines.join("\n");
        if table != actual {
            let renewed = format!("{head}|---|---|---|---|---|---|\n{actual}\n\n{tail}");
            let beside = self.world.home.path().join("types.md");
            let write = std::env::var_os("WALVIEW_GOLDEN").is_some_and(|word| word == "write");
            std::fs::write(if write { path.into() } else { beside }, renewed).unwrap();
            panic!(
                "docs/types.md is not what the stores hold; WALVIEW_GOLDEN=write renews it:\n{actual}"
            );
        }
    }
}

/// What a view may do with a column.
fn use_of(ty: &Type) -> &'static str {
    match ty.carried().map(|carried| (carried.canonical, carried.castable)) {
        None => "compute",
        Some((true, true)) => "`=`, group, `::text`",
        Some((true, false)) => "`=`, group",
        Some((false, true)) => "`::text`",
        Some((false, false)) => "show, count",
    }
}

/// A text in a cell of a Markdown table, cut where it is long.
fn code(text: &str) -> String {
    const CHARS_MAX: usize = 36;
    let mut shown: String = text.chars().take(CHARS_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    if shown.is_empty() { String::new() } else { format!("`{}`", shown.replace('|', "\\|")) }
}

fn columns() -> String {
    (0..KINDS.len()).map(column).collect::<Vec<_>>().join(", ")
}

fn assert_same(what: &str, held: &Table, expected: &Table) {
    let ids = |table: &Table| table.keys().copied().collect::<Vec<_>>();
    assert_eq!(ids(held), ids(expected), "{what}: rows");
    let number = |text: &Option<String>| text.as_ref()?.strip_prefix('~')?.parse::<f64>().ok();
    for (id, texts) in expected {
        for (at, (held, wanted)) in held[id].iter().zip(texts).enumerate() {
            let same = held == wanted
                || number(held)
                    .zip(number(wanted))
                    .is_some_and(|(a, b)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()));
            assert!(same, "{what} {id}, column {at}: {held:?}, not {wanted:?}");
        }
    }
}
