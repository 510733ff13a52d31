-- Indexes that the application itself needs. Walview reads none of them: it follows the log.

CREATE INDEX bets_user_id ON bets (user_id);
CREATE INDEX bets_event_id ON bets (event_id);
CREATE INDEX bets_open ON bets (event_id) WHERE status = 'OPEN';
CREATE UNIQUE INDEX users_email ON users (email);
