-- Every base type, the tables of the betting, auction and trading pipelines, and keys of all kinds.
CREATE SCHEMA other;
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TYPE size AS ENUM ('s', 'm');
CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE t (
    id bigint PRIMARY KEY, b boolean, i2 smallint, i4 integer, i8 bigint NOT NULL,
    f4 real, f8 double precision, n numeric, n122 numeric(12,2), n50 numeric(5),
    s text, v varchar, v10 varchar(10), c5 char(5), c3 char(3), sc text COLLATE "C", snc text COLLATE nocase,
    by bytea, d date, ti time, ts timestamp, tz timestamptz, iv interval, u uuid,
    j json, jb jsonb, m mood, z size, arr integer[], net inet,
    "Mixed Case" integer, "user" text, gen integer GENERATED ALWAYS AS (1) STORED
);
CREATE TABLE dim (id integer PRIMARY KEY, code varchar(8) NOT NULL UNIQUE, label text NOT NULL, extra text, u uuid UNIQUE, n numeric(10,2) UNIQUE);
CREATE TABLE pair (a integer, b text, note text, PRIMARY KEY (b, a));
CREATE TABLE keyless (x integer, y text);
CREATE TABLE deferred (id integer PRIMARY KEY DEFERRABLE, label text);
CREATE TABLE other.t2 (id bigint PRIMARY KEY, label text);
CREATE TABLE users (id bigint PRIMARY KEY, email text NOT NULL, name text NOT NULL, username text NOT NULL, profile_data jsonb, created_at timestamptz NOT NULL);
CREATE TABLE events (id bigint PRIMARY KEY, name text NOT NULL, category text NOT NULL, starts_at timestamptz NOT NULL);
CREATE TABLE bets (id bigint PRIMARY KEY, user_id bigint NOT NULL, event_id bigint NOT NULL, status text NOT NULL, amount numeric(12,2) NOT NULL, odds numeric(8,3), placed_at timestamptz NOT NULL, settled_at timestamptz);
CREATE TABLE auctions (id bigint PRIMARY KEY, title text NOT NULL, description text, seller_id bigint NOT NULL, start_time timestamptz NOT NULL, end_time timestamptz NOT NULL, starting_bid numeric(12,2) NOT NULL, current_bid numeric(12,2), status text NOT NULL, metadata jsonb, primary_video_id bigint);
CREATE TABLE bids (id bigint PRIMARY KEY, auction_id bigint NOT NULL, bidder_id bigint NOT NULL, amount numeric(12,2) NOT NULL, timestamp timestamptz NOT NULL, status text NOT NULL);
CREATE TABLE payments (id bigint PRIMARY KEY, auction_id bigint, user_id bigint NOT NULL, amount numeric(12,2) NOT NULL, status text NOT NULL, payment_method text, created_at timestamptz NOT NULL);
CREATE TABLE videos (id bigint PRIMARY KEY, auction_id bigint, storage_path text, metadata jsonb, processing_status text);
CREATE TABLE market_data (symbol text, exchange text, time timestamp, open numeric, high numeric, low numeric, close numeric, volume numeric, PRIMARY KEY (symbol, exchange, time));
CREATE TABLE trading_bots (id bigint PRIMARY KEY, user_id bigint NOT NULL, name text NOT NULL, status text NOT NULL, updated_at timestamp NOT NULL);
CREATE TABLE trading_history (id bigint PRIMARY KEY, bot_id bigint NOT NULL, exchange text NOT NULL, symbol text NOT NULL, side text NOT NULL, quantity numeric NOT NULL, price numeric NOT NULL, executed_at timestamp NOT NULL);
INSERT INTO dim VALUES (5, 'x', 'five', NULL, '00000000-0000-0000-0000-000000000001', 1.50), (6, 'fixed', 'six', 'more', NULL, 2.50), (7, '42', 'seven', '', 'ffffffff-ffff-ffff-ffff-ffffffffffff', NULL), (1, 'one', 'uno', NULL, NULL, NULL);
INSERT INTO pair VALUES (5, 'x', 'n1'), (1, 'en', 'n2'), (5, 'en', NULL);
INSERT INTO other.t2 VALUES (1, 'first'), (2, 'second');
INSERT INTO users VALUES (1, 'ada@example.org', 'Ada', 'ada', '{"preferences": {"dark": true}}', '2026-01-01'), (2, 'bob', 'Bob', 'bob', NULL, '2026-01-02');
INSERT INTO events VALUES (1, 'Final', 'tennis', '2026-06-01 12:00+00'), (2, 'Race', 'test', '2026-06-02 12:00+00');
INSERT INTO bets VALUES (1, 1, 1, 'OPEN', 100.00, 1.500, '2026-05-01 00:00:00.5+00', NULL), (2, 2, 9, 'WON', 2.50, NULL, '2027-01-01 00:00+00', '2027-01-02 00:00+00'), (3, 9, 2, 'CANCELLED', 0.00, 2, '2025-01-01 00:00+00', NULL);
INSERT INTO auctions VALUES (1, 'Lamp', NULL, 1, '2026-01-01', '2026-02-01', 10.00, NULL, 'active', '{"a":1}', 1), (2, 'Chair', 'old', 2, '2026-01-01', '2026-02-01', 5.00, 7.50, 'sold', NULL, 2);
INSERT INTO videos VALUES (1, 1, '/v/1', '{"thumbnail": {"w": 1.0}}', 'ready'), (2, 2, '/v/2', NULL, 'pending');
INSERT INTO bids VALUES (1, 1, 2, 11.00, '2026-01-02', 'accepted'), (2, 2, 1, 6.00, '2026-01-03', 'rejected');
INSERT INTO payments VALUES (1, NULL, 1, 5.00, 'paid', NULL, '2026-03-01'), (2, 2, 2, 7.50, 'open', 'card', '2026-03-02');
INSERT INTO market_data VALUES ('BTC', 'x', '2026-01-01 00:00:30', 1.5, 2, 0.5, 1.75, 100.125);
INSERT INTO trading_bots VALUES (1, 1, 'bot', 'on', '2026-01-01');
INSERT INTO trading_history VALUES (1, 1, 'x', 'BTC', 'sell', 0.10, 3.50, '2026-01-01 10:11:12.5');
