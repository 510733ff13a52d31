-- What each player has done: one row per player with a bet.
--
-- Cancelled bets are counted apart and are in no other figure. A lost bet is a settled one that paid 0. Players who are
-- no longer in the users table have no name and no country. Averages as in settlement_daily.sql; `margin` and its
-- average are the platform's: below 0 where the player won.
CREATE OR REPLACE VIEW betting.user_betting
(
    `user_id` Int64 COMMENT 'The player',
    `user_name` Nullable(String) COMMENT 'NULL: deleted',
    `country` Nullable(String) COMMENT 'ISO 3166; NULL: unknown or deleted',
    `bets` UInt64 COMMENT 'Bets that were not cancelled',
    `cancelled_bets` UInt64 COMMENT 'Bets that were',
    `open_bets` UInt64 COMMENT 'Not decided',
    `won_bets` UInt64 COMMENT 'Settled, and paid more than 0',
    `lost_bets` UInt64 COMMENT 'Settled, and paid 0',
    `cashed_out_bets` UInt64 COMMENT 'Cashed out by the player',
    `staked` Decimal(38, 2) COMMENT 'Stakes of bets',
    `paid_out` Decimal(38, 2) COMMENT 'Paid out so far',
    `margin` Decimal(38, 2) COMMENT 'Stakes less payouts of decided bets; below 0 where the player won',
    `largest_stake` Nullable(Decimal(12, 2)) COMMENT 'Of bets that were not cancelled',
    `largest_payout` Nullable(Decimal(12, 2)) COMMENT 'NULL: nothing is decided',
    `average_stake` Nullable(Decimal(38, 4)) COMMENT 'staked / bets, rounded half away from zero',
    `average_margin` Nullable(Decimal(38, 4)) COMMENT 'margin / decided bets, rounded half away from zero',
    `win_rate` Nullable(Decimal(38, 4)) COMMENT 'won_bets / (won_bets + lost_bets), rounded half away from zero',
    `first_bet_at` DateTime64(6, 'UTC') COMMENT 'First bet, cancelled or not',
    `last_bet_at` DateTime64(6, 'UTC') COMMENT 'Last bet, cancelled or not'
)
AS
SELECT
    user_id,
    -- All of a player's bets have the same name and country: they come by a join.
    any(user_name) AS user_name,
    any(user_country) AS country,
    countIf(status <> 'CANCELLED') AS bets,
    countIf(status = 'CANCELLED') AS cancelled_bets,
    countIf(status = 'OPEN') AS open_bets,
    countIf(status = 'SETTLED' AND payout > 0) AS won_bets,
    countIf(status = 'SETTLED' AND payout = 0) AS lost_bets,
    countIf(status = 'CASHED_OUT') AS cashed_out_bets,
    sumIf(amount, status <> 'CANCELLED') AS staked,
    sumIf(ifNull(payout, 0), status <> 'CANCELLED') AS paid_out,
    sumIf(amount - ifNull(payout, 0), status IN ('SETTLED', 'CASHED_OUT')) AS margin,
    maxOrNullIf(amount, status <> 'CANCELLED') AS largest_stake,
    maxOrNullIf(ifNull(payout, 0), status IN ('SETTLED', 'CASHED_OUT')) AS largest_payout,
    CAST(round(toDecimal256(staked, 20) / nullIf(bets, 0), 4) AS Nullable(Decimal(38, 4))) AS average_stake,
    CAST(
        round(toDecimal256(margin, 20) / nullIf(countIf(status IN ('SETTLED', 'CASHED_OUT')), 0), 4)
        AS Nullable(Decimal(38, 4))
    ) AS average_margin,
    CAST(round(toDecimal256(won_bets, 20) / nullIf(won_bets + lost_bets, 0), 4) AS Nullable(Decimal(38, 4)))
        AS win_rate,
    min(placed_at) AS first_bet_at,
    max(placed_at) AS last_bet_at
FROM betting.bets_analytics
GROUP BY user_id
-- Compiled, which happens from the fourth run on, min() and max() take times before 1970 for the latest ones, from 26.1
-- up to 26.7 at least (ClickHouse/ClickHouse#113942).
SETTINGS compile_aggregate_expressions = 0
COMMENT 'One row per player with a bet'
