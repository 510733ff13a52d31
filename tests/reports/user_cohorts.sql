-- What schemas/clickhouse/betting/user_cohorts.sql must show, computed by PostgreSQL from the tables.
WITH placed AS (
  SELECT user_id, date_trunc('month', placed_at AT TIME ZONE 'UTC')::date AS month, amount, payout
  FROM bets WHERE status <> 'CANCELLED'
), cohorts AS (
  SELECT user_id, min(month) AS cohort FROM placed GROUP BY user_id
), sizes AS (
  SELECT cohort, count(*) AS players FROM cohorts GROUP BY cohort
)
SELECT cohort, month,
       (extract(year FROM age(month, cohort)) * 12 + extract(month FROM age(month, cohort)))::int AS months_since,
       players, count(DISTINCT user_id) AS active_players, count(*) AS bets, sum(amount) AS stakes,
       coalesce(sum(payout), 0) AS payouts,
       round(count(DISTINCT user_id)::numeric(60, 30) / players, 4) AS retention
FROM placed JOIN cohorts USING (user_id) JOIN sizes USING (cohort)
GROUP BY cohort, month, players
