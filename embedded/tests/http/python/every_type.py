"""Values at the edges of every type that Walview writes, as a table and as Python sees them."""

from datetime import date, datetime
from decimal import Decimal
from uuid import UUID

WIDE = "12345678901234567890123456789012345678.12345678901234567890123456789012345678"
ODD = "it's \"odd\":\t\n\r\\N \\ ü € \U0001f3b2 \u2028 %s :x {y} ` $"
LATE = datetime(2299, 12, 31, 23, 59, 59, 999999)
INFINITY = float("inf")

# Name, type, lowest, highest; NULL is the third row of the nullable ones.
COLUMNS = [
    ("i16", "Int16", -(2**15), 2**15 - 1),
    ("i32", "Int32", -(2**31), 2**31 - 1),
    ("i64", "Int64", -(2**63), 2**63 - 1),
    ("u8", "UInt8", 0, 2**8 - 1),
    ("u64", "UInt64", 0, 2**64 - 1),
    ("u128", "UInt128", 0, 2**128 - 1),
    ("money", "Decimal(18, 2)", Decimal("-9999999999999999.99"), Decimal("9999999999999999.99")),
    ("sums", "Decimal(38, 2)", Decimal("-0.01"), Decimal("999999999999999999999999999999999999.99")),
    ("wide", "Decimal(76, 38)", Decimal("-" + WIDE), Decimal(WIDE)),
    ("f32", "Float32", -INFINITY, 1.5),
    ("f64", "Float64", -1.7976931348623157e308, INFINITY),
    ("truth", "Bool", False, True),
    ("day", "Date32", date(1900, 1, 1), date(2299, 12, 31)),
    ("moment", "DateTime64(6, 'UTC')", datetime(1900, 1, 1), LATE),
    ("id", "UUID", UUID(int=0), UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")),
    ("text", "String", "", ODD),
    ("label", "LowCardinality(String)", "", ODD),
]
# The same as NULL or not; a dictionary is nullable inside.
NULLABLE = [
    ("n_" + name, kind.replace("(String", "(Nullable(String)") if "Low" in kind else f"Nullable({kind})", low, high)
    for name, kind, low, high in COLUMNS
]
# Of walview_freshness and of report views.
OTHERS = [
    ("views", "Array(String)", [], ["a", ODD]),
    ("state", "Enum8('live' = 1, 'stopped' = 2)", "live", "stopped"),
]
ALL = COLUMNS + NULLABLE + OTHERS
NAMES = [name for name, *_ in ALL]


def create(table):
    columns = ", ".join(f"`{name}` {kind}" for name, kind, *_ in ALL)
    return f"CREATE TABLE {table} (row UInt8, {columns}) ENGINE = MergeTree ORDER BY row"


def rows():
    """Three rows: lowest, highest, and NULL wherever there may be one."""
    nulls = [None if name.startswith("n_") else low for name, _, low, _ in ALL]
    return [[0, *(low for _, _, low, _ in ALL)], [1, *(high for *_, high in ALL)], [2, *nulls]]


def literal(value):
    """As SQL that has nothing to do with either client."""
    if value is None:
        return "NULL"
    if isinstance(value, list):
        return "[" + ", ".join(map(literal, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value)
    text = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"


def insert(table):
    values = ", ".join("(" + ", ".join(map(literal, row)) + ")" for row in rows())
    return f"INSERT INTO {table} VALUES {values}"
