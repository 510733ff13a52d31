//! How PostgreSQL finds the types of operators, functions and mixed expressions.
//!
//! These are its algorithms (chapter "Type Conversion"; `parse_func.c`, `parse_oper.c`,
//! `parse_coerce.c`), run over the types that Walview computes with. Candidates of types that it
//! does not compute with take part too, because they decide whether a choice is unique.

#![expect(clippy::wildcard_enum_match_arm, reason = "types that are not named cast to nothing")]

use crate::value::Type;

/// A type without its modifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Base {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Numeric,
    Text,
    Varchar,
    Bpchar,
    Bytea,
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Interval,
    Uuid,
    Json,
    Jsonb,
    Enum,
    Other,
    /// A quoted literal or NULL.
    Unknown,
    // Only of candidates:
    Name,
    TimeTz,
    Money,
    Inet,
    PgLsn,
    Xid,
    Bit,
    TsVector,
    Lseg,
    Path,
    TextArray,
    AnyArray,
    AnyEnum,
    AnyNonArray,
    AnyCompatible,
    AnyCompatibleArray,
    AnyRange,
}

impl Base {
    pub(super) fn of(ty: &Type) -> Self {
        match ty {
            Type::Bool => Self::Bool,
            Type::Int2 => Self::Int2,
            Type::Int4 => Self::Int4,
            Type::Int8 => Self::Int8,
            Type::Float4 => Self::Float4,
            Type::Float8 => Self::Float8,
            Type::Numeric(_) => Self::Numeric,
            Type::Text => Self::Text,
            Type::Varchar(_) => Self::Varchar,
            Type::Char(_) => Self::Bpchar,
            Type::Bytea => Self::Bytea,
            Type::Date => Self::Date,
            Type::Time => Self::Time,
            Type::Timestamp => Self::Timestamp,
            Type::TimestampTz => Self::TimestampTz,
            Type::Interval => Self::Interval,
            Type::Uuid => Self::Uuid,
            Type::Json => Self::Json,
            Type::Jsonb => Self::Jsonb,
            Type::Enum { .. } => Self::Enum,
            Type::Other { .. } => Self::Other,
        }
    }

    /// The type with no modifier. `None` for those that are more than a base (enums), or have no
    /// `Type` without one (`char`).
    pub(super) fn to_type(self) -> Option<Type> {
        Some(match self {
            Self::Bool => Type::Bool,
            Self::Int2 => Type::Int2,
            Self::Int4 => Type::Int4,
            Self::Int8 => Type::Int8,
            Self::Float4 => Type::Float4,
            Self::Float8 => Type::Float8,
            Self::Numeric => Type::Numeric(None),
            Self::Text => Type::Text,
            Self::Varchar => Type::Varchar(None),
            Self::Bytea => Type::Bytea,
            Self::Date => Type::Date,
            Self::Time => Type::Time,
            Self::Timestamp => Type::Timestamp,
            Self::TimestampTz => Type::TimestampTz,
            Self::Interval => Type::Interval,
            Self::Uuid => Type::Uuid,
            Self::Json => Type::Json,
            Self::Jsonb => Type::Jsonb,
            Self::Bpchar
            | Self::Enum
            | Self::Other
            | Self::Unknown
            | Self::Name
            | Self::TimeTz
            | Self::Money
            | Self::Inet
            | Self::PgLsn
            | Self::Xid
            | Self::Bit
            | Self::TsVector
            | Self::Lseg
            | Self::Path
            | Self::TextArray
            | Self::AnyArray
            | Self::AnyEnum
            | Self::AnyNonArray
            | Self::AnyCompatible
            | Self::AnyCompatibleArray
            | Self::AnyRange => return None,
        })
    }

    pub(super) fn is_integer(self) -> bool {
        matches!(self, Self::Int2 | Self::Int4 | Self::Int8)
    }

    pub(super) fn is_float(self) -> bool {
        matches!(self, Self::Float4 | Self::Float8)
    }

    pub(super) fn is_number(self) -> bool {
        self.is_integer() || self.is_float() || self == Self::Numeric
    }

    pub(super) fn is_string(self) -> bool {
        matches!(self, Self::Text | Self::Varchar | Self::Bpchar)
    }

