//! Short runs of the fuzz targets that need the core alone: see `fuzz/README.md`.

#[path = "../../fuzz/targets/codecs.rs"]
mod codecs;
#[path = "../../fuzz/targets/drive.rs"]
mod drive;
#[path = "../../fuzz/targets/pgoutput.rs"]
mod pgoutput;
#[path = "../../fuzz/targets/sql.rs"]
mod sql;

use std::path::Path;

fn drive(name: &str, words: &[&str], runs: usize, target: fn(&[u8])) {
    drive::drive(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz"), name, words, runs, target);
}

#[test]
fn pgoutput() {
    drive(
        "pgoutput",
        &["n", "u", "t\0\0\0\u{1}x", "b", "K", "N", "public\0"],
        400_000,
        pgoutput::run,
    );
}

#[test]
fn sql() {
    const WORDS: &[&str] = &[
        "SELECT ",
        " FROM bets b",
        " LEFT JOIN users u ON u.id = b.user_id",
        " WHERE ",
        " GROUP BY ",
        "count(*)",
        "sum(",
        "avg(",
        "coalesce(",
        "CASE WHEN ",
        " THEN ",
        " ELSE ",
        " END",
        "::numeric(3,1)",
        "::text",
        " COLLATE \"C\"",
        " || ",
        " -> ",
        " ->> ",
        "'a'",
        "E'\\n'",
        "$$x$$",
        "--",
        "/*",
        "*/",
        "(",
        ")",
        ",",
        "::",
        "interval '1 day'",
        "extract(day FROM ",
        "date_trunc('day', ",
        " IS NULL",
        " IN (",
        " BETWEEN ",
        " AND ",
        " OR ",
        "NOT ",
        "\"",
        "é",
        "1e400",
        "0x1F",
        "1_000",
        ";",
        " AS x",
        "i4",
        "n122",
        "c5",
        "ts",
        "tz",
        "iv",
        "jb",
        "m",
        "arr",
        "id",
        "u.name",
        " FILTER (WHERE ",
        " DISTINCT ",
        "substring(s FROM 2 FOR 3)",
        "trim(both 'x' from s)",
        " LIKE 'a%'",
    ];
    drive("sql", WORDS, 8_000, sql::run);
}

#[test]
fn codecs() {
    const WORDS: &[&str] = &[
        "NaN",
        "-infinity",
        " BC",
        "{a}",
        "{{",
        "}}",
        ":",
        "%",
        "\n",
        "e-9",
        "1e131071",
        "99999",
        ".5",
        "\\x",
        "\\u0000",
        "\"",
        "[",
        "{\"a\":",
        " mons",
        "-1 days",
        "24:00:00",
        "5874897-12-31",
        "294276-12-31",
        "0x",
        "\u{10ffff}",
    ];
    drive("codecs", WORDS, 200_000, codecs::run);
}
