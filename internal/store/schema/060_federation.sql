-- Federation: other servers' keys, what is on its way to them, and what came from them. Servers are looked up by name
-- where they need not be known otherwise.

-- Keys that servers published, kept for ever: old events are verified with them. Times are in ms.
CREATE TABLE server_keys (
  server      {text} NOT NULL,
  key_id      {text} NOT NULL,
  public      {bytes} NOT NULL,
  valid_until BIGINT NOT NULL,
  expired     BIGINT NOT NULL DEFAULT 0,    -- when its server stopped using it, 0 if it has not said so
  PRIMARY KEY (server, key_id)
){norowid};

-- The newest key document of a server, as it was signed; what a notary hands out.
CREATE TABLE server_key_documents (
  server      {text} PRIMARY KEY,
  json        {text} NOT NULL,
  fetched     BIGINT NOT NULL,
  valid_until BIGINT NOT NULL               -- at most 7 days after it was fetched
){norowid};

-- A server that gets transactions: how far it has been told (one cursor per kind), where the transaction under way
-- leads, how it fails, and who works for it.
CREATE TABLE destinations (
  server        BIGINT PRIMARY KEY,
  pdus          BIGINT NOT NULL,
  device_lists  BIGINT NOT NULL,
  to_device     BIGINT NOT NULL,
  others        BIGINT NOT NULL,
  goal_pdus     BIGINT NOT NULL DEFAULT 0,  -- all four 0: nothing under way
  goal_devices  BIGINT NOT NULL DEFAULT 0,
  goal_messages BIGINT NOT NULL DEFAULT 0,
  goal_others   BIGINT NOT NULL DEFAULT 0,
  catch_up      BIGINT NOT NULL DEFAULT 0,  -- up to this position only each room's latest event is sent
  batch         SMALLINT NOT NULL,          -- events in one transaction; halved while a transaction is refused
  fails         BIGINT NOT NULL DEFAULT 0,  -- in a row
  failing_since BIGINT NOT NULL DEFAULT 0,  -- ms
  retry_at      BIGINT NOT NULL DEFAULT 0,  -- ms; 0 if it does not fail
  failure       {text} NOT NULL DEFAULT '', -- the last one, for people
  last_success  BIGINT NOT NULL DEFAULT 0,  -- ms; when it last took a transaction
  lease_until   BIGINT NOT NULL DEFAULT 0,  -- ms of the database's clock; 0 if nobody works for it
  fence         BIGINT NOT NULL DEFAULT 0   -- raised with every lease
){norowid};
CREATE INDEX destinations_retry ON destinations (retry_at) WHERE retry_at <> 0;
CREATE INDEX destinations_lease ON destinations (lease_until) WHERE lease_until <> 0;

-- What a destination would not take although it took everything around it.
CREATE TABLE set_aside (
  server BIGINT NOT NULL,
  ts     BIGINT NOT NULL,
  item   {text} NOT NULL,                   -- an event's ID or an EDU's type
  reason {text} NOT NULL,
  PRIMARY KEY (server, ts, item)
){norowid};

-- Transactions that came in, and what was answered.
CREATE TABLE inbound_txns (
  origin BIGINT NOT NULL,
  txn_id {text} NOT NULL,
  answer {text} NOT NULL,
  ts     BIGINT NOT NULL,
  PRIMARY KEY (origin, txn_id)
){norowid};
CREATE INDEX inbound_txns_ts ON inbound_txns (ts);
