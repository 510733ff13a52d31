//! What BI people may read, and what they find beside it: the role of
//! `schemas/clickhouse/bi_role.sql`, column comments, `_committed_at`.
//!
//! The engine of the suite has no storage for `CREATE ROLE`, and no sessions of other users. So the
//! role's file is checked in two steps: the engine parses each statement and writes it out in its
//! own words; then the same grants and settings, given to it as configuration, come out of
//! `SHOW GRANTS` and `SHOW CREATE SETTINGS PROFILE` in these very words. What they allow is tried
//! for real, through views whose definer has the role: the engine reads them with its rights.

use std::fmt::Write as _;
use std::time::Duration;

use walview::demo::servers::clickhouse::ClickHouse;
use walview::demo::servers::postgres::Db;
use walview::demo::{REPORTS, create_reports};

use crate::end_to_end::SMALL;
use crate::world::{CATCH_UP_LIMIT, World};

const ROLE: &str = include_str!("../schemas/clickhouse/bi_role.sql");

/// The statements of a file, as a client splits them.
fn statements(file: &str) -> Vec<String> {
    let lines: Vec<&str> = file.lines().filter(|line| !line.starts_with("--")).collect();
    let statements = lines.join("\n");
    statements.split(';').map(|text| text.trim().to_owned()).filter(|t| !t.is_empty()).collect()
}

/// A setting of the profile: its words after the name, `= 60 MIN 1 MAX 600`.
fn settings(statement: &str) -> Vec<(String, Vec<String>)> {
    let (_, list) = statement.split_once(" ADD SETTINGS ").expect("the profile's settings");
    list.split(", ")
        .map(|setting| {
            let mut words = setting.split(' ').map(|word| word.trim_matches('\'').to_owned());
            (words.next().unwrap(), words.skip(1).collect())
        })
        .collect()
}

/// The same as configuration: `bi` has the role, `strict` has it with `readonly` 1.
fn users_xml(grants: &[&String], profile: &str) -> String {
    let (mut values, mut bounds, mut roles) = (String::new(), String::new(), String::new());
    for (name, words) in settings(profile) {
        write!(values, "<{name}>{}</{name}>", words[0]).unwrap();
        match &words[1..] {
            [] => {}
            [word] if word == "CONST" => write!(bounds, "<{name}><const/></{name}>").unwrap(),
            [min, low, max, high] if min == "MIN" && max == "MAX" => {
                write!(bounds, "<{name}><min>{low}</min><max>{high}</max></{name}>").unwrap();
            }
            other => panic!("{name}: no way to say {other:?} in XML here"),
        }
    }
    for grant in grants {
        let (grant, to) = grant.rsplit_once(" TO ").unwrap();
        assert_eq!(to, "walview_bi");
        write!(roles, "<query>{grant}</query>").unwrap();
    }
    let user = |name: &str, rest: &str| {
        format!("<{name}><no_password/><networks><ip>::/0</ip></networks>{rest}</{name}>")
    };
    let has_role = "<grants><query>GRANT walview_bi</query></grants>";
    format!(
        "<clickhouse><profiles><default/><walview_bi>{values}<constraints>{bounds}</constraints>\
         </walview_bi><strict><readonly>1</readonly></strict></profiles>\
         <quotas><default/></quotas><roles><walview_bi><grants>{roles}</grants></walview_bi></roles>\
         <users>{}{}{}</users></clickhouse>",
        user("default", "<profile>default</profile><access_management>1</access_management>"),
        user("bi", &format!("<profile>walview_bi</profile>{has_role}")),
        user("strict", &format!("<profile>strict</profile>{has_role}")),
    )
}

/// A world whose ClickHouse knows the role.
async fn world_with_role(grants: &[&String], profile: &str) -> World {
    let mut world = World::betting(SMALL).await;
    let folder = world.home.path().join("clickhouse-with-users");
    let config = world.home.path().join("clickhouse.xml");
    let users = world.home.path().join("users.xml");
    std::fs::write(&users, users_xml(grants, profile)).unwrap();
    let text = format!("<clickhouse><users_config>{}</users_config></clickhouse>", users.display());
    std::fs::write(&config, text).unwrap();
    let log = world.home.log("clickhouse-with-users");
    world.clickhouse = ClickHouse::start_with(&folder, &log, Some(&config)).await.unwrap();
    let url = world.clickhouse.url();
    for (name, value) in &mut world.options.env {
        if name == "CLICKHOUSE_URL" {
            url.clone_into(value);
        }
    }
    world
}

