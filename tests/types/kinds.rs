//! The types of PostgreSQL, and of each the values at its edges.

/// A column of the table of all types.
pub struct Kind {
    /// As a column declares it.
    pub ty: &'static str,
    /// Literals that the column's ClickHouse type holds.
    pub fit: &'static [&'static str],
    /// Literals that it does not: these rows are parked there.
    pub unfit: &'static [&'static str],
    /// Of an array: its values in JSON, in the order of `fit`.
    pub json: &'static [&'static str],
}

const fn kind(ty: &'static str, fit: &'static [&'static str]) -> Kind {
    Kind { ty, fit, unfit: &[], json: &[] }
}

const fn narrow(
    ty: &'static str,
    fit: &'static [&'static str],
    unfit: &'static [&'static str],
) -> Kind {
    Kind { ty, fit, unfit, json: &[] }
}

const fn array(
    ty: &'static str,
    fit: &'static [&'static str],
    json: &'static [&'static str],
) -> Kind {
    Kind { ty, fit, unfit: &[], json }
}

/// What the columns need. Characters beyond LATIN1 stand in [`WIDE`] only.
pub const SETUP: &str = r#"
CREATE EXTENSION hstore;
CREATE EXTENSION citext;
CREATE TYPE mood AS ENUM ('sad', 'it''s "ok"', 'tr\ès, {heureux}');
CREATE DOMAIN price AS numeric(6, 2);
CREATE DOMAIN tags AS text[];
CREATE TYPE place AS (x int, name text, at timestamptz);
CREATE TYPE textrange AS RANGE (subtype = text, collation = "C");
"#;

