-- What schemas/clickhouse/betting/user_betting.sql must show, computed by PostgreSQL from the tables.
SELECT b.user_id, u.name AS user_name, u.country,
       count(*) FILTER (WHERE b.status <> 'CANCELLED') AS bets,
       count(*) FILTER (WHERE b.status = 'CANCELLED') AS cancelled_bets,
       count(*) FILTER (WHERE b.status = 'OPEN') AS open_bets,
       count(*) FILTER (WHERE b.status = 'SETTLED' AND b.payout > 0) AS won_bets,
       count(*) FILTER (WHERE b.status = 'SETTLED' AND b.payout = 0) AS lost_bets,
       count(*) FILTER (WHERE b.status = 'CASHED_OUT') AS cashed_out_bets,
       coalesce(sum(b.amount) FILTER (WHERE b.status <> 'CANCELLED'), 0) AS staked,
       coalesce(sum(b.payout) FILTER (WHERE b.status <> 'CANCELLED'), 0) AS paid_out,
       coalesce(sum(b.amount - b.payout) FILTER (WHERE b.status IN ('SETTLED', 'CASHED_OUT')), 0) AS margin,
       max(b.amount) FILTER (WHERE b.status <> 'CANCELLED') AS largest_stake,
       max(b.payout) FILTER (WHERE b.status IN ('SETTLED', 'CASHED_OUT')) AS largest_payout,
       round((sum(b.amount) FILTER (WHERE b.status <> 'CANCELLED'))::numeric(60, 30)
             / count(*) FILTER (WHERE b.status <> 'CANCELLED'), 4) AS average_stake,
       round((sum(b.amount - b.payout) FILTER (WHERE b.status IN ('SETTLED', 'CASHED_OUT')))::numeric(60, 30)
             / count(*) FILTER (WHERE b.status IN ('SETTLED', 'CASHED_OUT')), 4) AS average_margin,
       round((count(*) FILTER (WHERE b.status = 'SETTLED' AND b.payout > 0))::numeric(60, 30)
             / nullif(count(*) FILTER (WHERE b.status = 'SETTLED'), 0), 4) AS win_rate,
       min(b.placed_at) AS first_bet_at, max(b.placed_at) AS last_bet_at
FROM bets b
LEFT JOIN users u ON u.id = b.user_id
GROUP BY b.user_id, u.name, u.country