/// Runs a `SELECT` with the rights and settings of a user.
async fn select_as(clickhouse: &ClickHouse, user: &str, select: &str) -> Result<String, String> {
    let view =
        format!("CREATE OR REPLACE VIEW probe.p DEFINER = {user} SQL SECURITY DEFINER AS {select}");
    clickhouse.query(&view).await.unwrap();
    let answer = clickhouse.query("SELECT * FROM probe.p FORMAT TSV").await;
    answer.map_err(|error| error.to_string())
}

#[tokio::test]
async fn the_role_reads_views_and_nothing_else() {
    let statements = statements(ROLE);
    // In the engine's own words.
    let judge = World::betting(SMALL).await;
    let mut written = Vec::new();
    for statement in &statements {
        judge.clickhouse.query(&format!("EXPLAIN AST {statement}")).await.unwrap();
        let quoted = statement.replace('\\', "\\\\").replace('\'', "\\'");
        let sql = format!("SELECT formatQuery('{quoted}') FORMAT TSVRaw");
        written.push(judge.clickhouse.query(&sql).await.unwrap().trim().to_owned());
    }
    drop(judge);
    let (grants, others): (Vec<&String>, Vec<&String>) =
        written.iter().partition(|statement| statement.starts_with("GRANT "));
    let [create_profile, profile, create_role, role] = others[..] else {
        panic!("other statements than a profile, a role and grants: {others:?}");
    };
    assert_eq!(create_profile, "CREATE SETTINGS PROFILE IF NOT EXISTS `walview_bi`");
    assert_eq!(create_role, "CREATE ROLE IF NOT EXISTS walview_bi");
    assert!(
        role.starts_with("ALTER ROLE walview_bi ") && role.ends_with("ADD PROFILE `walview_bi`")
    );
    assert!(profile.starts_with("ALTER SETTINGS PROFILE `walview_bi` DROP ALL SETTINGS, "));

    let mut world = world_with_role(&grants, profile).await;
    let shown = world.clickhouse.query("SHOW GRANTS FOR walview_bi FORMAT TSVRaw").await.unwrap();
    let mut shown: Vec<&str> = shown.lines().collect();
    let mut expected: Vec<&str> = grants.iter().map(|grant| grant.as_str()).collect();
    shown.sort_unstable();
    expected.sort_unstable();
    assert_eq!(shown, expected);
    let sql = "SHOW CREATE SETTINGS PROFILE walview_bi FORMAT TSVRaw";
    let shown = world.clickhouse.query(sql).await.unwrap();
    let (_, shown) = shown.trim().rsplit_once(" SETTINGS ").unwrap();
    // A number with a fraction is written with its point.
    let shown = shown.replace(". ", " ").replace(".,", ",");
    assert_eq!(shown, profile.split_once(" ADD SETTINGS ").unwrap().1);

    world.start().await;
    create_reports(&world.clickhouse).await.unwrap();
    world.caught_up().await;
    world.clickhouse.query("CREATE DATABASE probe").await.unwrap();
    for user in ["bi", "strict"] {
        assert_reads_views_only(&world.clickhouse, user).await;
    }
    assert_eq!(
        select_as(&world.clickhouse, "bi", "SELECT getSetting('readonly')").await.unwrap(),
        "2\n"
    );
    assert_eq!(
        select_as(&world.clickhouse, "strict", "SELECT getSetting('readonly')").await.unwrap(),
        "1\n"
    );
    world.stop().await;
}

