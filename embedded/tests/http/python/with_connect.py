"""clickhouse-connect, as its users use it: defaults unless a check says otherwise."""

import math
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from decimal import Decimal

import clickhouse_connect
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError

import every_type
from checks import HOST, PORT, equal, raises, run

# With session_id, compression, and settings that it discovers.
CLIENT = clickhouse_connect.get_client(host=HOST, port=PORT)


def client(**options):
    return clickhouse_connect.get_client(host=HOST, port=PORT, **options)


def check_connect():
    assert CLIENT.ping()
    equal(CLIENT.command("SELECT version()"), CLIENT.server_version)
    assert len(CLIENT.server_settings) > 1000, len(CLIENT.server_settings)
    equal(str(CLIENT.server_tz), "UTC")
    with client(username="anybody", password="any", database="system") as other:
        equal(other.command("SELECT currentDatabase()"), "system")
    with raises(DatabaseError, "UNKNOWN_DATABASE") as seen:
        client(database="nope").command("SELECT 1")
    equal(seen[0].code, 81)


def check_every_type_is_read():
    CLIENT.command(every_type.create("read_types"))
    CLIENT.command(every_type.insert("read_types"))
    result = CLIENT.query("SELECT * FROM read_types ORDER BY row")
    equal(list(result.column_names), ["row", *every_type.NAMES])
    for found, expected in zip(result.result_rows, every_type.rows(), strict=True):
        for name, value, wanted in zip(result.column_names, found, expected, strict=True):
            assert type(value) is type(wanted) and value == wanted, f"{name}: {value!r}, not {wanted!r}"
    row = CLIENT.query("SELECT CAST(nan AS Float32), nan, -nan, CAST(nan AS Nullable(Float64))").first_row
    assert all(math.isnan(value) for value in row), row


def check_every_type_is_written():
    """By rows and by columns; what the engine then has is compared inside the engine."""
    CLIENT.command(every_type.create("expected_types"))
    CLIENT.command(every_type.insert("expected_types"))
    for table, oriented in [("by_rows", False), ("by_columns", True)]:
        CLIENT.command(every_type.create(table))
        rows = every_type.rows()
        data = [list(column) for column in zip(*rows)] if oriented else rows
        summary = CLIENT.insert(table, data, column_oriented=oriented)
        equal(summary.written_rows, 3)
        for left, right in [(table, "expected_types"), ("expected_types", table)]:
            equal(CLIENT.query(f"SELECT * FROM {left} EXCEPT SELECT * FROM {right}").result_rows, [])
    CLIENT.command("CREATE TABLE floats (a Float64, b Nullable(Float32)) ENGINE = Memory")
    CLIENT.insert("floats", [[math.nan, None], [1.0, math.nan]])
    equal(CLIENT.command("SELECT countIf(isNaN(a)) + 10 * countIf(isNaN(b)) FROM floats"), 11)


def check_other_ways_to_insert():
    CLIENT.command("CREATE TABLE ways (a Int64, b String DEFAULT 'd') ENGINE = MergeTree ORDER BY a")
    equal(CLIENT.insert("ways", [[1]], column_names=["a"]).written_rows, 1)
    CLIENT.raw_insert("ways", ["a", "b"], b"2,x\n3,y\n", fmt="CSV")
    CLIENT.command("INSERT INTO ways VALUES", data=b"(4, 'z')")
    context = CLIENT.create_insert_context("ways", data=[[5, "v"]])
    CLIENT.insert(context=context)
    text = "SELECT arrayStringConcat(groupArray(toString(a) || b)) FROM (SELECT * FROM ways ORDER BY a)"
    equal(CLIENT.command(text), "1d2x3y4z5v")
    equal(CLIENT.insert("ways", [[row, "many"] for row in range(300_000)]).written_rows, 300_000)


def check_compressed():
    CLIENT.command("CREATE TABLE packed (a Int64, b String) ENGINE = MergeTree ORDER BY a")
    rows = [[number, f"text {number}"] for number in range(20_000)]
    for method in ["lz4", "zstd", "gzip", False]:
        with client(compress=method) as packed:
            packed.command("TRUNCATE TABLE packed")
            equal(packed.insert("packed", rows).written_rows, len(rows))
            found = packed.query("SELECT * FROM packed ORDER BY a").result_rows
            assert [list(row) for row in found] == rows, method


def check_parameters():
    values = {
        "i": -(2**63),
        "d": Decimal("123456789012345678901234567890123456.78"),
        "s": every_type.ODD,
        "n": None,
        "t": every_type.LATE,
        "a": ["x", every_type.ODD],
    }
    sql = (
        "SELECT {i:Int64}, {d:Decimal(38, 2)}, {s:String}, {n:Nullable(Int8)}, "
        "{t:DateTime64(6, 'UTC')}, {a:Array(String)}"
    )
    equal(CLIENT.query(sql, parameters=values).first_row, tuple(values.values()))
    # More than an address holds: they come as a form.
    many = list(range(100_000))
    sql = "SELECT sum(arrayJoin({x:Array(Int64)}))"
    equal(CLIENT.query(sql, parameters={"x": many}).first_row, (sum(many),))
    with client(form_encode_query_params=True) as form:
        equal(form.query("SELECT {s:String}", parameters=values).first_row, (every_type.ODD,))
    # On the client's side: values become part of the text.
    bound = CLIENT.query("SELECT %(s)s, %(n)s, %(i)s", parameters=values)
    equal(bound.first_row, (every_type.ODD, None, -(2**63)))
    with raises(DatabaseError, "BAD_QUERY_PARAMETER") as seen:
        CLIENT.query("SELECT {i:Int64}", parameters={"i": "no number"})
    equal(seen[0].code, 457)