pub const KINDS: &[Kind] = &[
    kind("boolean", &["t", "f"]),
    kind("smallint", &["-32768", "32767"]),
    kind("integer", &["-2147483648", "2147483647"]),
    kind("bigint", &["-9223372036854775808", "9223372036854775807", "9007199254740993"]),
    narrow(
        "numeric",
        &[
            "1.50",
            "-0.00",
            "99999999999999999999999999999999999999.00000000000000000000000000000000000001",
        ],
        &["NaN", "Infinity", "-Infinity", "1e38", "1e-39"],
    ),
    narrow("numeric(12,2)", &["0.01", "-9999999999.99"], &["NaN"]),
    kind("real", &["0.1", "-0", "3.4028235e38", "1e-45", "NaN", "-Infinity"]),
    kind("double precision", &["0.1", "-0", "1.7976931348623157e308", "5e-324", "NaN", "Infinity"]),
    kind("money", &["1234.56", "-92233720368547758.08"]),
    kind("text", &["plain", "", "\\N \\ \" ' \t \r \n \u{1} ÄÖÿ", "NULL", "{}"]),
    kind("varchar(10)", &["ab  ", ""]),
    kind("char(5)", &["ab", ""]),
    kind("bpchar", &["ab  ", ""]),
    kind("name", &["ab", ""]),
    kind("\"char\"", &["x", ""]),
    kind("citext", &["aB", "Ab"]),
    kind("bytea", &["\\x00ff0a5c27", "\\x"]),
    kind(
        "uuid",
        &["A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "{00000000-0000-0000-0000-000000000000}"],
    ),
    kind("mood", &["it's \"ok\"", "tr\\ès, {heureux}"]),
    kind("price", &["1.5", "-9999.99"]),
    narrow(
        "date",
        &["2026-02-28", "1900-01-01", "2299-12-31"],
        &["infinity", "-infinity", "0044-03-15 BC", "1899-12-31", "2300-01-01", "5874897-12-31"],
    ),
    kind("time", &["23:59:59.999999", "24:00:00", "00:00:00"]),
    kind("time(3)", &["12:34:56.7891"]),
    kind("timetz", &["12:00:00+05:30", "24:00:00-15:59:59", "00:00:00.5+00"]),
    narrow(
        "timestamp",
        &["2026-03-29 02:30:00", "1900-01-01 00:00:00", "2299-12-31 23:59:59.999999"],
        &[
            "infinity",
            "-infinity",
            "4714-11-24 00:00:00 BC",
            "1899-12-31 23:59:59.999999",
            "294276-12-31 23:59:59.999999",
        ],
    ),
    narrow(
        "timestamptz",
        &[
            "2026-03-29 02:30:00+05:30",
            "1969-12-31 23:59:59.999999+00",
            "2299-12-31 23:59:59.999999+00",
        ],
        &["infinity", "-infinity", "0001-01-01 00:00:00+00 BC", "10000-01-01 00:00:00+00"],
    ),
    kind("timestamp(0)", &["2026-01-01 23:59:59.5"]),
    kind(
        "interval",
        &["1 year 2 mons -3 days 04:05:06.7", "-178000000 years", "00:00:00", "-1 mon +1 day"],
    ),
    kind("interval(2)", &["1.239 seconds"]),
    kind(
        "json",
        &["{ \"n\": 1234567890123456789, \"s\": \"\\u0000 \\\" \\\\\" }", "null", "[]", "\"ä\""],
    ),
    kind(
        "jsonb",
        &["{\"b\": 1.50, \"a\": [12345678901234567890.123, null, \"ä\\n\\\"\"]}", "null", "\"x\""],
    ),
    kind("jsonpath", &["$.\"a\"[*] ? (@ > 1)"]),
    kind("xml", &["<?xml version=\"1.0\" encoding=\"UTF-8\"?><a b=\"c\">&lt;</a>", "<a/>"]),
    kind("inet", &["10.0.0.1", "10.0.0.1/8", "::ffff:1.2.3.4/128", "2001:db8::/32"]),
    kind("cidr", &["10.0.0.0/8", "2001:db8::/32"]),
    kind("macaddr", &["08-00-2B-01-02-03"]),
    kind("macaddr8", &["08:00:2b:01:02:03:04:05"]),
    kind("bit(3)", &["101"]),
    kind("bit varying", &["", "10101"]),
    kind("tsvector", &["'it''s':1A,3 'b\\\\c' x:2", ""]),
    kind("tsquery", &["'it''s' & !( b:*A | c <-> d )"]),
    kind("point", &["(0.1,-0)", "(NaN,Infinity)"]),
    kind("line", &["{1,-1,0.3}"]),
    kind("lseg", &["[(0.1,0.2),(3,4)]"]),
    kind("box", &["(1e300,2),(0.1,-1)"]),
    kind("path", &["[(0.1,0.2),(3,4)]", "((0,0),(1,0.7))"]),
    kind("polygon", &["((0,0),(1,0.1),(1,1))"]),
    kind("circle", &["<(0.1,0.2),3>"]),
    kind("pg_lsn", &["16/B374D848", "0/0"]),
    kind("oid", &["4294967295"]),
    kind("xid", &["4294967295"]),
    kind("xid8", &["18446744073709551615"]),
    kind("cid", &["7"]),
    kind("tid", &["(0,1)"]),
    kind("pg_snapshot", &["10:20:10,14"]),
    kind("int2vector", &["1 -2"]),
    kind("oidvector", &["1 2"]),
    kind("refcursor", &["<cursor \"1\">"]),
    kind("hstore", &["\"a\"=>\"1\", \"b \\\"\"=>NULL", ""]),
    kind("int4range", &["[1,4]", "empty", "(,)", "[-2147483648,)"]),
    kind("int8range", &["(1,4]"]),
    kind("numrange", &["[1.0,1.50)", "(NaN,]"]),
    kind("daterange", &["[2026-01-01,2026-01-31]", "[,infinity)"]),
    kind("tsrange", &["[2026-01-01 00:00,2026-01-01 12:00)", "(-infinity,infinity]"]),
    kind("tstzrange", &["[2026-01-01 00:00+05:30,2026-01-01 12:00+00)"]),
    kind("textrange", &["[a,\"b, \\\"c\\\"\"]"]),
    kind("int4multirange", &["{[1,3),[5,7]}", "{}"]),
    kind("nummultirange", &["{[1.0,1.50)}"]),
    kind("datemultirange", &["{[2026-01-01,2026-01-02]}"]),
    kind("tstzmultirange", &["{[2026-01-01 00:00+05:30,)}"]),
    kind("place", &["(1,\"a \"\"b\"\", c\",2026-01-01 00:00+05:30)", "(,,)", "(,\"\",)"]),
    array(
        "integer[]",
        &["{}", "{1,NULL,-2}", "{{1,2},{3,4}}", "[0:1]={1,2}", "{{{7}}}"],
        &["[]", "[1,null,-2]", "[[1,2],[3,4]]", "\"[0:1]={1,2}\"", "[[[7]]]"],
    ),
    array(
        "text[]",
        &["{\"\",NULL,\"NULL\",null}", "{\"a,b\",\"{c}\",\"d\\\"e\\\\f\",\" g\",\"\n\",ä}"],
        &["[\"\",null,\"NULL\",null]", "[\"a,b\",\"{c}\",\"d\\\"e\\\\f\",\" g\",\"\\n\",\"ä\"]"],
    ),
    array("boolean[]", &["{t,f,NULL}"], &["[true,false,null]"]),
    array(
        "numeric[]",
        &["{1.50,NaN,1e40}"],
        &["[\"1.50\",\"NaN\",\"10000000000000000000000000000000000000000\"]"],
    ),
    array("real[]", &["{0.1,-0,Infinity}"], &["[\"0.1\",\"-0\",\"Infinity\"]"]),
    array("bytea[]", &["{\"\\\\xfbff\",\"\\\\x\"}"], &["[\"+/8=\",\"\"]"]),
    array("date[]", &["{2026-01-01,infinity}"], &["[\"2026-01-01\",\"infinity\"]"]),
    array(
        "timestamptz[]",
        &["{2026-01-01 00:00+05:30,-infinity}"],
        &["[\"2025-12-31T18:30:00.000000Z\",\"-infinity\"]"],
    ),
    array("interval[]", &["{1 day 02:00}"], &["[\"1 day 02:00:00\"]"]),
    array(
        "uuid[]",
        &["{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11}"],
        &["[\"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\"]"],
    ),
    array("jsonb[]", &["{\"{\\\"a\\\": [1.50]}\",NULL}"], &["[{\"a\":[1.50]},null]"]),
    array("mood[]", &["{sad,NULL,\"it's \\\"ok\\\"\"}"], &["[\"sad\",null,\"it's \\\"ok\\\"\"]"]),
    array("inet[]", &["{10.0.0.1,::1/64}"], &["[\"10.0.0.1\",\"::1/64\"]"]),
    array("box[]", &["{(1,1),(0,0);(2,2),(1,1)}"], &["\"{(1,1),(0,0);(2,2),(1,1)}\""]),
    array("place[]", &["{\"(1,a,)\",NULL}"], &["[\"(1,a,)\",null]"]),
    array("int4range[]", &["{\"[1,2]\",empty}"], &["[\"[1,3)\",\"empty\"]"]),
    array("tags", &["{a,b}", "{}"], &["[\"a\",\"b\"]", "[]"]),
    array("price[]", &["{1.5,NULL}"], &["[\"1.50\",null]"]),
];

/// Columns of these, where the database can hold them.
pub const WIDE: &[(&str, &str)] = &[
    ("text", "Привет 🎲 \u{200d}"),
    ("varchar(10)", "🎲🎲🎲🎲🎲🎲🎲🎲🎲🎲"),
    ("char(5)", "🎲"),
    ("jsonb", "{\"Привет\": \"🎲\"}"),
    ("text[]", "{Привет,🎲}"),
    ("hstore", "\"ключ\"=>\"🎲\""),
];
