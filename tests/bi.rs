//! What BI people may read, and what they find beside it: the role of
//! `schemas/clickhouse/bi_role.sql`, column comments, `_committed_at`.
//!
//! The engine of the suite has no storage for `CREATE ROLE`, and no sessions of other users. So the
//! role's file is checked in two steps: the engine parses each statement and writes it out in its
//! own words; then the same grants and settings, given to it as configuration, come out of
//! `SHOW GRANTS` and `SHOW CREATE SETTINGS PROFILE` in these very words. What they allow is tried
//! for real, through views whose definer has the role: the engine reads them with its rights.

use std::fmt::Write as _;

use walview::demo::servers::clickhouse::ClickHouse;
use walview::demo::{REPORTS, create_reports};

use crate::end_to_end::SMALL;
use crate::world::World;

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