def check_errors():
    CLIENT.command("CREATE TABLE wrong (a Int64) ENGINE = MergeTree ORDER BY a")
    for sql, code, name in [
        ("SELECT 1 1", 62, "SYNTAX_ERROR"),
        ("SELECT * FROM nope", 60, "UNKNOWN_TABLE"),
        ("SELECT nope FROM wrong", 47, "UNKNOWN_IDENTIFIER"),
        ("SELECT toInt64('no number')", 6, "CANNOT_PARSE_TEXT"),
        ("SELECT throwIf(1, 'said so')", 395, "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO"),
    ]:
        with raises(DatabaseError, f"Code: {code}. DB::Exception: ", f"({name})") as seen:
            CLIENT.query(sql)
        equal((seen[0].code, seen[0].name), (code, name))
    with raises(DatabaseError, "Unknown setting 'nope'"):
        CLIENT.query("SELECT 1", settings={"nope": 1})
    with raises(DatabaseError, "INCORRECT_DATA"):
        CLIENT.raw_insert("wrong", ["a"], b"1\nno number\n", fmt="CSV")
    with raises(DatabaseError, "UNKNOWN_TABLE"):
        CLIENT.raw_insert("nope", ["a"], b"1\n" * 1_000_000, fmt="CSV")
    equal(CLIENT.command("SELECT count() FROM wrong"), 0)


def check_an_exception_in_the_middle_of_a_result():
    """Never a result that looks whole; the streamed formats also say why."""
    sql = "SELECT number, throwIf(number = 2000000, 'too far') FROM numbers(4000000)"
    with raises(OperationalError, "too far") as seen:
        len(CLIENT.query(sql).result_rows)
    equal(seen[0].code, 395)
    rows = 0
    with raises(OperationalError, "too far"), CLIENT.query_row_block_stream(sql) as blocks:
        for block in blocks:
            rows += len(block)
    assert 0 < rows <= 2_000_000, rows
    with raises(OperationalError):
        CLIENT.raw_query(sql, fmt="CSV")
    equal(CLIENT.command("SELECT 1"), 1)


def check_settings_and_sessions():
    """Settings go with a query. A session would keep them: it is not served, and says so."""
    sql = "SELECT getSetting('max_block_size')"
    equal(CLIENT.query(sql, settings={"max_block_size": 7}).first_row, (7,))
    with client(settings={"max_block_size": 8}) as other:
        equal(other.query(sql).first_row, (8,))
    assert CLIENT.query(sql).first_row[0] > 8
    for statement in ["SET max_block_size = 9", "USE system", "CREATE TEMPORARY TABLE t (a Int8)"]:
        with raises(DatabaseError, "sessions are not served", "NOT_IMPLEMENTED"):
            CLIENT.command(statement)


def check_concurrent_queries():
    """A client without a session may be shared by threads."""
    shared = client(autogenerate_session_id=False)
    work = "SELECT sum(number), {n:UInt64} FROM numbers(3000000)"

    def ask(number):
        return shared.query(work, parameters={"n": number}).first_row

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(64)))
    equal(found, [(4499998500000, number) for number in range(64)])


def check_a_long_result_in_blocks():
    rows = total = 0
    with CLIENT.query_column_block_stream("SELECT number, toString(number) FROM numbers(1000000)") as blocks:
        for numbers, texts in blocks:
            rows += len(texts)
            total += sum(numbers)
    equal((rows, total), (1_000_000, 499_999_500_000))
    # More bytes than the server may hold; the test that runs this looks at its peak.
    length = 0
    with CLIENT.raw_stream("SELECT repeat('x', 1023) FROM numbers(1048576)", fmt="TSV") as stream:
        while piece := stream.read(1 << 20):
            length += len(piece)
    equal(length, 1 << 30)
    # Formats with an end of their own are held in memory, within a limit.
    wide = "SELECT toString(number) || repeat('x', 100) AS s FROM numbers(1000000)"
    with raises(DatabaseError, "ArrowStream") as seen:
        CLIENT.raw_query(wide, fmt="Arrow")
    equal(seen[0].code, 396)
    plain = {"output_format_arrow_compression_method": "none"}
    assert len(CLIENT.raw_query(wide, fmt="ArrowStream", settings=plain)) > 100_000_000


def check_empty_results_and_shapes():
    equal(CLIENT.query("SELECT 1 AS a WHERE 0").result_rows, [])
    equal(CLIENT.query("SELECT 1 AS a, 'x' AS b LIMIT 0").column_names, ("a", "b"))
    equal(CLIENT.command("EXISTS TABLE nope"), 0)
    sql = "SELECT number % 2 AS n, count() FROM numbers(10) GROUP BY n ORDER BY n"
    equal(CLIENT.query(sql).result_rows, [(0, 5), (1, 5)])
    equal(list(CLIENT.query("SELECT 1 AS a").named_results()), [{"a": 1}])
    # UTC comes without a zone, unless asked.
    sql = "SELECT toDateTime64('2026-03-29 01:30:00', 6, 'UTC')"
    equal(CLIENT.query(sql).first_row, (datetime(2026, 3, 29, 1, 30),))
    with client(tz_mode="aware") as aware:
        equal(aware.query(sql).first_row[0].isoformat(), "2026-03-29T01:30:00+00:00")


if __name__ == "__main__":
    run(globals())
