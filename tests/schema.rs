//! The source's schema changes under a running and under a stopped Walview: views that do not use
//! what changed never notice; a view that cannot go on stops alone, with one sentence.
//!
//! Each case is a table of its own with views over it; all share one cluster and one pipeline.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use walview::demo::Seed;
use walview::demo::servers::postgres::Db;
use walview::service::board::Status;

use crate::world::World;

const LIMIT: Duration = Duration::from_secs(60);
const FEW_ROWS: Seed = Seed { users: 1, events: 1, bets: 1 };

/// A view's name after its table's, its SQL, and a part of the sentence that it stops with (`|`:
/// either, by what the look happens to see first).
type View = (&'static str, &'static str, Option<&'static str>);

/// `T` stands for the table's name everywhere.
struct Case {
    table: &'static str,
    before: &'static str,
    views: &'static [View],
    /// Statements that are no transaction together.
    change: &'static [&'static str],
    /// Runs after the change, and must succeed.
    write: &'static str,
}

/// All columns are used, so the publication has no column list.
const WHOLE: &str =
    "CREATE TABLE T (id bigint PRIMARY KEY, a text NOT NULL, b numeric(12,2), c int);
     INSERT INTO T SELECT i, 'a' || i, i, i FROM generate_series(1, 40) i";
/// Two columns that no view uses.
const LISTED: &str =
    "CREATE TABLE T (spare int, id bigint PRIMARY KEY, a text NOT NULL, b numeric(12,2), c int,
                     other int);
     INSERT INTO T SELECT i, i, 'a' || i, i, i, i FROM generate_series(1, 40) i";
const PARTED: &str = "CREATE TABLE T (id bigint PRIMARY KEY, c int) PARTITION BY RANGE (id);
     CREATE TABLE T_1 PARTITION OF T FOR VALUES FROM (0) TO (100);
     CREATE TABLE T_2 PARTITION OF T FOR VALUES FROM (100) TO (200);
     INSERT INTO T SELECT i, i % 3 FROM generate_series(1, 199) i";

const USES: &str = "SELECT id, a, b FROM T";
const OTHER: &str = "SELECT id, c FROM T";
const COUNT: &str = "SELECT c AS id, count(*) AS n FROM T WHERE c IS NOT NULL GROUP BY c";
const WRITE: &str = "UPDATE T SET c = c + 1 WHERE id % 3 = 0; DELETE FROM T WHERE id = 5";

