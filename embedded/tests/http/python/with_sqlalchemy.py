"""clickhouse-sqlalchemy over HTTP, and the dialect that clickhouse-connect brings for SQLAlchemy.

What the older dialect itself makes of values is written down here, because dashboards meet it: it
reads TabSeparated, so types that it does not know come as text.
"""

import math
import warnings
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from decimal import Decimal

import requests
import sqlalchemy
from clickhouse_sqlalchemy import Table, engines, get_declarative_base, make_session, types
from clickhouse_sqlalchemy.exceptions import DatabaseException
from sqlalchemy import Column, MetaData, create_engine, func, inspect, select, text

import every_type
from checks import HOST, PORT, equal, raises, run

# Both claim the name clickhouse://, and the second one says so.
warnings.filterwarnings("ignore", message="The 'clickhouse://' URL remains registered")
ENGINE = create_engine(f"clickhouse+http://default:@{HOST}:{PORT}/default")
CONNECT = create_engine(f"clickhousedb://default:@{HOST}:{PORT}/default")


def execute(sql, values=None, engine=ENGINE):
    with engine.connect() as connection:
        result = connection.execute(text(sql), values or {})
        return [tuple(row) for row in result] if result.returns_rows else None


def check_connect():
    for engine in (ENGINE, CONNECT):
        [(version,)] = execute("SELECT version()", engine=engine)
        assert version.startswith("26."), version
    with raises(DatabaseException, "Code: 81."):
        execute("SELECT 1", engine=create_engine(f"clickhouse+http://{HOST}:{PORT}/nope"))


def as_text(kind, value):
    """How the older dialect shows what it does not know."""
    if value is None or not any(name in kind for name in ("Bool", "Date32", "UUID", "Array")):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        # The text of the array, without the escapes that TabSeparated put over it.
        return "[" + ",".join(every_type.literal(item) for item in value) + "]"
    return str(value)


def check_every_type_is_read():
    execute(every_type.create("alchemy_types"))
    with ENGINE.connect() as connection:
        connection.exec_driver_sql(every_type.insert("alchemy_types").replace("%", "%%"), {})
    kinds = ["UInt8", *(kind for _, kind, *_ in every_type.ALL)]
    for engine in (ENGINE, CONNECT):
        found = execute("SELECT * FROM alchemy_types ORDER BY row", engine=engine)
        for row, expected in zip(found, every_type.rows(), strict=True):
            for name, kind, value, wanted in zip(["row", *every_type.NAMES], kinds, row, expected, strict=True):
                if engine is ENGINE:
                    if "Array" in kind and wanted:
                        assert value.startswith("['a','it"), value
                        continue
                    wanted = as_text(kind, wanted)
                assert type(value) is type(wanted) and value == wanted, f"{name}: {value!r}, not {wanted!r}"
        [(nan, infinity)] = execute("SELECT nan, -inf", engine=engine)
        assert math.isnan(nan) and infinity == -math.inf, (nan, infinity)


def tables():
    metadata = MetaData()
    players = Table(
        "players",
        metadata,
        Column("id", types.Int64, primary_key=True),
        Column("name", types.String),
        Column("country", types.Nullable(types.String)),
        engines.MergeTree(order_by=["id"]),
    )
    stakes = Table(
        "stakes",
        metadata,
        Column("id", types.Int64, primary_key=True),
        Column("player", types.Int64),
        Column("amount", types.Decimal(18, 2)),
        Column("at", types.DateTime64(6, "UTC")),
        engines.MergeTree(order_by=["id"]),
    )
    return metadata, players, stakes


def check_core():
    """Tables, bulk inserts, joins, groups."""
    metadata, players, stakes = tables()
    noon = datetime(2026, 3, 1, 12)
    with ENGINE.connect() as connection:
        metadata.drop_all(connection)
        metadata.create_all(connection)
        countries = ["PT", None, "IE"]
        rows = [{"id": i, "name": every_type.ODD + str(i), "country": countries[i % 3]} for i in range(30)]
        connection.execute(players.insert(), rows)
        rows = [{"id": i, "player": i % 30, "amount": Decimal("0.10"), "at": noon} for i in range(9_000)]
        connection.execute(stakes.insert(), rows)
        query = (
            select(players.c.country, func.count(), func.sum(stakes.c.amount))
            .join(stakes, stakes.c.player == players.c.id)
            .where(stakes.c.at >= noon, players.c.name == every_type.ODD + "1")
            .group_by(players.c.country)
        )
        equal([tuple(row) for row in connection.execute(query)], [(None, 300, Decimal("30"))])
        query = (
            select(players.c.country, func.sum(stakes.c.amount).label("staked"))
            .outerjoin(stakes, stakes.c.player == players.c.id)
            .where(players.c.country.is_not(None), players.c.id.in_([0, 2, 3]))
            .group_by(players.c.country)
            .having(func.count() > 1)
            .order_by(players.c.country)
            .limit(5)
        )
        found = [tuple(row) for row in connection.execute(query)]
        equal(found, [("IE", Decimal("30")), ("PT", Decimal("60"))])
    with make_session(ENGINE) as session:
        equal(session.query(func.count(stakes.c.id)).scalar(), 9_000)
        base = get_declarative_base(metadata=MetaData())
        player = type("Player", (base,), {"__table__": players})
        equal(session.query(player).filter(player.id == 3).one().name, every_type.ODD + "3")


