-- Settlement rolled up: by day, status and category, with the totals of each day and status, of each day, and of all.
--
-- `level` tells what a row is, because a NULL alone does not: 3 day, status and category (a NULL category is an event
-- that is not known); 2 day and status; 1 day; 0 everything. Filter on it: adding up rows of different levels counts
-- bets twice. It adds up settlement_totals, as settlement_daily.sql does; averages as there. Players are not in it: a
-- player counts once in a total, so counts of players do not add up.
CREATE OR REPLACE VIEW betting.settlement_rollup
(
    `level` UInt8 COMMENT '3: day, status, category; 2: day, status; 1: day; 0: all',
    `day` Nullable(Date32) COMMENT 'Day on which the bets were placed, UTC; NULL in the total of all',
    `status` Nullable(String) COMMENT 'Status of the bets; NULL in totals above it',
    `category` Nullable(String) COMMENT 'Category of the event; NULL in totals above it, and for events not known',
    `bets` UInt64 COMMENT 'Bets placed',
    `stakes` Decimal(38, 2) COMMENT 'Their stakes',
    `payouts` Decimal(38, 2) COMMENT 'Paid out so far',
    `average_stake` Decimal(38, 4) COMMENT 'stakes / bets, rounded half away from zero',
    `average_odds` Decimal(38, 4) COMMENT 'Mean of the odds, rounded half away from zero'
)
AS
SELECT
    toUInt8(3 - bitCount(grouping(day, status, category))) AS level,
    toDate32(t.day, 'UTC') AS day,
    CAST(t.status AS String) AS status,
    if(t.event_known, CAST(t.category AS Nullable(String)), NULL) AS category,
    toUInt64(sum(t.bets)) AS bets,
    sum(t.stakes) AS stakes,
    sum(t.payouts) AS payouts,
    CAST(round(toDecimal256(stakes, 20) / bets, 4) AS Decimal(38, 4)) AS average_stake,
    CAST(round(toDecimal256(sum(t.odds), 20) / bets, 4) AS Decimal(38, 4)) AS average_odds
FROM betting.settlement_totals AS t
GROUP BY ROLLUP(day, status, category)
SETTINGS group_by_use_nulls = 1
COMMENT 'Settlement by day, status and category, with totals'
