//! The crate `clickhouse`, with Arrow, with and without compression.

use std::sync::Arc;

use arrow_array::{Array as _, ArrayRef, Int64Array, RecordBatch, StringArray};
use clickhouse::{Client, Compression, Row};
use clickhouse_ext_arrow::{ArrowClientExt as _, ArrowQueryExt as _};
use serde::{Deserialize, Serialize};

use crate::process::start;

const TABLE: &str = "CREATE TABLE t (id Int64, name String) ENGINE = MergeTree ORDER BY id";

#[derive(Debug, PartialEq, Row, Serialize, Deserialize)]
struct Item {
    id: i64,
    name: String,
}

fn item(id: i64) -> Item {
    Item { id, name: format!("name {id}") }
}

async fn round_trip(client: &Client) {
    client.query(TABLE).execute().await.expect("a table");
    let mut insert = client.insert::<Item>("t").await.expect("an insert");
    for id in 0..100_000 {
        insert.write(&item(id)).await.expect("a row");
    }
    insert.end().await.expect("inserted");
    let sql = "SELECT ?fields FROM t WHERE id >= {low:Int64} ORDER BY id";
    let rows = client.query(sql).param("low", 10).fetch_all::<Item>().await.expect("rows");
    assert_eq!((rows.len(), rows.first()), (99_990, Some(&item(10))));
    let none = client.query("SELECT ?fields FROM t WHERE id < ?").bind(0);
    assert_eq!(none.fetch_optional::<Item>().await.expect("no row"), None);
}

#[tokio::test]
async fn rows_go_there_and_back() {
    let (server, _folder) = start();
    round_trip(&server.client()).await;
}

#[tokio::test]
async fn rows_go_there_and_back_compressed() {
    let (server, _folder) = start();
    round_trip(&server.client().with_compression(Compression::Lz4)).await;
}

#[tokio::test]
async fn arrow_batches_go_there_and_back() {
    let (server, _folder) = start();
    let client = server.client();
    client.query(TABLE).execute().await.expect("a table");
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..50_000));
    let names = (0..50_000).map(|id| format!("name {id}"));
    let names: ArrayRef = Arc::new(StringArray::from_iter_values(names));
    let batch = RecordBatch::try_from_iter([("id", ids), ("name", names)]).expect("a batch");
    let mut insert = client.insert_arrow("t").expect("an insert");
    for _ in 0..4 {
        insert.write(&batch).await.expect("a batch");
    }
    insert.end().await.expect("inserted");
    let mut cursor = client.query("SELECT id, name FROM t").fetch_arrow().expect("a cursor");
    let batches = cursor.collect().await.expect("batches");
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 200_000);
    assert!(batches.len() > 1, "a long result comes in blocks");
    let empty = client
        .query("SELECT id FROM t WHERE id < 0")
        .fetch_arrow()
        .expect("a cursor")
        .collect()
        .await;
    assert_eq!(empty.expect("no rows").iter().map(RecordBatch::num_rows).sum::<usize>(), 0);

    let wrong: ArrayRef = Arc::new(StringArray::from(vec!["no number"]));
    assert_eq!(wrong.len(), 1);
    let wrong = RecordBatch::try_from_iter([("id", wrong)]).expect("a batch");
    let mut insert = client.insert_arrow("t").expect("an insert");
    insert.write(&wrong).await.expect("a batch");
    let error = insert.end().await.expect_err("text is no number").to_string();
    assert!(error.contains("Code: "), "{error}");
}

#[tokio::test]
async fn errors_before_and_in_a_result() {
    let (server, _folder) = start();
    let client = server.client();
    let error = client.query("SELECT * FROM nope").execute().await.expect_err("no table");
    assert!(error.to_string().contains("Code: 60."), "{error}");
    let sql = "SELECT throwIf(number = 400000) AS n FROM numbers(500000)";
    let mut cursor = client.query(sql).fetch::<u8>().expect("a cursor");
    let mut rows = 0;
    let error = loop {
        match cursor.next().await {
            Ok(Some(_)) => rows += 1,
            Ok(None) => panic!("a broken result looked whole after {rows} rows"),
            Err(error) => break error.to_string(),
        }
    };
    assert!(rows > 0 && error.contains("Code: 395."), "{rows} rows, {error}");
}

#[tokio::test]
async fn native_results() {
    let (server, _folder) = start();
    let sql = "SELECT number FROM numbers(100000)";
    let mut bytes = server.client().query(sql).fetch_bytes("Native").expect("a cursor");
    let bytes = bytes.collect().await.expect("a result");
    assert!(bytes.len() > 800_000 && bytes.len() < 801_000, "{}", bytes.len());
}
