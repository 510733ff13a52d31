//! A short run of the fuzz target for requests: see `fuzz/README.md`.

#[path = "../../fuzz/targets/drive.rs"]
mod drive;
#[path = "../../fuzz/targets/request.rs"]
mod request;

use std::path::Path;

#[test]
fn requests() {
    const WORDS: &[&str] = &[
        "POST ",
        "GET ",
        "/?query=",
        "&database=a",
        "&param_x=1",
        "&decompress=1",
        "&session_id=1",
        " content-encoding:gzip",
        " content-encoding:lz4",
        " content-encoding:zstd",
        " content-type:multipart/form-data;+boundary=b",
        "--b\r\n",
        "--b--\r\n",
        "\n",
        "INSERT INTO t ",
        "VALUES ",
        "FORMAT ",
        "CSV\n",
        "SELECT ",
        "SETTINGS ",
        "(",
        ")",
        ";",
        "--",
        "/*",
        "*/",
        "'",
        "\\'",
        "`",
        "$$",
        "$a$",
        "%",
        "+",
        "WITH ",
        "INFILE ",
    ];
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    drive::drive(&fuzz, "request", WORDS, 20_000, request::run);
}
