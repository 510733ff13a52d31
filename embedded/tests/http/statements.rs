//! Statements, formats, settings, parameters, errors.

use std::io::Write as _;
use std::time::{Duration, Instant};

use crate::process::{Answer, start};

#[tokio::test]
async fn ping_and_other_paths() {
    let (server, _folder) = start();
    for (path, status, text) in [("/ping", 200, "Ok.\n"), ("/", 200, "Ok.\n"), ("/nope", 404, "")] {
        let response = reqwest::get(format!("{}{path}", server.url)).await.expect("an answer");
        let answer = Answer::read(response).await;
        assert_eq!(answer.status, status, "{path}");
        assert!(answer.text.starts_with(text), "{path}: {}", answer.text);
    }
}

#[tokio::test]
async fn the_statement_may_be_in_the_address_or_the_body() {
    let (server, _folder) = start();
    assert_eq!(server.post("query=SELECT+1", "").await.text, "1\n");
    assert_eq!(server.post("query=SELECT", "1 + 1").await.text, "2\n");
    let answer = server.post("default_format=JSONEachRow&query_id=abc", "SELECT 1 AS a").await;
    assert_eq!(answer.text, "{\"a\":1}\n");
    assert_eq!(answer.header("x-clickhouse-query-id"), "abc");
    assert_eq!(answer.header("x-clickhouse-format"), "JSONEachRow");
    let answer = server.post("default_format=JSON", "SELECT 1 AS a FORMAT CSVWithNames").await;
    assert_eq!(answer.text, "\"a\"\n1\n");
    assert_eq!(answer.header("content-type"), "text/csv; charset=UTF-8");
}

#[tokio::test]
async fn errors_have_code_status_and_version() {
    let (server, _folder) = start();
    for (sql, code, status) in [
        ("SELECT * FROM nope", "60", 404),
        ("SELECT nope()", "46", 404),
        ("SELECT 1 FROM", "62", 400),
        ("SELECT 1; SELECT 2", "62", 400),
        ("", "62", 400),
        ("SELECT * FROM nope.nope", "81", 404),
        ("SELECT throwIf(1)", "395", 500),
        ("INSERT INTO nope FORMAT CSV\n1\n", "60", 404),
        ("SELECT 1 FORMAT Nope", "73", 404),
        ("SELECT {x:UInt8}", "456", 500),
    ] {
        let answer = server.post("wait_end_of_query=1", sql).await;
        assert_eq!(answer.header("x-clickhouse-exception-code"), code, "{sql}: {}", answer.text);
        assert_eq!(answer.status, status, "{sql}");
        assert!(answer.text.starts_with(&format!("Code: {code}. DB::Exception: ")), "{sql}");
        assert!(answer.text.contains(") (version 26."), "{}", answer.text);
        assert_eq!(answer.text.matches("(version").count(), 1, "{}", answer.text);
    }
    let answer = server.post("nope=1", "SELECT 1").await;
    assert_eq!(answer.header("x-clickhouse-exception-code"), "115", "{}", answer.text);
    let answer = server.post("compress=1", "SELECT 1").await;
    assert!(answer.status == 500 && answer.text.contains("compress=1"), "{}", answer.text);
}

#[tokio::test]
async fn a_get_may_not_write() {
    let (server, _folder) = start();
    let url = format!("{}/?query=CREATE+DATABASE+d", server.url);
    let answer = Answer::read(reqwest::get(url).await.expect("an answer")).await;
    assert_eq!(answer.header("x-clickhouse-exception-code"), "164", "{}", answer.text);
}

#[tokio::test]
async fn settings_parameters_and_database_end_with_their_request() {
    let (server, _folder) = start();
    server.ok("CREATE DATABASE d").await;
    let sql = "SELECT currentDatabase(), getSetting('max_block_size'), {x:String}";
    let answer = server.post("database=d&max_block_size=77&param_x=it's%5Cn", sql).await;
    assert_eq!(answer.text, "d\t77\tit\\'s\\n\n");
    let sql = "SELECT currentDatabase(), getSetting('max_block_size') = 77";
    assert_eq!(server.ok(sql).await, "default\t0");
    assert_eq!(server.post("", "SELECT {x:String}").await.status, 500);
    server.ok("SET max_block_size = 77").await;
    server.ok("USE d").await;
    assert_eq!(server.ok(sql).await, "default\t0");
    let answer = server.post("max_threads=many", "SELECT 1").await;
    assert_eq!(answer.status, 400, "{}", answer.text);
}

