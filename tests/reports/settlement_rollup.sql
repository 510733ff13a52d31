-- What schemas/clickhouse/betting/settlement_rollup.sql must show, computed by PostgreSQL from the tables.
WITH joined AS (
  SELECT b.*, (b.placed_at AT TIME ZONE 'UTC')::date AS day, e.category
  FROM bets b LEFT JOIN events e ON e.id = b.event_id
)
SELECT 3 - grouping(day) - grouping(status) - grouping(category) AS level, day, status, category,
       count(*) AS bets, sum(amount) AS stakes,
       coalesce(sum(payout), 0) AS payouts,
       round(sum(amount)::numeric(60, 30) / count(*), 4) AS average_stake,
       round(sum(odds)::numeric(60, 30) / count(*), 4) AS average_odds
FROM joined
GROUP BY ROLLUP (day, status, category)
-- Where there is no bet ClickHouse shows no total.
HAVING count(*) > 0
