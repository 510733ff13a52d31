//! Short runs of the fuzz targets that need the service: see `fuzz/README.md`.

#[path = "../fuzz/targets/drive.rs"]
mod drive;
#[path = "../fuzz/targets/frames.rs"]
mod frames;
#[path = "../fuzz/targets/http.rs"]
mod http;
#[path = "../fuzz/targets/pipeline.rs"]
mod pipeline;

use std::path::Path;

fn drive(name: &str, words: &[&str], runs: usize, target: fn(&[u8])) {
    drive::drive(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz"), name, words, runs, target);
}

#[test]
fn pipeline_files() {
    const WORDS: &[&str] = &[
        "pipeline: p\n",
        "source:\n",
        "  url: ${URL:-x}\n",
        "stores:\n",
        "views:\n",
        "- name: v\n",
        "sql: |\n",
        "to:\n",
        "redis:",
        "clickhouse:",
        "stream:",
        "hash:",
        "{",
        "}",
        "[",
        "]",
        ": ",
        "- ",
        "|\n",
        "&a ",
        "*a",
        "!!str ",
        "\"",
        "'",
        "#",
        "\t",
        "\r\n",
        "%",
        "{{id}}",
        "{id}",
        "null",
        "~",
        "1e9",
    ];
    drive("pipeline", WORDS, 4_000, pipeline::run);
}

#[test]
fn what_a_socket_brings() {
    const WORDS: &[&str] =
        &["d\0\0\0\u{4}", "d\0\0\0\u{5}w", "Z\0\0\0\u{5}I", "d\0\u{4}\0\0", "\0\0"];
    drive("frames", WORDS, 4_000, frames::run);
}

#[test]
fn http_interface() {
    const WORDS: &[&str] = &[
        "GET ",
        "POST ",
        "OPTIONS ",
        "/status",
        "/metrics",
        "/ready",
        "/",
        "?",
        "%00",
        " HTTP/1.1\r\n",
        "host: x\r\n",
        "content-length: 9\r\n",
        "transfer-encoding: chunked\r\n",
        "expect: 100-continue\r\n",
        "connection: close\r\n",
        "upgrade: h2c\r\n",
        "\r\n",
        "\r\n\r\n",
        "null",
        "1e999",
        "[]",
        "{}",
        "\"\"",
    ];
    drive("http", WORDS, 3_000, http::run);
}
