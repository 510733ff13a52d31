//! The publication: created, checked, widened, and never anybody else's.

use super::super::publication::{self, Ensured, PublishedTable};
use super::*;

fn table(name: &str, columns: &[&str]) -> PublishedTable {
    PublishedTable {
        schema: "public".to_owned(),
        name: name.to_owned(),
        columns: columns.iter().map(|column| (*column).to_owned()).collect(),
        whole: false,
    }
}

/// What the publication `p` sends, as `table(columns)`, sorted; before 15 as `table(*)`.
async fn published(server: &Server, session: &Session) -> Vec<String> {
    let columns = if server.major < 15 { "'*'" } else { "array_to_string(attnames, ',')" };
    let sql = format!(
        "SELECT tablename || '(' || {columns} || ')' FROM pg_publication_tables
         WHERE pubname = 'p' ORDER BY 1"
    );
    session.query(&sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// As [`published`] says it on this server.
fn sent(server: &Server, tables: &[&str]) -> Vec<String> {
    let whole = |table: &str| format!("{}(*)", table.split('(').next().unwrap());
    // Column lists bring generated columns from 18 on.
    let listed = |table: &str| match server.major {
        ..15 => whole(table),
        15..18 => table.replace(",shout", ""),
        _ => table.to_owned(),
    };
    tables.iter().map(|table| listed(table)).collect()
}

/// A statement as it is written for servers before 15, which have no column lists.
fn without_lists(server: &Server, statement: &str) -> String {
    let lists = [
        " (\"id\", \"name\", \"secret\")",
        " (\"id\", \"name\")",
        " (\"id\", \"v\")",
        " (id, name)",
    ];
    match server.major {
        ..15 => lists.iter().fold(statement.to_owned(), |text, list| text.replace(list, "")),
        _ => statement.to_owned(),
    }
}

const TABLES: &str = "
    CREATE TABLE users(id int PRIMARY KEY, name text, secret text,
                       shout text GENERATED ALWAYS AS (upper(name)) STORED);
    CREATE TABLE logs(a int, b text); ALTER TABLE logs REPLICA IDENTITY FULL;
    CREATE TABLE \"Odd \"\"x\"(\"K k\" int NOT NULL, v int, w int);
    CREATE UNIQUE INDEX odd ON \"Odd \"\"x\"(\"K k\") INCLUDE (w);
    ALTER TABLE \"Odd \"\"x\" REPLICA IDENTITY USING INDEX odd;
    CREATE TABLE parts(id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
    CREATE TABLE part1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
    CREATE TABLE keyless(a int); CREATE TABLE nothing(a int PRIMARY KEY);
    ALTER TABLE nothing REPLICA IDENTITY NOTHING";

#[tokio::test]
async fn columns_that_no_view_uses_never_leave() {
    let server = Server::start(&[]);
    let session = connect(&superuser(&server)).await.unwrap();
    run(&session, TABLES).await;
    let tables =
        [table("users", &["name", "shout"]), table("logs", &["a"]), table("Odd \"x", &["v"])];
    let ensure = |tables: Vec<PublishedTable>| {
        let session = &session;
        async move { publication::ensure(session, "p", "test", &tables).await }
    };
    assert_eq!(ensure(tables[..2].to_vec()).await.unwrap(), Ensured::Created);
    let wanted = sent(&server, &["logs(a,b)", "users(id,name,shout)"]);
    assert_eq!(published(&server, &session).await, wanted);
    assert_eq!(ensure(tables[..1].to_vec()).await.unwrap(), Ensured::Unchanged);

    assert_eq!(ensure(tables.to_vec()).await.unwrap(), Ensured::Altered);
    let wanted = sent(&server, &["Odd \"x(K k,v)", "logs(a,b)", "users(id,name,shout)"]);
    assert_eq!(published(&server, &session).await, wanted);
    let wider = [table("users", &["secret"]), table("parts", &["v"])];
    assert_eq!(ensure(wider.to_vec()).await.unwrap(), Ensured::Altered);
    let wanted = ["Odd \"x(K k,v)", "logs(a,b)", "parts(id,v)", "users(id,name,secret,shout)"];
    assert_eq!(published(&server, &session).await, sent(&server, &wanted));

    // The application still writes: the lists hold what UPDATE and DELETE need.
    let application = "
        INSERT INTO users VALUES (1, 'a', 'b'); UPDATE users SET id = 2; DELETE FROM users;
        INSERT INTO logs VALUES (1, 'x'); UPDATE logs SET b = 'y'; DELETE FROM logs;
        INSERT INTO \"Odd \"\"x\" VALUES (1, 2, 3); UPDATE \"Odd \"\"x\" SET v = 3, \"K k\" = 4;
        DELETE FROM \"Odd \"\"x\"; INSERT INTO parts VALUES (1, 1); UPDATE parts SET v = 2;
        DELETE FROM parts";
    run(&session, application).await;

    run(&session, "ALTER PUBLICATION p SET (publish = 'insert')").await;
    assert_eq!(ensure(tables.to_vec()).await.unwrap(), Ensured::Altered);
    if server.major >= 15 {
        run(&session, "ALTER PUBLICATION p SET TABLE users WHERE (id > 5)").await;
        let error = refusal(ensure(tables.to_vec()).await);
        assert_says(&error, &["publication \"p\" filters the rows of table \"public.users\""]);
    }
    assert!(!publication::drop(&session, "p", "other").await.unwrap());
    assert!(publication::drop(&session, "p", "test").await.unwrap());
    assert!(!publication::drop(&session, "p", "test").await.unwrap());
}

#[tokio::test]
async fn a_table_without_a_key_is_refused_before_anything_is_touched() {
    let server = Server::start(&[]);
    let session = connect(&superuser(&server)).await.unwrap();
    run(&session, TABLES).await;
    run(
        &session,
        "CREATE TABLE loose(id int) PARTITION BY RANGE (id);
         CREATE TABLE loose1 PARTITION OF loose FOR VALUES FROM (0) TO (10)",
    )
    .await;
    for (name, parts) in [
        (
            "keyless",
            [
                "table \"public.keyless\" has no primary key and no replica identity",
                "ALTER TABLE public.keyless ADD PRIMARY KEY",
            ],
        ),
        (
            "nothing",
            [
                "table \"public.nothing\" has REPLICA IDENTITY NOTHING",
                "ALTER TABLE public.nothing REPLICA IDENTITY DEFAULT",
            ],
        ),
        ("loose", ["table \"public.loose\" has no primary key", "REPLICA IDENTITY USING INDEX"]),
    ] {
        let tables = [table("users", &["id"]), table(name, &["a"])];
        let error = refusal(publication::ensure(&session, "p", "test", &tables).await);
        assert_says(&error, &parts);
        assert_says(
            &error,
            &["the application's UPDATE and DELETE on it fail; nothing was changed"],
        );
    }
    let count = session.query_one("SELECT count(*) FROM pg_publication", &[]).await.unwrap();
    assert_eq!(count.get::<_, i64>(0), 0);
    run(&session, "INSERT INTO keyless VALUES (1); UPDATE keyless SET a = 2").await;
    // A partition can lose its identity although its root has one.
    run(&session, "ALTER TABLE part1 REPLICA IDENTITY NOTHING").await;
    let error =
        refusal(publication::ensure(&session, "p", "test", &[table("parts", &["v"])]).await);
    assert_says(
        &error,
        &[
            "table \"public.parts\" (its partition public.part1) has REPLICA IDENTITY NOTHING",
            "run: ALTER TABLE public.part1 REPLICA IDENTITY DEFAULT",
        ],
    );
}

#[tokio::test]
async fn another_owner_gets_the_statement_to_type() {
    let server = Server::start(&[]);
    let app = application(&server).await;
    run(&app, TABLES).await;
    run(&app, "CREATE ROLE plain LOGIN; GRANT SELECT ON users TO plain").await;
    let plain = connect(&config(&server, "plain", "postgres")).await.unwrap();
    let tables = [table("users", &["name"])];
    let error = refusal(publication::ensure(&plain, "p", "test", &tables).await);
    let statement = "CREATE PUBLICATION \"p\" FOR TABLE \"public\".\"users\" (\"id\", \"name\") WITH \
                     (publish = 'insert, update, delete, truncate', publish_via_partition_root = true)";
    let statement = &without_lists(&server, statement);
    assert_says(&error, &["role \"plain\" may not create it", "does not own table", statement]);
    run(&app, statement).await;
    let ensured = publication::ensure(&plain, "p", "test", &tables).await.unwrap();
    assert_eq!(ensured, Ensured::Unchanged);

    let more = [table("users", &["secret"]), table("parts", &["v"])];
    // Not even a superuser's walview changes what it did not make.
    let remedy = "as its owner run: ALTER PUBLICATION \"p\" DROP TABLE \"public\".\"users\"; ALTER \
                  PUBLICATION \"p\" ADD TABLE \"public\".\"users\" (\"id\", \"name\", \"secret\"), \
                  \"public\".\"parts\"";
    // Before 15 whole tables are published, and have every column already.
    let remedy = match server.major {
        ..15 => "as its owner run: ALTER PUBLICATION \"p\" ADD TABLE \"public\".\"parts\"",
        _ => remedy,
    };
    for session in [&plain, &app] {
        let error = refusal(publication::ensure(session, "p", "test", &more).await);
        assert_says(
            &error,
            &["does not send all that the views use, and walview did not make it", remedy],
        );
    }
    run(&app, "CREATE PUBLICATION everything FOR ALL TABLES").await;
    let error = refusal(publication::ensure(&plain, "everything", "test", &more).await);
    assert_says(&error, &["SET (publish_via_partition_root = true)"]);
    let ensured = publication::ensure(&plain, "everything", "test", &tables).await.unwrap();
    assert_eq!(ensured, Ensured::Unchanged);
    assert!(!publication::drop(&app, "p", "test").await.unwrap());
}

/// The session of a walview that was killed a moment ago still makes the publication; the next one
/// takes it as it is.
#[tokio::test]
async fn two_that_make_it_at_once() {
    let server = Server::start(&[]);
    let config = superuser(&server);
    let session = connect(&config).await.unwrap();
    run(&session, TABLES).await;
    let first = "BEGIN; CREATE PUBLICATION p FOR TABLE users (id, name) \
                 WITH (publish_via_partition_root = true);
                 COMMENT ON PUBLICATION p IS 'walview:test'";
    run(&session, &without_lists(&server, first)).await;
    let other = connect(&config).await.unwrap();
    let tables = [table("users", &["name"])];
    let late = publication::ensure(&other, "p", "test", &tables);
    let commit = async {
        let waits = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
        while session.query(waits, &[]).await.unwrap().is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        run(&session, "COMMIT").await;
    };
    let (late, ()) = tokio::join!(late, commit);
    assert_eq!(late.unwrap(), Ensured::Unchanged);
}