    /// `pg_type.typcategory`.
    fn category(self) -> Category {
        match self {
            Self::Bool => Category::Boolean,
            Self::Int2
            | Self::Int4
            | Self::Int8
            | Self::Float4
            | Self::Float8
            | Self::Numeric
            | Self::Money => Category::Number,
            Self::Text | Self::Varchar | Self::Bpchar | Self::Name => Category::String,
            Self::Date | Self::Time | Self::Timestamp | Self::TimestampTz | Self::TimeTz => {
                Category::DateTime
            }
            Self::Interval => Category::Timespan,
            Self::Enum => Category::Enum,
            Self::Inet => Category::Network,
            Self::Bit => Category::Bit,
            Self::Lseg | Self::Path => Category::Geometric,
            Self::TextArray => Category::Array,
            Self::Unknown => Category::Unknown,
            Self::Bytea
            | Self::Uuid
            | Self::Json
            | Self::Jsonb
            | Self::Other
            | Self::PgLsn
            | Self::Xid
            | Self::TsVector => Category::User,
            Self::AnyArray
            | Self::AnyEnum
            | Self::AnyNonArray
            | Self::AnyCompatible
            | Self::AnyCompatibleArray
            | Self::AnyRange => Category::Pseudo,
        }
    }

    /// `pg_type.typispreferred`.
    fn preferred(self) -> bool {
        matches!(
            self,
            Self::Bool
                | Self::Float8
                | Self::Text
                | Self::TimestampTz
                | Self::Interval
                | Self::Inet
        )
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Category {
    Boolean,
    Number,
    String,
    DateTime,
    Timespan,
    Enum,
    Network,
    Bit,
    Geometric,
    Array,
    User,
    Unknown,
    Pseudo,
}

/// Whether an expression of type `from` is taken where `to` is declared, without a cast.
pub(super) fn implicit(from: Base, to: Base) -> bool {
    use Base::{
        AnyCompatible, AnyEnum, AnyNonArray, Bpchar, Date, Enum, Float4, Float8, Int2, Int4, Int8,
        Interval, Name, Numeric, Text, Time, TimeTz, Timestamp, TimestampTz, Unknown, Varchar,
    };
    if from == to || from == Unknown {
        return true;
    }
    match from {
        Int2 => matches!(to, Int4 | Int8 | Float4 | Float8 | Numeric),
        Int4 => matches!(to, Int8 | Float4 | Float8 | Numeric),
        Int8 => matches!(to, Float4 | Float8 | Numeric),
        Numeric => matches!(to, Float4 | Float8),
        Float4 => matches!(to, Float8),
        Text => matches!(to, Varchar | Bpchar | Name),
        Varchar => matches!(to, Text | Bpchar | Name),
        Bpchar => matches!(to, Text | Varchar | Name),
        Date => matches!(to, Timestamp | TimestampTz),
        Timestamp => matches!(to, TimestampTz),
        Time => matches!(to, Interval | TimeTz),
        Enum => to == AnyEnum,
        _ => false,
    }
    .then_some(true)
    .unwrap_or(matches!(to, AnyNonArray | AnyCompatible))
}

/// The one candidate that PostgreSQL takes for these arguments.
pub(super) fn select<'a, T>(
    candidates: &'a [T],
    declared: impl Fn(&'a T) -> &'a [Base],
    args: &[Base],
) -> Choice<&'a T> {
    let viable: Vec<&T> = candidates
        .iter()
        .filter(|candidate| {
            let types = declared(candidate);
            types.len() == args.len() && args.iter().zip(types).all(|(arg, ty)| implicit(*arg, *ty))
        })
        .collect();
    if let Some(exact) = viable.iter().find(|candidate| declared(candidate) == args) {
        return Choice::One(exact);
    }
    match viable.as_slice() {
        [] => return Choice::None,
        [one] => return Choice::One(one),
        _ => {}
    }
    let score_exact = |candidate: &&'a T| {
        args.iter()
            .zip(declared(candidate))
            .filter(|(arg, ty)| **arg != Base::Unknown && arg == ty)
            .count()
    };
    let viable = best(viable, score_exact);
    if let [one] = viable.as_slice() {
        return Choice::One(one);
    }
    let score_preferred = |candidate: &&'a T| {
        args.iter()
            .zip(declared(candidate))
            .filter(|(arg, ty)| {
                **arg != Base::Unknown
                    && (arg == ty || (ty.preferred() && ty.category() == arg.category()))
            })
            .count()
    };
    let viable = best(viable, score_preferred);
    if let [one] = viable.as_slice() {
        return Choice::One(one);
    }
    if !args.contains(&Base::Unknown) {
        return Choice::Ambiguous;
    }
    let viable = by_unknowns(viable, &declared, args);
    if let [one] = viable.as_slice() {
        return Choice::One(one);
    }
    let mut known = args.iter().filter(|arg| **arg != Base::Unknown);
    if let Some(first) = known.next()
        && known.all(|arg| arg == first)
    {
        let mut fitting = viable
            .iter()
            .filter(|candidate| declared(candidate).iter().all(|ty| implicit(*first, *ty)));
        if let (Some(one), None) = (fitting.next(), fitting.next()) {
            return Choice::One(one);
        }
    }
    Choice::Ambiguous
}

