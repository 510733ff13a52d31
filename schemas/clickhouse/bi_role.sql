-- Role for business intelligence: reads the views of database "betting", and nothing else.
--
-- Run it as an administrator (access_management), once, and again after an edit; then for each person or tool:
--   CREATE USER metabase IDENTIFIED BY '…';
--   GRANT walview_bi TO metabase;
-- Not granted: anything on betting_rows, where rows stand in several versions. Walview's views are made with
-- SQL SECURITY DEFINER, so they read it with Walview's rights.

CREATE SETTINGS PROFILE IF NOT EXISTS walview_bi;

-- Compiled expressions have changed answers from the fourth run of a query on, without a word: min() and max() of times
-- before 1970 (ClickHouse/ClickHouse#113942), if() over a date and a time (#115272). They stay off.
-- readonly 2: no writes and no DDL, while drivers may set their session's settings (with 1 most of them fail). What a
-- session must not set has bounds. Overflow throws: with 'break' a slow report would be a wrong one, without a word.
ALTER SETTINGS PROFILE walview_bi SETTINGS
    readonly = 2,
    compile_aggregate_expressions = false,
    compile_expressions = false,
    max_execution_time = 60 MIN 1 MAX 600,
    max_memory_usage = 2000000000 MIN 1000000 MAX 4000000000,
    timeout_overflow_mode = 'throw' CONST,
    read_overflow_mode = 'throw' CONST,
    result_overflow_mode = 'throw' CONST,
    group_by_overflow_mode = 'throw' CONST,
    sort_overflow_mode = 'throw' CONST,
    distinct_overflow_mode = 'throw' CONST,
    join_overflow_mode = 'throw' CONST;

CREATE ROLE IF NOT EXISTS walview_bi;
ALTER ROLE walview_bi SETTINGS PROFILE 'walview_bi';

GRANT SELECT ON betting.* TO walview_bi;

-- Where drivers and BI tools look for tables and columns. They show what the reader may read.
GRANT SELECT ON information_schema.* TO walview_bi;
GRANT SELECT ON INFORMATION_SCHEMA.* TO walview_bi;