def check_bind_parameters():
    """Text is quoted right. Amounts and moments go as text too: the dialect binds a Decimal as a
    float, and cuts a datetime's microseconds off."""
    equal(execute("SELECT :a + 1, :b, :c", {"a": 4, "b": every_type.ODD, "c": None}), [(5, every_type.ODD, None)])
    exact = Decimal("9007199254740993.01")
    moment = datetime(2026, 3, 1, 12, 0, 0, 1)
    sql = "SELECT toDecimal64(:amount, 2), toDateTime64(:moment, 6, 'UTC')"
    equal(execute(sql, {"amount": str(exact), "moment": str(moment)}), [(exact, moment)])
    found = execute(sql, {"amount": exact, "moment": moment})
    assert found != [(exact, moment)], "the dialect has learned it: the documents may say so"


def check_reflection():
    execute("CREATE DATABASE reflected")
    execute(every_type.create("reflected.t"))
    execute("CREATE VIEW reflected.v AS SELECT i64, n_money, moment, label FROM reflected.t")
    for engine in (ENGINE, CONNECT):
        inspector = inspect(engine)
        assert "reflected" in inspector.get_schema_names()
        assert "t" in inspector.get_table_names("reflected"), inspector.get_table_names("reflected")
        columns = inspector.get_columns("t", "reflected")
        equal([column["name"] for column in columns], ["row", *every_type.NAMES])
        nullable = {column["name"]: column["nullable"] for column in columns}
        assert nullable["n_money"] and not nullable["money"], nullable
        columns = inspector.get_columns("v", "reflected")
        equal([column["name"] for column in columns], ["i64", "n_money", "moment", "label"])
        assert "v" in inspector.get_view_names("reflected"), inspector.get_view_names("reflected")
        # As dashboards do: a view as a table, its columns taken from the server.
        view = sqlalchemy.Table("v", MetaData(), schema="reflected", autoload_with=engine)
        with engine.connect() as connection:
            equal(connection.execute(select(func.count()).select_from(view)).scalar(), 0)


def check_errors():
    for sql, code in [
        ("SELECT 1 1", 62),
        ("SELECT * FROM nope", 60),
        ("SELECT toInt64('no number')", 6),
        ("INSERT INTO nope VALUES (1)", 60),
    ]:
        with raises(DatabaseException, f"Code: {code}. DB::Exception: "):
            execute(sql)
        with raises(sqlalchemy.exc.DatabaseError, f"Code: {code}. DB::Exception: "):
            execute(sql, engine=CONNECT)


def check_an_exception_in_the_middle_of_a_result():
    """The older dialect looks at the status only, so it cannot say why; but it does not go on."""
    sql = "SELECT number, throwIf(number = 400000, 'too far') FROM numbers(800000)"
    with raises((requests.exceptions.ChunkedEncodingError, ValueError, TypeError)):
        execute(sql)
    with raises(sqlalchemy.exc.DBAPIError, "too far"):
        execute(sql, engine=CONNECT)
    equal(execute("SELECT 1"), [(1,)])


def check_a_long_result():
    with ENGINE.connect() as connection:
        # Not row by row: the older dialect takes each from the front of a list.
        rows = connection.execute(text("SELECT number, 'x' FROM numbers(1000000)")).fetchall()
    equal((len(rows), sum(row[0] for row in rows)), (1_000_000, 499_999_500_000))


def check_concurrent_queries():
    def ask(number):
        return execute("SELECT sum(number), :n FROM numbers(1000000)", {"n": number})

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(32)))
    equal(found, [[(499999500000, number)] for number in range(32)])


if __name__ == "__main__":
    run(globals())