const CASES: &[Case] = &[
    Case {
        table: "enum_renamed",
        before: "CREATE TYPE T_e AS ENUM ('x', 'y');
                 CREATE TABLE T (id bigint PRIMARY KEY, a T_e, c int);
                 INSERT INTO T SELECT i, 'x', i FROM generate_series(1, 40) i",
        views: &[
            ("uses", "SELECT id, a FROM T", Some("is of type enum_renamed_e, whose labels were renamed")),
            ("other", OTHER, None),
        ],
        change: &["ALTER TYPE T_e RENAME VALUE 'x' TO 'z'", "ALTER TYPE T_e ADD VALUE 'x'"],
        write: "INSERT INTO T VALUES (100, 'x', 1), (101, 'z', 1)",
    },
    Case {
        table: "enum_added",
        before: "CREATE TYPE T_e AS ENUM ('x', 'y');
                 CREATE TABLE T (id bigint PRIMARY KEY, a T_e, c int);
                 INSERT INTO T SELECT i, 'x', i FROM generate_series(1, 40) i",
        views: &[("uses", "SELECT id, a FROM T", None), ("other", OTHER, None)],
        change: &["ALTER TYPE T_e ADD VALUE 'new' BEFORE 'x'"],
        write: "INSERT INTO T VALUES (100, 'new', 1); UPDATE T SET a = 'new' WHERE id = 2",
    },
    Case {
        table: "rewritten",
        before: WHOLE,
        views: &[("uses", USES, Some("column \"b\" of table \"public.rewritten\" was rewritten")), ("other", OTHER, None)],
        change: &["ALTER TABLE T ALTER b TYPE numeric(12,2) USING b * 2"],
        write: WRITE,
    },
    Case {
        table: "retyped",
        before: WHOLE,
        views: &[
            ("uses", USES, Some("\"b\" of table \"public.retyped\" changed its type")),
            ("other", OTHER, None),
        ],
        change: &["BEGIN; UPDATE T SET c = 7 WHERE id = 1; ALTER TABLE T ALTER b TYPE numeric(14,3); \
                   UPDATE T SET c = 8, b = 1.125 WHERE id = 2; COMMIT"],
        write: WRITE,
    },
    Case {
        table: "volatile_default",
        before: LISTED,
        views: &[("uses", USES, None), ("other", OTHER, None)],
        change: &["ALTER TABLE T ADD d double precision DEFAULT random()"],
        write: WRITE,
    },
    Case {
        table: "swapped",
        before: WHOLE,
        views: &[
            ("uses", USES, Some("table \"public.swapped\" is called")),
            ("other", OTHER, Some("table \"public.swapped\" is called")),
        ],
        change: &[
            "CREATE TABLE T_new (LIKE T INCLUDING ALL); INSERT INTO T_new VALUES (1, 'n', 1, 1)",
            "BEGIN; ALTER TABLE T RENAME TO T_old; ALTER TABLE T_new RENAME TO T; COMMIT",
        ],
        write: "UPDATE T_old SET c = 1; INSERT INTO T VALUES (2, 'n', 1, 1)",
    },
    Case {
        table: "recreated",
        before: WHOLE,
        views: &[
            ("uses", USES, Some("table \"public.recreated\" was dropped")),
            ("other", OTHER, Some("table \"public.recreated\" was dropped")),
        ],
        change: &["DROP TABLE T; CREATE TABLE T (id bigint PRIMARY KEY, a text, b numeric(12,2), c int)"],
        write: "INSERT INTO T VALUES (1, 'n', 1, 1)",
    },
    Case {
        table: "put_off",
        before: "CREATE TABLE T_d (id bigint PRIMARY KEY, code int NOT NULL CONSTRAINT T_code UNIQUE, x int);
                 INSERT INTO T_d SELECT i, i * 10, i FROM generate_series(1, 9) i;
                 CREATE TABLE T (id bigint PRIMARY KEY, d int, c int);
                 INSERT INTO T SELECT i, i, i FROM generate_series(1, 40) i",
        views: &[
            ("joins", "SELECT t.id, d.x FROM T t LEFT JOIN T_d d ON d.code = t.d",
             Some("the unique key over \"code\" of table \"public.put_off_d\", which the view joins by, was dropped, or is deferrable now")),
            ("by_id", "SELECT t.id, d.x FROM T t LEFT JOIN T_d d ON d.id = t.c", None),
            ("plain", "SELECT id, x, code FROM T_d", None),
        ],
        change: &["ALTER TABLE T_d DROP CONSTRAINT T_code, ADD CONSTRAINT T_code UNIQUE (code) DEFERRABLE"],
        write: "UPDATE T_d SET x = x + 1; UPDATE T_d SET code = 100 - code",
    },
    Case {
        table: "hidden",
        before: WHOLE,
        views: &[("uses", USES, Some("row level security hides rows")), ("other", OTHER, Some("BYPASSRLS"))],
        change: &["ALTER TABLE T ENABLE ROW LEVEL SECURITY; ALTER TABLE T FORCE ROW LEVEL SECURITY"],
        write: "UPDATE T SET c = 1",
    },
    Case {
        table: "taken_out",
        before: LISTED,
        views: &[
            ("uses", USES, Some("the publication of table \"public.taken_out\" was altered|the publication no longer sends")),
            ("other", OTHER, Some("changes may be missing|the publication no longer sends")),
        ],
        change: &[
            "ALTER PUBLICATION walview_schema DROP TABLE T; UPDATE T SET c = 0; \
             ALTER PUBLICATION walview_schema ADD TABLE T (id, a, b, c)",
        ],
        write: WRITE,
    },
    Case {
        table: "renamed",
        before: LISTED,
        views: &[("uses", USES, Some("column \"a\" of table \"public.renamed\" was dropped or renamed|was renamed to \"a2\"")), ("other", OTHER, None)],
        change: &["BEGIN; UPDATE T SET c = 70 WHERE id = 1; ALTER TABLE T RENAME a TO a2; \
                   UPDATE T SET c = 80, a2 = 'new' WHERE id = 2; COMMIT"],
        write: WRITE,
    },
    Case {
        table: "exchanged",
        before: "CREATE TABLE T (id bigint PRIMARY KEY, a int, b int, c int);
                 INSERT INTO T SELECT i, i, -i, i FROM generate_series(1, 40) i",
        views: &[
            ("uses", "SELECT id, a, b FROM T", Some("column \"a\" of table \"public.exchanged\" was renamed to \"b\"")),
            ("other", OTHER, None),
        ],
        change: &["BEGIN; ALTER TABLE T RENAME a TO z; ALTER TABLE T RENAME b TO a; ALTER TABLE T RENAME z TO b; COMMIT"],
        write: WRITE,
    },
    Case {
        table: "unused",
        before: LISTED,
        views: &[("uses", USES, None), ("other", OTHER, None), ("counts", COUNT, None)],
        change: &[
            "BEGIN; UPDATE T SET c = 70 WHERE id = 1; ALTER TABLE T RENAME spare TO spared; \
             UPDATE T SET c = 80, spared = 1 WHERE id = 2; ALTER TABLE T DROP other; \
             INSERT INTO T VALUES (1, 200, 'x', 1.5, 3); ALTER TABLE T ADD fresh text; \
             UPDATE T SET fresh = 'f', a = 'g' WHERE id = 3; \
             ALTER TABLE T ALTER spared TYPE text; UPDATE T SET spared = 's', b = 2; COMMIT",
        ],
        write: WRITE,
    },
    Case {
        table: "dropped",
        before: WHOLE,
        views: &[("uses", USES, Some("column \"a\" of table \"public.dropped\" was dropped")), ("other", OTHER, None)],
        change: &["BEGIN; UPDATE T SET c = 70 WHERE id = 1; ALTER TABLE T DROP a; \
                   UPDATE T SET c = 80 WHERE id = 2; COMMIT"],
        write: WRITE,
    },
    Case {
        table: "dropped_and_added",
        before: "CREATE TABLE T (id bigint PRIMARY KEY, c int, a text, b numeric(12,2));
                 INSERT INTO T SELECT i, i, 'a' || i, i FROM generate_series(1, 40) i",
        views: &[("uses", USES, Some("\"b\" of table \"public.dropped_and_added\" was dropped and added again")), ("other", OTHER, None)],
        change: &["ALTER TABLE T DROP b, ADD b numeric(12,2)"],
        write: WRITE,
    },
    Case {
        table: "cascaded",
        before: LISTED,
        views: &[
            ("uses", USES, Some("column \"a\" of table \"public.cascaded\" was dropped")),
            ("other", OTHER, Some("DROP … CASCADE|the publication of table \"public.cascaded\" was altered")),
        ],
        change: &["ALTER TABLE T DROP a CASCADE"],
        write: WRITE,
    },
    Case {
        table: "refiled",
        before: LISTED,
        views: &[("uses", USES, None), ("other", OTHER, None), ("counts", COUNT, None)],
        change: &[
            "VACUUM FULL T",
            "CLUSTER T USING T_pkey",
            "BEGIN; TRUNCATE T; INSERT INTO T SELECT i, i, 'b', i, i, i FROM generate_series(1, 20) i; COMMIT",
            "ALTER TABLE T ALTER a SET STATISTICS 10; ALTER TABLE T ALTER b DROP NOT NULL",
        ],
        write: WRITE,
    },
    Case {
        table: "starred",
        before: WHOLE,
        views: &[
            ("all", "SELECT * FROM T", None),
            ("uses", USES, None),
        ],
        change: &["ALTER TABLE T ADD d int DEFAULT 7"],
        write: WRITE,
    },
    Case {
        table: "starred_volatile",
        before: WHOLE,
        views: &[
            ("all", "SELECT * FROM T", Some("table \"public.starred_volatile\" has a new column \"d\", which * shows; to take it in: walview rebuild")),
            ("uses", USES, None),
        ],
        change: &["ALTER TABLE T ADD d double precision DEFAULT random()"],
        write: WRITE,
    },
    Case {
        table: "starred_parted",
        before: PARTED,
        views: &[
            ("all", "SELECT * FROM T", None),
            ("uses", OTHER, None),
        ],
        change: &["ALTER TABLE T ADD d int DEFAULT 7"],
        write: "UPDATE T SET c = 2 WHERE id = 50",
    },
    Case {
        table: "widened",
        before: WHOLE,
        views: &[("uses", USES, None), ("other", OTHER, None)],
        change: &["ALTER TABLE T ADD secret text"],
        write: WRITE,
    },
    Case {
        table: "by_index",
        before: "CREATE TABLE T (id bigint PRIMARY KEY, a text NOT NULL UNIQUE, b numeric(12,2), c int);
                 INSERT INTO T SELECT i, 'a' || i, i, i FROM generate_series(1, 40) i",
        views: &[
            ("uses", USES, Some("has another REPLICA IDENTITY, so its changes no longer say \"id\"")),
            ("other", OTHER, Some("has another REPLICA IDENTITY")),
        ],
        change: &["ALTER TABLE T REPLICA IDENTITY USING INDEX T_a_key"],
        write: "UPDATE T SET a = 'new' WHERE id = 3; DELETE FROM T WHERE id = 5",
    },
    Case {
        table: "to_full",
        before: LISTED,
        views: &[("uses", USES, None), ("other", OTHER, None)],
        change: &["ALTER TABLE T REPLICA IDENTITY FULL"],
        write: WRITE,
    },
    Case {
        table: "to_full_whole",
        before: WHOLE,
        views: &[("uses", USES, None), ("other", OTHER, None)],
        change: &["ALTER TABLE T REPLICA IDENTITY FULL", WRITE_AT_ONCE],
        write: "DELETE FROM T WHERE id = 6; UPDATE T SET id = 900 WHERE id = 7",
    },
    Case {
        table: "made",
        before: PARTED,
        views: &[("uses", OTHER, None), ("counts", COUNT, None)],
        change: &["CREATE TABLE T_3 PARTITION OF T FOR VALUES FROM (200) TO (300)"],
        write: "INSERT INTO T SELECT i, 1 FROM generate_series(200, 220) i; \
                DELETE FROM T WHERE id BETWEEN 190 AND 199 OR id = 10; \
                UPDATE T SET id = id + 100 WHERE id BETWEEN 90 AND 99; \
                UPDATE T SET id = 10, c = 9 WHERE id = 150; UPDATE T SET id = 290 WHERE id = 10",
    },
    Case {
        table: "attached",
        before: PARTED,
        views: &[("uses", OTHER, Some("partition public.attached_3 of table \"public.attached\" was attached")), ("counts", COUNT, Some("was attached"))],
        change: &["CREATE TABLE T_3 (LIKE T INCLUDING ALL); INSERT INTO T_3 VALUES (250, 1); \
                   ALTER TABLE T ATTACH PARTITION T_3 FOR VALUES FROM (200) TO (300)"],
        write: "UPDATE T SET c = 2 WHERE id = 250",
    },
    Case {
        table: "detached",
        before: PARTED,
        views: &[("uses", OTHER, Some("partition public.detached_2 of table \"public.detached\" was detached or dropped"))],
        change: &["ALTER TABLE T DETACH PARTITION T_2"],
        write: "UPDATE T SET c = 2 WHERE id = 50",
    },
    Case {
        table: "emptied_part",
        before: PARTED,
        views: &[("uses", OTHER, Some("partition public.emptied_part_2 of table \"public.emptied_part\" was truncated|an insert of a row that is already there in \"public.emptied_part\""))],
        change: &["TRUNCATE T_2; INSERT INTO T VALUES (150, 9)"],
        write: "UPDATE T SET c = 2 WHERE id = 50",
    },
    Case {
        table: "emptied",
        before: PARTED,
        views: &[("uses", OTHER, None), ("counts", COUNT, None)],
        change: &["BEGIN; TRUNCATE T; INSERT INTO T VALUES (1, 1), (150, 2); COMMIT"],
        write: "UPDATE T SET c = 2 WHERE id = 1; INSERT INTO T VALUES (2, 2)",
    },
];

