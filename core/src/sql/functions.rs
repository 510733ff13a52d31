//! The functions that views may call, as `pg_proc` lists them, and the words on those they may not.

use super::types::Base::{
    self, AnyRange, Bit, Bpchar, Bytea, Date, Float4, Float8, Int2, Int4, Int8, Interval, Lseg,
    Name, Numeric, Path, Text, Time, TimeTz, Timestamp, TimestampTz, TsVector,
};
use crate::expr::{Func, TrimSide};
use crate::plan::AggregateFunc;

pub(super) struct Function {
    pub(super) name: &'static str,
    pub(super) args: &'static [Base],
    pub(super) result: Base,
    /// What computes it; `None` takes part in the choice of the overload only.
    pub(super) func: Option<Func>,
}

const fn f(name: &'static str, args: &'static [Base], result: Base, func: Func) -> Function {
    Function { name, args, result, func: Some(func) }
}

const fn other(name: &'static str, args: &'static [Base], result: Base) -> Function {
    Function { name, args, result, func: None }
}

pub(super) const FUNCTIONS: &[Function] = &[
    f("abs", &[Int2], Int2, Func::Abs),
    f("abs", &[Int4], Int4, Func::Abs),
    f("abs", &[Int8], Int8, Func::Abs),
    f("abs", &[Float4], Float4, Func::Abs),
    f("abs", &[Float8], Float8, Func::Abs),
    f("abs", &[Numeric], Numeric, Func::Abs),
    f("round", &[Float8], Float8, Func::Round),
    f("round", &[Numeric], Numeric, Func::Round),
    f("round", &[Numeric, Int4], Numeric, Func::Round),
    f("floor", &[Float8], Float8, Func::Floor),
    f("floor", &[Numeric], Numeric, Func::Floor),
    f("ceil", &[Float8], Float8, Func::Ceil),
    f("ceil", &[Numeric], Numeric, Func::Ceil),
    f("ceiling", &[Float8], Float8, Func::Ceil),
    f("ceiling", &[Numeric], Numeric, Func::Ceil),
    f("length", &[Text], Int4, Func::Length),
    f("length", &[Bpchar], Int4, Func::Length),
    other("length", &[Bytea], Int4),
    other("length", &[Bit], Int4),
    other("length", &[TsVector], Int4),
    other("length", &[Lseg], Float8),
    other("length", &[Path], Float8),
    other("length", &[Bytea, Name], Int4),
    f("char_length", &[Text], Int4, Func::Length),
    f("char_length", &[Bpchar], Int4, Func::Length),
    f("character_length", &[Text], Int4, Func::Length),
    f("character_length", &[Bpchar], Int4, Func::Length),
    f("left", &[Text, Int4], Text, Func::Left),
    f("right", &[Text, Int4], Text, Func::Right),
    f("substring", &[Text, Int4], Text, Func::Substring),
    f("substring", &[Text, Int4, Int4], Text, Func::Substring),
    other("substring", &[Bit, Int4], Bit),
    other("substring", &[Bit, Int4, Int4], Bit),
    other("substring", &[Bytea, Int4], Bytea),
    other("substring", &[Bytea, Int4, Int4], Bytea),
    other("substring", &[Text, Text], Text),
    other("substring", &[Text, Text, Text], Text),
    f("substr", &[Text, Int4], Text, Func::Substring),
    f("substr", &[Text, Int4, Int4], Text, Func::Substring),
    other("substr", &[Bytea, Int4], Bytea),
    other("substr", &[Bytea, Int4, Int4], Bytea),
    f("split_part", &[Text, Text, Int4], Text, Func::SplitPart),
    f("lower", &[Text], Text, Func::Lower),
    other("lower", &[AnyRange], AnyRange),
    f("upper", &[Text], Text, Func::Upper),
    other("upper", &[AnyRange], AnyRange),
    f("btrim", &[Text], Text, Func::Trim(TrimSide::Both)),
    f("btrim", &[Text, Text], Text, Func::Trim(TrimSide::Both)),
    other("btrim", &[Bytea, Bytea], Bytea),
    f("ltrim", &[Text], Text, Func::Trim(TrimSide::Leading)),
    f("ltrim", &[Text, Text], Text, Func::Trim(TrimSide::Leading)),
    other("ltrim", &[Bytea, Bytea], Bytea),
    f("rtrim", &[Text], Text, Func::Trim(TrimSide::Trailing)),
    f("rtrim", &[Text, Text], Text, Func::Trim(TrimSide::Trailing)),
    other("rtrim", &[Bytea, Bytea], Bytea),
    f("date_trunc", &[Text, Timestamp], Timestamp, Func::DateTrunc),
    f("date_trunc", &[Text, TimestampTz], TimestampTz, Func::DateTrunc),
    f("date_trunc", &[Text, Interval], Interval, Func::DateTrunc),
    other("date_trunc", &[Text, TimestampTz, Text], TimestampTz),
    f("md5", &[Text], Text, Func::Md5),
    other("md5", &[Bytea], Text),
    // Only together, as encode(sha256(convert_to(x, 'UTF8')), 'hex').
    other("encode", &[Bytea, Text], Text),
    other("sha256", &[Bytea], Bytea),
    other("convert_to", &[Text, Name], Bytea),
];

