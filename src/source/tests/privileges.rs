//! Grants: exactly what is missing, all at once; columns suffice, for a copy too.

use super::super::publication::PublishedTable;
use super::super::{catalog, privileges, slot};
use super::*;

fn table(schema: &str, name: &str, columns: &[&str]) -> PublishedTable {
    PublishedTable {
        schema: schema.to_owned(),
        name: name.to_owned(),
        columns: columns.iter().map(|column| (*column).to_owned()).collect(),
        whole: false,
    }
}

const TABLES: &str = "
    CREATE TABLE t(id int PRIMARY KEY, \"N n\" text, secret text);
    CREATE SCHEMA hidden; CREATE TABLE hidden.a(id int PRIMARY KEY, v int);
    CREATE TABLE hidden.b(id int PRIMARY KEY); CREATE ROLE plain LOGIN REPLICATION";

#[tokio::test]
async fn missing_grants_are_named_to_the_column() {
    let server = Server::start(&[]);
    let app = application(&server).await;
    run(&app, TABLES).await;
    let plain = connect(&config(&server, "plain", "postgres")).await.unwrap();
    let tables = [
        table("public", "t", &["id", "N n"]),
        table("hidden", "a", &["id"]),
        table("hidden", "b", &["id"]),
    ];
    let said = async || -> Vec<String> {
        let missing = privileges::missing(&plain, &tables).await.unwrap();
        missing.iter().flat_map(|error| error.fix.clone().unwrap().statements).collect()
    };
    assert_eq!(
        said().await,
        [
            "GRANT SELECT ON \"public\".\"t\" TO \"plain\"",
            "GRANT USAGE ON SCHEMA \"hidden\" TO \"plain\"",
            "GRANT SELECT ON \"hidden\".\"a\" TO \"plain\"",
            "GRANT SELECT ON \"hidden\".\"b\" TO \"plain\"",
        ]
    );
    run(&app, "GRANT SELECT (id) ON t TO plain; GRANT SELECT (v) ON hidden.a TO plain").await;
    run(&app, "GRANT USAGE ON SCHEMA hidden TO plain; GRANT SELECT ON hidden.b TO plain").await;
    assert_eq!(
        said().await,
        [
            "GRANT SELECT (\"N n\") ON \"public\".\"t\" TO \"plain\"",
            "GRANT SELECT (\"id\") ON \"hidden\".\"a\" TO \"plain\"",
        ]
    );
    let missing = privileges::missing(&plain, &tables).await.unwrap();
    assert_says(
        &missing[0],
        &["role \"plain\" may not read column \"N n\" of table \"public.t\"; as its owner"],
    );
    for statement in said().await {
        run(&app, &statement).await;
    }
    assert!(said().await.is_empty());
}

#[tokio::test]
async fn a_table_whose_columns_were_granted_is_copied_whole() {
    let server = Server::start(&[]);
    let app = application(&server).await;
    run(&app, TABLES).await;
    let fill = "INSERT INTO t SELECT i, 'x', 's' FROM generate_series(1, 5000) i";
    run(&app, &format!("{fill}; GRANT SELECT (id, \"N n\") ON t TO plain")).await;
    let plain = config(&server, "plain", "postgres");
    let names = [("public".to_owned(), "t".to_owned())];
    let t = catalog::load(&app, &names).await.unwrap().tables.remove(0);
    let made = slot::create_exporting(&plain, "s", |_| {}, std::future::pending()).await.unwrap();
    assert_eq!(copy(&plain, &made.snapshot_name, &t, &[0, 1]).await.len(), 5000);
    made.close().await;
}

#[tokio::test]
async fn everything_that_is_wrong_with_tables_is_known_at_once() {
    let server = Server::start(&[]);
    let app = application(&server).await;
    run(&app, TABLES).await;
    run(
        &app,
        "CREATE VIEW v AS SELECT 1 AS x; CREATE UNLOGGED TABLE quick(id int PRIMARY KEY);
         CREATE TABLE parts(id int PRIMARY KEY) PARTITION BY RANGE (id);
         CREATE TABLE part1 PARTITION OF parts FOR VALUES FROM (0) TO (10)",
    )
    .await;
    let names = ["t", "v", "nix", "quick", "part1", "parts", "t"];
    let names = names.map(|name| ("public".to_owned(), name.to_owned()));
    let survey = catalog::survey(&app, &names).await.unwrap();
    let followed: Vec<_> = survey.catalog.tables.iter().map(|table| table.name.as_str()).collect();
    assert_eq!(followed, ["t", "parts"]);
    assert!(survey.catalog.tables.iter().all(|table| !table.columns.is_empty()));
    let refused: Vec<_> = survey.refused.iter().map(|((_, name), _)| name.as_str()).collect();
    assert_eq!(refused, ["v", "nix", "quick", "part1"]);
}
