//! Texts that people might write as literals, put together from parts: right, odd and wrong ones.

use crate::random::Random;
use crate::server::{Answer, Server};
use crate::{agree, answer_of, is_of_version, quoted};
use walview_core::value::{Type, Value};

const PARTS: &[(&str, Type, &[&str])] = &[
    (
        "date",
        Type::Date,
        &[
            "2026-01-02",
            "2024-02-30",
            "1-2-3",
            " BC",
            " ",
            "infinity",
            "-",
            "0000-01-01",
            "T00:00",
            "99999-12-31",
            "0044-03-15",
            "5874898-01-01",
        ],
    ),
    (
        "timestamp",
        Type::Timestamp,
        &[
            "2026-01-02",
            " ",
            "T",
            "03:04:05",
            "03:04",
            "24:00:00",
            "23:59:60",
            ".5",
            ".1234567",
            ".9999995",
            "+02",
            "Z",
            " BC",
            "0001-01-01",
            "294277-01-01",
            "infinity",
        ],
    ),
    (
        "timestamptz",
        Type::TimestampTz,
        &[
            "2026-01-02",
            " ",
            "03:04:05",
            "24:00:00",
            "+02",
            "-0330",
            "+05:45",
            "+00:00:30",
            "Z",
            " UTC",
            "+16",
            " BC",
            ".123",
            "0001-01-01",
            "-infinity",
        ],
    ),
    (
        "time",
        Type::Time,
        &["03:04:05", "24:00:00", "23:59:60", ".5", "1:2", "12:00", "24:00:01", ".9999999", " "],
    ),
    (
        "interval",
        Type::Interval,
        &[
            "1",
            "-",
            "+",
            " ",
            "day",
            " days",
            "hour ",
            "2 hours",
            "1.5 ",
            "mon",
            "P1Y2M",
            "DT3H",
            "PT",
            "1:2",
            "03:04:05.6",
            ".5",
            "1 week",
            "0.25 days",
            "10 ms ",
            "2 decades ",
            "1 year ",
        ],
    ),
    (
        "numeric",
        Type::Numeric(None),
        &["1", "-", "+", ".", "5", "e", "E5", "-3", " ", "NaN", "inf", "Infinity", "00", "_"],
    ),
    (
        "float8",
        Type::Float8,
        &["1", "-", ".", "5", "e", "400", "-400", " ", "NaN", "inf", "Infinity", "00"],
    ),
    ("int4", Type::Int4, &["1", "-", "+", " ", "2147483647", "0", "x"]),
    ("bool", Type::Bool, &["t", "rue", "f", "alse", "o", "n", "ff", "yes", "1", "0", " ", "T"]),
    (
        "uuid",
        Type::Uuid,
        &[
            "a0ee",
            "BC99",
            "-",
            "{",
            "}",
            "9c0b4ef8bb6d6bb9bd380a11",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        ],
    ),
    ("bytea", Type::Bytea, &["\\x", "00", "fF", " ", "\\\\", "\\001", "a", "\\400", "\\"]),
];

/// What chance rarely brings: PostgreSQL reads from right to left, and a clock time takes the place of
/// what stands behind it.
const INTERVALS: &[&str] = &[
    "03:04:05.6 0.25 days",
    "0.25 days 03:04:05.6",
    "-03:04 0.25 days",
    "1:2 1.5 weeks",
    "1.5 weeks 1:2",
    "1.75 weeks 1:2 0.25 days",
    "0.25 days 1:2 1.75 weeks",
    "1 year 0.5 days 00:00",
];

/// Literals near what people write. What we accept means what it means to PostgreSQL; what
/// PostgreSQL refuses we refuse.
pub(crate) fn differences(server: &Server) -> Vec<String> {
    let mut random = Random::new("literals");
    let mut texts: Vec<_> =
        INTERVALS.iter().map(|text| ("interval", Type::Interval, (*text).to_owned())).collect();
    for (name, ty, parts) in PARTS {
        for _ in 0..600 {
            let text: String = (0..=random.below(4)).map(|_| random.pick(parts)).collect();
            texts.push((*name, ty.clone(), text));
        }
    }
    for _ in 0..1_500 {
        let mut text = random.json(3);
        if random.one_in(4) {
            let at = (0..=random.below(text.len())).rev().find(|at| text.is_char_boundary(*at));
            text.insert_str(
                at.unwrap(),
                random.pick(&["\"", ",", "}", "1", "\\u0000", ".", "x", " "]),
            );
        }
        texts.push(("json", Type::Json, text.clone()));
        texts.push(("jsonb", Type::Jsonb, text));
    }
    let questions: Vec<String> =
        texts.iter().map(|(name, _, text)| format!("{}::{name}", quoted(text))).collect();
    let answers = server.ask(questions.iter().map(|sql| (sql.as_str(), "")));
    let mut wrong = Vec::new();
    for ((name, ty, text), theirs) in texts.iter().zip(answers) {
        let ours = answer_of(Value::parse(ty, text), ty);
        // Dates and intervals have forms that we refuse, and `1e 5` is a number by accident.
        let narrower = matches!(*name, "date" | "timestamp" | "timestamptz" | "time" | "interval")
            || (*name == "numeric" && text.trim().contains(' '));
        let narrower = narrower || is_of_version(server.major(), &ours, &theirs);
        let refused = matches!(ours, Answer::Error(..));
        if !(agree(&ours, &theirs) || refused && (narrower || matches!(theirs, Answer::Error(..))))
        {
            wrong.push(format!("{name} {text:?}\n  ours   {ours:?}\n  theirs {theirs:?}"));
        }
    }
    wrong
}
