-- Settlement rolled up: by day, status and category, with the totals of each day and status, of each day, and of all.
--
-- `level` tells what a row is, because a NULL alone does not: 3 day, status and category (a NULL category is an event
-- that is not known); 2 day and status; 1 day; 0 everything. Filter on it: adding up rows of different levels counts
-- bets twice. Averages as in settlement_daily.sql.
CREATE OR REPLACE VIEW betting.settlement_rollup
(
    `level` UInt8 COMMENT '3: day, status, category; 2: day, status; 1: day; 0: all',
    `day` Nullable(Date32) COMMENT 'Day on which the bets were placed, UTC; NULL in the total of all',
    `status` Nullable(String) COMMENT 'Status of the bets; NULL in totals above it',
    `category` Nullable(String) COMMENT 'Category of the event; NULL in totals above it, and for events not known',
    `bets` UInt64 COMMENT 'Bets placed',
    `players` UInt64 COMMENT 'Players who placed them, each once',
    `stakes` Decimal(38, 2) COMMENT 'Their stakes',
    `payouts` Decimal(38, 2) COMMENT 'Paid out so far',
    `average_stake` Decimal(38, 4) COMMENT 'stakes / bets, rounded half away from zero',
    `average_odds` Decimal(38, 4) COMMENT 'Mean of the odds, rounded half away from zero'
)
AS
SELECT
    toUInt8(3 - bitCount(grouping(day, status, category))) AS level,
    toDate32(toTimeZone(placed_at, 'UTC')) AS day,
    status,
    event_category AS category,
    count() AS bets,
    uniqExact(user_id) AS players,
    sum(amount) AS stakes,
    sum(ifNull(payout, 0)) AS payouts,
    CAST(round(toDecimal256(stakes, 20) / bets, 4) AS Decimal(38, 4)) AS average_stake,
    CAST(round(toDecimal256(sum(odds), 20) / bets, 4) AS Decimal(38, 4)) AS average_odds
FROM betting.bets_analytics
GROUP BY ROLLUP(day, status, category)
SETTINGS group_by_use_nulls = 1
COMMENT 'Settlement by day, status and category, with totals'
