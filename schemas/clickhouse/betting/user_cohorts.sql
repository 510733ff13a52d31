-- Monthly cohorts: players by the month (UTC) of their first bet, and what they did in each month from then on.
--
-- Cancelled bets do not count, so a player whose only bet was cancelled is in no cohort. A month in which nobody of a
-- cohort placed a bet has no row.
CREATE OR REPLACE VIEW betting.user_cohorts
(
    `cohort` Date32 COMMENT 'First day of the month of the first bet, UTC',
    `month` Date32 COMMENT 'First day of the month that the row is about',
    `months_since` UInt32 COMMENT 'From the first bet: 0 is the cohort''s own month',
    `players` UInt64 COMMENT 'Players of the cohort',
    `active_players` UInt64 COMMENT 'Of these, who placed a bet in the month',
    `bets` UInt64 COMMENT 'Bets that they placed in the month',
    `stakes` Decimal(38, 2) COMMENT 'Their stakes',
    `payouts` Decimal(38, 2) COMMENT 'Paid out for them so far',
    `retention` Decimal(38, 4) COMMENT 'active_players / players, rounded half away from zero'
)
AS
WITH
    months AS
    (
        SELECT
            user_id,
            -- Not toStartOfMonth(): its Date begins in 1970 and ends in 2149.
            addDays(toDate32(toTimeZone(placed_at, 'UTC')), 1 - toDayOfMonth(placed_at, 'UTC')) AS month,
            count() AS bets,
            sum(amount) AS stakes,
            sum(ifNull(payout, 0)) AS payouts
        FROM betting.bets_analytics
        WHERE status <> 'CANCELLED'
        GROUP BY user_id, month
    ),
    members AS
    (
        SELECT *, min(month) OVER (PARTITION BY user_id) AS cohort FROM months
    ),
    rows AS
    (
        SELECT
            cohort, month, count() AS active_players, sum(bets) AS bets, sum(stakes) AS stakes, sum(payouts) AS payouts
        FROM members
        GROUP BY cohort, month
    )
SELECT
    cohort,
    month,
    toUInt32(12 * (toYear(month) - toYear(cohort)) + toMonth(month) - toMonth(cohort)) AS months_since,
    -- Everybody of a cohort is active in its own month.
    max(if(month = cohort, active_players, 0)) OVER (PARTITION BY cohort) AS players,
    active_players,
    bets,
    stakes,
    payouts,
    CAST(round(toDecimal256(active_players, 20) / players, 4) AS Decimal(38, 4)) AS retention
FROM rows
COMMENT 'Players by the month of their first bet, month by month'