async fn assert_reads_views_only(clickhouse: &ClickHouse, user: &str) {
    let names = |database: &str| {
        let sql = format!(
            "SELECT name FROM system.tables WHERE database = '{database}' ORDER BY name FORMAT TSV"
        );
        async move {
            let names = clickhouse.query(&sql).await.unwrap();
            names.lines().map(str::to_owned).collect::<Vec<_>>()
        }
    };
    let (views, rows) = (names("betting").await, names("betting_rows").await);
    for wanted in
        REPORTS.map(|(name, _)| name).into_iter().chain(["bets_analytics", "walview_freshness"])
    {
        assert!(views.iter().any(|view| view == wanted), "{wanted} is not among {views:?}");
    }
    for view in &views {
        // Every column is read; the whole is what the administrator sees.
        let columns = if view == "walview_freshness" { "pipeline, view, state" } else { "*" };
        let select = format!(
            "SELECT count() AS n, sum(cityHash64(toString(tuple({columns})))) AS h FROM betting.`{view}`"
        );
        let all = clickhouse.query(&format!("{select} FORMAT TSV")).await.unwrap();
        assert_ne!(all, "0\t0\n", "{view} shows nothing");
        assert_eq!(select_as(clickhouse, user, &select).await, Ok(all), "{user} reads {view}");
        let made = format!("SHOW CREATE VIEW betting.`{view}` FORMAT TSVRaw");
        let made = clickhouse.query(&made).await.unwrap();
        let is_report = REPORTS.iter().any(|(name, _)| name == view);
        // A report reads the exact view with the reader's own rights; that reads rows with Walview's.
        assert_eq!(made.contains("SQL SECURITY DEFINER"), !is_report, "{made}");
    }
    assert!(rows.len() >= 4, "{rows:?}");
    for table in &rows {
        let select = format!("SELECT count() FROM betting_rows.`{table}`");
        let denied = select_as(clickhouse, user, &select).await.unwrap_err();
        assert!(denied.contains("Code: 497"), "{user} reads {table}: {denied}");
    }
    clickhouse.query("CREATE OR REPLACE VIEW probe.other AS SELECT 1 AS one").await.unwrap();
    for other in ["system.users", "probe.other"] {
        let denied = select_as(clickhouse, user, &format!("SELECT count() FROM {other}")).await;
        assert!(denied.as_ref().is_err_and(|e| e.contains("Code: 497")), "{other}: {denied:?}");
    }
    // What a BI tool lists is what can be read.
    for catalog in ["system.tables", "information_schema.tables"] {
        let column = if catalog == "system.tables" { "database" } else { "table_schema" };
        let select = format!(
            "SELECT DISTINCT {column} AS d FROM {catalog} WHERE {column} LIKE 'betting%' ORDER BY d"
        );
        assert_eq!(select_as(clickhouse, user, &select).await.unwrap(), "betting\n", "{catalog}");
    }
}

/// To whoever looks at it in a BI tool: of a report what it means, of an exact view and its rows
/// the type and the column at the source.
#[tokio::test]
async fn every_column_says_what_it_is() {
    let mut world = World::betting(SMALL).await;
    world.start().await;
    create_reports(&world.clickhouse).await.unwrap();
    // Again is harmless.
    create_reports(&world.clickhouse).await.unwrap();
    let silent = "SELECT database, table, name FROM system.columns \
                  WHERE database IN ('betting', 'betting_rows') AND comment = '' \
                  AND table <> 'walview_marks' FORMAT TSV";
    assert_eq!(world.clickhouse.query(silent).await.unwrap(), "");
    let comments = |database: &str, table: &str| {
        let sql = format!(
            "SELECT name, comment FROM system.columns \
             WHERE database = '{database}' AND table = '{table}' ORDER BY position FORMAT TSVRaw"
        );
        let clickhouse = &world.clickhouse;
        async move { clickhouse.query(&sql).await.unwrap() }
    };
    let bets = [
        "bet_id\tbigint, bets.id",
        "user_id\tbigint, bets.user_id",
        "user_name\ttext, users.name",
        "user_country\ttext, users.country",
        "event_id\tbigint, bets.event_id",
        "event_name\ttext, events.name",
        "event_category\ttext, events.category",
        "status\ttext, bets.status",
        "amount\tnumeric(12,2), bets.amount",
        "odds\tnumeric(6,2), bets.odds",
        "payout\tnumeric(12,2), bets.payout",
        "margin\tnumeric, from bets.amount, bets.payout",
        "placed_at\ttimestamp with time zone, bets.placed_at",
        "settled_at\ttimestamp with time zone, bets.settled_at",
    ];
    let shown = comments("betting", "bets_analytics").await;
    let (last, plain) =
        shown.lines().collect::<Vec<_>>().split_last().map(|(l, p)| (*l, p.to_vec())).unwrap();
    assert_eq!(plain, bets);
    assert!(last.starts_with("_committed_at\tWhen "), "{last}");
    let rows = comments("betting_rows", "bets_analytics").await;
    assert_eq!(rows.lines().take(bets.len()).collect::<Vec<_>>(), bets);
    let groups = comments("betting", "settlement_totals").await;
    for wanted in
        ["day\ttimestamp with time zone, from bets.placed_at", "odds\tnumeric, sum(bets.odds)"]
    {
        assert!(groups.lines().any(|line| line == wanted), "{wanted}: {groups}");
    }
    world.stop().await;
}

