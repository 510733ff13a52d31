#!/usr/bin/env bash
# Applies what is in schemas/clickhouse/: report views over Walview's tables, then roles. Starts when
# Walview is well, because a view needs its tables. Every statement there can be run again. A statement
# that fails ends the container, which Compose starts again.
set -euo pipefail
shopt -s nullglob
rm -f /tmp/applied

schemas=${SCHEMAS:-/schemas}
applied=0
for file in "$schemas"/betting/*.sql "$schemas"/*.sql; do
    printf 'reports: %s\n' "${file#"$schemas"/}"
    clickhouse-client --host 127.0.0.1 --database betting --queries-file "$file"
    applied=$((applied + 1))
done
if ((applied == 0)); then
    printf 'reports: no .sql file in "%s"; mount schemas/clickhouse there\n' "$schemas" >&2
    exit 1
fi
printf 'reports: %d files applied\n' "$applied"
touch /tmp/applied
exec sleep infinity
