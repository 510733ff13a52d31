-- What schemas/clickhouse/betting/settlement_daily.sql must show, computed by PostgreSQL from the tables.
SELECT (b.placed_at AT TIME ZONE 'UTC')::date AS day, e.category,
       count(*) AS bets, sum(b.amount) AS stakes,
       count(*) FILTER (WHERE b.status = 'OPEN') AS open_bets,
       coalesce(sum(b.amount) FILTER (WHERE b.status = 'OPEN'), 0) AS open_stakes,
       count(*) FILTER (WHERE b.status = 'SETTLED') AS settled_bets,
       coalesce(sum(b.amount) FILTER (WHERE b.status = 'SETTLED'), 0) AS settled_stakes,
       coalesce(sum(b.payout) FILTER (WHERE b.status = 'SETTLED'), 0) AS settled_payouts,
       count(*) FILTER (WHERE b.status = 'CASHED_OUT') AS cashed_out_bets,
       coalesce(sum(b.amount) FILTER (WHERE b.status = 'CASHED_OUT'), 0) AS cashed_out_stakes,
       coalesce(sum(b.payout) FILTER (WHERE b.status = 'CASHED_OUT'), 0) AS cashed_out_payouts,
       count(*) FILTER (WHERE b.status = 'CANCELLED') AS cancelled_bets,
       coalesce(sum(b.amount) FILTER (WHERE b.status = 'CANCELLED'), 0) AS cancelled_stakes,
       coalesce(sum(b.amount - b.payout) FILTER (WHERE b.status IN ('SETTLED', 'CASHED_OUT')), 0) AS margin,
       -- More digits than the division needs, so that it is rounded once.
       round(sum(b.amount)::numeric(60, 30) / count(*), 4) AS average_stake
FROM bets b
LEFT JOIN events e ON e.id = b.event_id
GROUP BY 1, 2