pub(super) enum Choice<T> {
    One(T),
    None,
    Ambiguous,
}

fn best<T>(candidates: Vec<T>, score: impl Fn(&T) -> usize) -> Vec<T> {
    let most = candidates.iter().map(&score).max().unwrap_or(0);
    candidates.into_iter().filter(|candidate| score(candidate) == most).collect()
}

/// For each unknown argument the category that the candidates agree on, strings first.
fn by_unknowns<'a, T>(
    candidates: Vec<&'a T>,
    declared: &impl Fn(&'a T) -> &'a [Base],
    args: &[Base],
) -> Vec<&'a T> {
    let mut slots = Vec::new();
    for (index, _) in args.iter().enumerate().filter(|(_, arg)| **arg == Base::Unknown) {
        let mut slot: Option<(Category, bool)> = None;
        let mut conflict = false;
        for ty in candidates.iter().filter_map(|candidate| declared(candidate).get(index)) {
            let (category, preferred) = (ty.category(), ty.preferred());
            match &mut slot {
                None => slot = Some((category, preferred)),
                Some((known, any)) if *known == category => *any |= preferred,
                Some(known) if category == Category::String => *known = (category, preferred),
                Some(_) => conflict = true,
            }
        }
        match slot {
            Some(slot) if !conflict || slot.0 == Category::String => slots.push((index, slot)),
            _ => return candidates,
        }
    }
    let agreeing: Vec<&T> = candidates
        .iter()
        .copied()
        .filter(|candidate| {
            slots.iter().all(|(index, (category, preferred))| {
                declared(candidate)
                    .get(*index)
                    .is_some_and(|ty| ty.category() == *category && (!preferred || ty.preferred()))
            })
        })
        .collect();
    if agreeing.is_empty() { candidates } else { agreeing }
}

/// `select_common_type`: of CASE, coalesce, greatest, least and IN. The error names the two types
/// that do not match, by index.
pub(super) fn common(types: &[Base]) -> Result<Base, usize> {
    let Some((first, rest)) = types.split_first() else {
        return Ok(Base::Text);
    };
    let mut common = *first;
    for (index, ty) in rest.iter().enumerate() {
        if *ty == Base::Unknown || *ty == common {
            continue;
        }
        if common == Base::Unknown {
            common = *ty;
        } else if ty.category() != common.category() {
            return Err(index + 1);
        } else if !common.preferred() && implicit(common, *ty) && !implicit(*ty, common) {
            common = *ty;
        }
    }
    Ok(if common == Base::Unknown { Base::Text } else { common })
}

/// As PostgreSQL's messages name it.
pub(crate) fn type_name(ty: &Type) -> String {
    match ty {
        Type::Bool => "boolean".to_owned(),
        Type::Int2 => "smallint".to_owned(),
        Type::Int4 => "integer".to_owned(),
        Type::Int8 => "bigint".to_owned(),
        Type::Float4 => "real".to_owned(),
        Type::Float8 => "double precision".to_owned(),
        Type::Numeric(None) => "numeric".to_owned(),
        Type::Numeric(Some((precision, scale))) => format!("numeric({precision},{scale})"),
        Type::Text => "text".to_owned(),
        Type::Varchar(None) => "character varying".to_owned(),
        Type::Varchar(Some(length)) => format!("character varying({length})"),
        Type::Char(length) => format!("character({length})"),
        Type::Bytea => "bytea".to_owned(),
        Type::Date => "date".to_owned(),
        Type::Time => "time without time zone".to_owned(),
        Type::Timestamp => "timestamp without time zone".to_owned(),
        Type::TimestampTz => "timestamp with time zone".to_owned(),
        Type::Interval => "interval".to_owned(),
        Type::Uuid => "uuid".to_owned(),
        Type::Json => "json".to_owned(),
        Type::Jsonb => "jsonb".to_owned(),
        Type::Enum { name, .. } | Type::Other { name, .. } => name.clone(),
    }
}
