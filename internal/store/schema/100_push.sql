-- Push: who counts and is told of events otherwise than the predefined rules say, and who delivers notifications.
-- The rules themselves are account data (m.push_rules).

-- Users whose push rules are not the predefined ones.
CREATE TABLE push_people (
  member BIGINT PRIMARY KEY
);

-- What an event counts as for a user before single events are looked at: 0 as the predefined rules say, 1 only what
-- highlights everybody, 2 nothing, -1 as in other rooms. It holds from its position to the next one's. room is an ID, of
-- rooms that need not be known, or '' for all.
CREATE TABLE push_modes (
  member BIGINT NOT NULL,
  room   {text} NOT NULL,
  pos    BIGINT NOT NULL,
  mode   SMALLINT NOT NULL,
  PRIMARY KEY (member, room, pos)
){norowid};

-- Events that count for a user otherwise than the user's mode says: personal highlights and the like. The rows of what
-- a user has read are removed.
CREATE TABLE push_counts (
  room   BIGINT NOT NULL,
  member BIGINT NOT NULL,
  pos    BIGINT NOT NULL,                   -- of the event
  thread BIGINT NOT NULL,                   -- the event's, 0 for the main timeline
  counts SMALLINT NOT NULL,                 -- 1 it notifies the user, 2 it highlights
  base   SMALLINT NOT NULL,                 -- the same for everybody by the predefined rules: what the running numbers hold
  PRIMARY KEY (room, member, pos)
){norowid};

-- Redacted events count no more.
CREATE INDEX events_redacted ON events (room, pos) WHERE (flags & 8) <> 0;

-- Who is told of notifications where. Each is a cursor in the stream: what stands after pos has not been looked at for it.
CREATE TABLE pushers (
  nid         {bigid} PRIMARY KEY,
  member      BIGINT NOT NULL,
  device      BIGINT NOT NULL,              -- ends with it
  kind        {text} NOT NULL,
  app_id      {text} NOT NULL,
  pushkey     {text} NOT NULL,
  app_name    {text} NOT NULL,
  device_name {text} NOT NULL,
  profile     {text} NOT NULL,
  lang        {text} NOT NULL,
  data        {text} NOT NULL,              -- a JSON object
  created     BIGINT NOT NULL,              -- ms
  pos         BIGINT NOT NULL,
  badge       BIGINT NOT NULL DEFAULT -1,   -- the count of unread messages that was delivered last, -1 if none was
  fails       INTEGER NOT NULL DEFAULT 0,   -- attempts in a row that failed
  failing     BIGINT NOT NULL DEFAULT 0,    -- ms; since when
  retry_at    BIGINT NOT NULL DEFAULT 0,    -- ms; 0 if it does not fail
  lease_until BIGINT NOT NULL DEFAULT 0,    -- ms of the database's clock
  fence       BIGINT NOT NULL DEFAULT 0,
  UNIQUE (member, app_id, pushkey)
);
CREATE INDEX pushers_device ON pushers (device);
CREATE INDEX pushers_key ON pushers (app_id, pushkey);
CREATE INDEX pushers_retry ON pushers (retry_at) WHERE retry_at <> 0;