#[tokio::test]
async fn a_form_carries_statement_and_parameters() {
    let (server, _folder) = start();
    let form =
        reqwest::multipart::Form::new().text("query", "SELECT {x:UInt8} + 1").text("param_x", "8");
    let client = reqwest::Client::new();
    let response = client.post(&server.url).multipart(form).send().await.expect("an answer");
    assert_eq!(Answer::read(response).await.text, "9\n");
    let part = reqwest::multipart::Part::bytes(b"1\n".to_vec()).file_name("t");
    let form = reqwest::multipart::Form::new().text("query", "SELECT * FROM t").part("t", part);
    let response = client.post(&server.url).multipart(form).send().await.expect("an answer");
    assert_eq!(Answer::read(response).await.status, 501);
}

#[tokio::test]
async fn inserts_in_every_way() {
    let (server, _folder) = start();
    server
        .ok("CREATE TABLE t (a UInt64, b String DEFAULT 'd') ENGINE = MergeTree ORDER BY a")
        .await;
    server.ok("INSERT INTO t VALUES (1, 'x'), (1 + 1, concat('y', 'y'));").await;
    server.ok("INSERT INTO t SELECT number + 3, 's' FROM numbers(2)").await;
    server.ok("INSERT INTO t FORMAT CSV\n5,c\n").await;
    let answer = server.post("query=INSERT+INTO+t+(a)+FORMAT+JSONEachRow", "{\"a\":6}").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(answer.header("x-clickhouse-summary").contains("\"written_rows\":\"1\""));
    server.post("query=INSERT+INTO+t&param_x=1", "(7, 'v')").await;
    server.post("query=INSERT+INTO+t+--+x&default_format=TSV", "8\tt\n").await;
    let sql = "query=INSERT+INTO+t+SETTINGS+async_insert=1+FORMAT+RowBinary";
    server.post(sql, b"\x09\0\0\0\0\0\0\0\x01r".to_vec()).await;
    let found = server.ok("SELECT arrayStringConcat(groupArray(a::String || b)) FROM (SELECT * FROM t ORDER BY a)").await;
    assert_eq!(found, "1x2yy3s4s5c6d7v8t9r");
    let answer = server.post("query=INSERT+INTO+t+FORMAT+CSV", "10,x\nno number,y\n").await;
    assert_eq!(answer.status, 400, "{}", answer.text);
    assert_eq!(server.ok("SELECT count() FROM t").await, "9");
}

#[tokio::test]
async fn compressed_uploads_are_read_as_they_come() {
    let (server, _folder) = start();
    server.ok("CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a").await;
    let rows: String = (0..3_000_000).map(|row| format!("{row}\n")).collect();
    let client = reqwest::Client::new();
    let post = |encoding: &'static str, query: &str, body: Vec<u8>| {
        let url = format!("{}/{query}", server.url);
        let request = client.post(url).header("content-encoding", encoding).body(body);
        async { Answer::read(request.send().await.expect("an answer")).await }
    };
    let gzip = |text: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).expect("compressed");
        encoder.finish().expect("compressed")
    };
    let lz4 = |text: &str| {
        let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
        encoder.write_all(text.as_bytes()).expect("compressed");
        encoder.finish().expect("compressed")
    };
    // More than a statement may have: the rows behind it are not counted.
    let all = format!("INSERT INTO t FORMAT CSV\n{rows}");
    assert!(all.len() > 16 << 20);
    for (encoding, query, body) in [
        ("gzip", "", gzip(&all)),
        ("lz4", "", lz4(&all)),
        ("lz4", "?query=INSERT+INTO+t+FORMAT+CSV", lz4(&rows)),
    ] {
        let answer = post(encoding, query, body).await;
        assert_eq!(answer.status, 200, "{encoding}: {}", answer.text);
        assert!(answer.header("x-clickhouse-summary").contains("\"3000000\""), "{encoding}");
    }
    server.ok("TRUNCATE TABLE t").await;
    for body in [gzip("1\n2\n").split_at(12).0.to_vec(), b"no such stream".to_vec()] {
        let answer = post("gzip", "?query=INSERT+INTO+t+FORMAT+CSV", body).await;
        assert_eq!(answer.header("x-clickhouse-exception-code"), "271", "{}", answer.text);
    }
    let answer = post("br", "", Vec::new()).await;
    assert_eq!(answer.header("x-clickhouse-exception-code"), "89", "{}", answer.text);
    assert_eq!(server.ok("SELECT count() FROM t").await, "0");
}