/// The application's writes are not held up by an ALTER to FULL where there is no column list.
const WRITE_AT_ONCE: &str = "UPDATE T SET c = c + 5 WHERE id < 10";

/// A view that stops only where the publication has a column list, which falls with the column: from
/// 15 on.
const LIST_FALLS: &str = "cascaded_other";

fn named(case: &Case, text: &str) -> String {
    let mut out = String::new();
    // `T` alone or as a prefix: `T_2`, but no letter of another word.
    let mut before = ' ';
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        let alone = c == 'T'
            && !before.is_alphanumeric()
            && before != '_'
            && rest.peek().is_none_or(|next| !next.is_alphanumeric());
        if alone {
            out.push_str(case.table);
        } else {
            out.push(c);
        }
        before = c;
    }
    out
}

fn pipeline() -> String {
    let mut text = "pipeline: schema\nsource: { url: \"${BETTING_DATABASE_URL}\" }\n\
                    stores:\n  redis: { url: \"${REDIS_URL}\" }\nviews:\n"
        .to_owned();
    for case in CASES {
        for (view, sql, _) in case.views {
            let name = format!("{}_{view}", case.table);
            let sql = named(case, sql);
            write!(
                text,
                "  - name: {name}\n    sql: |\n      {sql}\n    to:\n      \
                 - redis: {{ hash: \"{name}:{{id}}\" }}\n"
            )
            .unwrap();
        }
    }
    text
}