/// What a transaction did: its commit time as ClickHouse writes it.
async fn committed(client: &mut Db, sql: &str) -> String {
    let transaction = client.transaction().await.unwrap();
    let xid = "SELECT pg_current_xact_id()::xid::text";
    let xid: String = transaction.query_one(xid, &[]).await.unwrap().get(0);
    transaction.batch_execute(sql).await.unwrap();
    transaction.commit().await.unwrap();
    let at = format!(
        "SELECT to_char(pg_xact_commit_timestamp('{xid}'::xid) AT TIME ZONE 'UTC', \
         'YYYY-MM-DD HH24:MI:SS.US')"
    );
    client.query_one(&at, &[]).await.unwrap().get(0)
}

async fn bets_where(world: &World, condition: &str) -> Vec<String> {
    let sql = format!(
        "SELECT bet_id FROM betting.bets_analytics WHERE {condition} ORDER BY bet_id FORMAT TSV"
    );
    let answer = world.clickhouse.query(&sql).await.unwrap();
    answer.lines().map(str::to_owned).collect()
}

/// `_committed_at` is PostgreSQL's own commit time of the change that last changed the row as it is
/// shown; so an incremental model that reads on from its last one gets what changed, and only that.
#[tokio::test]
async fn committed_at_is_the_last_change_of_a_row() {
    let extra = vec![("track_commit_timestamp".to_owned(), "on".to_owned())];
    let mut world = World::with_settings(SMALL, extra).await;
    let mut client = world.db().await;
    let now = "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')";
    let before: String = client.query_one(now, &[]).await.unwrap().get(0);
    world.start().await;
    world.caught_up().await;
    let after: String = client.query_one(now, &[]).await.unwrap().get(0);
    let sql = "SELECT toString(min(_committed_at)), toString(max(_committed_at)), \
               toTypeName(any(_committed_at)) FROM betting.bets_analytics FORMAT TSVRaw";
    let snapshot = world.clickhouse.query(sql).await.unwrap();
    let [first, last, ty] = snapshot.trim().split('\t').collect::<Vec<_>>()[..] else {
        panic!("{snapshot}");
    };
    assert_eq!((first, ty), (last, "DateTime64(6, 'UTC')"), "the snapshot has one time");
    assert!(*before < *first && *first < *after, "{before} < {first} < {after}");
    let model = "CREATE TABLE betting.model ENGINE = MergeTree ORDER BY bet_id AS \
                 SELECT * FROM betting.bets_analytics";
    world.clickhouse.query(model).await.unwrap();

    // A statement, and the bets whose shown row it changes.
    let steps = [
        ("UPDATE bets SET amount = amount + 1 WHERE id % 100 = 3", "id % 100 = 3"),
        ("UPDATE users SET name = 'Renamed' WHERE id = 1", "user_id = 1"),
        ("UPDATE users SET verified = NOT verified WHERE id = 2", "false"),
        ("UPDATE bets SET amount = amount WHERE id = 5", "false"),
        ("DELETE FROM events WHERE id = 1", "event_id = 1"),
        // To another partition, and back within one transaction.
        ("UPDATE bets SET placed_at = placed_at - interval '40 days' WHERE id = 7", "id = 7"),
        (
            "UPDATE bets SET placed_at = placed_at - interval '40 days' WHERE id = 9;
             UPDATE bets SET placed_at = placed_at + interval '40 days', odds = 7 WHERE id = 9",
            "id = 9",
        ),
        ("DELETE FROM bets WHERE id = 11", "false"),
    ];
    let mut last = last.to_owned();
    for (statement, changed) in steps {
        let at = committed(&mut client, statement).await;
        world.caught_up().await;
        let sql = format!("SELECT id::text FROM bets WHERE {changed} ORDER BY bets.id");
        let rows = client.query(&sql, &[]).await.unwrap();
        let expected: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        assert!(changed == "false" || !expected.is_empty(), "{statement} changes nothing");
        let since = format!("_committed_at > '{last}'");
        assert_eq!(bets_where(&world, &since).await, expected, "{statement}");
        let exactly = format!("_committed_at = '{at}'");
        assert_eq!(bets_where(&world, &exactly).await, expected, "{statement} at {at}");
        last = at;
    }
    // A restart writes nothing anew.
    let times =
        "SELECT bet_id, _committed_at FROM betting.bets_analytics ORDER BY bet_id FORMAT TSV";
    let held = world.clickhouse.query(times).await.unwrap();
    world.kill9().await;
    world.start().await;
    world.caught_up().await;
    assert_eq!(world.clickhouse.query(times).await.unwrap(), held);

    // dbt's delete+insert, as docs/bi.md has it; then what it does not see.
    for sql in [
        "CREATE TABLE betting.changed ENGINE = MergeTree ORDER BY bet_id AS SELECT * \
         FROM betting.bets_analytics \
         WHERE _committed_at > (SELECT max(_committed_at) FROM betting.model) AND _committed_at <= \
         (SELECT as_of FROM betting.walview_freshness WHERE view = 'bets_analytics')",
        "DELETE FROM betting.model WHERE bet_id IN (SELECT bet_id FROM betting.changed)",
        "INSERT INTO betting.model SELECT * FROM betting.changed",
    ] {
        world.clickhouse.query(sql).await.unwrap();
    }
    let (ghosts, missing) = (
        "SELECT bet_id FROM (SELECT * FROM betting.model EXCEPT SELECT * FROM betting.bets_analytics)",
        "SELECT bet_id FROM (SELECT * FROM betting.bets_analytics EXCEPT SELECT * FROM betting.model)",
    );
    assert_eq!(world.clickhouse.query(missing).await.unwrap(), "");
    assert_eq!(world.clickhouse.query(ghosts).await.unwrap(), "11\n", "a row that left");
    let way_out = "DELETE FROM betting.model \
                   WHERE bet_id NOT IN (SELECT bet_id FROM betting.bets_analytics)";
    world.clickhouse.query(way_out).await.unwrap();
    assert_eq!(world.clickhouse.query(ghosts).await.unwrap(), "");
    world.stop().await;
}

