-- Rooms, events and who is where. Strings stand here once; everything else refers to numbers (nid).

CREATE TABLE servers (
  nid  {bigid} PRIMARY KEY,
  name {text} NOT NULL UNIQUE
);

CREATE TABLE users (
  nid     {bigid} PRIMARY KEY,
  user_id {text} NOT NULL UNIQUE,
  server  BIGINT NOT NULL
);

CREATE TABLE rooms (
  nid     {bigid} PRIMARY KEY,
  room_id {text} NOT NULL UNIQUE,
  version SMALLINT NOT NULL,
  public  BOOLEAN NOT NULL DEFAULT FALSE   -- listed in the room directory
);
CREATE INDEX rooms_public ON rooms (nid) WHERE public;

-- An event. Three kinds by place: with a position and sub = 0, it came into the room's present; with a position and
-- sub < 0, it is history that stands before the event of that position; without, it is an outlier, rejected or soft-failed.
-- A room's head is its newest row of the first kind. States are pairs of tree roots (members, the rest), 32 bytes.
CREATE TABLE events (
  nid          {bigid} PRIMARY KEY,
  room         BIGINT NOT NULL,
  event_id     {text} NOT NULL UNIQUE,
  sender       BIGINT NOT NULL,
  pos          BIGINT,
  sub          BIGINT NOT NULL DEFAULT 0,
  depth        BIGINT NOT NULL,
  ts           BIGINT NOT NULL,             -- origin_server_ts, ms
  flags        SMALLINT NOT NULL DEFAULT 0, -- 1 state event, 2 rejected, 4 soft-failed, 8 redacted, 16 outlier,
                                            -- 32 ours to send to other servers, 64 a redaction held back from clients,
                                            -- 128 to send to its sender's server too
  state_before {bytes},                     -- the state before it; absent if the same as after it
  state_after  {bytes},                     -- the state after it; absent for outliers
  state_head   {bytes},                     -- the room's current state once it was in; absent if the same as state_after
  extremities  {bytes},                     -- the room's forward extremities once it was in (8-byte numbers); absent if it alone
  thread       BIGINT NOT NULL DEFAULT 0,   -- its thread's root, 0 for the main timeline
  notify       BIGINT NOT NULL DEFAULT 0,   -- running number of the main timeline: events that notify under the default rules
  highlight    BIGINT NOT NULL DEFAULT 0,   -- likewise: events that highlight everybody
  t_notify     BIGINT NOT NULL DEFAULT 0,   -- the same two of its own thread
  t_highlight  BIGINT NOT NULL DEFAULT 0,
  json         {text} NOT NULL              -- canonical, as signed
);
-- Rows stay in their pages: nearly all text is encrypted or signed, and compressing it costs more than it saves.
{postgres: ALTER TABLE events SET (toast_tuple_target = 8160);}
CREATE UNIQUE INDEX events_stream ON events (pos) WHERE sub = 0 AND pos IS NOT NULL;
CREATE INDEX events_room ON events (room, pos, sub) WHERE pos IS NOT NULL;
CREATE INDEX events_time ON events (room, ts, nid) WHERE pos IS NOT NULL;
CREATE INDEX events_thread ON events (thread, pos) WHERE thread <> 0;
CREATE INDEX events_threads ON events (room, pos) WHERE thread <> 0;

-- Nodes of the state trees (matrix/statetree): immutable, of one room.
CREATE TABLE state_nodes (
  room BIGINT NOT NULL,
  name {bytes} NOT NULL,
  data {bytes} NOT NULL,
  PRIMARY KEY (room, name)
){norowid};

-- Who is where now. joined and departed are the positions of the last arrival and departure.
CREATE TABLE memberships (
  room       BIGINT NOT NULL,
  member     BIGINT NOT NULL,
  server     BIGINT NOT NULL,
  membership SMALLINT NOT NULL,             -- 1 join, 2 invite, 3 leave, 4 ban, 5 knock
  event      BIGINT NOT NULL,
  pos        BIGINT NOT NULL,               -- of the last change
  joined     BIGINT NOT NULL DEFAULT 0,
  departed   BIGINT NOT NULL DEFAULT 0,
  forgotten  BOOLEAN NOT NULL DEFAULT FALSE,
  PRIMARY KEY (room, member)
){norowid};
CREATE INDEX memberships_member ON memberships (member, membership);
CREATE INDEX memberships_server ON memberships (server, room, membership);
CREATE INDEX memberships_room ON memberships (room, membership, server);
CREATE INDEX memberships_pos ON memberships (room, pos);

-- What an invitation or a knock came with, for rooms that we may not be in.
CREATE TABLE stripped_states (
  room   BIGINT NOT NULL,
  member BIGINT NOT NULL,
  events {text} NOT NULL,                   -- a JSON array of stripped state events
  PRIMARY KEY (room, member)
){norowid};

-- Transaction IDs and what they answered. txn is the device's number (8 bytes) and a hash of the route and the client's ID.
CREATE TABLE txns (
  txn    {bytes} PRIMARY KEY,
  device BIGINT NOT NULL,
  client {text} NOT NULL DEFAULT '',         -- the client's own ID, shown to the device that sent the event
  event  BIGINT NOT NULL,                   -- the event it made, 0 for requests that make none
  answer {text} NOT NULL,
  ts     BIGINT NOT NULL
){norowid};
CREATE INDEX txns_event ON txns (event) WHERE event <> 0;

-- Redactions in force or waiting for their target. One that waits is held back, from room version 3.
CREATE TABLE redactions (
  room      BIGINT NOT NULL,
  target    {text} NOT NULL,
  redaction BIGINT NOT NULL,
  PRIMARY KEY (room, target, redaction)
){norowid};

-- Which event relates to which (m.relates_to), for threads, edits and annotations.
CREATE TABLE relations (
  room     BIGINT NOT NULL,
  target   {text} NOT NULL,
  rel_type {text} NOT NULL,
  event    BIGINT NOT NULL,
  PRIMARY KEY (room, target, rel_type, event)
){norowid};

-- Where history is missing: events that we hold whose parents we do not.
CREATE TABLE gaps (
  room    BIGINT NOT NULL,
  event   BIGINT NOT NULL,
  missing {text} NOT NULL,
  PRIMARY KEY (room, event, missing)
){norowid};
CREATE INDEX gaps_missing ON gaps (room, missing);

CREATE TABLE aliases (
  alias   {text} PRIMARY KEY,
  room    BIGINT NOT NULL,
  creator BIGINT NOT NULL
){norowid};
CREATE INDEX aliases_room ON aliases (room);

-- Events whose parents or state are still being fetched, in order of arrival; and our own place in their room's queue.
CREATE TABLE staged (
  nid      {bigid} PRIMARY KEY,
  room     BIGINT NOT NULL,
  origin   BIGINT NOT NULL,
  event_id {text} NOT NULL,
  received BIGINT NOT NULL,
  json     {text} NOT NULL,
  UNIQUE (room, event_id)
);

-- What another server answered to a join, until the join is visible or given up. The cursor of the join's job names the
-- stage. An event that comes twice has no text the second time.
CREATE TABLE join_events (
  stage    BIGINT NOT NULL,
  place    BIGINT NOT NULL,                 -- in order of coming
  state    BOOLEAN NOT NULL,                -- of the room's state; else of its auth chain only
  event_id {text} NOT NULL,
  json     {text} NOT NULL,
  PRIMARY KEY (stage, place)
);