/// View and what its sentence says.
fn affected(lists: bool) -> BTreeMap<String, &'static str> {
    let views = CASES.iter().flat_map(|case| case.views.iter().map(move |view| (case, view)));
    views
        .filter_map(|(case, (view, _, says))| {
            says.map(|says| (format!("{}_{view}", case.table), says))
        })
        .filter(|(view, _)| lists || view != LIST_FALLS)
        .collect()
}

async fn world() -> World {
    let mut world = World::betting(FEW_ROWS).await;
    world.options.pipeline = "schema".to_owned();
    world.set_pipeline(&pipeline());
    let client = world.db().await;
    for case in CASES {
        client.batch_execute(&named(case, case.before)).await.unwrap();
    }
    world.start().await;
    world.caught_up().await;
    world
}

/// Every case's change.
async fn change(world: &World, client: &Db) {
    let lists = !world.before_15().await;
    for case in CASES {
        for change in case.change {
            let sql = named(case, change);
            run(client, &if lists { sql } else { without_list(sql) }).await;
        }
    }
}

/// `ADD TABLE t (id, a)` as before 15.
fn without_list(sql: String) -> String {
    match sql.split_once("ADD TABLE ") {
        Some((before, table)) => {
            let (name, _) = table.split_once(' ').unwrap();
            format!("{before}ADD TABLE {name}")
        }
        None => sql,
    }
}