/// A view that stopped says so, and claims no time; the others go on. After that Walview's death
/// shows as a lag that grows.
#[tokio::test]
async fn freshness_says_which_view_stopped() {
    let mut world = World::betting(SMALL).await;
    world.start().await;
    // What its rows no longer fit.
    let alter =
        "ALTER TABLE betting_rows.bets_analytics DROP COLUMN odds SETTINGS mutations_sync = 2";
    world.clickhouse.query(alter).await.unwrap();
    let touch = "UPDATE bets SET odds = 3 WHERE id = 1";
    world.db().await.batch_execute(touch).await.unwrap();
    let states = "SELECT view, state, as_of IS NULL, lag IS NULL, lag < 60 \
                  FROM betting.walview_freshness ORDER BY view FORMAT TSV";
    until(&world, states, |states| {
        states
            == "bets_analytics\tstopped\t1\t1\t\\N\n\
                settlement_totals\tlive\t0\t0\t1\n\
                totals_by_country\tlive\t0\t0\t1\n"
    })
    .await;
    let as_of = "SELECT as_of FROM betting.walview_freshness \
                 WHERE view = 'settlement_totals' FORMAT TSV";
    let before = world.clickhouse.query(as_of).await.unwrap();
    until(&world, as_of, |as_of| as_of > before.as_str()).await;
    world.kill9().await;
    let before = world.clickhouse.query(as_of).await.unwrap();
    let lag = "SELECT lag >= 2 FROM betting.walview_freshness \
               WHERE view = 'settlement_totals' FORMAT TSV";
    until(&world, lag, |grown| grown == "1\n").await;
    assert_eq!(world.clickhouse.query(as_of).await.unwrap(), before);
}

async fn until(world: &World, sql: &str, wanted: impl Fn(&str) -> bool) {
    let mut answer = String::new();
    let waiting = async {
        loop {
            answer = world.clickhouse.query(sql).await.unwrap();
            if wanted(&answer) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let waited = tokio::time::timeout(CATCH_UP_LIMIT, waiting).await;
    assert!(waited.is_ok(), "{sql}: still {answer}");
}