/// `extract(field FROM x)`, whose field is the grammar's.
pub(super) const EXTRACT: &[Function] = &[
    f("extract", &[Text, Date], Numeric, Func::Extract),
    f("extract", &[Text, Timestamp], Numeric, Func::Extract),
    f("extract", &[Text, TimestampTz], Numeric, Func::Extract),
    f("extract", &[Text, Time], Numeric, Func::Extract),
    f("extract", &[Text, Interval], Numeric, Func::Extract),
    other("extract", &[Text, TimeTz], Numeric),
];

const SPECIAL: &[&str] =
    &["coalesce", "nullif", "greatest", "least", "extract", "trim", "count", "sum", "avg"];

pub(super) fn overloads(name: &str) -> &'static [Function] {
    let start = FUNCTIONS.iter().position(|function| function.name == name).unwrap_or(0);
    let rest = FUNCTIONS.get(start..).unwrap_or_default();
    let count = rest.iter().take_while(|function| function.name == name).count();
    rest.get(..count).unwrap_or_default()
}

pub(super) fn is_known(name: &str) -> bool {
    FUNCTIONS.iter().any(|function| function.name == name)
}

pub(super) fn names() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.iter().map(|function| function.name).chain(SPECIAL.iter().copied())
}

pub(super) fn listed() -> String {
    let mut names: Vec<&str> = names().collect();
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aggregate {
    Supported(AggregateFunc),
    NotYet,
    Never,
}

pub(super) fn aggregate(name: &str) -> Option<Aggregate> {
    Some(match name {
        "count" => Aggregate::Supported(AggregateFunc::Count),
        "sum" => Aggregate::Supported(AggregateFunc::Sum),
        "avg" => Aggregate::Supported(AggregateFunc::Avg),
        "min" | "max" | "array_agg" => Aggregate::NotYet,
        "bool_and" | "bool_or" | "every" | "bit_and" | "bit_or" | "bit_xor" | "string_agg"
        | "json_agg" | "jsonb_agg" | "json_object_agg" | "jsonb_object_agg" | "xmlagg"
        | "range_agg" | "stddev" | "stddev_pop" | "stddev_samp" | "variance" | "var_pop"
        | "var_samp" | "corr" | "covar_pop" | "covar_samp" | "regr_avgx" | "regr_avgy"
        | "regr_count" | "regr_intercept" | "regr_r2" | "regr_slope" | "mode" | "rank"
        | "percentile_cont" | "percentile_disc" | "any_value" | "grouping" => Aggregate::Never,
        _ => return None,
    })
}

pub(super) fn aggregate_name(func: AggregateFunc) -> &'static str {
    match func {
        AggregateFunc::Count => "count",
        AggregateFunc::Sum => "sum",
        AggregateFunc::Avg => "avg",
    }
}

/// Not a function of its arguments.
pub(super) fn is_volatile(name: &str) -> bool {
    matches!(
        name,
        "now"
            | "random"
            | "setseed"
            | "clock_timestamp"
            | "statement_timestamp"
            | "transaction_timestamp"
            | "timeofday"
            | "age"
            | "gen_random_uuid"
            | "nextval"
            | "currval"
            | "lastval"
            | "setval"
            | "current_setting"
            | "set_config"
            | "version"
            | "current_database"
            | "current_query"
            | "txid_current"
            | "pg_backend_pid"
            | "inet_client_addr"
            | "inet_server_addr"
    ) || name.starts_with("pg_")
        || name.starts_with("uuid_generate")
        || name.starts_with("txid_")
}

/// What to write for a function that PostgreSQL has and views have not.
pub(super) fn instead(name: &str) -> Option<&'static str> {
    Some(match name {
        "date_part" => "write extract(field FROM x)",
        "concat" | "concat_ws" | "format" => {
            "write a || b, with coalesce(x, '') where x may be null"
        }
        "mod" => "write a % b",
        "ifnull" | "nvl" | "isnull" => "write coalesce(a, b)",
        "iif" | "if" => "write CASE WHEN … THEN … ELSE … END",
        "len" => "write length(x)",
        "pow" | "power" | "sqrt" | "exp" | "ln" | "log" => {
            "it is not exact: compute it where the store is read"
        }
        "to_char" => "write x::text, or date_trunc and extract",
        "to_timestamp" | "to_date" => "store a timestamp in a column",
        "date" => "write x::date",
        "int4" | "int8" | "int2" | "numeric" | "text" | "varchar" | "float4" | "float8"
        | "bool" | "timestamp" | "timestamptz" => "write a cast: x::type",
        "regexp_replace" | "regexp_match" | "regexp_matches" | "regexp_substr" | "replace"
        | "translate" | "strpos" | "position" => {
            "write LIKE, split_part or substring(x FROM n FOR m)"
        }
        "initcap" => "write lower(x COLLATE \"C\") or upper(x COLLATE \"C\")",
        "json_extract_path_text" | "jsonb_extract_path_text" => "write x #>> '{a,b}'",
        "json_extract_path" | "jsonb_extract_path" => "write x -> 'a' -> 'b'",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::{FUNCTIONS, overloads};

    #[test]
    fn overloads_stand_together() {
        for function in FUNCTIONS {
            let all = FUNCTIONS.iter().filter(|other| other.name == function.name).count();
            assert_eq!(overloads(function.name).len(), all, "{}", function.name);
        }
    }
}