async fn run(client: &Db, sql: &str) {
    println!("{sql}");
    // Several statements of one message would be one transaction.
    if sql.starts_with("BEGIN") || !sql.contains(';') {
        return client.batch_execute(sql).await.unwrap();
    }
    for statement in sql.split(';').filter(|statement| !statement.trim().is_empty()) {
        client.batch_execute(statement).await.unwrap();
    }
}

pub fn stopped(status: &Status) -> BTreeMap<String, String> {
    let views = status.views.iter();
    views.filter_map(|view| Some((view.name.clone(), view.reason.clone()?))).collect()
}

/// Waits until the affected views have stopped, each with its sentence, and no other.
async fn settled(world: &mut World) -> BTreeMap<String, String> {
    let affected = affected(!world.before_15().await);
    let status = world
        .service()
        .until("stopped where it must be", LIMIT, |status| {
            affected.keys().all(|view| stopped(status).contains_key(view))
        })
        .await
        .unwrap();
    let stopped = stopped(&status);
    for (view, why) in &stopped {
        println!("  {view}: {why}");
        let says = affected.get(view).unwrap_or_else(|| panic!("{view} stopped: {why}"));
        assert!(says.split('|').any(|says| why.contains(says)), "{view} stopped: {why}");
        assert!(why.contains("walview rebuild"), "{view} stopped without a way back: {why}");
    }
    stopped
}

async fn equal(world: &mut World) {
    let status = world.caught_up().await;
    let names: BTreeSet<String> = stopped(&status).into_keys().collect();
    let found = crate::oracle::compare_but(world, &names).await;
    assert!(found.compared > 500, "{} values", found.compared);
    assert!(found.differences.is_empty(), "{:#?}", found.differences);
}

