#!/usr/bin/env bash
# The first start of an empty PostgreSQL: roles, tables, publication. The image runs this once, as
# the superuser, on a server that listens on no port yet.
set -euo pipefail

# Read from here by psql itself, so that no password is ever an argument or a variable.
secrets=${SECRETS:-/run/secrets}
migrations=${MIGRATIONS:-/migrations}

as_superuser() {
    psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --set=secrets="$secrets" \
        --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" "$@"
}

# `betting` is the application: it owns database and tables. `walview` reads and follows the log.
as_superuser <<'SQL'
\set file :secrets /postgres_betting
\set betting `cat :'file'`
\set file :secrets /postgres_walview
\set walview `cat :'file'`
CREATE ROLE betting LOGIN PASSWORD :'betting';
CREATE ROLE walview LOGIN REPLICATION PASSWORD :'walview';
SELECT format('ALTER DATABASE %I OWNER TO betting', current_database()) \gexec
ALTER SCHEMA public OWNER TO betting;
SQL

for file in "$migrations"/*.sql; do
    printf 'init: %s\n' "${file##*/}"
    # One transaction as the owner: tables belong to the application, all of a file or nothing.
    as_superuser --single-transaction --command='SET ROLE betting' --file="$file"
done

# The publication is the owner's, so Walview's role needs no right to make one. Its column lists are
# what pipeline/betting.yaml reads: users.email never leaves the server. A pipeline that reads more
# stops at its start and prints the ALTER PUBLICATION.
as_superuser --single-transaction <<'SQL'
SET ROLE betting;
GRANT USAGE ON SCHEMA public TO walview;
GRANT SELECT ON users, events, bets TO walview;
CREATE PUBLICATION walview_betting FOR TABLE
    users (id, name, country, verified, preferences, created_at),
    events (id, name, category, status, starts_at),
    bets (id, user_id, event_id, amount, odds, status, payout, placed_at, settled_at)
    WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = true);
SQL
