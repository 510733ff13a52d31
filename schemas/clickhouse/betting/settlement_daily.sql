-- Daily settlement: one row per day (UTC) on which bets were placed, and event category.
--
-- It adds up settlement_totals, which Walview keeps current, so it costs the same for ten bets as for ten million.
-- All of a bet's money counts on the day on which it was placed, whenever it is decided: a row goes on changing until
-- its last open bet is. Bets on events that are not known (yet) have no category and are shown as such.
-- `average_stake` is the exact sum over the exact count, rounded half away from zero at 4 digits, as PostgreSQL's
-- round(numeric, 4) does. ClickHouse's avg() would be a Float64. Its division of decimals cuts off, so it is done with
-- 20 digits, enough for a half to stay a half and for nothing else to become one; its round() of decimals rounds half
-- away from zero.
CREATE OR REPLACE VIEW betting.settlement_daily
(
    `day` Date32 COMMENT 'Day on which the bets were placed, UTC',
    `category` Nullable(String) COMMENT 'Category of the event; NULL: the event is not known',
    `bets` UInt64 COMMENT 'Bets placed, whatever became of them',
    `stakes` Decimal(38, 2) COMMENT 'Stakes of these bets',
    `open_bets` UInt64 COMMENT 'Bets that are not decided',
    `open_stakes` Decimal(38, 2) COMMENT 'Their stakes',
    `settled_bets` UInt64 COMMENT 'Bets settled by the result of their event',
    `settled_stakes` Decimal(38, 2) COMMENT 'Their stakes',
    `settled_payouts` Decimal(38, 2) COMMENT 'Paid out for them; lost bets paid 0',
    `cashed_out_bets` UInt64 COMMENT 'Bets that the player cashed out',
    `cashed_out_stakes` Decimal(38, 2) COMMENT 'Their stakes',
    `cashed_out_payouts` Decimal(38, 2) COMMENT 'Paid out for them',
    `cancelled_bets` UInt64 COMMENT 'Bets cancelled, stakes returned',
    `cancelled_stakes` Decimal(38, 2) COMMENT 'Stakes returned',
    `margin` Decimal(38, 2) COMMENT 'Stakes less payouts of settled and cashed-out bets; below 0 where more was paid',
    `average_stake` Decimal(38, 4) COMMENT 'stakes / bets, rounded half away from zero'
)
AS
SELECT
    toDate32(t.day, 'UTC') AS day,
    if(t.event_known, CAST(t.category AS Nullable(String)), NULL) AS category,
    toUInt64(sum(t.bets)) AS bets,
    sum(t.stakes) AS stakes,
    toUInt64(sumIf(t.bets, t.status = 'OPEN')) AS open_bets,
    sumIf(t.stakes, t.status = 'OPEN') AS open_stakes,
    toUInt64(sumIf(t.bets, t.status = 'SETTLED')) AS settled_bets,
    sumIf(t.stakes, t.status = 'SETTLED') AS settled_stakes,
    sumIf(t.payouts, t.status = 'SETTLED') AS settled_payouts,
    toUInt64(sumIf(t.bets, t.status = 'CASHED_OUT')) AS cashed_out_bets,
    sumIf(t.stakes, t.status = 'CASHED_OUT') AS cashed_out_stakes,
    sumIf(t.payouts, t.status = 'CASHED_OUT') AS cashed_out_payouts,
    toUInt64(sumIf(t.bets, t.status = 'CANCELLED')) AS cancelled_bets,
    sumIf(t.stakes, t.status = 'CANCELLED') AS cancelled_stakes,
    settled_stakes + cashed_out_stakes - settled_payouts - cashed_out_payouts AS margin,
    CAST(round(toDecimal256(stakes, 20) / bets, 4) AS Decimal(38, 4)) AS average_stake
FROM betting.settlement_totals AS t
GROUP BY day, category
COMMENT 'Daily settlement by event category (UTC days)'