/// The publication has followed, so that the application may write again.
pub async fn until_writable(client: &Db, sql: &str) {
    let deadline = tokio::time::Instant::now() + LIMIT;
    while let Err(error) = client.batch_execute(sql).await {
        assert!(tokio::time::Instant::now() < deadline, "{sql}: {error:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn changes_while_it_runs() {
    let mut world = world().await;
    let client = world.db().await;
    change(&world, &client).await;
    let first = settled(&mut world).await;
    for case in CASES {
        until_writable(&client, &named(case, case.write)).await;
    }
    equal(&mut world).await;
    // They stay stopped, and the others go on.
    world.stop().await;
    client.batch_execute("UPDATE unused SET c = 1 WHERE id = 11").await.unwrap();
    world.start().await;
    assert_eq!(settled(&mut world).await, first);
    client.batch_execute("UPDATE unused SET c = 2 WHERE id = 12").await.unwrap();
    equal(&mut world).await;
    world.stop().await;
}

#[tokio::test]
async fn changes_while_it_is_stopped() {
    let mut world = world().await;
    world.stop().await;
    let client = world.db().await;
    change(&world, &client).await;
    world.start().await;
    settled(&mut world).await;
    for case in CASES {
        until_writable(&client, &named(case, case.write)).await;
    }
    equal(&mut world).await;
    world.stop().await;
}

/// What makes the application's writes fail is named at once, and mended where it is ours to mend.
#[tokio::test]
async fn identities_that_make_writes_fail() {
    let mut world = World::betting(FEW_ROWS).await;
    world.options.pipeline = "schema".to_owned();
    let view = |table: &str| {
        format!(
            "  - name: {table}\n    sql: |\n      SELECT id, a FROM {table}\n    to:\n      \
             - redis: {{ hash: \"{table}:{{id}}\" }}\n"
        )
    };
    world.set_pipeline(&format!(
        "pipeline: schema\nsource: {{ url: \"${{BETTING_DATABASE_URL}}\" }}\n\
         stores:\n  redis: {{ url: \"${{REDIS_URL}}\" }}\nviews:\n{}{}",
        view("one"),
        view("two")
    ));
    let client = world.db().await;
    for table in ["one", "two"] {
        let sql = format!(
            "CREATE TABLE {table} (id int PRIMARY KEY, a int, unused int);
             INSERT INTO {table} SELECT i, i, i FROM generate_series(1, 300) i"
        );
        client.batch_execute(&sql).await.unwrap();
    }
    world.start().await;
    client.batch_execute("ALTER TABLE one REPLICA IDENTITY NOTHING").await.unwrap();
    let status = world
        .service()
        .until("naming it", LIMIT, |status| !status.source.problems.is_empty())
        .await
        .unwrap();
    let [problem] = status.source.problems.as_slice() else { panic!("{status:?}") };
    println!("{problem}");
    assert!(
        problem
            .contains("table \"public.one\" has REPLICA IDENTITY NOTHING: while it is published"),
        "{problem}"
    );
    assert!(problem.contains("ALTER TABLE public.one REPLICA IDENTITY DEFAULT"), "{problem}");
    assert!(client.batch_execute("UPDATE one SET a = 0 WHERE id = 1").await.is_err());
    // Beside it, ours to mend; and nothing of either is lost.
    client.batch_execute("ALTER TABLE two REPLICA IDENTITY FULL").await.unwrap();
    client.batch_execute("INSERT INTO one VALUES (400, 1, 1)").await.unwrap();
    client.batch_execute("INSERT INTO two VALUES (400, 1, 1)").await.unwrap();
    let write = "UPDATE two SET a = a + 1; DELETE FROM two WHERE id = 7";
    let lists = !world.before_15().await;
    if lists {
        until_writable(&client, write).await;
    } else {
        // No column list that could stand in the way.
        client.batch_execute(write).await.unwrap();
    }
    equal(&mut world).await;
    client.batch_execute("ALTER TABLE one REPLICA IDENTITY DEFAULT").await.unwrap();
    client.batch_execute("UPDATE one SET a = a + 1; DELETE FROM one WHERE id = 7").await.unwrap();
    world.service().until("well", LIMIT, |status| status.source.problems.is_empty()).await.unwrap();
    // Back to a list, so that the unused column stays at home.
    client.batch_execute("ALTER TABLE two REPLICA IDENTITY DEFAULT").await.unwrap();
    let listed = "SELECT array_to_string(attnames, ',') FROM pg_publication_tables
                  WHERE pubname = 'walview_schema' AND tablename = 'two'";
    while lists && client.query_one(listed, &[]).await.unwrap().get::<_, String>(0) != "id,a" {
        world.service().check_running().unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    until_writable(&client, "UPDATE two SET a = a + 1").await;
    equal(&mut world).await;
    let status = world.caught_up().await;
    assert!(stopped(&status).is_empty(), "{status:?}");
    world.stop().await;
}
