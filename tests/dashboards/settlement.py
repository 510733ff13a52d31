"""A settlement dashboard's query through each Python client of ClickHouse, compared with PostgreSQL's answer.

Arguments: the server's address. On stdin, as JSON: `from` and `to` (days in UTC, `to` left out), and `rows` as
PostgreSQL has them: day, category, bets, open bets, stakes, payouts, margin; amounts as text.
"""

import json
import sys
from datetime import date, datetime
from decimal import Decimal

import clickhouse_connect
from clickhouse_sqlalchemy import types
from sqlalchemy import MetaData, Table, case, create_engine, func, select, text

HOST, PORT = sys.argv[1].removeprefix("http://").split(":")
WANTED = json.load(sys.stdin)
FROM, TO = (datetime.fromisoformat(WANTED[name]) for name in ("from", "to"))


def expected():
    for day, category, bets, open_bets, *amounts in WANTED["rows"]:
        yield (date.fromisoformat(day), category, bets, open_bets, *map(Decimal, amounts))


def with_connect():
    client = clickhouse_connect.get_client(host=HOST, port=int(PORT), database="betting")
    result = client.query(
        """
        SELECT toDate32(placed_at) AS day, event_category, count() AS bets, countIf(status = 'OPEN') AS open_bets,
               sum(amount) AS stakes, sum(ifNull(payout, 0)) AS payouts, sum(margin) AS margin
        FROM bets_analytics
        WHERE status <> {cancelled:String}
          AND placed_at >= {from:DateTime64(6, 'UTC')} AND placed_at < {to:DateTime64(6, 'UTC')}
        GROUP BY day, event_category
        """,
        parameters={"cancelled": "CANCELLED", "from": FROM, "to": TO},
    )
    # The test is worth something only if the view has something to hide.
    behind, dead = client.query("SELECT count(), countIf(_deleted = 1) FROM betting_rows.bets_analytics").first_row
    shown = client.command("SELECT count() FROM bets_analytics")
    assert dead > 0 and behind > shown, (behind, dead, shown)
    [fresh] = client.query("SELECT state, lag FROM walview_freshness WHERE view = 'bets_analytics'").named_results()
    assert fresh["state"] == "live" and fresh["lag"] >= 0, fresh
    return result.result_rows


def with_sqlalchemy():
    engine = create_engine(f"clickhouse+http://{HOST}:{PORT}/betting")
    bets = Table("bets_analytics", MetaData(), autoload_with=engine).c
    day = func.toDate32(bets.placed_at, type_=types.Date32).label("day")
    query = (
        select(
            day,
            bets.event_category,
            func.count().label("bets"),
            func.sum(case((bets.status == "OPEN", 1), else_=0)).label("open_bets"),
            func.sum(bets.amount).label("stakes"),
            func.sum(func.ifNull(bets.payout, 0)).label("payouts"),
            func.sum(bets.margin).label("margin"),
        )
        .where(bets.status != "CANCELLED", bets.placed_at >= FROM, bets.placed_at < TO)
        .group_by(text("day"), bets.event_category)
    )
    with engine.connect() as connection:
        # This dialect reads a Date32 as text.
        return [(date.fromisoformat(day), *rest) for day, *rest in connection.execute(query)]


def in_order(rows):
    return sorted(map(tuple, rows), key=lambda row: (row[0], row[1] is not None, row[1] or ""))


wanted = in_order(expected())
for client in (with_connect, with_sqlalchemy):
    found = in_order(client())
    if found != wanted:
        lost, added = set(wanted) - set(found), set(found) - set(wanted)
        sys.exit(f"{client.__name__}: {len(found)} rows instead of {len(wanted)}; without {lost}; with {added}")
