//! Variables and password files, and the definition's canonical text.

use std::path::Path;

use crate::config::{Environment, Pipeline};

const TEXT: &str = r#"pipeline: p
source:
  url: ${SOURCE_URL}
  password_file: ${SECRET_FILE:-}
stores:
  redis: { url: "${REDIS_URL:-redis://localhost}" }
  clickhouse: { url: "${CLICKHOUSE_URL}", database: "${DATABASE:-app}" }
views:
  - name: v
    sql: |
      SELECT id FROM t
    to:
      - redis: { hash: "v:{id}" }
"#;

fn pipeline(text: &str) -> Pipeline {
    Pipeline::parse(Path::new("p.yaml"), text.to_owned()).unwrap()
}

fn without_password(text: &str) -> String {
    text.replace("  password_file: ${SECRET_FILE:-}\n", "")
}

const GOOD: [(&str, &str); 2] =
    [("SOURCE_URL", "postgres://u@h/d"), ("CLICKHOUSE_URL", "http://h:8123")];

#[test]
fn every_absent_variable_is_named_where_it_is_used() {
    let said =
        pipeline(&without_password(TEXT)).connect(&Environment::fixed([("CLICKHOUSE_URL", "")]));
    assert_eq!(
        said.unwrap_err().to_string(),
        "p.yaml:3:8: environment variable \"SOURCE_URL\" is not set; set it, or write ${SOURCE_URL:-default}\n\
         p.yaml:6:22: environment variable \"CLICKHOUSE_URL\" is empty; set it, or write ${CLICKHOUSE_URL:-default}"
    );
}

#[test]
fn urls_of_other_servers_are_refused_without_quoting_them() {
    let environment = Environment::fixed([
        ("SOURCE_URL", "http://u:hunter2@h"),
        ("REDIS_URL", "hunter2"),
        ("CLICKHOUSE_URL", "redis://:hunter2@h"),
        ("DATABASE", "hunter2`"),
    ]);
    let said = pipeline(&without_password(TEXT)).connect(&environment).unwrap_err();
    assert_eq!(said.list().len(), 4, "{said}");
    assert!(!said.with_excerpts().contains("hunter2"), "{said}");
}

#[test]
fn a_password_file_is_read_without_its_line_break() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pg");
    let with = |content: &[u8]| {
        std::fs::write(&file, content).unwrap();
        let path = file.to_str().unwrap();
        let environment = Environment::fixed(GOOD.into_iter().chain([("SECRET_FILE", path)]));
        pipeline(TEXT).connect(&environment)
    };
    for content in [b"hunter2".as_slice(), b"hunter2\n", b"hunter2\r\n"] {
        let connections = with(content).unwrap();
        assert_eq!(connections.source.password.as_ref().unwrap().expose(), "hunter2");
        assert_eq!(
            (connections.source.host.as_str(), connections.source.pipeline.as_str()),
            ("h", "p")
        );
        assert_eq!(connections.stores.get(1).unwrap().database.as_deref(), Some("app"));
        assert!(!format!("{connections:?}").contains("hunter2"));
    }
    for content in [b"".as_slice(), b"\n", b"a\nhunter2\n", b"\xff"] {
        let said = with(content).unwrap_err().to_string();
        assert!(said.starts_with("p.yaml:4:18: the password file"), "{said}");
    }
    // `${NAME:-}` that is not set: no file, and no complaint; the URL's own password counts.
    let connections = pipeline(TEXT).connect(&Environment::fixed(GOOD)).unwrap();
    assert!(connections.source.password.is_none());
    let nowhere = Environment::fixed(GOOD.into_iter().chain([("SECRET_FILE", "/hunter2")]));
    assert_eq!(
        pipeline(TEXT).connect(&nowhere).unwrap_err().to_string(),
        "p.yaml:4:18: the password file cannot be read: no such file or directory; \
         name a file that holds nothing but the password"
    );
}

#[test]
fn the_definition_does_not_depend_on_comments_and_servers() {
    let canonical = |text: &str, more: &[(&'static str, &'static str)]| {
        let environment = Environment::fixed(GOOD.into_iter().chain(more.iter().copied()));
        let pipeline = pipeline(text);
        pipeline.canonical(&pipeline.connect(&environment).unwrap())
    };
    let text = without_password(TEXT);
    let plain = canonical(&text, &[]);
    assert!(!plain.contains("hunter2"), "{plain}");
    let moved = text.replace("pipeline: p", "# moved\npipeline: p");
    let moved = moved.replace("FROM t", "-- all of them\n      FROM t");
    assert_eq!(canonical(&moved, &[("REDIS_URL", "redis://elsewhere")]), plain);
    assert_ne!(canonical(&text, &[("DATABASE", "other")]), plain);
    assert_ne!(canonical(&text.replace("v:{id}", "w:{id}"), &[]), plain);
    assert_ne!(canonical(&text.replace("FROM t", "FROM u"), &[]), plain);
}

#[test]
fn what_the_source_url_says_is_checked_where_it_stands() {
    let with = |url| {
        let environment = Environment::fixed([("SOURCE_URL", url), ("CLICKHOUSE_URL", "http://h")]);
        pipeline(&without_password(TEXT)).connect(&environment)
    };
    assert!(with("postgres://u@/d?host=/run/postgresql").is_ok());
    let said = with("postgres://u:hunter2@h/d?sslmode=require").unwrap_err().to_string();
    assert!(said.starts_with("p.yaml:3:8: sslmode=require encrypts but does not verify"), "{said}");
    let literal = TEXT.replace("${SOURCE_URL}", "postgres://h/d");
    let said = Pipeline::parse(Path::new("p.yaml"), literal).unwrap_err().to_string();
    assert!(said.starts_with("p.yaml:3:8: the source URL names no user"), "{said}");
}
