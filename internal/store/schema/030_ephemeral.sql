-- Receipts, the users' own data, filters.

CREATE TABLE receipts (
  room     BIGINT NOT NULL,
  member   BIGINT NOT NULL,
  kind     SMALLINT NOT NULL,               -- 1 m.read, 2 m.read.private, 3 im.conclave.delivered, 4 m.fully_read
  thread   {text} NOT NULL DEFAULT '',      -- thread_id: '' unthreaded, 'main', or the root's event ID
  event_id {text} NOT NULL,
  place    BIGINT NOT NULL,                 -- position of that event: receipts never go back
  ts       BIGINT NOT NULL,                 -- ms
  pos      BIGINT NOT NULL,                 -- of the receipt itself in the stream
  PRIMARY KEY (room, member, kind, thread)
){norowid};
CREATE INDEX receipts_pos ON receipts (room, pos);

-- Receipts of other servers for events that are not here yet: each waits for its event, the newest of its kind alone.
CREATE TABLE early_receipts (
  room     BIGINT NOT NULL,
  member   BIGINT NOT NULL,
  kind     SMALLINT NOT NULL,
  thread   {text} NOT NULL DEFAULT '',
  event_id {text} NOT NULL,
  ts       BIGINT NOT NULL,                 -- ms, as its sender says
  received BIGINT NOT NULL,                 -- ms
  PRIMARY KEY (room, member, kind, thread)
){norowid};
CREATE INDEX early_receipts_received ON early_receipts (received);
CREATE INDEX early_receipts_room ON early_receipts (room, received);

CREATE TABLE account_data (
  member  BIGINT NOT NULL,
  room    BIGINT NOT NULL,                  -- 0 = global
  type    {text} NOT NULL,
  content {text} NOT NULL,                  -- a JSON object
  pos     BIGINT NOT NULL,
  PRIMARY KEY (member, room, type)
){norowid};
CREATE INDEX account_data_pos ON account_data (member, pos);

CREATE TABLE filters (
  member  BIGINT NOT NULL,
  filter  {text} NOT NULL,                  -- its ID: a hash of the content
  content {text} NOT NULL,
  PRIMARY KEY (member, filter)
){norowid};

-- What is known of our users' presence across restarts, and of other servers' users between one process and the next.
-- It is written in batches, some time after the fact.
CREATE TABLE presence (
  member  BIGINT PRIMARY KEY,
  state   SMALLINT NOT NULL,                -- 0 offline, 1 unavailable, 2 online
  active  BIGINT NOT NULL,                  -- ms: when the user last did something; 0 if that is not known
  message {text} NOT NULL                   -- status_msg
);
CREATE INDEX presence_state ON presence (state, active);