#[tokio::test]
async fn heads_come_once_in_long_results() {
    let (server, _folder) = start();
    let sql = |format| format!("SELECT number AS n FROM numbers(200000) FORMAT {format}");
    for (format, lines) in
        [("CSV", 200_000), ("CSVWithNames", 200_001), ("TSVWithNamesAndTypes", 200_002)]
    {
        assert_eq!(server.ok(&sql(format)).await.lines().count(), lines, "{format}");
    }
    let values = server.ok(&sql("Values")).await;
    assert_eq!(values.matches("),(").count(), 199_999);
    let totals =
        "SELECT number % 2 AS n, count() FROM numbers(10) GROUP BY n WITH TOTALS ORDER BY n";
    assert_eq!(server.ok(totals).await, "0\t5\n1\t5\n\n0\t10");
    let answer = server.post("", "SELECT number AS n FROM numbers(0) FORMAT CSVWithNames").await;
    assert_eq!(answer.text, "\"n\"\n");
    let answer = server
        .post("", "SELECT toString(number) || repeat('x', 1000) FROM numbers(1000000) FORMAT JSON")
        .await;
    assert!(answer.status == 500 && answer.text.contains("streamed"), "{}", answer.text);
}

#[tokio::test]
async fn eight_queries_run_side_by_side() {
    let (server, _folder) = start();
    let start = Instant::now();
    let one = || server.ok("SELECT sleep(1)");
    tokio::join!(one(), one(), one(), one(), one(), one(), one(), one());
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[tokio::test]
async fn what_reports_are_made_of() {
    let (server, _folder) = start();
    for sql in [
        "CREATE DATABASE d",
        "CREATE TABLE d.r (id UInt64, v String, ver UInt64, gone UInt8) \
         ENGINE = ReplacingMergeTree(ver, gone) ORDER BY id",
        "INSERT INTO d.r VALUES (1, 'a', 1, 0), (1, 'b', 2, 0), (2, 'x', 1, 0), (2, 'x', 2, 1)",
        "CREATE VIEW d.v SQL SECURITY DEFINER AS SELECT id, v FROM d.r FINAL",
        "CREATE MATERIALIZED VIEW d.m ENGINE = SummingMergeTree ORDER BY id \
         AS SELECT id, count() AS n FROM d.r GROUP BY id",
        "INSERT INTO d.r VALUES (3, 'c', 1, 0)",
        "CREATE MATERIALIZED VIEW d.f REFRESH EVERY 1 HOUR ENGINE = MergeTree ORDER BY id \
         AS SELECT id FROM d.v",
        "SYSTEM WAIT VIEW d.f",
        "OPTIMIZE TABLE d.r FINAL",
        "EXPLAIN SELECT * FROM d.v",
        "DESCRIBE d.r",
    ] {
        server.ok(sql).await;
    }
    assert_eq!(server.ok("SELECT * FROM d.v ORDER BY id").await, "1\tb\n3\tc");
    assert_eq!(server.ok("SELECT * FROM d.m").await, "3\t1");
    assert_eq!(server.ok("SELECT count() FROM d.f").await, "2");
    let sql = "SELECT engine FROM system.tables WHERE database = 'd' AND name = 'r'";
    assert_eq!(server.ok(sql).await, "ReplacingMergeTree");
    server
        .ok("CREATE TABLE d.once (a Int32) ENGINE = MergeTree ORDER BY a \
             SETTINGS non_replicated_deduplication_window = 100")
        .await;
    for row in ["1\n", "2\n"] {
        let query = "query=INSERT+INTO+d.once+FORMAT+CSV&insert_deduplication_token=t";
        assert_eq!(server.post(query, row).await.status, 200);
    }
    assert_eq!(server.ok("SELECT * FROM d.once").await, "1");
}
